"""One session: what comes in is told to the conversation, what it orders is done, in one total order.

Everything between a fact coming in and the events it causes is synchronous; the tasks here only move values: a reader (client to
conversation and Ear), a pump (engine and time to conversation), a writer (outbox to client), and where sound has a transport of its own one
that listens and one that plays. Whoever fails ends the session, no other.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from agent.commands import (
    AgentOrder,
    Command,
    Cut,
    EndCall,
    ItemAdded,
    ItemDeleted,
    ItemTruncated,
    Notify,
    PlayoutOrder,
    SessionCreated,
    SessionUpdated,
)
from agent.events import (
    AgentEvent,
    ClearInput,
    CommitInput,
    CreateItem,
    CreateResponse,
    Event,
    PlaybackReported,
    RefuseRequest,
    SessionOpened,
    Tick,
)
from agent.settings import SessionSettings
from server.doors import AgentCode, Channel, ChannelClosedError, Dialogue, Media
from server.echo import EchoNews, EchoSwitch
from server.engine_link import EngineLink
from server.ingress import Ingress
from server.ledger import Ledger, TurnLedger, speculation_json
from server.limits import Limits
from server.outbox import Outbox, OutboxFullError
from server.pacing import Metronome
from server.playout import Playout, PlayoutOverflowError
from server.realtime.codec import Codec
from server.realtime.requests import AppendAudio
from server.recording import Recorder
from server.replies import Replies
from streaming.audio import AudioFrame
from streaming.doors import SynthesisedAudio
from streaming.echo_canceller import EchoCanceller, WebRtcEchoCanceller
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    Drop,
    EngineEvent,
    EngineFailed,
    EngineOrder,
    Listened,
    OverlapScore,
    ResponseFinished,
    SessionSpec,
    SoundKind,
    SoundStarted,
    SpeechStarted,
    SpeechSuspected,
)

__all__ = ["Session", "SessionEnd", "SessionParts"]

log = logging.getLogger(__name__)

_FACTS_AT_ONCE: Final = 64
"""Facts of the engine handled before other sessions get their turn on the loop."""
_FAREWELL_SECONDS: Final = 1.0
"""How long the last events of an ending session may take to leave."""

_CLOSE_NORMAL: Final = 1000
_CLOSE_GOING_AWAY: Final = 1001
_CLOSE_INTERNAL_ERROR: Final = 1011
_CLOSE_RESTART: Final = 1012
_CLOSE_TRY_AGAIN_LATER: Final = 1013
_MAX_REASON_BYTES: Final = 123
"""RFC 6455 5.5: a close frame has 125 bytes, two of them the code."""


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended: the close code and reason for the client (RFC 6455 7.4), `code` None where the client has gone."""

    code: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a session is made of."""

    session_id: str
    seed: int
    settings: SessionSettings
    conversation: Dialogue
    codec: Codec
    link: EngineLink
    limits: Limits
    # Seconds, monotonic; the only clock.
    clock: Callable[[], float]
    # A turn's first audio has left; and again when it has been heard.
    on_turn: Callable[[TurnLedger], None]
    # A speculation is over: whether it was adopted, and how many tokens were decoded in vain.
    on_speculation: Callable[[bool, int], None]
    recorder: Recorder | None = None
    agent: AgentCode | None = None
    # A sound that is not speech began.
    on_sound: Callable[[SoundKind], None] = lambda _: None
    # Makes the filter where the session asks for echo cancellation; told whether that began, or gave up.
    new_canceller: Callable[[], EchoCanceller] = WebRtcEchoCanceller
    on_echo: Callable[[EchoNews, str], None] = lambda _news, _why: None


class _EndedError(Exception):
    """Ends the session's tasks."""

    def __init__(self, end: SessionEnd) -> None:
        super().__init__(end.reason)
        self.end = end


