"""Which sound of a turn is transcribed."""

import numpy as np
import pytest

from streaming.audio import AudioFrame
from streaming.batching import completed
from streaming.hearing import Turn
from streaming.input_ring import InputRing
from streaming.recogniser import Recogniser
from streaming.transcriber import Transcriber

WINDOW = 512


@pytest.fixture
def ring() -> InputRing:
    ring = InputRing()
    ring.append(AudioFrame(np.random.default_rng(1).standard_normal(64 * WINDOW).astype(np.float32) * 0.1, 0))
    return ring


@pytest.mark.parametrize(
    ("end", "heard"),
    [
        (20 * WINDOW, 11 * WINDOW),  # the Ear heard silence up to the end
        (24 * WINDOW, 11 * WINDOW),  # the Ear is hearing the frame that came just before the commit
        (24 * WINDOW + 1, 24 * WINDOW + 1),
        (64 * WINDOW, 64 * WINDOW),  # the client sends faster than the Ear hears
    ],
)
def test_what_the_ear_has_not_heard_yet_is_part_of_the_turn(tiny_recogniser: Recogniser, ring: InputRing, end: int, heard: int) -> None:
    turn = Turn("item", 0, Transcriber(tiny_recogniser))
    for window in range(1, 21):
        turn.listen(ring, window * WINDOW, quiet=window > 10)
    turn.commit(ring, end)
    assert completed(turn.conclude()).seconds * 16_000 == heard
