"""The conversation: one gate. Every event goes in by `handle`, with the time it happened, and what it orders comes out.

Nothing here awaits, reads a clock or draws a random number, so a session's log of `(now, event)` replayed gives the same commands. Turns
are `agent.turns`, the life of a response `agent.response`, items `agent.history`; this module joins them.
"""

from collections import deque
from dataclasses import replace
from typing import Final

from agent.commands import (
    Command,
    Cut,
    ErrorRaised,
    InputCleared,
    InputCommitted,
    InputTimeoutTriggered,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    SessionCreated,
    SessionUpdated,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
)
from agent.events import (
    CancelResponse,
    ClearInput,
    CommitInput,
    CreateItem,
    CreateResponse,
    DeleteItem,
    Event,
    PlaybackProgress,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    SessionOpened,
    Tick,
    TruncateItem,
    UpdateSession,
)
from agent.history import History, RefusedError
from agent.ids import IdMaker
from agent.items import ContentPart, Message, PartKind
from agent.plans import context_for, plan_response
from agent.prompt import context_of
from agent.response import Phase, Response
from agent.settings import SemanticVad, ServerVad, SessionKind, SessionSettings
from agent.turns import Floor, Interrupted, Outcome, TurnEnded, TurnTaker, milliseconds
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    AudioReady,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    EndOfTurnScore,
    EngineFailed,
    Listened,
    OverlapScore,
    Respond,
    ResponseFinished,
    Say,
    SetHistory,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    ToolCallReady,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
)

__all__ = ["Conversation"]

_LEAST_COMMIT: Final = SAMPLE_RATE // 10
"""A commit needs 100 ms of sound (protocols.md 1.2)."""

_TRUNCATE_TOLERANCE_MS: Final = 40
"""Two frames: clients count by their own clocks, and one of them ends the session on an error here."""

_NOT_HEARD: Final = "Sorry, I did not catch that."
"""Said where the caller's turn holds no words: asking back beats inventing an answer."""

_STILL_THERE: Final = "Are you still there?"
"""Said when the client's `idle_timeout_ms` has passed."""


