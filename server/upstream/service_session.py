"""One session in front of a realtime service: its sound comes from there and the decisions are ours.

The Ear, the transcript and turn-taking stay here. While a turn is open the caller's sound is passed on as it comes; when the turn has
ended it is committed there; a reply is asked for when the conversation orders it, and stopped when the conversation says so.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from server.engine_link import Fact
from server.upstream.connection import Connection, ConnectionOptions, Listener
from server.upstream.errors import UpstreamError
from server.upstream.link import Local, Spoken
from server.upstream.remote_reply import Pace, RemoteReply
from server.upstream.service import (
    Address,
    CallMade,
    CallWritten,
    ReplyDone,
    ReplySound,
    ReplyWords,
    Service,
    ServiceEvent,
    ServiceReady,
)
from server.upstream.tasks import Tasks
from server.upstream.transcripts import Transcripts
from streaming.audio import AudioFrame, StreamResampler, to_pcm16
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    Adopt,
    CommitTurn,
    ContextMessage,
    DiscardTurn,
    Drop,
    EngineFailed,
    EngineOrder,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    SetHistory,
    Speculate,
    StartTurn,
    ToolArgumentsDelta,
    ToolCallReady,
)
from streaming.input_ring import InputRing

__all__ = ["ServiceOptions", "ServiceSession", "ServiceUpstream"]

_REMEMBERED = 64
"""Replies whose words and sound are kept, to say what was heard of them: more than can be cut late."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Patience in seconds: for the first piece of a reply, between pieces, and until the caller is told that it takes its time."""

    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    first_piece: float = 20.0
    next_piece: float = 10.0
    apology: float = 3.0
    attempts: int = 2


class ServiceUpstream:
    """`server.upstream.link.Upstream`: a realtime service, a connection of its own for each session."""

    def __init__(self, address: Address, services: Callable[[], Callable[[], Service]], options: ServiceOptions | None = None) -> None:
        """`services` gives for a session what makes each of its connections."""
        self._address = address
        self._services = services
        self._options = options or ServiceOptions()
        self._tasks = Tasks()

    def open(self, local: Local) -> "ServiceSession":
        """A session begins."""
        session = ServiceSession(local, self._address, self._services(), self._options)
        session.task = self._tasks.begin(session.connection.run(), f"{local.session_id}-upstream")
        return session

    async def stop(self) -> None:
        """Let go of everything."""
        await self._tasks.stop()


@dataclass(slots=True)
class _Asked:
    """A reply that is on its way: whether the service has been asked, and what its patience is measured with."""

    order: Respond
    reply: RemoteReply
    sent: bool = False
    # Nothing more is expected of the service.
    done: bool = False
    patience: asyncio.TimerHandle | None = None
    apology: asyncio.TimerHandle | None = None

    def rest(self) -> None:
        """Wait for nothing any more."""
        self.done = True
        for timer in (self.patience, self.apology):
            if timer is not None:
                timer.cancel()


