"""A dialogue as a script: who says what when, and what the conversation orders. Its checker holds what is always true of any script."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from agent.commands import (
    ArgumentsDelta,
    ArgumentsDone,
    Command,
    ContentPartAdded,
    ContentPartDone,
    Cut,
    ErrorRaised,
    InputCommitted,
    InputSpeechStarted,
    InputSpeechStopped,
    ItemAdded,
    ItemDone,
    Notify,
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
    ResponseSnapshot,
    TranscriptionCompleted,
    TranscriptionFailed,
)
from agent.conversation import Conversation
from agent.events import CancelResponse, CommitInput, CreateItem, CreateResponse, Event, PlaybackProgress, SessionOpened, TruncateItem
from agent.items import ContentPart, Message, PartKind
from agent.settings import ServerVad, SessionSettings, Transcription
from agent.state import State
from streaming.events import (
    Adopt,
    AudioReady,
    CommitTurn,
    Drop,
    FinishReason,
    Listened,
    OverlapKind,
    OverlapScore,
    Respond,
    ResponseFinished,
    Say,
    SetHistory,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    TranscriptDone,
    TranscriptProvisional,
    Usage,
    WordMark,
)

MS = 16
"""Ticks and input samples of a millisecond."""
WORD = 4_800
"""Samples of a spoken word: 200 ms at 24 kHz."""
WINDOW = 512


class Dialogue:
    """Plays a script against a conversation. Input position and session time run together, in milliseconds."""

    def __init__(self, settings: SessionSettings | None = None) -> None:
        self.conversation = Conversation("sess_1", 7)
        self.log: list[tuple[int, Event]] = []
        self.commands: list[Command] = []
        self.recorded: list[tuple[int, Event, list[Command]]] = []
        self.now = 0
        self._mark = 0
        # What the Ear believes of speech over ours once it has heard 256 ms of it; None for nothing.
        self.overlap: OverlapKind | None = OverlapKind.SPEECH
        self._onset: int | None = None
        self.tell(SessionOpened(settings or SessionSettings(transcription=Transcription())))

    # -- who says what

    def tell(self, event: Event) -> list[Command]:
        self.log.append((self.now, event))
        commands = self.conversation.handle(event, self.now)
        self.commands += commands
        self.recorded.append((self.now, event, [*commands]))
        match event:
            case SpeechStarted(at):
                self._onset = at
            case SpeechStopped():
                self._onset = None
            case Listened(at) if self._onset is not None and at - self._onset >= 256 * MS:
                self._onset = None
                if self.conversation.state is State.OVERLAP and self.overlap is not None:
                    commands += self.tell(OverlapScore(at, self.overlap, 0.95))
        return commands

    def wait(self, milliseconds: int, *, listening: bool = True) -> list[Command]:
        """Time passes; the Ear hears it."""
        commands, end = [], self.now + milliseconds * MS
        while self.now < end:
            self.now = min(end, self.now + WINDOW)
            if listening:
                commands += self.tell(Listened(self.now))
        return commands

    def speech(self, milliseconds: int) -> list[Command]:
        """The caller speaks, then pauses; the pause is noticed 100 ms later."""
        onset = self.now
        commands = self.wait(64) + self.tell(SpeechStarted(onset, 0.9)) + self.wait(milliseconds - 64)
        stop = self.now
        return commands + self.wait(100) + self.tell(SpeechStopped(stop, 0.1))

    def turn(self, text: str | None = "What is a tortoise?", milliseconds: int = 800, silence: int = 500) -> list[Command]:
        """A whole turn of the caller, with its transcript unless None."""
        commands = self.speech(milliseconds) + self.wait(silence)
        return commands + (self.transcript(text) if text is not None else [])

    def transcript(self, text: str) -> list[Command]:
        return self.tell(TranscriptDone(self.last(CommitTurn).item_id, text, 0.9, "en"))

    def provisional(self, text: str = "What is a tortoise?") -> list[Command]:
        """The words of the open turn, if it ends in the newest pause."""
        at = next(event.at for _, event in reversed(self.log) if isinstance(event, SpeechStopped))
        return self.tell(TranscriptProvisional(self.last(StartTurn).item_id, at, text, 0.9))

    def write(self, text: str, item_id: str = "") -> list[Command]:
        message = Message(item_id, "user", (ContentPart(PartKind.INPUT_TEXT, text),))
        return self.tell(CreateItem("client_1", message, None))

    def ask(self, **fields: object) -> list[Command]:
        return self.tell(replace(CreateResponse("client_2"), **fields))

    def cancel(self, response_id: str | None = None) -> list[Command]:
        return self.tell(CancelResponse("client_3", response_id))

    def truncate(self, item_id: str, milliseconds: int) -> list[Command]:
        return self.tell(TruncateItem("client_4", item_id, 0, milliseconds))

    def commit(self) -> list[Command]:
        return self.tell(CommitInput("client_5", self.now))

    # -- what the engine and playout do

    def decode(self, text: str, response_id: str | None = None) -> list[Command]:
        return self.tell(TextDelta(response_id or self.ordered(), text))

    def clause(self, words: str, response_id: str | None = None, *, before: str = "") -> list[Command]:
        """The engine writes and speaks words, 200 ms each; `before` was written and spoken already."""
        response_id = response_id or self.ordered()
        commands = self.decode(words, response_id)
        start, offset, marks = WORD * len(before.split()), len(before), []
        position = offset
        for number, word in enumerate(words.split(), 1):
            position = offset + words.index(word, position - offset) + len(word)
            marks.append(WordMark(position, start + number * WORD))
        marks[-1] = WordMark(offset + len(words), marks[-1].end)
        samples = WORD * len(marks)
        return commands + self.tell(AudioReady(response_id, start, samples, offset + len(words), tuple(marks), True))

    def played(self, words: float, sent: int | None = None, response_id: str | None = None) -> list[Command]:
        """So many words have been heard of `sent` words (as many)."""
        samples = int(words * WORD)
        return self.tell(PlaybackProgress(response_id or self.ordered(), int((sent if sent is not None else words) * WORD), samples))

    def finish(self, reason: FinishReason = FinishReason.STOP, response_id: str | None = None, error: str | None = None) -> list[Command]:
        return self.tell(ResponseFinished(response_id or self.ordered(), reason, error, Usage(9, 3, 5)))

    def answer(self, words: str = "A tortoise is slow.") -> list[Command]:
        """A whole reply, sent and played."""
        response_id, count = self.ordered(), len(words.split())
        commands = self.clause(words, response_id) + self.finish(response_id=response_id)
        commands += self.played(0, count, response_id)
        self.now += count * 200 * MS
        return commands + self.played(count, count, response_id)

    # -- what is seen

    def last(self, kind: type) -> Command:
        return next(command for command in reversed(self.commands) if isinstance(command, kind))

    def all(self, kind: type | tuple[type, ...]) -> list[Command]:
        return [command for command in self.commands if isinstance(command, kind)]

    def ordered(self) -> str:
        """The response asked of the engine last."""
        return self.last(Respond | Say | Speculate).response_id

    def done(self) -> ResponseSnapshot:
        return self.last(ResponseDone).response

    def message_id(self) -> str:
        """The item of the newest message of ours."""
        return next(c.item.id for c in reversed(self.all(OutputItemAdded)) if isinstance(c.item, Message))

    def believed(self) -> list[tuple[str, str | None]]:
        """The context the model was told last."""
        told = self.all(SetHistory)
        return [(message.role, message.text) for message in told[-1].messages] if told else []

    def told(self) -> list[str]:
        """What the client has seen, with ids by the order in which they came up."""
        ids: dict[str, str] = {}

        def name(found: re.Match[str]) -> str:
            return ids.setdefault(found[0], f"{found[1]}{len(ids)}")

        return [re.sub(r"(item|resp|call)_\w{21}", name, repr(command)) for command in self.all(Notify)]

    def error(self) -> tuple[str | None, str | None]:
        error = self.last(ErrorRaised)
        return error.code, error.event_id


def names(commands: list[Command], *kinds: type) -> list[str]:
    """Their types, of `kinds` only where given; the same one again and again counts once."""
    found = [type(command).__name__ for command in commands if not kinds or isinstance(command, kinds)]
    return [name for index, name in enumerate(found) if index == 0 or found[index - 1] != name]


PART = (OutputTextDelta, OutputTextDone, OutputAudioDone, OutputTranscriptDelta, OutputTranscriptDone, ContentPartAdded, ContentPartDone)


def response_of(command: Command) -> str | None:
    """The response a notice or an order to playout belongs to."""
    match command:
        case ResponseCreated(response) | ResponseDone(response):
            return response.id
        case OutputItemAdded(response_id) | OutputItemDone(response_id) | Release(response_id):
            return response_id
        case OpenPlayout(part) | ArgumentsDelta(part) | ArgumentsDone(part):
            return part.response_id
        case _ if isinstance(command, PART):
            return command.part.response_id
    return None


def check(dialogue: Dialogue) -> None:
    """What is always true."""
    commands = dialogue.commands
    created: list[str] = []
    over: set[str] = set()
    cut: set[str] = set()
    added: list[str] = []
    ended: list[str] = []
    committed: set[str] = set()
    texts: dict[str, str] = {}
    speaking: str | None = None
    for command in commands:
        response_id = response_of(command)
        if response_id is not None and not isinstance(command, ResponseCreated):
            assert response_id in created, command
            assert response_id not in over, command
        match command:
            case ResponseCreated(response):
                created.append(response.id)
            case ResponseDone(response):
                over.add(response.id)
            case Cut(cut_id):
                cut.add(cut_id)
            case Release(released):
                assert released not in cut
            case ItemAdded(item):
                added.append(item.id)
            case ItemDone(item):
                assert item.id in added
                ended.append(item.id)
            case InputCommitted(item_id):
                committed.add(item_id)
            case TranscriptionCompleted(item_id) | TranscriptionFailed(item_id):
                assert item_id in committed
                committed.discard(item_id)
            case OutputTextDelta(part, delta) | OutputTranscriptDelta(part, delta):
                texts[part.item_id] = texts.get(part.item_id, "") + delta
            case OutputTextDone(part, text) | OutputTranscriptDone(part, text):
                assert texts.get(part.item_id, "") == text
            case InputSpeechStarted(_, item_id):
                assert speaking is None
                speaking = item_id
            case InputSpeechStopped(_, item_id):
                assert speaking == item_id
                speaking = None
    assert len(set(created)) == len(created)
    assert len(set(added)) == len(added)
    assert len(set(ended)) == len(ended)
    check_speculations(commands)
    told = [command.messages for command in commands if isinstance(command, SetHistory)]
    assert all(before != after for before, after in pairwise(told))


def check_speculations(commands: list[Command]) -> None:
    """At most one at a time, each adopted or dropped once; nothing of it is seen before it is adopted, or ever if it is not."""
    prepared: str | None = None
    dropped: set[str] = set()
    for index, command in enumerate(commands):
        if isinstance(command, ResponseCreated):
            assert command.response.id not in dropped
        elif prepared is not None:
            assert response_of(command) != prepared or any(Adopt(prepared) == later for later in commands[index:])
        match command:
            case Speculate(response_id):
                assert prepared is None
                prepared = response_id
            case Drop(response_id):
                assert response_id == prepared
                prepared = None
                dropped.add(response_id)
            case Adopt(response_id):
                assert response_id == prepared
                prepared = None
                assert isinstance(commands[index - 1], SetHistory)
                before = [c for c in commands[:index] if isinstance(c, CommitTurn | ResponseCreated)]
                assert [type(c) for c in before[-2:]] == [CommitTurn, ResponseCreated]
                assert before[-2].transcript is not None
                assert before[-1].response.id == response_id
                assert not any(isinstance(c, Release | ArgumentsDone) and response_of(c) == response_id for c in commands[:index])
            case CommitTurn(transcript=str() as text):
                assert prepared is not None
                assert text.strip()


@pytest.fixture
def play(checked: Callable[[Dialogue], None]) -> Iterator[Callable[..., Dialogue]]:
    """`play(turn_detection=..., ...)` gives a `Dialogue`; what is always true is checked when the test is over."""
    made: list[Dialogue] = []

    def begin(**fields: object) -> Dialogue:
        made.append(Dialogue(replace(SessionSettings(turn_detection=ServerVad(), transcription=Transcription()), **fields)))
        return made[-1]

    yield begin
    for dialogue in made:
        checked(dialogue)


@pytest.fixture
def shown() -> Callable[..., list[str]]:
    """The function `names`."""
    return names


@pytest.fixture(scope="session")
def checked() -> Callable[[Dialogue], None]:
    """The function `check`."""
    return check


@pytest.fixture(autouse=True)
def every_dialogue_replays(assert_told_replays: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each dialogue of a test, told to another conversation through its log, has the same commands."""
    begun: list[Dialogue] = []
    begin = Dialogue.__init__

    def begin_kept(dialogue: Dialogue, *settings: SessionSettings) -> None:
        begun.append(dialogue)
        begin(dialogue, *settings)

    monkeypatch.setattr(Dialogue, "__init__", begin_kept)
    yield
    for dialogue in begun:
        assert_told_replays("sess_1", 7, dialogue.recorded)


@pytest.fixture(scope="session")
def dialogue_of() -> type[Dialogue]:
    """The class `Dialogue`, for scripts that are drawn."""
    return Dialogue
