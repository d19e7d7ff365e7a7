"""The conversation: one gate. Every event goes in by `handle`, with the time it happened, and what it orders comes out.

Nothing here awaits, reads a clock or draws a random number, so a session's log of `(now, event)` replayed gives the same commands. Turns
are `agent.turns`, the life of a response `agent.response`, items `agent.history`; this module joins them.
"""

from dataclasses import replace
from typing import Final

from agent.commands import (
    Command,
    Cut,
    Duck,
    ErrorRaised,
    InputCleared,
    InputCommitted,
    InputSpeechStarted,
    InputTimeoutTriggered,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    Resume,
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
from agent.heard import HeardReplies
from agent.history import History, RefusedError
from agent.idle import IdleTimer
from agent.ids import IdMaker
from agent.items import ContentPart, Message, PartKind
from agent.plans import context_for, plan_response
from agent.prompt import asks_back, context_of
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
    DiscardTurn,
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
    StartTurn,
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
        # The conversation's own among them.
        self._current: Response | None = None
        # The audio item whose transcript the current response waits for; it has not been ordered yet.
        self._awaited: str | None = None
        # A request for a response of the conversation that waits until the current one's audio has left.
        self._queued: CreateResponse | None = None
        # Audio items without their transcript yet, and how long each is in seconds.
        self._untranscribed: dict[str, float] = {}
        # Settled words of the open turn, while the client does not know its item: as long as the turn.
        self._withheld = ""
        self._heard = HeardReplies()
        # Responses whose sound is lowered.
        self._ducked: list[str] = []
        # The model's view as last ordered.
        self._believed: tuple[ContextMessage, ...] | None = None
        # Whether the client has sent a `session.update`, and whether a voice of ours has been heard: both lock some settings.
        self._updated = False
        self._spoke = False
        self._idle = IdleTimer()

    @property
    def settings(self) -> SessionSettings:
        """The settings in force."""
        return self._settings

    def deadline(self) -> int | None:
        """The session time at which it wants a `Tick`; None for never."""
        return self._idle.deadline

    def handle(self, event: Event, now: int) -> list[Command]:
        """Take an event that happened at session time `now` (1/16000 s); returns what to do, in order."""
        try:
            commands = self._dispatch(event, now)
        except RefusedError as refused:
            commands = [ErrorRaised(refused.code, refused.message, refused.param, getattr(event, "event_id", None))]
        if self._queued is not None and self._current is None:
            commands += self._start_queued(self._queued)
        if commands or not isinstance(event, Listened):  # which comes every 32 ms, and alone changes no item
            commands += self._believe()
        commands += self._duck(now)
        self._watch_idle(now)
        return commands

    def _dispatch(self, event: Event, now: int) -> list[Command]:
        match event:
            case Listened(at):
                return self._apply(self._turns.listened_to(at, audible=bool(self._heard.audible(now))), now)
            case SpeechStarted(at):
                return self._apply(self._turns.speech_started(at, audible=bool(self._heard.audible(now))), now)
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
                return self._engine_failed(error, now)
            case Tick():
                return self._ask_still_there() if self._idle.expired(now) else []
            case SessionOpened(settings):
                self._settings = settings
                return [SessionCreated(self._session_id, settings), *self._configure(now)]
            case _:
                return self._request(event, now)

    def _request(self, event: Event, now: int) -> list[Command]:
        """A client's request."""
        match event:
            case UpdateSession(_, settings):
                return self._update(settings, now)
            case CommitInput(_, at):
                return self._commit(at, now)
            case ClearInput(_, at):
                return [*self._apply(self._turns.clear(at), now), InputCleared()]
            case CreateItem():
                return self._create_item(event)
            case RetrieveItem(_, item_id):
                return [ItemRetrieved(self._heard.as_heard(self._history.find(item_id, "item_retrieve_invalid_item_id")))]
            case TruncateItem():
                return self._truncate(event)
            case DeleteItem(_, item_id):
                return self._delete(item_id)
            case CreateResponse():
                return self._create_response(event)
            case CancelResponse(_, response_id):
                return self._cancel_requested(response_id, now)
            case RefuseRequest(event_id, code, message, param):
                return [ErrorRaised(code, message, param, event_id)]
            case PlaybackReported():
                return []  # playout has counted it; what follows from it comes as PlaybackProgress
            case _:
                raise TypeError(f"the conversation, with the floor {self._turns.floor.name}, does not know {type(event).__name__}")

    # ---------------------------------------------------------------------------------------------------- session

    def _update(self, settings: SessionSettings, now: int) -> list[Command]:
        if self._spoke and settings.voice != self._settings.voice:
            message = "The voice can't be changed once the assistant has spoken."
            raise RefusedError("cannot_update_voice", message, "session.audio.output.voice")
        if self._updated and settings.kind is not self._settings.kind:
            raise RefusedError("invalid_value", "The type of a session can't be changed.", "session.type")
        self._settings = settings
        self._updated = True
        return [SessionUpdated(self._session_id, settings), *self._configure(now)]

    def _configure(self, now: int) -> list[Command]:
        detection, transcription = self._settings.turn_detection, self._settings.transcription
        self._turns.announced = self._settings.kind is SessionKind.REALTIME
        turns = self._apply(self._turns.configure(detection), now)
        threshold = detection.threshold if isinstance(detection, ServerVad) else 0.5
        language = transcription.language if transcription else None
        return [ConfigureEar(threshold, isinstance(detection, SemanticVad), language), *turns]

    def _believe(self) -> list[Command]:
        """Tell the engine the conversation as the model should believe it, where that has changed. A reply that it is making already keeps
        the belief it began with."""
        running = self._current.message_id if self._current is not None else None
        items = tuple(item for item in self._history.items if item.id != running)
        believed = context_of(self._settings.instructions, items, self._heard.cut)
        if believed == self._believed:
            return []
        self._believed = believed
        return [SetHistory(believed)]

    # ------------------------------------------------------------------------------------------------------ turns

    def _apply(self, outcome: Outcome, now: int) -> list[Command]:
        commands: list[Command] = []
        for step in outcome:
            match step:
                case Interrupted():
                    commands += self._interrupt(now)
                case TurnEnded():
                    commands += self._end_turn(step)
                case InputSpeechStarted(_, item_id):
                    commands += [step, *self._tell_withheld(item_id)]
                case StartTurn() | DiscardTurn():
                    commands.append(step)
                    self._withheld = ""
                case _:
                    commands.append(step)
        return commands

    def _interrupt(self, now: int) -> list[Command]:
        """The caller has the floor: whatever of ours sounds or is being made ends, and counts as said only as far as it was heard."""
        commands: list[Command] = []
        for response_id in self._heard.audible(now):
            if response_id not in self._responses:
                self._heard.stop(response_id, now)
                commands.append(Cut(response_id))
        if self._current is not None:
            commands += self._cancel(self._current, "turn_detected", now)
        if self._queued is not None:
            # Begun and cancelled, so that its client is not left waiting. Its input is looked at no more.
            overtaken, self._queued = self._new_response(replace(self._queued, input=())), None
            commands += [*overtaken.created(), *overtaken.cancel("turn_detected")]
        return commands

    def _duck(self, now: int) -> list[Command]:
        """Where the client acknowledges playback, so that little of it is ahead: our sound is lowered while it is not clear whether the
        caller speaks to us."""
        audible = self._heard.audible(now)
        wanted = audible if self._settings.acks_playback and self._turns.floor is Floor.OVERLAP else []
        commands: list[Command] = [Resume(response_id) for response_id in self._ducked if response_id in audible and not wanted]
        commands += [Duck(response_id) for response_id in wanted if response_id not in self._ducked]
        self._ducked = wanted
        return commands

    def _end_turn(self, turn: TurnEnded) -> list[Command]:
        """The caller's turn becomes an item. It is answered if it was detected and the session says so: now, or after a reply that is not
        to be interrupted."""
        commands = [CommitTurn(turn.item_id, turn.start, turn.end), *self._add_audio_item(turn.item_id, None)]
        commands += self._tell_withheld(turn.item_id)
        self._untranscribed[turn.item_id] = (turn.end - turn.start) / SAMPLE_RATE
        detection = self._settings.turn_detection
        if not turn.detected or self._settings.kind is not SessionKind.REALTIME or detection is None or not detection.create_response:
            return commands
        if self._current is None:
            return [*commands, *self._start(CreateResponse(None))]
        # What is queued already will answer this turn too.
        self._queued = self._queued or CreateResponse(None)
        return commands

    def _add_audio_item(self, item_id: str, transcript: str | None) -> list[Command]:
        item = Message(item_id, "user", (ContentPart(PartKind.INPUT_AUDIO, transcript),))
        previous = self._history.add(item)
        return [InputCommitted(item_id, previous), ItemAdded(item, previous), ItemDone(item, previous)]

    def _commit(self, at: int, now: int) -> list[Command]:
        """The client ends the turn; it asks for the answer itself."""
        sound = max(0, at - self._turns.committed)
        if sound < _LEAST_COMMIT:
            message = "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
            message += f"but buffer only has {milliseconds(sound)}ms."
            raise RefusedError("input_audio_buffer_commit_empty", message)
        return self._apply(self._turns.commit(at), now)

    # ------------------------------------------------------------------------------------------------ transcripts

    @property
    def _transcribes(self) -> bool:
        """Whether the client wants to know what was said."""
        return self._settings.transcription is not None or self._settings.kind is SessionKind.TRANSCRIPTION

    def _transcript_event(self, event: TranscriptDelta | TranscriptDone | TranscriptFailed) -> list[Command]:
        if isinstance(event, TranscriptDelta):
            is_open = event.item_id == self._turns.open_item_id
            if not self._transcribes or not (is_open or event.item_id in self._untranscribed):
                return []  # the turn was cleared
            if is_open and not self._turns.told:
                self._withheld += event.text
                return []
            return [TranscriptionDelta(event.item_id, event.text)]
        seconds = self._untranscribed.pop(event.item_id, None)
        if seconds is None:
            return []  # the item has been deleted
        text = event.text if isinstance(event, TranscriptDone) else ""
        commands: list[Command] = []
        if self._transcribes and isinstance(event, TranscriptFailed):
            commands.append(TranscriptionFailed(event.item_id, event.error))
        elif self._transcribes:
            commands.append(TranscriptionCompleted(event.item_id, text, seconds))
        self._history.replace(Message(event.item_id, "user", (ContentPart(PartKind.INPUT_AUDIO, text),)))
        return [*commands, *self._go_on_without(event.item_id)]

    def _tell_withheld(self, item_id: str) -> list[Command]:
        """The client has been told of the item: now it may have the words."""
        words, self._withheld = self._withheld, ""
        return [TranscriptionDelta(item_id, words)] if words else []

    def _go_on_without(self, item_id: str) -> list[Command]:
        """The transcript of this item is awaited no more: it is there, or the item is gone."""
        if self._awaited != item_id or self._current is None:
            return []
        self._awaited = None
        return self._order(self._current)

    # -------------------------------------------------------------------------------------------------- responses

    def _create_response(self, request: CreateResponse) -> list[Command]:
        if self._settings.kind is SessionKind.TRANSCRIPTION:
            raise RefusedError("invalid_event", "A transcription session makes no responses.")
        current = self._current
        if request.in_conversation and current is not None:
            if current.phase is Phase.SENDING and self._queued is None:
                context_for(request, self._settings, self._history, self._heard.cut)  # refuses what it can refuse now
                self._queued = request
                return []
            message = f"Conversation already has an active response in progress: {current.id}. Wait until the response is finished."
            raise RefusedError("conversation_already_has_active_response", message)
        return self._start(request)

    def _start_queued(self, request: CreateResponse) -> list[Command]:
        self._queued = None
        try:
            return self._start(request)
        except RefusedError as refused:  # an item that it names has been deleted since
            return [ErrorRaised(refused.code, refused.message, refused.param, request.event_id)]

    def _new_response(self, request: CreateResponse) -> Response:
        context = context_for(request, self._settings, self._history, self._heard.cut)
        plan = plan_response(request, self._settings, context)
        return Response(self._ids.make("resp"), self._conversation_id, plan, self._history, self._ids.make)

    def _start(self, request: CreateResponse, words: str | None = None) -> list[Command]:
        """Begin a response; `words` are to be said where given, else the model's are."""
        response = self._new_response(request)
        self._responses[response.id] = response
        if request.in_conversation:
            self._current = response
        last = self._history.last
        if words is None and response.plan.options.context is None and last is not None and last.id in self._untranscribed:
            self._awaited = last.id
            return response.created()
        return [*response.created(), *self._order(response, words)]

    def _order(self, response: Response, words: str | None = None) -> list[Command]:
        """Ask the engine for the reply; a turn without words is asked back, not answered."""
        if words is None and response.plan.options.context is None and asks_back(self._history.items, self._heard.cut):
            words = _NOT_HEARD
        options = response.plan.options
        order = Respond(response.id, options) if words is None else Say(response.id, words, options)
        return [*self._believe(), order]

    def _response_event(
        self, event: TextDelta | AudioReady | ToolCallReady | ResponseFinished | PlaybackProgress, now: int
    ) -> list[Command]:
        response = self._responses.get(event.response_id)
        if response is None:
            if isinstance(event, PlaybackProgress):  # made and sent, but perhaps still playing
                self._heard.report(event.response_id, event.sent, event.played, now)
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
        item_id = response.message_id
        if response.plan.in_conversation and response.plan.output_audio and item_id is not None and item_id in self._history:
            self._heard.begin(response.id, item_id, response.spoken)
        if response.phase is Phase.DONE:
            self._forget(response)
            self._heard.settle(response.id, now)
        return commands

    def _forget(self, response: Response) -> None:
        """Its `response.done` is out. What sounds on is known to `_heard`."""
        del self._responses[response.id]
        if response is self._current:
            self._current = self._awaited = None

    def _cancel_requested(self, response_id: str | None, now: int) -> list[Command]:
        response = self._current if response_id is None else self._responses.get(response_id)
        if response is None:
            raise RefusedError("response_cancel_not_active", "Cancellation failed: no active response found")
        return self._cancel(response, "client_cancelled", now)

    def _cancel(self, response: Response, reason: str, now: int) -> list[Command]:
        """End a response that is being made or sent."""
        ordered = response is not self._current or self._awaited is None
        self._heard.stop(response.id, now)
        self._forget(response)
        return [*([Abort(response.id)] if ordered else []), Cut(response.id), *response.cancel(reason)]

    def _engine_failed(self, error: str, now: int) -> list[Command]:
        """Everything that waits for the engine ends, with a word about it."""
        commands = self._apply(self._turns.clear(self._turns.listened), now)
        responses = list(self._responses.values())
        if self._queued is not None:
            queued, self._queued = self._new_response(replace(self._queued, input=())), None
            self._responses[queued.id] = queued
            commands += queued.created()
            responses.append(queued)
        for response in responses:
            self._heard.stop(response.id, now, flushed=False)
            self._forget(response)
            commands += [Cut(response.id), *response.fail(error)]
        for item_id in list(self._untranscribed):
            commands += self._transcript_event(TranscriptFailed(item_id, error))
        return [*commands, ErrorRaised("engine_failed", error, kind="server_error")]

    # ------------------------------------------------------------------------------------------------------ items

    def _create_item(self, request: CreateItem) -> list[Command]:
        item = request.item if request.item.id else replace(request.item, id=self._ids.make("item"))
        previous = self._history.add(item, request.previous_item_id)
        return [ItemAdded(item, previous), ItemDone(item, previous)]

    def _delete(self, item_id: str) -> list[Command]:
        self._history.delete(item_id)
        self._heard.forget(item_id)
        self._untranscribed.pop(item_id, None)
        return [ItemDeleted(item_id), *self._go_on_without(item_id)]

    def _truncate(self, request: TruncateItem) -> list[Command]:
        self._history.find(request.item_id, "item_truncate_invalid_item_id")
        spoken = self._heard.spoken(request.item_id)
        if spoken is None or spoken.samples == 0:
            raise RefusedError("unsupported_content_type", "Only model output audio messages can be truncated", "item_id")
        longest = spoken.milliseconds(spoken.sent)
        if request.audio_end_ms > longest + _TRUNCATE_TOLERANCE_MS:
            message = f"Audio content of {longest}ms is already shorter than {request.audio_end_ms}ms"
            raise RefusedError("invalid_value", message, "audio_end_ms")
        self._heard.truncate(request.item_id, min(spoken.sent, request.audio_end_ms * spoken.rate // 1_000))
        return [ItemTruncated(request.item_id, request.content_index, request.audio_end_ms)]

    # ----------------------------------------------------------------------------------------------- idle timeout

    def _watch_idle(self, now: int) -> None:
        """The timer runs while the last word was ours and has been heard."""
        detection, last = self._settings.turn_detection, self._history.last
        timeout = detection.idle_timeout_ms if isinstance(detection, ServerVad) else None
        ours = isinstance(last, Message) and last.role == "assistant" and self._current is None
        waiting = ours and self._turns.floor is Floor.OPEN and not self._heard.audible(now)
        self._idle.watch(timeout, waiting=waiting, now=now)

    def _ask_still_there(self) -> list[Command]:
        """The caller has been silent for as long as the client allows: their silence becomes a turn, and is answered."""
        item_id, start, end = self._ids.make("item"), self._turns.committed, self._turns.listened
        self._turns.committed = end
        commands: list[Command] = [InputTimeoutTriggered(milliseconds(start), milliseconds(end), item_id), DiscardTurn(end)]
        commands += self._add_audio_item(item_id, "")
        if self._transcribes:
            commands.append(TranscriptionCompleted(item_id, "", (end - start) / SAMPLE_RATE))
        return [*commands, *self._start(CreateResponse(None), _STILL_THERE)]
