"""All sessions of one server: who is admitted, what each is made of, and how they end when the server does."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from agent.settings import SessionSettings
from server.admission import ENGINE_RESTARTING, SHUTTING_DOWN, Admission
from server.agents.runner import AgentRunner
from server.agents.team import Team
from server.auth import Refusal
from server.chat.completion import Completion, Piece
from server.chat.request import ChatRequest
from server.doors import Channel, Dialogue
from server.echo import EchoNews
from server.engine_link import EngineLink
from server.limits import Limits, SessionSlots
from server.metrics import Metrics
from server.realtime.codec import Codec
from server.realtime.dialect import Dialect
from server.recording import Recorder
from server.session import Session, SessionEnd, SessionParts

__all__ = ["ConversationFactory", "Sessions", "SessionsOptions", "new_id"]

log = logging.getLogger(__name__)

ConversationFactory = Callable[[str, int], Dialogue]
"""`Conversation(session_id, seed)`."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 21


class _Held(Hashable, Protocol):
    """What holds a place of the engine's."""

    def drain(self, seconds: float) -> None:
        """The server is shutting down: end within `seconds`."""


def new_id(kind: str) -> str:
    """An id nobody can guess, in the protocol's style: `sess_` and 21 base62 characters (protocols.md 1.4)."""
    return f"{kind}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


@dataclass(frozen=True, slots=True)
class SessionsOptions:
    """`defaults` are the settings a session begins with, unless a `team` has its own; `record` is a folder for logs, None keeps none.
    `cancels_echo`: a session over WebSocket begins with echo cancellation."""

    limits: Limits
    defaults: SessionSettings
    record: Path | None = None
    team: Team | None = None
    cancels_echo: bool = False


class Sessions:
    """Admits, runs and drains. Not ready until the engine is."""

    def __init__(
        self,
        link: EngineLink,
        new_conversation: ConversationFactory,
        options: SessionsOptions,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds, monotonic."""
        self._link = link
        self._new_conversation = new_conversation
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._slots = SessionSlots(options.limits.max_sessions)
        self._admission = Admission(options.limits.max_engine_busy)
        metrics.engine_busy.set_function(lambda: link.load.busy if link.load is not None else 0.0)
        self._running: set[_Held] = set()
        # Set while no session runs.
        self._idle = asyncio.Event()
        self._idle.set()
        # Whether the models are loaded and warm.
        self.ready = False
        # Whether the server is going down; no session begins any more.
        self.draining = False

    @property
    def count(self) -> int:
        """Sessions open."""
        return self._slots.taken

    @property
    def defaults(self) -> SessionSettings:
        """What a session begins with."""
        team = self._options.team
        return self._options.defaults if team is None else team.first.settings

    @property
    def cancels_echo(self) -> bool:
        """Whether a session over WebSocket begins with echo cancellation where nobody has said."""
        return self._options.cancels_echo

    def refuses(self) -> Refusal | None:
        """Why no session can begin now, None if one can."""
        if self.draining:
            return SHUTTING_DOWN
        if not self.ready:
            return Refusal(503, "server_loading", "The models are still loading.", 5)
        if not self._link.running:
            return ENGINE_RESTARTING
        if self._slots.taken >= self._options.limits.max_sessions:
            message = f"All {self._options.limits.max_sessions} sessions are taken; try again later."
            return Refusal(503, "too_many_sessions", message, 5)
        return self._admission.refuses(self._link.load, self._slots.taken, self._clock())

    async def run(self, channel: Channel, settings: SessionSettings, dialect: Dialect | None) -> SessionEnd:
        """A whole session. Call only after `refuses` returned None, without waiting in between: that takes the slot."""
        session = self._make(settings, dialect)
        code = "cancelled"
        with self._hold(session):
            try:
                end = await session.run(channel)
                code = str(end.code or "client")
                return end
            finally:
                self._metrics.sessions_ended.labels(code).inc()

    async def complete(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        """A session for one answer, piece by piece. Begin only after `refuses` returned None, without waiting in between. Raises
        CompletionError."""
        completion = Completion(new_id("sess"), request, self._link, self._options.limits)
        with self._hold(completion):
            try:
                async with contextlib.aclosing(completion.pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                self._metrics.sessions_ended.labels("completion").inc()

    async def drain(self, seconds: float) -> None:
        """Let running replies end, at most `seconds`; returns when every session has ended. No new ones are admitted."""
        self.draining = True
        for session in self._running:
            session.drain(seconds)
        await self._idle.wait()

    @contextlib.contextmanager
    def _hold(self, session: _Held) -> Iterator[None]:
        """A place for a session, as long as it lasts."""
        taken = self._slots.take()
        assert taken
        self._admission.admitted(session, self._clock())
        self._running.add(session)
        self._idle.clear()
        self._metrics.sessions.inc()
        try:
            yield
        finally:
            self._metrics.sessions.dec()
            self._admission.left(session)
            self._running.discard(session)
            self._slots.give_back()
            if not self._running:
                self._idle.set()

    def _note_echo(self, session_id: str, news: EchoNews, why: str) -> None:
        self._metrics.echo(news)
        if news is EchoNews.FAILED:
            log.warning("session %s goes on without echo cancellation: %s", session_id, why)

    def _make(self, settings: SessionSettings, dialect: Dialect | None) -> Session:
        session_id = new_id("sess")
        seed = secrets.randbits(63)
        limits, record, team = self._options.limits, self._options.record, self._options.team
        codec = Codec(session_id, dialect, limits, int(time.time() + limits.session_seconds))
        return Session(
            SessionParts(
                session_id=session_id,
                seed=seed,
                settings=settings,
                conversation=self._new_conversation(session_id, seed),
                codec=codec,
                link=self._link,
                limits=limits,
                clock=self._clock,
                on_turn=self._metrics.turn,
                on_speculation=self._metrics.speculation,
                on_sound=self._metrics.sound,
                on_echo=partial(self._note_echo, session_id),
                recorder=Recorder(record, session_id, seed) if record else None,
                agent=AgentRunner(session_id, team) if team is not None else None,
            )
        )
