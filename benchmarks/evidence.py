"""What is known in each pause of a caller's turn, and when: the evidence that an endpointing policy decides from, gathered once.

The turn goes through the real engine and is never ended, so that every pause is heard; policies are replayed on what was found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from agent.endpointing import SHAPES, belief_of, semantic_wait_ms
from agent.wording import Asked, Shape, shape_of
from benchmarks.dialogues import Dialogue
from benchmarks.line import SCORE_LATE_MS, WORDS_LATE_MS
from streaming.audio import AudioFrame
from streaming.doors import SessionEvent
from streaming.engine import Parts, SpeechEngine
from streaming.events import (
    SAMPLE_RATE,
    ConfigureEar,
    EndOfTurnScore,
    SessionSpec,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TranscriptProvisional,
)

__all__ = ["HOLD_MS", "HeardTurn", "Pause", "decided_after", "fit", "hear_turn"]

HOLD_MS: Final = 200
"""A shorter silence is no pause to anybody (eot-bench)."""

_MS: Final = SAMPLE_RATE // 1_000
_WINDOW_MS: Final = 32
_PRE_ROLL: Final = 300 * _MS
_FRAME: Final = SAMPLE_RATE // 50
_SILENCE_ENOUGH: Final = 3 * SAMPLE_RATE
"""Heard after the turn's end: longer than any policy of the sweep waits."""


@dataclass(slots=True)
class Pause:
    """A pause; milliseconds count from its beginning. `lasts` is None for the one that ends the turn."""

    at: int
    lasts: float | None = None
    # (when it is known, probability), and (when they are known, the words).
    scores: list[tuple[float, float]] = field(default_factory=list)
    words: list[tuple[float, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HeardTurn:
    """A turn's pauses, in order. `late` is by how many ms the last one is noticed to begin after the true end of speech (the VAD's lag,
    negative where the VAD lets go early)."""

    dialogue: Dialogue
    pauses: tuple[Pause, ...]
    late: float

    @property
    def holds(self) -> list[Pause]:
        """The pauses after which the caller goes on, of 200 ms and more."""
        return [pause for pause in self.pauses if pause.lasts is not None and pause.lasts >= HOLD_MS]

    @property
    def end(self) -> Pause | None:
        """The pause that ends it; None where the VAD heard none."""
        return self.pauses[-1] if self.pauses and self.pauses[-1].lasts is None else None


def hear_turn(parts: Parts, dialogue: Dialogue) -> HeardTurn:
    """Play a turn into a fresh engine."""
    engine = SpeechEngine(parts, threaded=False)
    engine.open("bench", SessionSpec())
    engine.order("bench", ConfigureEar(end_of_turn=True))
    pauses: list[Pause] = []
    started = False
    until = min(len(dialogue.pcm), dialogue.speech_end + _SILENCE_ENOUGH)
    for start in range(0, until, _FRAME):
        engine.feed("bench", AudioFrame(dialogue.pcm[start : start + _FRAME], start))
        now = start + _FRAME
        while engine.busy():
            for output in engine.step():
                if not isinstance(output, SessionEvent):
                    continue
                match output.event:
                    case SpeechStarted(at=at):
                        if not started:
                            started = True
                            engine.order("bench", StartTurn("turn", max(0, at - _PRE_ROLL)))
                        if pauses and pauses[-1].lasts is None:
                            pauses[-1].lasts = (at - pauses[-1].at) / _MS
                    case SpeechStopped(at=at):
                        pauses.append(Pause(at))
                    case EndOfTurnScore(probability=probability) if pauses:
                        pauses[-1].scores.append(((now - pauses[-1].at) / _MS + SCORE_LATE_MS, probability))
                    case TranscriptProvisional(at=at, text=text) if pauses and pauses[-1].at == at:
                        pauses[-1].words.append(((now - at) / _MS + WORDS_LATE_MS, text))
                    case _:
                        pass
    late = (pauses[-1].at - dialogue.speech_end) / _MS if pauses else 0.0
    return HeardTurn(dialogue, tuple(pauses), late)


def decided_after(pause: Pause, cut_cost_ms: float, least_ms: float, longest_ms: float) -> float | None:
    """Milliseconds of silence after which the policy of `agent.endpointing` takes the turn; None where the caller goes on before."""
    silence = 96.0
    while silence <= longest_ms + _WINDOW_MS:
        if pause.lasts is not None and silence >= pause.lasts:
            return None
        scores = [probability for known, probability in pause.scores if known <= silence]
        words = [text for known, text in pause.words if known <= silence]
        belief = belief_of(scores, words[-1] if words else "", Asked.NOTHING)
        if silence >= max(least_ms, semantic_wait_ms(belief, cut_cost_ms, longest_ms)):
            return silence
        silence += _WINDOW_MS
    return silence


# ------------------------------------------------------------------------------------------------------------ fitting

_SETTLED_MS: Final = 300
"""Evidence known by then is what a belief is fitted on."""
_RIDGE: Final = 1.0


def fit(turns: Sequence[HeardTurn]) -> dict[str, float]:
    """Logistic regression of whether a pause ends the turn, on the evidence of its first 300 ms, ends and holds weighted alike; ridge on
    all but the bias, Newton's method. Also the mean and standard deviation of the logarithm of the holds' milliseconds."""
    rows, ends = [], []
    for turn in turns:
        for pause in [*turn.holds, *([turn.end] if turn.end is not None else [])]:
            scores = [probability for known, probability in pause.scores if known <= _SETTLED_MS]
            if scores:
                words = [text for known, text in pause.words if known <= _SETTLED_MS]
                mean = min(max(float(np.mean(scores)), 0.01), 0.99)
                shape = shape_of(words[-1] if words else "")
                rows.append([1.0, np.log(mean / (1 - mean)), *(float(shape is one) for one in SHAPES)])
                ends.append(float(pause.lasts is None))
    x, y = np.array(rows), np.array(ends)
    weights = np.where(y == 1, 0.5 / y.sum(), 0.5 / (len(y) - y.sum())) * len(y)
    found = _newton(x, y, weights)
    holds = np.log([pause.lasts for turn in turns for pause in turn.holds if pause.lasts is not None])
    names = ["bias", "score", *(shape.name for shape in SHAPES)]
    print(f"fitted on {int(y.sum())} ends and {int(len(y) - y.sum())} holds; shapes of ends and holds:")
    for shape in Shape:
        of_shape = [row[2 + list(SHAPES).index(shape)] == 1.0 for row in rows]
        print(f"  {shape.name:9} {int(np.sum(y[of_shape])):4} {int(np.sum(1 - y[of_shape])):4}")
    return {**dict(zip(names, found, strict=True)), "pause_log_mean": float(holds.mean()), "pause_log_deviation": float(holds.std())}


def _newton(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights of the columns of `x` (n, features) for `y` (n,)."""
    found = np.zeros(x.shape[1])
    ridge = _RIDGE * np.diag([0.0, *np.ones(x.shape[1] - 1)])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ found))
        gradient = x.T @ (weights * (p - y)) + ridge @ found
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + ridge
        found = found - np.linalg.solve(hessian, gradient)
    return found
