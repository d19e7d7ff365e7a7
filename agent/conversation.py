"""The conversation: one gate. Every event goes in by `handle`, with the time it happened, and what it orders comes out.

Nothing here awaits, reads a clock or draws a random number, so a session's log of `(now, event)` replayed gives the same commands. This
module joins turns (`agent.turns`), transcripts (`agent.transcripts`), responses (`agent.responses`), items (`agent.history`) and what of
them was heard (`agent.heard`).
"""

from dataclasses import replace
from typing import Final

from agent.belief import Belief
from agent.commands import (
    Command,
    ErrorRaised,
    InputCleared,
    InputCommitted,
    InputSoundStarted,
    InputSoundStopped,
    InputSpeechStarted,
    InputTimeoutTriggered,
    ItemAdded,
    ItemDone,
    SessionCreated,
    SessionUpdated,
)
from agent.events import (
    AgentChanged,
    AgentEvent,
    CancelResponse,
    ClearInput,
    ClearOutput,
    CommitInput,
    CreateItem,
    CreateResponse,
    DeleteItem,
    EndRequested,
    Event,
    FactPinned,
    InterjectionWanted,
    LineRequested,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    SessionOpened,
    Tick,
    ToolReturned,
    TruncateItem,
    TurnDecided,
    UpdateSession,
    WordsOffered,
)
from agent.heard import HeardReplies
from agent.history import History, RefusedError
from agent.ids import IdMaker
from agent.initiative import Initiator, Prompt
from agent.item_requests import ItemRequests
from agent.items import ContentPart, Item, Message, PartKind
from agent.memory import Memory
from agent.offers import Offers
from agent.output_buffer import OutputBuffer
from agent.prompt import is_nobodys, is_owed
from agent.responses import ResponseEvent, Responses
from agent.scene import Softener, scene_at
from agent.settings import SemanticVad, ServerVad, SessionKind, SessionSettings
from agent.sounds import SoundDiary, note_of
from agent.speculation import Speculation, Speculator
from agent.state import IllegalEventError, State, StateMachine
from agent.style import SpokenWatch
from agent.tools import ToolCalls
from agent.transcripts import Transcripts
from agent.turns import Floor, Interrupted, Outcome, TurnEnded, TurnTaker, milliseconds
from streaming.events import (
    SAMPLE_RATE,
    Adopt,
    AudioReady,
    CommitTurn,
    ConfigureEar,
    DiscardTurn,
    EndOfTurnScore,
    EngineFailed,
    EngineLost,
    Listened,
    OverlapScore,
    ResponseFinished,
    SoundStarted,
    SoundStopped,
    SpeechStarted,
    SpeechStopped,
    SpeechSuspected,
    StartTurn,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    TranscriptProvisional,
)

__all__ = ["Conversation"]

_LEAST_COMMIT: Final = SAMPLE_RATE // 10
"""A commit needs 100 ms of sound (protocols.md 1.2)."""


_NOBODY_THERE: Final = "the caller is silent"
"""Why a call is ended after the last prompt."""