class Conversation:
    """One session's conversation. `seed` keys its ids."""

    def __init__(self, session_id: str, seed: int) -> None:
        self._session_id = session_id
        self._ids = IdMaker(f"{session_id}/{seed}")
        self._conversation_id = self._ids.make("conv")
        self._settings = SessionSettings()
        self._history = History()
        self._turns = TurnTaker(self._settings.turn_detection, self._ids.make)
        # Responses whose `response.done` is still due, by id: the conversation's own and those out of band.
        self._responses: dict[str, Response] = {}
        # The conversation's own response: the last one begun, whose sound may still be playing.
        self._current: Response | None = None
        # Requests for a response of the conversation that wait until the current one's audio has left.
        self._queued: deque[CreateResponse] = deque(maxlen=1)
        # Responses that wait for the transcript of an audio item, by the item's id.
        self._waiting: dict[str, Response] = {}
        # Audio items without their transcript yet, and how long each is in seconds.
        self._untranscribed: dict[str, float] = {}
        # Audio replies by item, and what the caller heard of those that were cut short.
        self._replies: dict[str, Response] = {}
        self._heard: dict[str, str] = {}
        # The model's view as last ordered.
        self._believed: tuple[ContextMessage, ...] | None = None
        self._updated = False
        self._spoke = False
        # Since when nobody has said anything after a reply, in session time, and when to look again.
        self._quiet_since: int | None = None
        self._wake_at: int | None = None

    @property
    def settings(self) -> SessionSettings:
        """The settings in force."""
        return self._settings

    def deadline(self) -> int | None:
        """The session time at which it wants a `Tick`; None for never."""
        return self._wake_at

    def handle(self, event: Event, now: int) -> list[Command]:
        """Take an event that happened at session time `now` (1/16000 s); returns what to do, in order."""
        try:
            commands = self._dispatch(event, now)
        except RefusedError as refused:
            commands = [ErrorRaised(refused.code, refused.message, refused.param, getattr(event, "event_id", None))]
        commands += self._start_queued()
        commands += self._believe()
        self._wake_at = self._idle_deadline(now)
        return commands

    def _dispatch(self, event: Event, now: int) -> list[Command]:
        match event:
            case Listened(at):
                return self._apply(self._turns.listened_to(at, audible=self._interruptible(now)), now)
            case SpeechStarted(at):
                return self._speech_started(at, now)
            case SpeechStopped(at):
                return self._apply(self._turns.speech_stopped(at), now)
            case EndOfTurnScore(at, probability):
                self._turns.scored(at, probability)
                return []
            case OverlapScore():
                return []  # no Ear of ours reports any yet; `Listened` decides
            case TextDelta() | AudioReady() | ToolCallReady() | ResponseFinished() | PlaybackProgress():
                return self._response_event(event, now)
            case TranscriptDelta() | TranscriptDone() | TranscriptFailed():
                return self._transcript_event(event)
            case EngineFailed(error):
                return self._engine_failed(error)
            case Tick():
                return self._idle(now)
            case SessionOpened(settings):
                return self._opened(settings)
            case _:
                return self._request(event, now)

    def _request(self, event: Event, now: int) -> list[Command]:
        """A client's request."""
        match event:
            case UpdateSession(_, settings):
                return self._update(settings)
            case CommitInput(_, at):
                return self._commit(at)
            case ClearInput(_, at):
                return [*self._apply(self._turns.clear(at), now), InputCleared()]
            case CreateItem():
                return self._create_item(event)
            case RetrieveItem(_, item_id):
                return [ItemRetrieved(self._history.find(item_id, "item_retrieve_invalid_item_id"))]
            case TruncateItem():
                return self._truncate(event)
            case DeleteItem(_, item_id):
                self._history.delete(item_id)
                self._replies.pop(item_id, None)
                self._heard.pop(item_id, None)
                return [ItemDeleted(item_id)]
            case CreateResponse():
                return self._create_response(event)
            case CancelResponse(_, response_id):
                return self._cancel(response_id, now)
            case RefuseRequest(event_id, code, message, param):
                return [ErrorRaised(code, message, param, event_id)]
            case PlaybackReported():
                return []  # playout has counted it; what follows from it comes as PlaybackProgress
            case _:
                raise TypeError(f"the conversation, with the floor {self._turns.floor.name}, does not know {type(event).__name__}")

    # ---------------------------------------------------------------------------------------------------- session

    def _opened(self, settings: SessionSettings) -> list[Command]:
        self._settings = settings
        return [SessionCreated(self._session_id, settings), *self._configure()]

    def _update(self, settings: SessionSettings) -> list[Command]:
        if self._spoke and settings.voice != self._settings.voice:
            message = "The voice can't be changed once the assistant has spoken."
            raise RefusedError("cannot_update_voice", message, "session.audio.output.voice")
        if self._updated and settings.kind is not self._settings.kind:
            raise RefusedError("invalid_value", "The type of a session can't be changed.", "session.type")
        self._settings = settings
        self._updated = True
        return [SessionUpdated(self._session_id, settings), *self._configure()]

    def _configure(self) -> list[Command]:
        detection, transcription = self._settings.turn_detection, self._settings.transcription
        self._turns.configure(detection)
        self._turns.announced = self._settings.kind is SessionKind.REALTIME
        threshold = detection.threshold if isinstance(detection, ServerVad) else 0.5
        language = transcription.language if transcription else None
        return [ConfigureEar(threshold, isinstance(detection, SemanticVad), language)]

    def _believe(self) -> list[Command]:
        """Tell the engine the conversation as the model should believe it, where that has changed."""
        running = self._current.message_id if self._current is not None and self._busy else None
        items = tuple(item for item in self._history.items if item.id != running)
        believed = context_of(self._settings.instructions, items, self._heard)
        if believed == self._believed:
            return []
        self._believed = believed
        return [SetHistory(believed)]

    @property
    def _busy(self) -> bool:
        """Whether the conversation's own response still owes its client a `response.done`."""
        return self._current is not None and self._current.phase is not Phase.DONE

    # ------------------------------------------------------------------------------------------------------ turns

    def _interruptible(self, now: int) -> bool:
        """Whether sound of ours plays that speech may interrupt."""
        current, detection = self._current, self._settings.turn_detection
        return current is not None and detection is not None and detection.interrupt_response and current.spoken.audible(now)

    def _speech_started(self, at: int, now: int) -> list[Command]:
        audible = self._interruptible(now)
        outcome = self._turns.speech_started(at, audible=audible)
        detection = self._settings.turn_detection
        if outcome and not audible and detection is not None and detection.interrupt_response:
            outcome.append(Interrupted())  # a reply of which nothing has been heard gives way at once
        return self._apply(outcome, now)

    def _apply(self, outcome: Outcome, now: int) -> list[Command]:
        commands: list[Command] = []
        for step in outcome:
            match step:
                case Interrupted():
                    commands += self._interrupt("turn_detected", now)
                case TurnEnded():
                    commands += [*self._end_turn(step), *self._answer()]
                case _:
                    commands.append(step)
        return commands

    def _interrupt(self, reason: str, now: int) -> list[Command]:
        """The caller has the floor: the current reply ends, and counts as said only as far as it was heard."""
        current = self._current
        if current is None:
            return []
        commands: list[Command] = []
        if self._busy:
            self._remember_heard(current, current.spoken.played(now))
            commands += [Abort(current.id), Cut(current.id), *current.cancel(reason)]
            self._forget(current)
        elif current.spoken.audible(now):
            self._remember_heard(current, current.spoken.played(now))
            commands.append(Cut(current.id))
        self._current = None
        for request in self._queued:
            commands += self._turn_away(request, reason)
        self._queued.clear()
        return commands

    def _remember_heard(self, response: Response, samples: int) -> str:
        """What of an audio reply the caller heard: `samples` of it, to the last whole word."""
        heard = response.spoken.text[: response.spoken.text_end(samples)]
        if response.plan.output_audio and response.message_id is not None and response.plan.in_conversation:
            self._heard[response.message_id] = heard
        return heard

    def _turn_away(self, request: CreateResponse, reason: str) -> list[Command]:
        """A queued response that the caller has overtaken: begun and cancelled, so that its client is not left waiting."""
        response = self._new_response(request)
        return [*response.created(), *response.cancel(reason)]

    def _end_turn(self, turn: TurnEnded) -> list[Command]:
        """The caller's turn becomes an item."""
        self._untranscribed[turn.item_id] = (turn.end - turn.start) / SAMPLE_RATE
        return [CommitTurn(turn.item_id, turn.start, turn.end), *self._add_audio_item(turn.item_id, None)]

    def _answer(self) -> list[Command]:
        """Answer the turn that has just ended, if the session says so: now, or after a reply that is not to be interrupted."""
        detection = self._settings.turn_detection
        if self._settings.kind is not SessionKind.REALTIME or detection is None or not detection.create_response:
            return []
        if self._busy:
            self._queued.append(CreateResponse(None))
            return []
        return self._start(CreateResponse(None))

    def _add_audio_item(self, item_id: str, transcript: str | None) -> list[Command]:
        item = Message(item_id, "user", (ContentPart(PartKind.INPUT_AUDIO, transcript),))
        previous = self._history.last_id
        self._history.add(item)
        return [InputCommitted(item_id, previous), ItemAdded(item, previous), ItemDone(item, previous)]

    def _commit(self, at: int) -> list[Command]:
        """The client ends the turn; it asks for the answer itself."""
        sound = at - self._turns.committed
        if sound < _LEAST_COMMIT:
            message = "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
            message += f"but buffer only has {milliseconds(sound)}ms."
            raise RefusedError("input_audio_buffer_commit_empty", message)
        return self._end_turn(self._turns.commit(at))

    # ------------------------------------------------------------------------------------------------ transcripts

    def _transcript_event(self, event: TranscriptDelta | TranscriptDone | TranscriptFailed) -> list[Command]:
        wanted = self._settings.transcription is not None or self._settings.kind is SessionKind.TRANSCRIPTION
        if isinstance(event, TranscriptDelta):
            return [TranscriptionDelta(event.item_id, event.text)] if wanted and self._turns.floor is not Floor.OVERLAP else []
        seconds = self._untranscribed.pop(event.item_id, None)
        if seconds is None:
            return []  # the item has been deleted, or its session rebuilt
        text = event.text if isinstance(event, TranscriptDone) else ""
        commands: list[Command] = []
        if wanted and isinstance(event, TranscriptFailed):
            commands.append(TranscriptionFailed(event.item_id, event.error))
        elif wanted:
            commands.append(TranscriptionCompleted(event.item_id, text, seconds))
        if event.item_id in self._history:
            item = self._history.find(event.item_id, "")
            assert isinstance(item, Message)
            self._history.replace(replace(item, content=(ContentPart(PartKind.INPUT_AUDIO, text),)))
        response = self._waiting.pop(event.item_id, None)
        if response is not None and response.phase is Phase.GENERATING:
            commands += self._believe()
            commands.append(self._order(response, event.item_id, text))
        return commands

    def _order(self, response: Response, item_id: str | None, text: str) -> Command:
        """Ask the engine for the reply; a turn without words is asked back, not answered."""
        if item_id is not None and not text:
            return Say(response.id, _NOT_HEARD, response.plan.options)
        return Respond(response.id, response.plan.options)

    # -------------------------------------------------------------------------------------------------- responses

    def _create_response(self, request: CreateResponse) -> list[Command]:
        if self._settings.kind is SessionKind.TRANSCRIPTION:
            raise RefusedError("invalid_event", "A transcription session makes no responses.")
        current = self._current
        if request.in_conversation and current is not None and self._busy:
            if current.phase is Phase.SENDING and not self._queued:
                self._queued.append(request)
                return []
            message = f"Conversation already has an active response in progress: {current.id}. Wait until the response is finished."
            raise RefusedError("conversation_already_has_active_response", message)
        return self._start(request)

    def _start_queued(self) -> list[Command]:
        if not self._queued or self._busy:
            return []
        return self._start(self._queued.popleft())

    def _new_response(self, request: CreateResponse) -> Response:
        context = context_for(request, self._settings, self._history, self._heard)
        plan = plan_response(request, self._settings, context)
        return Response(self._ids.make("resp"), self._conversation_id, plan, self._history, self._ids.make)

    def _start(self, request: CreateResponse) -> list[Command]:
        response = self._new_response(request)
        self._responses[response.id] = response
        commands = response.created()
        if request.in_conversation:
            self._current = response
        item_id = self._history.last_id if response.plan.options.context is None else None
        if item_id in self._untranscribed:
            self._waiting[item_id] = response
            return commands
        commands += self._believe()
        return [*commands, Respond(response.id, response.plan.options)]

    def _response_event(
        self, event: TextDelta | AudioReady | ToolCallReady | ResponseFinished | PlaybackProgress, now: int
    ) -> list[Command]:
        response = self._responses.get(event.response_id) or self._current
        if response is None or response.id != event.response_id:
            return []  # stale: the response has been cut
        match event:
            case PlaybackProgress(_, sent, played):
                commands = response.progress(sent, played, now)
            case _ if response.phase is not Phase.GENERATING:
                return []
            case TextDelta():
                commands = response.text(event)
            case AudioReady():
                self._spoke = True
                commands = response.audio(event)
            case ToolCallReady():
                commands = response.tool_call(event)
            case ResponseFinished():
                commands = response.finished(event)
        if response.message_id is not None and response.plan.in_conversation and response.plan.output_audio:
            self._replies[response.message_id] = response
        if response.phase is Phase.DONE:
            self._forget(response)
        return commands

    def _forget(self, response: Response) -> None:
        """Its `response.done` is out. What plays on is tracked by `_current`."""
        self._responses.pop(response.id, None)
        for item_id in [item_id for item_id, waiting in self._waiting.items() if waiting is response]:
            del self._waiting[item_id]

    def _cancel(self, response_id: str | None, now: int) -> list[Command]:
        current = self._current
        if response_id is None and current is not None:
            response_id = current.id
        response = self._responses.get(response_id) if response_id is not None else None
        if response is None:
            raise RefusedError("response_cancel_not_active", "Cancellation failed: no active response found")
        if response is current:
            return self._interrupt("client_cancelled", now)
        self._forget(response)
        return [Abort(response.id), Cut(response.id), *response.cancel("client_cancelled")]

    def _engine_failed(self, error: str) -> list[Command]:
        commands: list[Command] = []
        for response in list(self._responses.values()):
            commands += [Cut(response.id), *response.fail(error)]
            self._forget(response)
        if self._current is not None and self._current.spoken.samples:
            self._remember_heard(self._current, self._current.spoken.sent)
        self._current = None
        return [*commands, ErrorRaised("engine_failed", error, kind="server_error")]

    # ------------------------------------------------------------------------------------------------------ items

    def _create_item(self, request: CreateItem) -> list[Command]:
        item = request.item if request.item.id else replace(request.item, id=self._ids.make("item"))
        previous = self._history.add(item, request.previous_item_id)
        return [ItemAdded(item, previous), ItemDone(item, previous)]

    def _truncate(self, request: TruncateItem) -> list[Command]:
        item = self._history.find(request.item_id, "item_truncate_invalid_item_id")
        reply = self._replies.get(request.item_id)
        if not isinstance(item, Message) or reply is None or reply.spoken.samples == 0:
            raise RefusedError("unsupported_content_type", "Only model output audio messages can be truncated", "item_id")
        spoken = reply.spoken
        longest = spoken.milliseconds(spoken.samples)
        if request.audio_end_ms > longest + _TRUNCATE_TOLERANCE_MS:
            message = f"Audio content of {longest}ms is already shorter than {request.audio_end_ms}ms"
            raise RefusedError("invalid_value", message, "audio_end_ms")
        heard = self._remember_heard(reply, min(spoken.samples, request.audio_end_ms * spoken.rate // 1_000))
        if reply.phase is Phase.DONE:
            self._history.replace(replace(item, content=(ContentPart(PartKind.OUTPUT_AUDIO, heard),)))
        return [ItemTruncated(request.item_id, request.content_index, request.audio_end_ms)]

    # ----------------------------------------------------------------------------------------------- idle timeout

    def _idle_deadline(self, now: int) -> int | None:
        """`idle_timeout_ms` after the last reply has been played, where nothing has happened since."""
        detection, current = self._settings.turn_detection, self._current
        if not isinstance(detection, ServerVad) or detection.idle_timeout_ms is None:
            return None
        if current is None or self._busy or self._turns.floor is not Floor.OPEN:
            self._quiet_since = None
            return None
        if current.spoken.audible(now):
            self._quiet_since = None
            return now + SAMPLE_RATE // 10
        if self._quiet_since is None:
            self._quiet_since = now
        return self._quiet_since + detection.idle_timeout_ms * SAMPLE_RATE // 1_000

    def _idle(self, now: int) -> list[Command]:
        """The caller has been silent for as long as the client allows."""
        if self._quiet_since is None or self._wake_at is None or now < self._wake_at:
            return []
        self._quiet_since = None
        item_id, start, end = self._ids.make("item"), self._turns.committed, self._turns.listened
        self._turns.commit(end)
        commands: list[Command] = [InputTimeoutTriggered(milliseconds(start), milliseconds(end), item_id)]
        commands += self._add_audio_item(item_id, "")
        response = self._new_response(CreateResponse(None))
        self._responses[response.id] = self._current = response
        return [*commands, *response.created(), Say(response.id, _STILL_THERE, response.plan.options)]
