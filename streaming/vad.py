"""Voice activity: Silero VAD v6 on windows of 32 ms, and the hysteresis that makes speech of its probabilities.

The model is a pure step (windows and states in, probabilities and states out), so that one call serves many sessions; what a session keeps
is a `VadState` and a `SpeechGate`. ONNX, because it measured 0.08 ms a window here where the TorchScript form took 0.23.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE, SpeechStarted, SpeechStopped, SpeechSuspected

__all__ = ["ONSET_WINDOWS", "STOP_WINDOWS", "WINDOW", "GatePhase", "SileroVad", "SpeechGate", "SpeechModel", "VadState", "silero_model"]

WINDOW: Final = 512
"""Samples the model judges at once (32 ms); the only size it knows at 16 kHz."""

_CONTEXT: Final = 64
"""Samples of the window before, which the model wants in front."""

_HIDDEN: Final = 128


def silero_model() -> Path:
    """The ONNX file inside the `silero-vad` distribution, found without importing it (its `__init__` loads torch).

    Raises FileNotFoundError where the distribution is not installed."""
    spec = find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "silero_vad_16k_op15.onnx"
        if path.is_file():
            return path
    raise FileNotFoundError("silero_vad_16k_op15.onnx not found: install the `silero-vad` distribution (6.x)")


@dataclass(frozen=True, slots=True, eq=False)
class VadState:
    """What the model remembers of one stream. A value: stepping makes a new one."""

    hidden: npt.NDArray[np.float32]  # (2, 128)
    context: Samples  # (64,)

    @staticmethod
    def initial() -> "VadState":
        """Before the first window."""
        return VadState(np.zeros((2, _HIDDEN), np.float32), np.zeros(_CONTEXT, np.float32))


class SpeechModel(Protocol):
    """Judges windows of many streams at once."""

    def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
        """One window (row) of each stream: `windows` shape (streams, 512), a state per row. Speech probabilities and the next states, in
        the same order. Rows do not influence each other."""


class SileroVad:
    """Silero VAD v6 on onnxruntime, one thread. Holds no stream's state."""

    def __init__(self, model: Path) -> None:
        """`model` is what `silero_model()` finds. Raises onnxruntime's own error where it is not a model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._rate = np.array(SAMPLE_RATE, np.int64)

    def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
        """See `SpeechModel`."""
        assert windows.shape == (len(states), WINDOW), f"{windows.shape} for {len(states)} states"
        joined = np.concatenate((np.stack([s.context for s in states]), windows), axis=1)  # (streams, 576)
        hidden = np.stack([s.hidden for s in states], axis=1)  # (2, streams, 128)
        probabilities, hidden = self._session.run(None, {"input": joined, "state": hidden, "sr": self._rate})
        following = [VadState(hidden[:, row].copy(), joined[row, -_CONTEXT:].copy()) for row in range(len(states))]
        return [float(p) for p in probabilities[:, 0]], following


class GatePhase(Enum):
    """Where the hysteresis stands."""

    QUIET = "quiet"
    STARTING = "starting"
    SPEAKING = "speaking"
    STOPPING = "stopping"


ONSET_WINDOWS: Final = 2
"""Windows above the threshold before speech counts as begun (64 ms): a click fills one."""

STOP_WINDOWS: Final = 3
"""Windows of silence before speech counts as stopped (96 ms): a plosive's closure lasts less."""

_HYSTERESIS: Final = 0.15
"""Once there is speech it goes on down to `threshold` minus this (Silero's own default)."""


_SUSPECTED_BELOW: Final = 0.35
"""A window this far below the threshold may be the soft beginning of speech, one or two windows before the VAD is sure of it."""


class SpeechGate:
    """From probabilities, one a window, to `SpeechSuspected`, `SpeechStarted` and `SpeechStopped`."""

    def __init__(self, threshold: float = 0.5) -> None:
        """`threshold` is the probability from which a window counts as speech."""
        self.threshold = threshold
        self._phase = GatePhase.QUIET
        # Windows in a row that speak for leaving the phase: above the threshold in STARTING, without speech in STOPPING.
        self._run = 0
        # Windows since the last one of speech.
        self._silent = 0
        # First sample of the first window of that run.
        self._edge = 0
        # The last window sounded like speech, or nearly.
        self._suspicious = False

    @property
    def phase(self) -> GatePhase:
        """The state of the hysteresis after the last window."""
        return self._phase

    @property
    def silence(self) -> int:
        """Samples since the last window that counted as speech; 0 while there is some."""
        return self._silent * WINDOW

    def push(self, probability: float, start: int) -> SpeechSuspected | SpeechStarted | SpeechStopped | None:
        """The window that begins at `start` has this probability; windows come in order."""
        event = self._push(probability, start)
        talking = self._phase is GatePhase.SPEAKING
        self._silent = 0 if talking else self._silent + 1
        return event

    def _push(self, probability: float, start: int) -> SpeechSuspected | SpeechStarted | SpeechStopped | None:
        if self._phase in (GatePhase.QUIET, GatePhase.STARTING):
            return self._while_quiet(probability, start)
        return self._while_speaking(probability, start)

    def reset(self) -> None:
        """No speech so far; nothing is reported."""
        self._phase = GatePhase.QUIET
        self._run = 0

    def _while_quiet(self, probability: float, start: int) -> SpeechSuspected | SpeechStarted | None:
        was, self._suspicious = self._suspicious, probability >= self.threshold - _SUSPECTED_BELOW
        suspected = SpeechSuspected(start) if self._suspicious and not was else None
        if probability < self.threshold:
            self.reset()
            return suspected
        self._count(GatePhase.STARTING, start)
        if self._run < ONSET_WINDOWS:
            return suspected
        self._phase, self._run = GatePhase.SPEAKING, 0
        return SpeechStarted(at=self._edge, probability=probability)

    def _while_speaking(self, probability: float, start: int) -> SpeechStopped | None:
        # Between the two thresholds a pause neither begins nor ends.
        if probability >= self.threshold or (self._phase is GatePhase.SPEAKING and probability >= self.threshold - _HYSTERESIS):
            self._phase, self._run = GatePhase.SPEAKING, 0
            return None
        self._count(GatePhase.STOPPING, start)
        if self._run < STOP_WINDOWS:
            return None
        self.reset()
        return SpeechStopped(at=self._edge, probability=probability)

    def _count(self, phase: GatePhase, start: int) -> None:
        if self._phase is not phase:
            self._phase, self._run, self._edge = phase, 0, start
        self._run += 1
