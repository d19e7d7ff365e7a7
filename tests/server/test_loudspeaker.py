"""What the caller's loudspeaker plays, on session time."""

import numpy as np
import pytest

from agent.commands import Cut, OpenPlayout, PartRef, Release
from agent.settings import AudioFormat, PlaybackOwner
from server.loudspeaker import Loudspeaker
from server.playout import Playout
from streaming.doors import SynthesisedAudio
from streaming.events import SAMPLE_RATE

FRAME = 320


def ramp(count: int, start: int = 1) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.int16)


def scaled(pcm: np.ndarray) -> list[float]:
    return (pcm.astype(np.float32) / np.float32(32_768)).tolist()


def test_what_plays_stands_at_its_time() -> None:
    speaker = Loudspeaker()
    speaker.play("a", 1_000, ramp(FRAME), SAMPLE_RATE)
    assert speaker.between(990, 20).tolist() == [0.0] * 10 + scaled(ramp(10))
    assert speaker.sounds(1_000, 1_001)
    assert not speaker.sounds(0, 1_000)
    assert not speaker.sounds(1_000 + FRAME, 5_000)


def test_a_frame_that_leaves_late_follows_the_one_before() -> None:
    speaker = Loudspeaker()
    speaker.play("a", 1_000, ramp(FRAME), SAMPLE_RATE)
    speaker.play("a", 1_000 + FRAME + 70, ramp(FRAME, 1 + FRAME), SAMPLE_RATE)
    speaker.play("a", 1_000 + 2 * FRAME - 40, ramp(FRAME, 1 + 2 * FRAME), SAMPLE_RATE)
    assert speaker.between(1_000, 3 * FRAME).tolist() == scaled(ramp(3 * FRAME))


def test_after_a_gap_a_sound_begins_at_its_own_time() -> None:
    speaker = Loudspeaker()
    speaker.play("a", 1_000, ramp(FRAME), SAMPLE_RATE)
    speaker.play("b", 5_000, ramp(FRAME), SAMPLE_RATE)
    assert speaker.between(1_000 + FRAME, 10).tolist() == [0.0] * 10
    assert speaker.between(5_000, 3).tolist() == scaled(ramp(3))


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_other_rates_stand_at_the_same_time(rate: int) -> None:
    """A tone's phase is that of a tone made at 16 kHz."""
    speaker, count = Loudspeaker(), rate // 50
    tone = np.rint(np.sin(np.arange(count * 20) * 2 * np.pi * 440 / rate) * 8_000).astype(np.int16)
    for number in range(20):
        speaker.play("a", 2_000 + number * FRAME, tone[number * count : (number + 1) * count], rate)
    wanted = np.sin(np.arange(20 * FRAME) * 2 * np.pi * 440 / SAMPLE_RATE) * 8_000 / 32_768
    heard = speaker.between(2_000, 20 * FRAME)
    assert np.abs(heard[200:-200] - wanted[200:-200]).max() < 2e-3


def test_a_cut_takes_back_what_was_to_come() -> None:
    speaker = Loudspeaker()
    for number in range(50):  # a client that is sent a second ahead
        speaker.play("a", 1_000 + number * FRAME, ramp(FRAME), SAMPLE_RATE)
    speaker.cut("a", 4_000)
    assert speaker.sounds(4_000, 4_100)  # it may play on until it has been told
    assert not speaker.sounds(4_000 + SAMPLE_RATE // 5, 40_000)
    speaker.play("b", 4_010, ramp(FRAME), SAMPLE_RATE)
    speaker.cut("c", 0)
    assert speaker.between(4_010, 1)[0] != 0.0


@pytest.mark.parametrize("owner", [PlaybackOwner.SERVER, PlaybackOwner.CLIENT])
def test_playout_tells_it_what_leaves_and_what_is_cut(owner: PlaybackOwner) -> None:
    playout, wire, part = Playout(), AudioFormat(rate=SAMPLE_RATE), PartRef("a", "item", 0, 0)
    playout.owner, playout.loudspeaker = owner, Loudspeaker()
    playout.order(OpenPlayout(part, wire), 0)
    playout.push(SynthesisedAudio("s", "a", 0, ramp(FRAME * 10 + 100)))
    playout.order(Release("a", FRAME * 10 + 100), 0)
    if owner is PlaybackOwner.SERVER:  # a frame every 20 ms, the last one not full
        sent = [playout.next_frame(8_000 + number * FRAME) for number in range(11)]
    else:
        sent = [playout.next_delta(8_000), playout.next_delta(8_000)]
    assert all(sent)
    assert playout.loudspeaker.between(8_000, FRAME * 10 + 100).tolist() == scaled(ramp(FRAME * 10 + 100))
    playout.order(Cut("a"), 8_000 - 3_200 + 500)
    assert playout.loudspeaker.sounds(8_000, 8_500)
    assert not playout.loudspeaker.sounds(8_500, 20_000)


def test_memory_is_bounded() -> None:
    speaker = Loudspeaker()
    for number in range(4_000):  # 80 s that nobody asks for
        speaker.play("a", number * FRAME, ramp(FRAME), SAMPLE_RATE)
    assert not speaker.sounds(0, 40 * SAMPLE_RATE)
    assert speaker.sounds(70 * SAMPLE_RATE, 71 * SAMPLE_RATE)
    speaker.between(79 * SAMPLE_RATE, 10)
    assert not speaker.sounds(0, 76 * SAMPLE_RATE)