class ServiceSession:
    """`server.upstream.link.UpstreamSession`."""

    def __init__(self, local: Local, address: Address, new_service: Callable[[], Service], options: ServiceOptions) -> None:
        self.task: asyncio.Task[None] | None = None
        self.connection = Connection(address, new_service, Listener(self._told, self._lost), options.connection)
        self._local = local
        self._options = options
        self._transcripts = Transcripts()
        self._messages: tuple[ContextMessage, ...] = ()
        self._pace = Pace()
        # Replies whose end has not been told, and the newest of all, for what was heard of them.
        self._asked: dict[str, _Asked] = {}
        self._replies: dict[str, RemoteReply] = {}
        self._prepared: dict[str, RespondOptions] = {}
        # The caller's sound; where the open turn began, and up to where the service has it.
        self._ring = InputRing()
        self._turn: int | None = None
        self._sent = 0
        self._resampler = StreamResampler(SAMPLE_RATE, SAMPLE_RATE)

    # ----------------------------------------------------------------------------------------------------------- orders

    def feed(self, frame: AudioFrame) -> None:
        """The caller's sound."""
        self._ring.append(frame)
        self._stream()

    def order(self, order: EngineOrder) -> None:
        """Do it, or pass it on."""
        self._transcripts.note(order)
        match order:
            case SetHistory(messages):
                self._messages = messages
                self._local.order(SetHistory(()))  # so that the engine here forgets the words of what is over
                self._believe()
                service = self.connection.service
                if not self._asked and self._turn is None and service is not None and service.prepare(None):
                    self.connection.renew()
            case Respond():
                self._begin(order)
            case Speculate(response_id, options=options):
                self._prepared[response_id] = options  # what is asked of a service stands in its conversation: nothing is tried
                if (service := self.connection.service) is not None and service.prepare(options):
                    self.connection.renew()
            case Adopt(response_id) if response_id in self._prepared:
                self._begin(Respond(response_id, self._prepared.pop(response_id)))
            case Drop(response_id) if self._prepared.pop(response_id, None) is not None:
                self._local.tell(ResponseFinished(response_id, FinishReason.ABORTED))
            case Abort(response_id) | Drop(response_id):
                self._abort(response_id, order)
            case StartTurn() | CommitTurn() | DiscardTurn():
                self._local.order(order)
                self._follow(order)
            case _:
                self._local.order(order)

    def hear(self, fact: Fact) -> None:
        """What the voice here says for a reply is told by the reply, the rest as it is."""
        self._transcripts.note(fact)
        if isinstance(fact, EngineFailed):
            self.close()
        if isinstance(fact, Spoken):
            asked = self._asked.get(fact.response_id)
            if asked is not None:
                asked.reply.hear(fact)
                return
        self._local.tell(fact)
        self._ask()

    def close(self) -> None:
        """Hang up."""
        for asked in self._asked.values():
            asked.rest()
        self._asked.clear()
        if self.task is not None:
            self.task.cancel()

    # ---------------------------------------------------------------------------------------------------------- turns

    def _follow(self, order: StartTurn | CommitTurn | DiscardTurn) -> None:
        """The caller's turn, there as here."""
        service = self.connection.service
        match order:
            case StartTurn(start=start):
                self.connection.want()
                self._open_turn(start)
            case CommitTurn(item_id, start, end):
                if self._turn != start:
                    self._open_turn(start)
                self._stream(end, held_back=False)
                self._turn = None
                if service is not None and self._sent > start:
                    self.connection.send(service.commit(item_id))
            case DiscardTurn():
                if self._turn is not None and service is not None:
                    self.connection.send(service.discard())
                self._turn = None

    def _open_turn(self, start: int) -> None:
        self._turn = self._sent = start
        if (service := self.connection.service) is not None:
            self._resampler = StreamResampler(SAMPLE_RATE, service.input_rate)
            self.connection.send(service.listen())
        self._stream()

    def _stream(self, end: int | None = None, *, held_back: bool = True) -> None:
        """What the service has not heard of the open turn, as far as there is any."""
        service = self.connection.service
        if service is None or self._turn is None or (held_back and not service.listens):
            return
        until = self._ring.end if end is None else min(end, self._ring.end)
        if until > self._sent:
            pcm = to_pcm16(self._resampler.push(self._ring.between(self._sent, until)))
            self._sent = until
            if len(pcm):
                self.connection.send(service.sound(pcm))

    # ---------------------------------------------------------------------------------------------------------- replies

    def _begin(self, order: Respond) -> None:
        response_id = order.response_id
        self.connection.want()
        reply = RemoteReply(self._local, response_id, order.options, self._pace, lambda: self._over(response_id))
        asked = self._asked[response_id] = _Asked(order, reply)
        self._replies[response_id] = reply
        while len(self._replies) > _REMEMBERED:
            del self._replies[next(iter(self._replies))]
        asked.apology = asyncio.get_running_loop().call_later(self._options.apology, reply.apologise)
        self._watch(asked, self._options.first_piece)
        self._ask()

    def _ask(self) -> None:
        """Ask for the replies that have not been asked for, if that can be done now."""
        service = self.connection.service
        waiting = [asked for asked in self._asked.values() if not asked.sent and not asked.done]
        if service is None or not waiting:
            return
        for asked in waiting:
            context = asked.order.options.context
            if service.lacks(self._messages if context is None else context, self._transcripts.texts):
                continue  # the words of a turn are still being found
            if service.prepare(asked.order.options):
                self.connection.renew()
                return
            asked.sent = True
            asked.reply.tries += 1
            self._believe()
            try:
                self.connection.send(service.respond(asked.order, self._transcripts.texts))
            except UpstreamError as error:
                self._fail(asked, str(error))

    def _believe(self) -> None:
        if (service := self.connection.service) is not None:
            self.connection.send(service.believe(self._messages, self._transcripts.texts, self._replies))

    def _abort(self, response_id: str, order: Abort | Drop) -> None:
        asked = self._asked.get(response_id)
        if asked is None:
            self._local.order(order)
            return
        asked.rest()
        self._stop(response_id)
        asked.reply.abort()

    def _stop(self, response_id: str) -> None:
        if (service := self.connection.service) is not None:
            self.connection.send(service.stop(response_id))
            self._stream()

    def _over(self, response_id: str) -> None:
        if (asked := self._asked.pop(response_id, None)) is not None:
            asked.rest()

    def _fail(self, asked: _Asked, error: str) -> None:
        asked.rest()
        asked.reply.fail(f"the realtime service failed: {error}")

    def _watch(self, asked: _Asked, seconds: float) -> None:
        if asked.patience is not None:
            asked.patience.cancel()
        asked.patience = asyncio.get_running_loop().call_later(seconds, self._late, asked)

    def _late(self, asked: _Asked) -> None:
        self._stop(asked.order.response_id)
        self._fail(asked, "it fell silent" if asked.reply.begun else "it did not answer in time")

    # ------------------------------------------------------------------------------------------------- from the service

    def _told(self, event: ServiceEvent) -> None:
        if isinstance(event, ServiceReady):
            self._resume()
            return
        asked = self._asked.get(event.response_id)
        if asked is None or asked.done:
            return
        self._watch(asked, self._options.next_piece)
        reply = asked.reply
        match event:
            case ReplyWords(_, text):
                reply.words(text)
            case ReplySound(_, pcm):
                reply.sound(pcm)
            case CallWritten(response_id, index, name, arguments):
                reply.call(ToolArgumentsDelta(response_id, index, name, arguments))
            case CallMade(response_id, index, name, arguments):
                reply.call(ToolCallReady(response_id, index, name, arguments))
            case ReplyDone(_, reason, error, usage):
                asked.rest()
                failed = None if error is None else f"the realtime service failed: {error}"
                reply.finish(reason, failed, usage)
        self._stream()

    def _resume(self) -> None:
        """A connection is up: it learns what there is to know, and hears the open turn from its beginning."""
        self._believe()
        if self._turn is not None:
            self._open_turn(self._turn)
        self._ask()

    def _lost(self, fault: UpstreamError) -> None:
        """The connection is gone: what has not begun is asked for again, once; of the rest the caller hears."""
        for asked in [asked for asked in self._asked.values() if not asked.done]:
            again = fault.passing and not asked.reply.begun and asked.reply.tries < self._options.attempts
            asked.reply.tries += 0 if asked.sent else 1
            asked.sent = False
            if not again:
                self._fail(asked, str(fault))
