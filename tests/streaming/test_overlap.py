"""What an overlap is: by its words, its loudness, and whether it is our own voice come back."""

from collections.abc import Sequence

import numpy as np
import pytest

from streaming.audio import AudioFrame, Samples
from streaming.doors import SynthesisedAudio
from streaming.echo import LATEST, echo_probability
from streaming.events import SAMPLE_RATE, Audible, OverlapKind
from streaming.input_ring import InputRing
from streaming.overlap import OverlapWatch, kind_of_words

SECOND = SAMPLE_RATE


@pytest.mark.parametrize(
    ("text", "confidence", "kind"),
    [
        ("", 0.0, OverlapKind.NOISE),
        ("Uh-huh.", 0.7, OverlapKind.BACKCHANNEL),
        ("Mm-hmm.", 0.4, OverlapKind.BACKCHANNEL),
        ("Oh, okay.", 0.8, OverlapKind.BACKCHANNEL),
        ("Hush!", 0.3, OverlapKind.NOISE),
        ("Wait.", 0.7, OverlapKind.SPEECH),
        ("Okay, but I meant Tuesday.", 0.7, OverlapKind.SPEECH),
    ],
)
def test_kinds_of_words(text: str, confidence: float, kind: OverlapKind) -> None:
    assert kind_of_words(text, confidence)[0] is kind


def test_words_that_claim_the_floor_are_surer_than_one_that_does_not() -> None:
    def probability(text: str) -> float:
        return kind_of_words(text, 0.7)[1]

    assert probability("Wait.") > probability("Maya have") > probability("Maya.")


def voice(seed: int, seconds: float) -> Samples:
    """Noise whose bands come and go like syllables."""
    random = np.random.default_rng(seed)
    pcm = np.zeros(int(seconds * SECOND), np.float32)
    for start in range(0, len(pcm) - 3_200, 3_200):
        low = random.uniform(200, 3_000)
        time = np.arange(3_200) / SECOND
        tones = sum(np.sin(2 * np.pi * low * n * time + random.uniform(0, 6)) / n for n in (1, 2, 3))
        pcm[start : start + 3_200] = (0.1 * random.uniform(0.2, 1) * np.hanning(3_200) * tones).astype(np.float32)
    return pcm


def heard_through(played: Samples, delay: int, gain: float) -> Samples:
    """An echo of `played`, with a little noise."""
    echo = np.concatenate((np.zeros(delay, np.float32), played))[: len(played)] * gain
    return (echo + np.random.default_rng(9).normal(0, 1e-4, len(played))).astype(np.float32)


@pytest.mark.parametrize("delay_ms", [0, 40, 250, 560])
@pytest.mark.parametrize("gain", [0.3, 0.03])
def test_our_own_voice_is_known_by_its_delay_and_level(delay_ms: int, gain: float) -> None:
    played = voice(1, 4)
    microphone = heard_through(played, delay_ms * 16, gain)[SECOND : 3 * SECOND]
    around = np.concatenate((np.zeros(LATEST, np.float32), played))[SECOND : 3 * SECOND + 2 * LATEST]
    assert echo_probability(microphone, around, SECOND // 4) >= 0.5


def test_somebody_else_is_not_our_voice_with_or_without_an_echo() -> None:
    played, other = voice(1, 4), voice(2, 4)
    around = np.concatenate((np.zeros(LATEST, np.float32), played))[SECOND : 3 * SECOND + 2 * LATEST]
    echo = heard_through(played, 640, 0.05)[SECOND : 3 * SECOND]
    over = echo.copy()
    over[-SECOND // 4 :] += other[: SECOND // 4]
    assert echo_probability(other[SECOND : 3 * SECOND], around, SECOND // 4) < 0.5
    assert echo_probability(over, around, SECOND // 4) < 0.5


def test_too_little_to_compare_is_no_echo() -> None:
    nothing = np.zeros(0, np.float32)
    assert echo_probability(nothing, np.zeros(2 * LATEST, np.float32), 1_536) == 0.0
    assert echo_probability(voice(1, 2), np.zeros(2 * SECOND + 2 * LATEST, np.float32), 4_096) == 0.0


def ring_of(pcm: Samples) -> InputRing:
    ring = InputRing()
    ring.append(AudioFrame(pcm, 0))
    return ring


def said(watch: OverlapWatch, pcm: Samples, pieces: Sequence[int] = (3,)) -> None:
    """Our voice, made in pieces."""
    start = 0
    for piece in np.array_split(np.rint(pcm * 32_767).astype(np.int16), pieces[0]):
        watch.said(SynthesisedAudio("s", "resp_1", start, piece))
        start += len(piece)


def test_an_overlap_is_watched_until_the_next_turn() -> None:
    watch, played = OverlapWatch(), voice(1, 4)
    said(watch, played)
    ring = ring_of(heard_through(played, 640, 0.1))
    assert watch.listened(3 * SECOND, ring) is None
    watch.begin(Audible("resp_1", 3 * SECOND - 1_536, SAMPLE_RATE, 3 * SECOND - 1_536))
    score = watch.listened(3 * SECOND, ring)
    assert score is not None
    assert (score.kind, score.at) == (OverlapKind.ECHO, 3 * SECOND)
    assert not watch.due(4 * SECOND)  # our own words need not be read
    assert watch.worded(3 * SECOND, "Wait.", 0.9, ring) is None
    watch.begin(None)
    assert watch.listened(4 * SECOND, ring) is None


def test_words_are_due_at_each_mark_once() -> None:
    watch = OverlapWatch()
    ring = ring_of(np.zeros(SECOND, np.float32))
    watch.begin(Audible("resp_1", 0, SAMPLE_RATE, 0))
    assert next(at for at in range(0, 20_000, 512) if watch.due(at)) == 4_096
    score = watch.worded(4_096, "Yeah.", 0.8, ring)
    assert score is not None
    assert score.kind is OverlapKind.BACKCHANNEL
    assert not watch.due(4_608)
    assert watch.due(6_656)


def test_speech_from_across_the_room_is_somebody_elses() -> None:
    watch, caller = OverlapWatch(), voice(3, 2)
    ring = ring_of(np.concatenate((caller, caller * np.float32(0.1))))
    for over, kind in ((0, OverlapKind.SPEECH), (2 * SECOND, OverlapKind.SPEECH)):
        watch.begin(Audible("resp_1", 0, SAMPLE_RATE, over))
        score = watch.worded(over + 8_000, "Can you hear me?", 0.9, ring)
        assert score is not None
        assert score.kind is kind  # nothing is known of the caller yet
    watch.spoke(caller)
    watch.begin(Audible("resp_1", 0, SAMPLE_RATE, 2 * SECOND))
    score = watch.worded(2 * SECOND + 8_000, "Can you hear me?", 0.9, ring)
    assert score is not None
    assert score.kind is OverlapKind.OTHERS