class Session:
    """Run once."""

    def __init__(self, parts: SessionParts) -> None:
        self._parts = parts
        self._conversation = parts.conversation
        self._started = parts.clock()
        # Facts and audio of the engine, and facts of the agent's code, not yet handled: a pump that always runs keeps it short.
        self._inbox: deque[EngineEvent | AgentEvent | SynthesisedAudio] = deque()
        self._wake = asyncio.Event()
        self._outbox = Outbox(parts.limits.max_outbox_bytes)
        self._playout = Playout()
        self._ledger = Ledger()
        self._ingress = Ingress(parts.settings.input_format, parts.limits.max_input_lead, self._hear)
        # Takes our voice out of the caller's sound, where the session asks for it.
        self._echo = EchoSwitch(self._playout, parts.new_canceller, partial(parts.link.feed, parts.session_id), parts.on_echo)
        # Items of the conversation and their bytes on the wire, from its notices.
        self._item_sizes: dict[str, int] = {}
        self._replies = Replies(parts.on_speculation)
        # While the client is being taken on; a server that shuts down waits for nobody who has not come.
        self._accepting: asyncio.Timeout | None = None
        # Whether the session ends as soon as it is quiet.
        self._draining = False
        # The engine has died and this session with it: the client is told, and comes back to a new one.
        self._engine_failed = False
        # Whether sound has a transport of its own, which asks for each frame.
        self._plays_frames = False
        # Why the conversation has ended the call; None while it has not.
        self._ending: str | None = None
        # When the session ends at the latest, in session time.
        self._expires = int(parts.limits.session_seconds * SAMPLE_RATE)

    def now(self) -> int:
        """Session time in 1/16000 s."""
        return int((self._parts.clock() - self._started) * SAMPLE_RATE)

    async def run(self, channel: Channel) -> SessionEnd:
        """Until the client goes, the session expires, or something fails."""
        try:
            async with asyncio.timeout(None) as self._accepting:
                await channel.accept()
            self._accepting = None
        except (ChannelClosedError, TimeoutError):
            return SessionEnd(None)
        else:
            return await self._converse(channel)
        finally:
            if self._parts.recorder is not None:
                self._parts.recorder.close()
            if self._parts.agent is not None:
                await self._parts.agent.end()

    async def _converse(self, channel: Channel) -> SessionEnd:
        session_id, link = self._parts.session_id, self._parts.link
        end = SessionEnd(None)
        link.open(session_id, SessionSpec(self._parts.seed), self._receive_fact)
        try:
            self._tell(SessionOpened(self._parts.settings))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(channel), name=f"{session_id}-reader")
                group.create_task(self._pump(), name=f"{session_id}-pump")
                group.create_task(self._write(channel), name=f"{session_id}-writer")
                if isinstance(channel, Media):
                    self._plays_frames = True
                    group.create_task(self._listen(channel), name=f"{session_id}-listener")
                    group.create_task(self._play(channel), name=f"{session_id}-player")
                if self._parts.agent is not None:
                    running = self._parts.agent.run(channel, self._receive_fact, lambda: self._conversation.items)
                    group.create_task(running, name=f"{session_id}-agent")
        except* _EndedError as ended:
            end = _first(ended)
        except* OutboxFullError:
            log.warning("session %s: the client does not read; closing", session_id)
            end = SessionEnd(_CLOSE_TRY_AGAIN_LATER, "the client does not read")
        except* PlayoutOverflowError as errors:
            log.error("session %s: %s", session_id, errors.exceptions[0])
            end = SessionEnd(_CLOSE_INTERNAL_ERROR, "the reply did not end")
        except* Exception:
            log.exception("session %s failed", session_id)
            end = SessionEnd(_CLOSE_INTERNAL_ERROR, "internal error")
        finally:
            link.close(session_id)
        return end

    def drain(self, seconds: float) -> None:
        """The server is shutting down: finish the reply that is being made or played, at most `seconds` long, then close."""
        self._draining = True
        if self._accepting is not None and not self._accepting.expired():
            self._accepting.reschedule(asyncio.get_running_loop().time())
        self._expires = min(self._expires, self.now() + int(seconds * SAMPLE_RATE))
        self._wake.set()

    # -- tasks

    async def _read(self, channel: Channel) -> None:
        while (frame := await channel.receive()) is not None:
            request = self._parts.codec.read(frame, self._conversation.settings, self._ingress.at)
            if isinstance(request, AppendAudio):
                await self._ingress.append(request.audio, self.now)
            else:
                self._request(request)
                await asyncio.sleep(0)
        raise _EndedError(SessionEnd(None))

    async def _listen(self, media: Media) -> None:
        while (sound := await media.hear()) is not None:
            await self._ingress.append(sound, self.now)
        raise _EndedError(SessionEnd(None))

    async def _play(self, media: Media) -> None:
        metronome = Metronome(clock=self._parts.clock)
        while True:
            for _ in range(await metronome.beat()):
                media.play(self._next_frame())

    async def _write(self, channel: Channel) -> None:
        while True:
            text = await self._outbox.get()
            if self._outbox.has_audio_room:
                self._wake.set()
            try:
                async with asyncio.timeout(self._parts.limits.send_timeout):
                    await channel.send(text)
            except ChannelClosedError as error:
                raise _EndedError(SessionEnd(None)) from error
            except TimeoutError as error:
                raise OutboxFullError("the client has not read for too long") from error

    async def _pump(self) -> None:
        while True:
            await self._sleep()
            for _ in range(min(len(self._inbox), _FACTS_AT_ONCE)):
                self._fact(self._inbox.popleft())
            if self._engine_failed:
                await self._leave(SessionEnd(_CLOSE_RESTART, "engine_failed"))
            deadline = self._conversation.deadline()
            if deadline is not None and self.now() >= deadline:
                self._tell(Tick())
            self._settle(self.now())
            quiet = not self._replies.count and self._playout.silent
            if self._ending is not None and quiet:
                await self._leave(SessionEnd(_CLOSE_NORMAL, self._ending))
            if self.now() >= self._expires or (self._draining and quiet):
                await self._say_farewell()
            await asyncio.sleep(0)

    async def _sleep(self) -> None:
        """Until there is a fact, something became due, or the writer has room for sound."""
        if self._inbox:
            return
        room = self._outbox.has_audio_room and not self._plays_frames
        times = [self._expires, self._conversation.deadline(), self._playout.deadline(room=room)]
        due = min(time for time in times if time is not None)
        seconds = (due - self.now()) / SAMPLE_RATE
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self._wake.clear()  # only now: whoever set it while the pump was at work, as `drain` does, has not been heeded yet

    async def _say_farewell(self) -> None:
        """`session_expired`, then the end."""
        why = "The server is shutting down." if self._draining else "The session has reached its maximum duration."
        self._tell(RefuseRequest(None, "session_expired", why))
        await self._leave(SessionEnd(_CLOSE_RESTART if self._draining else _CLOSE_GOING_AWAY, "session_expired"))

    async def _leave(self, end: SessionEnd) -> None:
        """Let the client read what it has been sent, then end the session."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._outbox.drained()
        except TimeoutError:
            pass
        raise _EndedError(end)

    # -- what comes in

    def _receive_fact(self, fact: EngineEvent | AgentEvent | SynthesisedAudio) -> None:
        """The sink of the engine link and of the agent's code: notes only, so that one session's fault never stops the others."""
        self._inbox.append(fact)
        self._wake.set()

    def _fact(self, fact: EngineEvent | AgentEvent | SynthesisedAudio) -> None:
        if isinstance(fact, SynthesisedAudio):
            self._playout.push(fact)
            return
        if isinstance(fact, AgentEvent):
            self._tell(fact)
            return
        if isinstance(fact, Listened):
            self._ingress.heard(fact.at)
        if isinstance(fact, SoundStarted):
            self._parts.on_sound(fact.kind)
        if isinstance(fact, ResponseFinished):
            self._playout.finish(fact.response_id)
            self._replies.finished(fact)
        if isinstance(fact, SpeechSuspected | SpeechStarted | OverlapScore):
            self._report_playback()
        self._ledger.fact(fact, self.now())
        self._tell(fact)
        self._engine_failed |= isinstance(fact, EngineFailed)

    def _request(self, request: Event) -> None:
        """A client's request. What depends on what was heard finds the newest playback position."""
        self._report_playback()
        match request:
            case PlaybackReported(_, response_id, played_ms):
                self._playout.acknowledge(response_id, played_ms, self.now())
            case CommitInput(event_id) | ClearInput(event_id):
                # The last 5 ms wait in the resampler: they belong to what the client commits.
                self._ingress.flush(self.now())
                self._echo.flush()
                if isinstance(request, CommitInput):
                    self._ledger.commit_asked(self._ingress.at)
                request = type(request)(event_id, self._ingress.at)
            case CreateItem(event_id) if self._is_full():
                request = RefuseRequest(
                    event_id, "invalid_value", "The conversation is full; delete items, or open another session.", "item"
                )
            case CreateResponse(event_id, in_conversation=False) if self._replies.count >= self._parts.limits.max_replies:
                message = f"At most {self._parts.limits.max_replies} responses at once."
                request = RefuseRequest(event_id, "inference_rate_limit_exceeded", message)
        self._tell(request)
        self._wake.set()

    def _is_full(self) -> bool:
        limits = self._parts.limits
        return len(self._item_sizes) >= limits.max_items or sum(self._item_sizes.values()) >= limits.max_items_bytes

    def _report_playback(self) -> None:
        now = self.now()
        for progress in self._playout.progress(now, fresh=True):
            self._apply(progress, now)

    def _hear(self, frame: AudioFrame, now: int) -> None:
        """The client's audio, on its way to the Ear."""
        self._ledger.arrived(frame.at + len(frame.pcm), now)
        self._echo.push(frame, now)

    # -- what goes out

    def _tell(self, event: Event) -> None:
        now = self.now()
        self._apply(event, now)
        self._settle(now)

    def _apply(self, event: Event, now: int) -> None:
        recorder = self._parts.recorder
        try:
            commands = self._conversation.handle(event, now)
        except Exception as error:
            if recorder is not None:
                recorder.record(now, event, (), repr(error))  # the event to look at
            raise
        if recorder is not None:
            recorder.record(now, event, commands)
        for command in commands:
            self._do(command, now)

    def _settle(self, now: int) -> None:
        """Send the sound that may leave, and tell the conversation what has left, until nothing more comes of it."""
        while True:
            self._send_audio(now)
            reports = self._playout.progress(now)
            for heard in self._playout.take_heard():
                self._account(self._ledger.heard(heard.response_id, heard.at, reported=heard.reported))
            if not reports:
                return
            for progress in reports:
                self._apply(progress, now)

    def _next_frame(self) -> bytes:
        """What leaves now, and what the conversation makes of that."""
        now = self.now()
        delta = self._playout.next_frame(now)
        if delta is None:
            return b""
        if delta.start == 0:
            self._account(self._ledger.sent(delta.part.response_id, now))
        self._settle(now)
        self._wake.set()
        return delta.payload

    def _send_audio(self, now: int) -> None:
        while not self._plays_frames and self._outbox.has_audio_room and (delta := self._playout.next_delta(now)) is not None:
            response_id = delta.part.response_id
            self._outbox.put(self._parts.codec.write_audio(delta.part, delta.payload), audio_of=response_id)
            if delta.start == 0:
                self._account(self._ledger.sent(response_id, now))

    def _account(self, turn: TurnLedger | None) -> None:
        """More is known of where a turn's time went: tell those who want to know."""
        if turn is None:
            return
        self._parts.on_turn(turn)
        if self._parts.recorder is not None:
            self._parts.recorder.turn(turn)
        if self._conversation.settings.wants_ledger:
            self._outbox.put(self._parts.codec.write_extension(turn.to_json()))

    def _tell_speculation(self, order: EngineOrder) -> None:
        """To those who want to know where the time goes."""
        event = speculation_json(order)
        if event is not None and self._conversation.settings.wants_ledger:
            self._outbox.put(self._parts.codec.write_extension(event))

    def _do(self, command: Command, now: int) -> None:
        if isinstance(command, EngineOrder):
            self._ledger.ordered(command, now)
            self._parts.link.order(self._parts.session_id, command)
            self._replies.ordered(command)
            self._tell_speculation(command)
            if isinstance(command, Drop | Abort):
                self._playout.forget(command.response_id)
        elif isinstance(command, PlayoutOrder):
            self._playout.order(command, now)
            if isinstance(command, Cut):
                self._outbox.drop_audio(command.response_id)
        elif isinstance(command, EndCall):
            self._ending = command.reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
            self._wake.set()
        elif isinstance(command, AgentOrder):
            if self._parts.agent is not None:
                self._parts.agent.order(command)
        else:
            self._notify(command, now)

    def _notify(self, notice: Notify, now: int) -> None:
        match notice:
            case SessionCreated(_, settings) | SessionUpdated(_, settings):
                self._playout.owner = settings.playback
                self._ingress.change_format(settings.input_format, now)
                self._echo.turn(settings.echo_cancellation is True)
            case ItemTruncated(item_id, _, audio_end_ms):
                self._playout.flushed(item_id, audio_end_ms, now)
            case ItemDeleted(item_id):
                self._item_sizes.pop(item_id, None)
        text = self._parts.codec.write(notice)
        if isinstance(notice, ItemAdded) and text is not None:
            self._item_sizes[notice.item.id] = len(text)
        if text is not None:
            self._outbox.put(text)


def _first(group: BaseExceptionGroup[_EndedError]) -> SessionEnd:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error.end
