"""Whether what a recogniser wrote was said by anybody: it writes words on sneezes, on crying and on music too, now and then even surely.

Evidence: how sure the recogniser is of its words and of there being no speech, how much the VAD heard speech in the same stretch, and,
where the bundle can name sounds, whether the second around the VAD's best is called speech. Two logistic regressions, without the last
and with it, fitted on recordings apart from those it is measured on: `python -m benchmarks.no_speech`.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from streaming.input_ring import InputRing
from streaming.recognition import Decoding
from streaming.sound_events import PATCH, SoundClassifier, speech_in
from streaming.transcriber import SpeechIn
from streaming.voicing import Voicing

__all__ = ["SpeechJudge", "evidence_of", "probability_of"]

_WEIGHTS: Final = (-5.24, -0.89, 1.59, 8.11)
_WEIGHTS_WITH_SOUND: Final = (-3.8, -0.7, 1.1, 6.82, 0.66)
"""Of 1 and `evidence_of`, in its order."""

_CERTAIN: Final = 0.98
"""Probability from which the sound is not looked at: 3 ms that would change nothing."""

_UNHEARD: Final = 0.4
"""Said of what the recogniser takes for no speech while the VAD has not heard all of it: no words, but perhaps somebody."""

_LEAST: Final = 1e-3
"""Probabilities count as no nearer to 0 and 1 than this: log-odds are within 7."""


def evidence_of(decoding: Decoding, voiced: float, sound: float | None = None) -> tuple[float, ...]:
    """What a decoding is judged by: log-odds of no speech, mean log-probability of its tokens, the VAD's best 160 ms, and the log-odds of
    the sound being speech, where that is known."""
    known = (_log_odds(decoding.no_speech), decoding.log_probability, voiced)
    return known if sound is None else (*known, _log_odds(sound))


def probability_of(evidence: Sequence[float]) -> float:
    """That somebody spoke."""
    bias, *weights = _WEIGHTS if len(evidence) < len(_WEIGHTS) else _WEIGHTS_WITH_SOUND
    return 1 / (1 + math.exp(-bias - sum(weight * value for weight, value in zip(weights, evidence, strict=True))))


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(bounded / (1 - bounded))


class SpeechJudge:
    """One session's. `classifier` is shared, and may be absent; `ring` holds the session's input."""

    def __init__(self, ring: InputRing, classifier: SoundClassifier | None) -> None:
        self._ring = ring
        self._classifier = classifier
        self._voicing = Voicing()

    def heard(self, end: int, probability: float) -> None:
        """The VAD's window that ends at `end`."""
        self._voicing.heard(end, probability)

    def of_turn(self, start: int) -> SpeechIn:
        """What the transcriber of a turn that begins at `start` asks."""
        return lambda decoding, begin, end: self._judge(decoding, start + begin, start + end)

    def evidence(self, decoding: Decoding, start: int, end: int, certain: float = _CERTAIN) -> tuple[float, ...] | None:
        """What there is on a decoding of positions `start` to `end`; None where the VAD has not heard all of it. The sound is not looked at
        where the rest is `certain`."""
        voiced = self._voicing.best(start, end)
        if voiced is None:
            return None
        evidence = evidence_of(decoding, voiced.probability)
        if self._classifier is None or probability_of(evidence) >= certain:
            return evidence
        # No further than the stretch, so that the same sound is judged however much of the input has come.
        stop = min(end, voiced.at + PATCH // 2)
        sound = self._ring.between(max(0, stop - PATCH), stop)
        padded = np.pad(sound, (PATCH - len(sound), 0))
        return evidence_of(decoding, voiced.probability, speech_in(self._classifier, padded))

    def _judge(self, decoding: Decoding, start: int, end: int) -> float:
        evidence = self.evidence(decoding, start, end)
        if evidence is None:
            return 1.0 if decoding.speech else _UNHEARD
        return probability_of(evidence)
