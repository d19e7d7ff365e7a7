"""Whether somebody spoke, from what is known of a stretch."""

import numpy as np
import numpy.typing as npt
import pytest

from streaming.audio import AudioFrame, Samples
from streaming.input_ring import InputRing
from streaming.no_speech import SpeechJudge, evidence_of, probability_of
from streaming.recognition import Decoding
from streaming.sound_events import PATCH
from streaming.vad import WINDOW

SURE = Decoding((1, 2), -0.1, 0.02, 1)
DOUBTFUL = Decoding((1, 2), -1.2, 0.4, 1)


class Noted:
    """A classifier that says `speech` of every patch, and keeps them."""

    classes = ("Dog", "Speech", "Conversation")

    def __init__(self, speech: float) -> None:
        self.speech = speech
        self.patches: list[Samples] = []

    def hear(self, patch: Samples) -> npt.NDArray[np.float32]:
        self.patches.append(patch)
        return np.array([0.9, self.speech, 0.0], np.float32)


def judge_of(probabilities: list[float], classifier: Noted | None = None) -> SpeechJudge:
    ring = InputRing()
    ring.append(AudioFrame(np.arange(len(probabilities) * WINDOW, dtype=np.float32), 0))
    judge = SpeechJudge(ring, classifier)
    for number, probability in enumerate(probabilities, 1):
        judge.heard(number * WINDOW, probability)
    return judge


def test_sure_words_in_plain_speech_are_speech_and_doubtful_ones_in_silence_are_not() -> None:
    assert judge_of([0.99] * 40).of_turn(0)(SURE, 0, 40 * WINDOW) > 0.9
    assert judge_of([0.02] * 40).of_turn(0)(DOUBTFUL, 0, 40 * WINDOW) < 0.1
    # Nor are sure ones: the VAD hears nothing at all.
    assert judge_of([0.02] * 40).of_turn(0)(SURE, 0, 40 * WINDOW) < 0.5


def test_the_sound_decides_where_the_rest_does_not() -> None:
    doubtful = [0.0] * 40 + [0.65] * 10
    speech, sneeze = (judge_of(doubtful, Noted(value)).of_turn(0)(DOUBTFUL, 0, 50 * WINDOW) for value in (0.99, 0.01))
    assert sneeze < 0.5 < speech


def test_a_sound_is_not_looked_at_for_nothing() -> None:
    classifier = Noted(0.0)
    assert judge_of([1.0] * 40, classifier).of_turn(0)(SURE, 0, 40 * WINDOW) > 0.9
    assert not classifier.patches


def test_the_patch_lies_around_the_best_and_no_further_than_the_stretch() -> None:
    classifier = Noted(0.5)
    probabilities = [0.1] * 60
    probabilities[30:35] = [0.7] * 5
    judge = judge_of(probabilities, classifier)
    judge.of_turn(0)(DOUBTFUL, 0, 60 * WINDOW)
    judge.of_turn(0)(DOUBTFUL, 0, 36 * WINDOW)
    judge.of_turn(0)(DOUBTFUL, 0, 10 * WINDOW)
    best = 32 * WINDOW + WINDOW // 2
    assert classifier.patches[0][0] == best - PATCH // 2
    assert classifier.patches[1][-1] == 36 * WINDOW - 1
    assert len(classifier.patches[2]) == PATCH
    assert classifier.patches[2][0] == 0  # nothing before the first sample


def test_positions_are_the_turns() -> None:
    judge = judge_of([0.0] * 30 + [1.0] * 20)
    assert judge.of_turn(30 * WINDOW)(SURE, 0, 20 * WINDOW) > 0.9
    assert judge.of_turn(0)(SURE, 0, 20 * WINDOW) < 0.5


def test_where_the_vad_has_not_heard_all_the_recogniser_is_believed() -> None:
    judge = judge_of([0.0] * 10)
    assert judge.of_turn(0)(SURE, 0, 100 * WINDOW) == 1.0
    nothing = Decoding((), -2.0, 0.9, 1)
    assert 0.15 < judge.of_turn(0)(nothing, 0, 100 * WINDOW) < 0.5  # no words, but perhaps somebody


def test_evidence_is_finite_at_the_ends() -> None:
    for no_speech, sound in ((0.0, 1.0), (1.0, 0.0)):
        evidence = evidence_of(Decoding((), -3.0, no_speech, 1), 0.5, sound)
        assert np.isfinite(evidence).all()
        assert 0 < probability_of(evidence) < 1
    with pytest.raises(ValueError, match="zip"):
        probability_of((0.0, 0.0))
