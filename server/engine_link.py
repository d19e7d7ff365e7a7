"""The event loop's side of the engine: orders and frames out, facts and audio back, never a model on the loop.

`LocalEngineLink` steps an engine on one worker thread of this process: for tests and fakes. `ProcessEngineLink`
(`server.engine_process`) spawns a process of its own: the real thing.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streaming.audio import AudioFrame
from streaming.doors import Engine, EngineLoad, EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import EngineEvent, EngineFailed, EngineOrder, SessionSpec

__all__ = [
    "CloseSession",
    "EngineLink",
    "Fact",
    "FeedFrame",
    "LocalEngineLink",
    "OpenSession",
    "Request",
    "Sink",
    "TakeOrder",
    "apply",
]

Fact = EngineEvent | SynthesisedAudio
"""What a session is told: by an engine, or in the stead of one that has died."""

Sink = Callable[[Fact], None]
"""Where a session's facts and audio go; called on the event loop, in order."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """`Engine.open`, as a message."""

    session_id: str
    spec: SessionSpec


@dataclass(frozen=True, slots=True)
class CloseSession:
    """`Engine.close`, as a message."""

    session_id: str


@dataclass(frozen=True, slots=True, eq=False)
class FeedFrame:
    """`Engine.feed`, as a message."""

    session_id: str
    frame: AudioFrame


@dataclass(frozen=True, slots=True)
class TakeOrder:
    """`Engine.order`, as a message."""

    session_id: str
    order: EngineOrder


Request = OpenSession | CloseSession | FeedFrame | TakeOrder


def apply(engine: Engine, request: Request) -> None:
    """Knock at the door that `request` names."""
    match request:
        case OpenSession(session_id, spec):
            engine.open(session_id, spec)
        case CloseSession(session_id):
            engine.close(session_id)
        case FeedFrame(session_id, frame):
            engine.feed(session_id, frame)
        case TakeOrder(session_id, order):
            engine.order(session_id, order)


class EngineLink(Protocol):
    """What the server holds of the engine. Every method but `start` and `stop` returns at once."""

    @property
    def running(self) -> bool:
        """Whether there is an engine to take a session."""

    @property
    def load(self) -> EngineLoad | None:
        """How hard the engine works, as it last said; None before it has said anything."""

    async def start(self) -> None:
        """Return when the models are loaded and warm; raises RuntimeError with the reason if they can't be."""

    async def stop(self) -> None:
        """End the engine; sessions get nothing more."""

    def open(self, session_id: str, spec: SessionSpec, sink: Sink) -> None:
        """Admit a session; its outputs go to `sink`."""

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        """Hear a frame."""

    def order(self, session_id: str, order: EngineOrder) -> None:
        """Take an order."""

    def close(self, session_id: str) -> None:
        """Forget the session; its sink is not called again."""


class LocalEngineLink:
    """Steps `engine` on one worker thread of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # None stops the worker. Unbounded, because what fills it is bounded: each session's input buffer and outstanding orders.
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._sinks: dict[str, Sink] = {}
        self._load: EngineLoad | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def load(self) -> EngineLoad | None:
        return self._load

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._sinks.clear()
        self._requests.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def open(self, session_id: str, spec: SessionSpec, sink: Sink) -> None:
        self._sinks[session_id] = sink
        self._requests.put(OpenSession(session_id, spec))

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        self._requests.put(FeedFrame(session_id, frame))

    def order(self, session_id: str, order: EngineOrder) -> None:
        self._requests.put(TakeOrder(session_id, order))

    def close(self, session_id: str) -> None:
        self._sinks.pop(session_id, None)
        self._requests.put(CloseSession(session_id))

    def _work(self) -> None:
        """Until stopped: take every waiting request, then one step; sleep only when there is neither."""
        assert self._loop is not None
        try:
            while True:
                block = not self._engine.busy()
                while block or not self._requests.empty():
                    request = self._requests.get()
                    if request is None:
                        return
                    apply(self._engine, request)
                    block = False
                self._post(self._engine.step())
        except Exception as error:
            self._post_failure(f"{type(error).__name__}: {error}")
            raise

    def _post(self, outputs: list[EngineOutput]) -> None:
        assert self._loop is not None
        if outputs:
            self._loop.call_soon_threadsafe(self._deliver, outputs)

    def _deliver(self, outputs: list[EngineOutput]) -> None:
        """Hand each output to its session's sink; a session that has closed gets nothing."""
        for output in outputs:
            if isinstance(output, EngineLoad):
                self._load = output
            elif (sink := self._sinks.get(output.session_id)) is not None:
                sink(output.event if isinstance(output, SessionEvent) else output)

    def _post_failure(self, error: str) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._fail_all, error)

    def _fail_all(self, error: str) -> None:
        for sink in list(self._sinks.values()):
            sink(EngineFailed(error))
