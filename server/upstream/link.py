"""Where an upstream stands: between the sessions and the engine here, as an `EngineLink` around another.

Ear, transcripts, turn-taking and playout stay here. Of the conversation's orders an `UpstreamSession` does those that ask for replies by
asking elsewhere, and passes on the rest; so with what the engine here tells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from server.engine_link import EngineLink, Fact, Sink
from streaming.audio import AudioFrame
from streaming.doors import EngineLoad, SynthesisedAudio
from streaming.events import AudioReady, EngineOrder, ReplyRestarted, ResponseFinished, SessionSpec, TextDelta

__all__ = ["Local", "Spoken", "Upstream", "UpstreamLink", "UpstreamSession"]

Spoken = TextDelta | AudioReady | SynthesisedAudio | ReplyRestarted | ResponseFinished
"""What the engine here tells of a response whose words come from elsewhere."""


@dataclass(frozen=True, slots=True)
class Local:
    """One session's two sides: `order` goes to the engine here, `tell` to the conversation. Both on the event loop only."""

    session_id: str
    order: Callable[[EngineOrder], None]
    tell: Sink


class UpstreamSession(Protocol):
    """One session's part of an upstream. Nothing here waits."""

    def order(self, order: EngineOrder) -> None:
        """The conversation orders something."""

    def feed(self, frame: AudioFrame) -> None:
        """The caller's sound, which the engine here hears too."""

    def hear(self, fact: Fact) -> None:
        """The engine here tells something."""

    def close(self) -> None:
        """The session is over: let go of what is under way."""


class Upstream(Protocol):
    """A service elsewhere, for all sessions."""

    def open(self, local: Local) -> UpstreamSession:
        """A session begins."""

    async def stop(self) -> None:
        """The server ends, after every session has been closed."""


class UpstreamLink:
    """`server.engine_link.EngineLink`: the engine of `inner`, its replies from `upstream`."""

    def __init__(self, inner: EngineLink, upstream: Upstream) -> None:
        self._inner = inner
        self._upstream = upstream
        self._sessions: dict[str, UpstreamSession] = {}

    @property
    def running(self) -> bool:
        return self._inner.running

    @property
    def load(self) -> EngineLoad | None:
        return self._inner.load

    async def start(self) -> None:
        await self._inner.start()

    async def stop(self) -> None:
        for session_id in tuple(self._sessions):
            self.close(session_id)
        await self._upstream.stop()
        await self._inner.stop()

    def open(self, session_id: str, spec: SessionSpec, sink: Sink) -> None:
        def order(order: EngineOrder) -> None:
            self._inner.order(session_id, order)

        session = self._sessions[session_id] = self._upstream.open(Local(session_id, order, sink))
        self._inner.open(session_id, spec, session.hear)

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        self._inner.feed(session_id, frame)
        if (session := self._sessions.get(session_id)) is not None:
            session.feed(frame)

    def order(self, session_id: str, order: EngineOrder) -> None:
        if (session := self._sessions.get(session_id)) is not None:
            session.order(order)

    def close(self, session_id: str) -> None:
        if (session := self._sessions.pop(session_id, None)) is not None:
            session.close()
        self._inner.close(session_id)