class Conversation:
    """One session's conversation. `seed` keys its ids."""

    def __init__(self, session_id: str, seed: int) -> None:
        self._session_id = session_id
        self._ids = IdMaker(f"{session_id}/{seed}")
        self._settings = SessionSettings()
        self._machine = StateMachine()
        self._history = History()
        self._heard = HeardReplies()
        self._turns = TurnTaker(self._settings.turn_detection, self._ids.make)
        self._transcripts = Transcripts(self._history, self._turns)
        conversation_id = self._ids.make("conv")
        self._tools = ToolCalls(self._history, self._ids.make)
        self._offers = Offers()
        memory = Memory(self._history, self._heard)
        self._responses = Responses(conversation_id, self._history, self._heard, self._transcripts, self._tools, memory, self._ids.make)
        self._initiator = Initiator(self._history)
        self._softener = Softener(self._heard)
        self._items = ItemRequests(self._history, self._heard, self._turns, self._transcripts, self._responses, self._tools, self._ids.make)
        self._belief = Belief(self._history, self._heard, self._responses, memory)
        self._output = OutputBuffer(self._heard, self._responses)
        self._prepared = Speculator(self._turns, self._responses)
        self._sounds = SoundDiary()
        self._spoken = SpokenWatch()
        # Whether the client has sent a `session.update`, which fixes the session's kind.
        self._updated = False

    @property
    def settings(self) -> SessionSettings:
        """The settings in force."""
        return self._settings

    @property
    def items(self) -> tuple[Item, ...]:
        """What was said, called and answered, as far as it was heard."""
        return tuple(self._heard.as_heard(item) for item in self._history.items)

    @property
    def state(self) -> State:
        """What the conversation is doing."""
        return self._machine.state

    def deadline(self) -> int | None:
        """The session time at which it wants a `Tick`; None for never."""
        quiet = self._turns.floor is Floor.OPEN and self._responses.current is None
        times = (self._initiator.deadline(self._settings, quiet=quiet), self._tools.deadline())
        return min((time for time in times if time is not None), default=None)

    def handle(self, event: Event, now: int) -> list[Command]:
        """Take an event that happened at session time `now` (1/16000 s); returns what to do, in order. Raises IllegalEventError for one
        that can't happen: before the session is opened, or one that nobody knows."""
        commands = self._take(event, now)
        for told in self._prepared.release():
            commands += self._take(told, now)
        return commands

    def _take(self, event: Event, now: int) -> list[Command]:
        if isinstance(event, SessionOpened) is not (self.state is State.CLOSED):
            raise IllegalEventError(event, self.state)
        try:
            commands = self._dispatch(event, now)
        except RefusedError as refused:
            commands = [ErrorRaised(refused.code, refused.message, refused.param, getattr(event, "event_id", None))]
        commands += self._go_on(now)
        commands += self._items.trim()
        state = self._observe(now)
        commands = self._output.follow(event, commands, self._settings.playback, now)
        commands = [
            *self._prepared.drop_stale(self._basis()),
            *self._belief.put_into(commands, self._settings, calm=state is State.LISTENING),
            *self._softener.follow(self._turns, self._settings.playback, now),
        ]
        self._machine.move(state)
        calm = self.state is State.LISTENING and self._offers.ending is None
        self._initiator.watch(self._settings, waiting=calm and not self._tools.waiting, now=now)
        ours = self._settings.initiative
        filler_ms = ours.filler_ms if ours.filler and self._settings.output_audio else None
        self._tools.watch(filler_ms, quiet=calm, now=now)
        return commands

    def _go_on(self, now: int) -> list[Command]:
        """What waits until nobody speaks, or until all that was said has been played, if that is now."""
        ending = self._offers.ending is not None
        commands: list[Command] = [] if ending else self._responses.start_queued(self._settings)
        # Without turn detection the floor stays the caller's until the client commits, which it may never do.
        if self._turns.floor is Floor.OPEN or (ending and self._settings.turn_detection is None):
            if not ending:
                commands += self._responses.answer_tools(self._settings)
            if self._responses.current is None and (greeting := self._greeting(now)):
                commands += self._responses.say(greeting, self._settings)
            if self._responses.current is None and (words := self._offers.take_words()) is not None:
                commands += self._responses.say(words, self._settings, interruptible=not ending)
        silent = self._responses.current is None and not self._heard.audible(now)
        if self._initiator.take_parting(caller_speaks=self._turns.floor is Floor.CALLER, silent=silent):
            self._offers.end(_NOBODY_THERE, "")
        return [*commands, *(self._offers.take_lines() if silent else [])]

    def _greeting(self, now: int) -> str:
        return self._initiator.take_greeting(self._settings, now, quiet=self._offers.ending is None)

    def _observe(self, now: int) -> State:
        match self._turns.floor:
            case Floor.CALLER:
                return State.CALLER_SPEAKING
            case Floor.OVERLAP:
                return State.OVERLAP
            case Floor.OPEN if self._heard.audible(now):
                return State.SPEAKING
            case Floor.OPEN:
                return State.LISTENING if self._responses.current is None else State.THINKING

    def _dispatch(self, event: Event, now: int) -> list[Command]:
        match event:
            case Listened(at):
                self._responses.deaf = False
                return [*self._apply(self._turns.listened_to(at, audible=bool(self._heard.audible(now))), now), *self._interject(now)]
            case SpeechSuspected(at):
                return self._apply(self._turns.suspected(at), now)
            case SpeechStarted(at):
                self._transcripts.goes_on()
                self._spoken.started(at)
                scene = scene_at(at, self._turns, self._history, self._heard, self._settings.playback, now)
                return self._apply(self._turns.speech_started(at, scene), now)
            case SpeechStopped(at):
                self._spoken.stopped(at)
                return self._apply(self._turns.speech_stopped(at), now)
            case EndOfTurnScore(at, probability):
                return self._apply(self._turns.scored(at, probability), now)
            case SoundStarted() | SoundStopped():
                return self._sound(event)
            case OverlapScore():
                return self._apply(self._turns.overlap_scored(event), now)
            case TextDelta() | AudioReady() | ToolArgumentsDelta() | ToolCallReady() | ResponseFinished() if self._prepared.withhold(event):
                return []
            case _ if isinstance(event, ResponseEvent):
                return self._responses.handle(event, now)
            case TranscriptProvisional():
                return self._hear_out(event)
            case TranscriptDelta():
                return self._transcripts.settle(event)
            case TranscriptDone(item_id) | TranscriptFailed(item_id):
                told = self._transcripts.finish(event)
                if isinstance(event, TranscriptDone) and is_nobodys(event.text, event.speech):
                    return [*told, *self._responses.leave(item_id, now)]
                return [*told, *self._responses.go_on_without(item_id)]
            case EngineLost():
                return [*self._prepared.drop(), *self._responses.go_on_unheard()]
            case EngineFailed(error):
                return self._engine_failed(error, now)
            case Tick():
                return self._tick(now)
            case SessionOpened(settings):
                self._initiator.opened(settings, now)
                return self._adopt_settings(settings, SessionCreated(self._session_id, settings), now)
            case _ if isinstance(event, AgentEvent):
                return self._directed(event, now)
            case _:
                return self._request(event, now)

    def _directed(self, event: AgentEvent, now: int) -> list[Command]:
        """The agent's code has done something."""
        match event:
            case ToolReturned():
                return self._tools.returned(event)
            case TurnDecided():
                return self._responses.decided(event, self._settings, now, ending=self._offers.ending is not None)
            case WordsOffered() | LineRequested():
                self._offers.add(event)
                return []
            case InterjectionWanted(text):
                if self._settings.initiative.interjects and self._turns.floor is Floor.CALLER:
                    self._initiator.want_turn(text)
                else:
                    self._offers.add(WordsOffered(text))
                return []
            case EndRequested(reason):
                self._offers.end(reason, self._settings.initiative.goodbye)
                return []
            case AgentChanged(settings):
                merged = self._settings.handed_to(settings)
                return self._adopt_settings(merged, SessionUpdated(self._session_id, merged), now)
            case FactPinned(text):
                self._settings = self._settings.knowing(text)
                return []

    def _tick(self, now: int) -> list[Command]:
        commands = self._tools.expire(now)
        if self._tools.take_filler(now):
            commands += self._responses.say(self._settings.initiative.filler, self._settings)
        elif (prompt := self._initiator.take_prompt(self._settings, now)) is not None:
            commands += self._prompt(prompt)
        return commands

    def _request(self, event: Event, now: int) -> list[Command]:
        """A client's request."""
        match event:
            case UpdateSession(_, settings):
                return self._update(settings, now)
            case CommitInput(_, at):
                return self._commit(at, now)
            case ClearInput(_, at):
                return [*self._apply(self._turns.clear(at), now), InputCleared()]
            case ClearOutput():
                return self._responses.clear_output(now)
            case CreateItem() | RetrieveItem() | TruncateItem() | DeleteItem():
                return self._items.handle(event, now)
            case CreateResponse():
                if self._offers.ending is not None:
                    raise RefusedError("invalid_event", "The call is ending.")
                return self._responses.create(event, self._settings)
            case CancelResponse(_, response_id):
                return self._responses.cancel(response_id, now)
            case RefuseRequest(event_id, code, message, param):
                return [ErrorRaised(code, message, param, event_id)]
            case PlaybackReported(_, response_id, played_ms):
                # Playout counts what it still plays, and says so by PlaybackProgress; here counts what has been cut since.
                self._heard.acknowledge(response_id, played_ms)
                return []
            case _:
                raise IllegalEventError(event, self.state)

    def _engine_failed(self, error: str, now: int) -> list[Command]:
        """Everything that waits for the engine ends, with a word about it."""
        commands = self._apply(self._turns.clear(self._turns.listened), now)
        commands += [*self._responses.fail(error, self._settings, now), *self._transcripts.fail(error)]
        return [*commands, ErrorRaised("engine_failed", error, kind="server_error")]

    # ---------------------------------------------------------------------------------------------------- session

    def _update(self, settings: SessionSettings, now: int) -> list[Command]:
        if self._responses.spoke and settings.voice != self._settings.voice:
            message = "The voice can't be changed once the assistant has spoken."
            raise RefusedError("cannot_update_voice", message, "session.audio.output.voice")
        if self._updated and settings.kind is not self._settings.kind:
            raise RefusedError("invalid_value", "The type of a session can't be changed.", "session.type")
        ours = {tool.spec.name for tool in settings.server_tools}
        if (taken := next((tool.name for tool in settings.tools if tool.name in ours), None)) is not None:
            raise RefusedError("invalid_value", f"The server has a tool of the name '{taken}'.", "session.tools")
        self._updated = True
        self._initiator.updated(now)
        return self._adopt_settings(settings, SessionUpdated(self._session_id, settings), now)

    def _adopt_settings(self, settings: SessionSettings, notice: Command, now: int) -> list[Command]:
        before, self._settings = self._settings, settings
        known = before.server_tools if before.shows_tools else ()
        self._history.shows_tools = settings.shows_tools
        return [notice, *self._configure(now), *self._tools.listed(settings.server_tools, known)]

    def _configure(self, now: int) -> list[Command]:
        detection, transcription = self._settings.turn_detection, self._settings.transcription
        self._turns.announced = self._settings.kind is SessionKind.REALTIME
        self._transcripts.wants_sounds = self._settings.wants_sounds
        self._transcripts.wanted = transcription is not None or self._settings.kind is SessionKind.TRANSCRIPTION
        self._turns.least_ms = self._settings.min_interruption_ms
        turns = self._apply(self._turns.configure(detection), now)
        threshold = detection.threshold if isinstance(detection, ServerVad) else 0.5
        language = transcription.language if transcription else None
        return [ConfigureEar(threshold, isinstance(detection, SemanticVad), language), *turns]

    # ------------------------------------------------------------------------------------------------------ turns

    def _apply(self, outcome: Outcome, now: int) -> list[Command]:
        commands: list[Command] = []
        for step in outcome:
            match step:
                case Interrupted():
                    commands += self._responses.interrupt(self._settings, now)
                case TurnEnded():
                    commands += self._end_turn(step)
                case InputSpeechStarted(_, item_id):
                    commands += [step, *self._transcripts.turn_named(item_id)]
                case StartTurn() | DiscardTurn():
                    commands.append(step)
                    if isinstance(step, StartTurn):
                        self._initiator.turn_started(step.start)
                    self._transcripts.turn_changed()
                case _:
                    commands.append(step)
        return commands

    def _end_turn(self, turn: TurnEnded) -> list[Command]:
        """The caller's turn becomes an item, or nothing where it was nobody's. It is answered if it was detected and the session says so:
        now, or after a reply that is not to be interrupted."""
        self._offers.add(WordsOffered(self._initiator.turn_ended()))
        if turn.detected and self._transcripts.is_nobodys(turn.item_id):
            return self._forget_turn(turn)
        speculation = self._prepared.take(turn, self._basis())
        words = None if speculation is None else speculation.words.text
        commands = [CommitTurn(turn.item_id, turn.start, turn.end, words), *self._add_audio_item(turn.item_id, None)]
        commands += self._transcripts.turn_named(turn.item_id)
        self._transcripts.expect(turn.item_id, (turn.end - turn.start) / SAMPLE_RATE, self._spoken.take(turn.start, turn.end))
        if speculation is not None:
            return [*commands, *self._adopt(speculation)]
        if not turn.detected or not self._settings.answers_turns or self._offers.ending is not None:
            return commands
        return [*commands, *self._responses.answer(self._settings)]

    def _forget_turn(self, turn: TurnEnded) -> list[Command]:
        """Nobody spoke. Where it stopped the reply to words of the caller's they get another."""
        self._transcripts.turn_changed()
        owed = self._settings.answers_turns and self._offers.ending is None and is_owed(self._history.items, self._heard.cut)
        return [DiscardTurn(turn.end), *(self._responses.answer(self._settings) if owed else [])]

    def _interject(self, now: int) -> list[Command]:
        """Take the turn from a caller who does not yield it, at a breath: what they have said is committed, and answered."""
        if not self._settings.answers_turns or self._offers.ending is not None:
            return []
        words = self._initiator.take_interjection(self._settings.initiative, self._turns.paused_at, self._turns.listened)
        if words is None:
            return []
        self._offers.add(WordsOffered(words))
        outcome = self._turns.commit(self._turns.listened)
        return self._apply([replace(step, detected=not words) if isinstance(step, TurnEnded) else step for step in outcome], now)

    def _sound(self, event: SoundStarted | SoundStopped) -> list[Command]:
        """A sound that is not speech began, or is over."""
        match event:
            case SoundStarted(at, kind, probability):
                news, notice = self._sounds.started(event), InputSoundStarted(kind, milliseconds(at), probability)
                return [notice] if news and self._settings.wants_sounds else []
            case SoundStopped(at, kind):
                stopped = InputSoundStopped(kind, milliseconds(at))
                return [stopped] if self._sounds.stopped(event) and self._settings.wants_sounds else []

    def _hear_out(self, words: TranscriptProvisional) -> list[Command]:
        """What the turn says if it ends in this pause: the reply to that is prepared."""
        self._turns.worded(words.at, words.text)
        self._transcripts.foresee(words)
        if self._offers.ending is not None:
            return []
        return self._prepared.hear_out(words, self._note(), self._settings, self._basis())

    def _basis(self) -> tuple[object, ...]:
        """What a reply is made from besides the words."""
        return (self._settings, self._history.version, self._heard.version, self._responses.current, self._offers.ending, self._note())

    def _note(self) -> str:
        """What the language model is told of the sounds heard since the last turn."""
        return note_of(self._sounds.heard) if self._settings.tells_sounds else ""

    def _adopt(self, speculation: Speculation) -> list[Command]:
        """The turn has ended with the words that were expected: what was prepared is the reply. The client is told in the order in which it
        is told of any other."""
        words = speculation.words
        begun = self._responses.adopt(speculation.response_id, self._settings)
        told = self._transcripts.finish(TranscriptDone(words.item_id, words.text, words.confidence, "", words.speech))
        return [*begun, *told, Adopt(speculation.response_id)]

    def _add_audio_item(self, item_id: str, transcript: str | None) -> list[Command]:
        content = (ContentPart(PartKind.INPUT_AUDIO, transcript),)
        note = self._note()
        item = Message(item_id, "user", content, sounds=self._sounds.take(), note=note)
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

    # ----------------------------------------------------------------------------------------------------- silence

    def _prompt(self, prompt: Prompt) -> list[Command]:
        """The caller has been silent for too long. Where the client wants it their silence becomes a turn, and is answered."""
        if not prompt.becomes_turn:
            return self._responses.say(prompt.words, self._settings)
        item_id, start, end = self._ids.make("item"), self._turns.committed, self._turns.listened
        self._turns.committed = end
        commands: list[Command] = [InputTimeoutTriggered(milliseconds(start), milliseconds(end), item_id), DiscardTurn(end)]
        commands += self._add_audio_item(item_id, "")
        self._transcripts.expect(item_id, (end - start) / SAMPLE_RATE, self._spoken.take(start, end))
        commands += self._transcripts.finish(TranscriptDone(item_id, "", 1.0, ""))
        return [*commands, *self._responses.say(prompt.words, self._settings)]
