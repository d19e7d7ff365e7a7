"""Whatever happens, in whatever order: what is always true of what the conversation orders, and that a log replays to the same commands."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agent.commands import (
    ArgumentsDelta,
    ArgumentsDone,
    AskAgent,
    CallTool,
    Command,
    ContentPartAdded,
    ContentPartDone,
    Cut,
    Duck,
    EndCall,
    Hold,
    InputCommitted,
    InputSpeechStarted,
    InputSpeechStopped,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemTruncated,
    OpenPlayout,
    OutputAudioDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    Release,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    Resume,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
)
from agent.events import (
    AgentChanged,
    CancelResponse,
    ClearInput,
    CommitInput,
    CreateItem,
    DeleteItem,
    EndRequested,
    FactPinned,
    InterjectionWanted,
    ItemReference,
    LineRequested,
    PlaybackProgress,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    Tick,
    ToolReturned,
    TruncateItem,
    TurnDecided,
    WordsOffered,
)
from agent.items import FunctionCallOutput, ItemStatus
from agent.settings import Initiative, PlaybackOwner, SemanticVad, ServerTool, ServerVad, SessionKind, Transcription, TurnDetection
from streaming.events import (
    Abort,
    Adopt,
    CommitTurn,
    Drop,
    EndOfTurnScore,
    EngineFailed,
    EngineLost,
    FinishReason,
    Listened,
    OverlapKind,
    OverlapScore,
    ReplyRestarted,
    Respond,
    Say,
    SetHistory,
    Speculate,
    SpeechStopped,
    SpeechSuspected,
    StartTurn,
    ToolCallReady,
    ToolSpec,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    TranscriptProvisional,
)


class Rules:
    """Reads commands in their order and fails at the first that breaks a rule."""

    def __init__(self) -> None:
        self.begun: dict[str, bool] = {}  # responses, and whether they are in the conversation
        self.done: set[str] = set()
        self.cut: set[str] = set()
        self.ordered: set[str] = set()
        self.items: dict[str, str] = {}  # output items that are open, and whose they are
        self.parts: dict[str, str] = {}  # the text given of each open part
        self.known: set[str] = set()  # items of the conversation
        self.committed: set[str] = set()
        self.transcribed: set[str] = set()
        self.speaking: str | None = None
        self.turns_end = 0
        self.ids: Counter[str] = Counter()
        self.said: dict[str, str] = {}  # what was said aloud, by item
        self.prepared: str | None = None  # the speculation that is neither adopted nor dropped
        self.dropped: set[str] = set()
        self.tools_called: set[str] = set()
        self.ended = False

    def read(self, command: Command) -> None:
        match command:
            case ResponseCreated() | ResponseDone():
                self._response(command)
            case OutputItemAdded() | OutputItemDone() | ItemAdded() | ItemDone() | ItemDeleted() | ItemTruncated():
                self._item(command)
            case Release() | OpenPlayout() | Duck() | Hold() | Resume() | Cut():
                self._playout(command)
            case Abort() | Respond() | Say() | Speculate() | Adopt() | Drop() | CallTool() | EndCall():
                self._order(command)
            case InputSpeechStarted() | InputSpeechStopped() | InputCommitted() | CommitTurn() | StartTurn():
                self._turn(command)
            case TranscriptionDelta() | TranscriptionCompleted() | TranscriptionFailed():
                self._transcription(command)
            case SetHistory(messages):
                running = {item for item, response in self.items.items() if self.begun[response]}
                told = {message.item_id: message.text for message in messages if message.role == "assistant"}
                assert not running & told.keys()
                assert all(self.said[item].startswith(text) for item, text in told.items() if item in self.said), "it never said that"
            case _:
                self._part(command)

    def _response(self, command: ResponseCreated | ResponseDone) -> None:
        response = command.response
        if isinstance(command, ResponseCreated):
            assert response.id not in self.begun
            if response.conversation_id is not None:
                assert all(other in self.done for other, inside in self.begun.items() if inside), "two at once"
            self.begun[response.id] = response.conversation_id is not None
            return
        assert response.id in self.begun
        assert response.id not in self.done
        assert response.id not in self.items.values(), "an item is still open"
        assert all(item.status is not ItemStatus.IN_PROGRESS for item in response.output)
        assert response.status is not ResponseStatus.IN_PROGRESS
        self.done.add(response.id)

    def _item(self, command: Command) -> None:
        match command:
            case OutputItemAdded(response_id, _, item):
                assert self.begun.keys() - self.done >= {response_id}
                assert item.id not in self.items
                self.ids[item.id] += 1
                self.items[item.id] = response_id
            case OutputItemDone(response_id, _, item):
                assert self.items.pop(item.id) == response_id
                assert item.status is not ItemStatus.IN_PROGRESS
                assert item.id not in self.parts, "a part is still open"
            case ItemAdded(item, previous):
                assert item.id not in self.known
                assert previous is None or previous in self.known
                self.known.add(item.id)
            case ItemDone(item, previous):
                assert item.id in self.known
                assert previous is None or previous in self.known
            case ItemDeleted(item_id):
                self.known.remove(item_id)
            case ItemTruncated(item_id):
                assert item_id in self.known

    def _order(self, command: Command) -> None:
        match command:
            case Respond(response_id) | Say(response_id):
                assert response_id not in self.ordered | self.done | self.dropped
                assert response_id in self.begun
                self.ordered.add(response_id)
            case Speculate(response_id):
                assert self.prepared is None, "two speculations"
                assert response_id not in self.ordered | self.begun.keys() | self.dropped
                self.prepared = response_id
            case Adopt(response_id):
                assert response_id == self.prepared
                assert response_id in self.begun, "the client does not know of it"
                self.prepared = None
                self.ordered.add(response_id)
            case Drop(response_id):
                assert response_id == self.prepared
                assert response_id not in self.begun
                self.prepared = None
                self.dropped.add(response_id)
            case Abort(response_id):
                assert response_id in self.ordered
                assert response_id not in self.done
            case CallTool(call_id):
                assert call_id not in self.tools_called, "a tool was called twice"
                self.tools_called.add(call_id)
            case EndCall():
                assert not self.ended
                self.ended = True

    def _playout(self, command: Command) -> None:
        match command:
            case Cut(response_id):
                assert response_id not in self.cut
                self.cut.add(response_id)
            case OpenPlayout(part):
                assert part.response_id not in self.cut | self.done
            case Release(response_id):
                assert response_id not in self.cut | self.done
            case Duck(response_id) | Hold(response_id) | Resume(response_id):
                assert response_id not in self.cut

    def _turn(self, command: Command) -> None:
        match command:
            case InputSpeechStarted(_, item_id):
                assert self.speaking is None
                self.speaking = item_id
            case InputSpeechStopped(_, item_id):
                assert self.speaking == item_id
                self.speaking = None
            case InputCommitted(item_id, previous):
                assert item_id not in self.committed
                assert previous is None or previous in self.known
                self.committed.add(item_id)
            case CommitTurn(item_id, start, end, transcript):
                assert self.turns_end <= start <= end
                assert transcript is None or (transcript.strip() and self.prepared is not None)
                self.turns_end = end
            case StartTurn(_, start):
                assert self.turns_end <= start

    def _transcription(self, command: Command) -> None:
        item_id = command.item_id
        assert item_id not in self.transcribed
        assert item_id in self.committed or item_id == self.speaking, "not yet named to the client"
        if not isinstance(command, TranscriptionDelta):
            assert item_id in self.committed
            self.transcribed.add(item_id)

    def _part(self, command: Command) -> None:
        match command:
            case ContentPartAdded(part):
                assert part.item_id in self.items
                self.parts[part.item_id] = ""
            case OutputTextDelta(part, delta) | OutputTranscriptDelta(part, delta):
                assert delta
                self.parts[part.item_id] += delta
            case OutputTextDone(part, text) | OutputTranscriptDone(part, text):
                assert self.parts[part.item_id] == text
                if isinstance(command, OutputTranscriptDone):
                    self.said[part.item_id] = text
            case ContentPartDone(part, _, text):
                assert self.parts.pop(part.item_id) == text
            case OutputAudioDone(part) | ArgumentsDelta(part) | ArgumentsDone(part):
                assert self.items[part.item_id] == part.response_id


WEATHER = ToolSpec("get_weather", "", "{}")
BOOK = ServerTool(ToolSpec("book", "", "{}"), "desk", timeout_ms=2_000)
DETECTIONS: list[TurnDetection | None] = [
    None,
    ServerVad(),
    ServerVad(create_response=False),
    ServerVad(interrupt_response=False),
    ServerVad(silence_duration_ms=200, idle_timeout_ms=5_000),
    SemanticVad(),
]
INITIATIVES = (
    Initiative(),
    Initiative(greeting="Hello.", goodbye="Goodbye.", idle_prompts=("Are you there?",), idle_ms=2_000),
    Initiative(idle_prompts=("Are you there?",), idle_ms=2_000),
    Initiative(goodbye="Goodbye.", interjects=True),
)
HOSTILE_IDS = ("item_none", "", "root")

numbers = st.integers(0, 99)
windows = st.integers(0, 40).map(lambda count: count * 32)


def pick(values, number: int):
    """Some value of a sequence, the newest at 0; None of an empty one."""
    return values[-1 - number % len(values)] if values else None


class Core(RuleBasedStateMachine):
    """Everything that can be told to a conversation, at any time. Numbers choose: 0 is the newest response, item or turn; ids of long ago
    and of never are among the choices. What fails is printed as a script of these calls."""

    def __init__(self, begin: Callable[..., object]) -> None:
        super().__init__()
        self.begin = begin
        self.call = None
        self.rules = Rules()
        self.read = 0

    @initialize(
        initiative=st.sampled_from(INITIATIVES),
        kind=st.sampled_from((*[SessionKind.REALTIME] * 4, SessionKind.TRANSCRIPTION)),
        detection=st.sampled_from(DETECTIONS),
        playback=st.sampled_from(PlaybackOwner),
    )
    def open(self, initiative, kind, detection, playback) -> None:
        tools = {"tools": (WEATHER,), "server_tools": (BOOK,), "agent": "desk", "initiative": initiative}
        self.call = self.begin(kind=kind, turn_detection=detection, playback=playback, transcription=True, **tools)

    # -- the caller

    @rule(milliseconds=windows)
    def speak(self, milliseconds: int) -> None:
        self.call.speak(milliseconds)

    @rule(milliseconds=windows)
    def hush(self, milliseconds: int) -> None:
        self.call.hush(milliseconds)

    @rule(milliseconds=windows)
    def listen(self, milliseconds: int) -> None:
        self.call.listen(milliseconds)

    @rule(kind=st.sampled_from(OverlapKind), probability=st.sampled_from((0.2, 0.6, 0.95)))
    def overlap(self, kind, probability) -> None:
        self.call.tell(OverlapScore(self.call.heard, kind, probability))

    @rule(probability=st.sampled_from((0.1, 0.5, 0.98)))
    def score(self, probability) -> None:
        self.call.tell(EndOfTurnScore(self.call.heard, probability))

    @rule()
    def suspect(self) -> None:
        self.call.tell(SpeechSuspected(self.call.heard))

    # -- several steps that seldom come together by chance

    @rule(milliseconds=windows)
    def tell_a_story(self, milliseconds: int) -> None:
        """A question, and the beginning of a long answer."""
        self.call.speak(640)
        self.call.hush(640)
        self.call.tell(TranscriptDone(self.turn(0), "Tell me a story.", 0.9, "en"))
        self.call.create_response()
        self.say(0, "One two three four five six seven eight nine ten ")
        self.call.listen(milliseconds)

    @rule(milliseconds=windows)
    def interrupt(self, milliseconds: int) -> None:
        self.tell_a_story(320)
        self.call.speak(320 + milliseconds)

    @rule(milliseconds=windows, made=st.booleans(), goes_on=st.booleans())
    def prepare(self, milliseconds: int, made: bool, goes_on: bool) -> None:
        """A pause, its words and the reply to them; some more of the pause, and perhaps of the turn."""
        self.call.speak(320)
        self.call.hush(96)
        self.suppose("So far, so good.", 0)
        if made:
            self.say(0, "Fine. ")
        self.call.listen(milliseconds)
        if goes_on:
            self.call.speak(96)

    # -- the client

    @rule(back=st.sampled_from((0, 0, 1_600, 100_000)))
    def commit(self, back: int) -> None:
        self.call.tell(CommitInput("commit", max(0, self.call.heard - back)))

    @rule()
    def clear(self) -> None:
        self.call.tell(ClearInput("clear", self.call.heard))

    @rule(number=numbers, item_id=st.sampled_from(("", "", "mine")))
    def write(self, number: int, item_id: str) -> None:
        self.call.write_item("Hello.", item_id, previous=(None, None, "root", "item_none", self.item(number))[number % 5])

    @rule(number=numbers)
    def answer_call(self, number: int) -> None:
        done = pick(self.call.ordered(ArgumentsDone), number)
        self.call.tell(CreateItem("answer", FunctionCallOutput("", done.call_id if done else "call_none", "Rain"), None))

    @rule(number=numbers, what=st.sampled_from((DeleteItem, RetrieveItem)))
    def touch(self, what, number: int) -> None:
        self.call.tell(what("touch", self.item(number)))

    @rule(number=numbers, milliseconds=st.integers(0, 3_000))
    def truncate(self, number: int, milliseconds: int) -> None:
        said = pick(self.call.ordered(OutputItemAdded), number // 2)
        self.call.tell(TruncateItem("truncate", said.item.id if said and number % 2 == 0 else self.item(number), 0, milliseconds))

    @rule(aside=st.booleans(), audio=st.booleans(), number=numbers)
    def ask(self, aside: bool, audio: bool, number: int) -> None:
        context = (None, None, (), (ItemReference(self.item(number)),))[number % 4]
        self.call.create_response(in_conversation=not aside, output_audio=audio, input=context, interruptible=number % 5 > 0)

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        self.call.tell(CancelResponse("cancel", (None, "resp_none", self.response(number))[number % 3]))

    @rule(detection=st.sampled_from(DETECTIONS), playback=st.sampled_from(PlaybackOwner), number=numbers)
    def update(self, detection, playback, number: int) -> None:
        asked = (None, Transcription())[number % 2]
        voice = ("joe", "amy")[number % 7 == 0]
        self.call.update(turn_detection=detection, playback=playback, transcription=asked, output_audio=number % 5 > 0, voice=voice)

    @rule(number=numbers, milliseconds=st.integers(0, 3_000))
    def acknowledge(self, number: int, milliseconds: int) -> None:
        self.call.tell(PlaybackReported(None, self.response(number) or "resp_none", milliseconds))

    @rule()
    def refuse(self) -> None:
        self.call.tell(RefuseRequest("bad", "invalid_value", "It is bad."))

    # -- the engine

    @rule(number=numbers, words=st.sampled_from(("One two three ", "four five.", " six", "seven? ")))
    def say(self, number: int, words: str) -> None:
        if response_id := self.response(number):
            self.call.say(words, response_id)

    @rule(number=numbers)
    def decode(self, number: int) -> None:
        self.call.text(" words", self.response(number) or "resp_none")

    @rule(number=numbers, name=st.sampled_from(("get_weather", "book", "none")))
    def call_tool(self, number: int, name: str) -> None:
        self.call.tell(ToolCallReady(self.response(number // 3) or "resp_none", number % 3, name, "{}"))

    @rule(number=numbers, reason=st.sampled_from((FinishReason.STOP, *FinishReason)))
    def finish(self, number: int, reason) -> None:
        self.call.finish(reason, "it failed" if reason is FinishReason.ERROR else None, self.response(number) or "resp_none")

    @rule(number=numbers)
    def restart(self, number: int) -> None:
        """As the engine does: what has sound is not made again, and of a reply in text nothing is."""
        order = pick(self.call.ordered((Respond, Say)), number)
        if order is not None and order.options.audio:
            self.call.tell(ReplyRestarted(order.response_id, self.call._made.get(order.response_id, (0, 0))[0]))

    @rule(number=numbers, words=st.sampled_from(("", "some words")))
    def transcribe(self, number: int, words: str) -> None:
        item_id = self.turn(number // 4)
        event = (TranscriptDelta(item_id, " more", 0.9, "en"), TranscriptFailed(item_id, "broken"))[number % 2]
        self.call.tell(event if number % 4 < 2 else TranscriptDone(item_id, words, 0.9, "en"))

    @rule(words=st.sampled_from(("So far.", "So far, so good.", "")), number=numbers)
    def suppose(self, words: str, number: int) -> None:
        paused = [event.at for _, event in self.call.log if isinstance(event, SpeechStopped)]
        if paused:
            self.call.tell(TranscriptProvisional(self.turn(0), pick(paused, number % 3 // 2), words, 0.9))

    @rule()
    def lose_engine(self) -> None:
        self.call.tell(EngineLost("gone"))

    @rule(number=numbers)
    def fail_engine(self, number: int) -> None:
        if number % 10 == 0:
            self.call.tell(EngineFailed("exited with -9"))

    # -- the agent's code

    @rule(number=numbers, failed=st.booleans(), words=st.sampled_from(("", "It is booked.")))
    def tool_returned(self, number: int, failed: bool, words: str) -> None:
        ordered = pick(self.call.ordered(CallTool), number)
        self.call.tell(ToolReturned(ordered.call_id if ordered else "call_none", "{}", "broken" if failed else None, words))

    @rule(
        event=st.sampled_from((WordsOffered("By the way."), InterjectionWanted(""), FactPinned("Gold."), LineRequested("r", "dtmf", "1")))
    )
    def direct(self, event) -> None:
        self.call.tell(event)

    @rule(number=numbers)
    def decide(self, number: int) -> None:
        self.call.tell(TurnDecided(self.turn(number // 3), *(("", ""), ("Hello.", ""), ("", "book"))[number % 3]))

    @rule(asks=st.booleans())
    def hand_over(self, asks: bool) -> None:
        self.call.tell(AgentChanged(replace(self.call.conversation.settings, agent="other", asks_agent=asks)))

    @rule(number=numbers)
    def hang_up(self, number: int) -> None:
        if number % 10 == 0:
            self.call.tell(EndRequested("booked"))

    # -- playout and time

    @rule(sends=st.booleans(), milliseconds=st.integers(0, 1_000))
    def send(self, sends: bool, milliseconds: int) -> None:
        self.call.sends = sends
        self.call.send(milliseconds)

    @rule(milliseconds=st.integers(0, 3_000))
    def wait(self, milliseconds: int) -> None:
        self.call.wait(milliseconds)

    @rule(number=numbers)
    def progress(self, number: int) -> None:
        """Of a response that is over, or never was, or that has not been sent."""
        self.call._tell(PlaybackProgress(self.response(number) or "resp_none", 0, 0))

    # -- what is chosen from

    def item(self, number: int) -> str:
        known = [*HOSTILE_IDS, *(added.item.id for added in self.call.ordered(ItemAdded))]
        return pick(known, number)

    def response(self, number: int) -> str | None:
        order = pick(self.call.ordered((Respond, Say, Speculate, ResponseCreated)), number)
        return None if order is None else order.response.id if isinstance(order, ResponseCreated) else order.response_id

    def turn(self, number: int) -> str:
        turn = pick(self.call.ordered((StartTurn, CommitTurn)), number)
        return "item_none" if turn is None else turn.item_id

    # -- what is always true

    @invariant()
    def always(self) -> None:
        if self.call is None:
            return
        while self.read < len(self.call.commands):
            self.rules.read(self.call.commands[self.read])
            self.read += 1
        deadline = self.call.conversation.deadline()
        if deadline is not None and deadline <= self.call.now:
            self.call.tell(Tick())
            assert (self.call.conversation.deadline() or self.call.now + 1) > self.call.now, "a deadline that is not met"

    def teardown(self) -> None:
        if self.call is None:
            return
        wind_up(self.call)
        self.always()
        assert self.rules.begun.keys() == self.rules.done, "a response without its response.done"
        assert not self.rules.items
        assert not self.rules.parts
        assert all(count == 1 for count in self.rules.ids.values())


def wind_up(call) -> None:
    """Let everything that has begun come to its end."""
    call.sends = True
    for _ in range(20):
        before = len(call.commands)
        running = {c.response.id for c in call.ordered(ResponseCreated)} - {c.response.id for c in call.ordered(ResponseDone)}
        for turn in call.ordered(CommitTurn):
            call.tell(TranscriptDone(turn.item_id, "Some words.", 0.9, "en"))
        for asked in call.ordered(AskAgent):
            call.tell(TurnDecided(asked.item_id))
        for order in call.ordered((Respond, Say, Adopt)):
            if order.response_id in running:
                call.finish(response_id=order.response_id)
        for ordered in call.ordered(CallTool):
            call.tell(ToolReturned(ordered.call_id, "{}"))
        call.tell(Listened(call.heard))
        call.send()
        if len(call.commands) == before:
            return


def test_always(call) -> None:
    run_state_machine_as_test(lambda: Core(call), settings=settings(deadline=None, max_examples=settings.default.max_examples))


def test_the_rules_notice(call) -> None:
    """The rules themselves: a conversation that says its response.done twice breaks one."""
    session = call()
    session.create_response()
    session.answer("Hello.")
    rules = Rules()
    for command in session.commands:
        rules.read(command)
    with pytest.raises(AssertionError):
        rules.read(session.last(ResponseDone))
