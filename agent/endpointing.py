"""When the caller's turn is over, from the Ear's evidence and the words. All positions are samples of the input; there is no clock.

`ServerVad` is obeyed exactly: its silence after the last speech sample. `SemanticVad` weighs two costs. To wait costs what it takes, if the
caller has finished; to cut in costs as much as `CUT_COST_MS` of waiting, if they have not. With p the belief that they have finished and
f(t) the density of pauses that last t ms, it pays to wait on while (1 - p) f(t) times that cost is more than p: the optimal stopping of a
renewal with a falling hazard. The belief is a logistic model of the end-of-turn model's scores, the shape of the words and what the agent
had asked for. All figures were fitted on the `tune` list of `benchmarks/turn_taking.py`, which prints what they are worth on `report`.
"""

import math
from collections.abc import Mapping
from typing import Final

from agent.settings import Eagerness, SemanticVad, ServerVad, TurnDetection
from agent.wording import Asked, Shape, shape_of
from streaming.events import SAMPLE_RATE

__all__ = ["CUT_COST_MS", "LEAST_MS", "LONGEST_MS", "SHAPES", "Endpointer", "belief_of", "pause_density", "semantic_wait_ms"]

CUT_COST_MS: Final[Mapping[Eagerness, float]] = {
    Eagerness.LOW: 6_000.0,
    Eagerness.MEDIUM: 2_400.0,
    Eagerness.AUTO: 2_400.0,
    Eagerness.HIGH: 600.0,
}
"""Milliseconds of waiting that are as bad as cutting in once: AUTO is the least that cuts one hesitation in ten
at most. LOW is for callers who think aloud, HIGH for short commands."""

LEAST_MS: Final[Mapping[Eagerness, int]] = {
    Eagerness.LOW: 224,
    Eagerness.MEDIUM: 160,
    Eagerness.AUTO: 160,
    Eagerness.HIGH: 96,
}
"""No turn is taken sooner, however finished it sounds: its words are known after some 160 ms. HIGH does not wait for them."""

LONGEST_MS: Final[Mapping[Eagerness, int]] = {
    Eagerness.LOW: 4_000,
    Eagerness.MEDIUM: 2_000,
    Eagerness.AUTO: 2_000,
    Eagerness.HIGH: 1_000,
}
"""A turn that sounds open to the last is taken after this: half of the protocol's longest waits (8, 4 and 2 s)."""

_PAUSE_LOG_MEAN: Final = 6.2
_PAUSE_LOG_DEVIATION: Final = 0.53
"""Pauses inside turns are log-normal: the mean and the standard deviation of the logarithm of their milliseconds."""

_BIAS: Final = -0.26
_SCORE_WEIGHT: Final = 0.53
"""Of the mean score's log-odds: one score alone jumps by 0.3 from mark to mark."""

SHAPES: Final[Mapping[Shape, float]] = {
    Shape.UNKNOWN: 0.0,
    Shape.PLAIN: 0.66,
    Shape.CLOSED: 0.4,
    Shape.QUESTION: 0.38,
    Shape.DANGLING: -1.39,
    Shape.COUNTING: -1.06,
    Shape.ANSWER: 1.0,
}
"""Log-odds that each shape of the words adds. PLAIN, COUNTING and ANSWER are rare on the list (2, 9 and 4 pauses)."""

_CHOSEN: Final = 1.5
"""Log-odds of a short answer where the agent had asked yes or no; not fitted, as no list has questions of an agent's."""

_STORY: Final = -1.0
"""Log-odds of any pause where the agent had asked for a story."""

_SURE: Final = 0.01
"""Scores count as no surer than 1 % and 99 %."""


def belief_of(scores: list[float], text: str, asked: Asked) -> float:
    """The probability, 0 to 1, that a turn which says `text` ("" while not known) is over, given the `scores` of its present pause (one
    that has none counts as undecided). Silence itself is not in it."""
    odds = _BIAS
    if scores:
        mean = min(max(sum(scores) / len(scores), _SURE), 1 - _SURE)
        odds += _SCORE_WEIGHT * math.log(mean / (1 - mean))
    shape = shape_of(text, asked)
    odds += SHAPES[shape]
    if asked is Asked.CHOICE and shape is Shape.ANSWER:
        odds += _CHOSEN
    if asked is Asked.STORY:
        odds += _STORY
    return 1 / (1 + math.exp(-odds))


def pause_density(milliseconds: float) -> float:
    """How often pauses inside turns last this long: the log-normal density, per millisecond."""
    deviations = (math.log(milliseconds) - _PAUSE_LOG_MEAN) / _PAUSE_LOG_DEVIATION
    return math.exp(-(deviations**2) / 2) / (milliseconds * _PAUSE_LOG_DEVIATION * math.sqrt(2 * math.pi))


def semantic_wait_ms(belief: float, cut_cost_ms: float, longest_ms: float) -> float:
    """Milliseconds of silence after which a turn that is over with probability `belief` is taken: where the density of pauses has fallen to
    belief / ((1 - belief) `cut_cost_ms`); 0 where it never was higher. Falls as the belief rises."""
    doubt = (1 - belief) * cut_cost_ms
    if doubt <= 0:
        return 0.0
    if belief <= 0:
        return longest_ms
    # `pause_density` is c where (ln t)^2 + 2 b ln t + d = 0; its larger root is on the falling side.
    variance = _PAUSE_LOG_DEVIATION**2
    level = math.log(belief / doubt) + math.log(_PAUSE_LOG_DEVIATION * math.sqrt(2 * math.pi))
    b, d = variance - _PAUSE_LOG_MEAN, _PAUSE_LOG_MEAN**2 + 2 * variance * level
    under_root = b * b - d
    return 0.0 if under_root < 0 else min(math.exp(math.sqrt(under_root) - b), longest_ms)


class Endpointer:
    """Decides one session's turns, one after another. Tell it the Ear's events in order, and ask `decide` at each
    `Listened` and after each score."""

    def __init__(self, detection: TurnDetection) -> None:
        # What the agent's last words asked for.
        self.asked = Asked.NOTHING
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
                belief = belief_of(self._scores, self._words, self.asked)
                wait = max(LEAST_MS[eagerness], semantic_wait_ms(belief, CUT_COST_MS[eagerness], LONGEST_MS[eagerness]))
                # A rising belief can't end the turn in the past.
                return max(stopped + _samples(wait), self._scored_at, self._worded_at)


def _samples(milliseconds: float) -> int:
    return round(milliseconds * SAMPLE_RATE / 1000)
