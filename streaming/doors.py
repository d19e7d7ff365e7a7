"""The engine's doors: what the server may ask of whatever owns the models, in its process or in another.

`step` is the only door that works; the others only note what is wanted. The event loop never calls `step`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streaming.audio import AudioFrame
from streaming.events import EngineEvent, EngineOrder, SessionSpec

__all__ = ["Engine", "EngineLoad", "EngineOutput", "SessionEvent", "SynthesisedAudio"]


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """A fact for the agent of one session."""

    session_id: str
    event: EngineEvent


@dataclass(frozen=True, slots=True, eq=False)
class SynthesisedAudio:
    """Reply audio for playout: `pcm` int16 shape (n,) at the response's rate, whose first sample is `start` of the response. It precedes
    the `AudioReady` that names it."""

    session_id: str
    response_id: str
    start: int
    pcm: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How hard the engine works, told about twice a second while that changes. `busy` is the share of the last seconds in which its
    stepping thread worked, 0.0 to 1.0, speculations not counted: they are what is left out first. `sessions` is how many it holds."""

    busy: float
    sessions: int


EngineOutput = SessionEvent | SynthesisedAudio | EngineLoad


class Engine(Protocol):
    """One device, many sessions. Unknown session ids are ignored (the session has just closed)."""

    def open(self, session_id: str, spec: SessionSpec) -> None:
        """Admit a session; call before anything else with this id."""

    def close(self, session_id: str) -> None:
        """Forget the session and everything it holds."""

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        """Hear a frame. Frames of a session are contiguous."""

    def order(self, session_id: str, order: EngineOrder) -> None:
        """Take an order of the agent; orders and frames keep their sequence."""

    def step(self) -> list[EngineOutput]:
        """Do the most urgent piece of work, at most some tens of milliseconds, and return what came of it."""

    def busy(self) -> bool:
        """Whether `step` has work to do now."""
