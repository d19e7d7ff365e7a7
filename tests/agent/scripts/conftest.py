"""A call as a script: what the caller, the client, the engine and playout do, one line each, and what the conversation made of it.

Both clocks advance together, in windows of 32 ms. The engine here says a word in 200 ms; what is released is sent at once unless
`sends` is False, and heard at the pace of sound from then on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from agent.commands import Command, Cut, Notify, Release
from agent.conversation import Conversation
from agent.events import CreateItem, CreateResponse, Event, PlaybackProgress, SessionOpened, Tick, UpdateSession
from agent.items import ContentPart, Message, PartKind
from agent.settings import SessionSettings, Transcription
from agent.state import State
from streaming.events import (
    SAMPLE_RATE,
    AudioReady,
    CommitTurn,
    ContextMessage,
    FinishReason,
    Listened,
    OverlapKind,
    OverlapScore,
    Respond,
    ResponseFinished,
    Say,
    SetHistory,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    TranscriptDone,
    Usage,
    WordMark,
)

WINDOW = 512
RATE = 24_000
WORD = RATE // 5
REPORT = SAMPLE_RATE // 10


@dataclass
class Voice:
    """One response's sound: made and not cut, as playout sees it."""

    released: int = 0
    sent: int = 0
    first_sent_at: int = 0
    reported: tuple[int, int] = (0, 0)
    reported_at: int = 0


class Call:
    """One session. Methods return what the conversation ordered in answer."""

    def __init__(self, settings: SessionSettings) -> None:
        self.conversation = Conversation("sess_test", 7)
        self.log: list[tuple[int, Event]] = []
        self.commands: list[Command] = []
        self.recorded: list[tuple[int, Event, list[Command]]] = []
        # Session time and input position, both in 1/16000 s.
        self.now = 0
        self.heard = 0
        self.sends = True
        self.voices: dict[str, Voice] = {}
        # Characters and samples of each reply so far.
        self._made: dict[str, tuple[int, int]] = {}
        self._noticed = 0
        # What the Ear believes of speech over ours once it has heard 256 ms of it; None for nothing.
        self.overlap: OverlapKind | None = OverlapKind.SPEECH
        self._onset: int | None = None
        self.tell(SessionOpened(settings))

    def tell(self, event: Event) -> list[Command]:
        first = len(self.commands)
        self._tell(event)
        if self.sends:
            self.send()
        return self.commands[first:]

    def _tell(self, event: Event) -> None:
        self.log.append((self.now, event))
        commands = self.conversation.handle(event, self.now)
        self.commands += commands
        self.recorded.append((self.now, event, commands))
        for command in commands:
            if isinstance(command, Release):
                self.voices.setdefault(command.response_id, Voice()).released = command.until
            elif isinstance(command, Cut):
                self.voices.pop(command.response_id, None)

    # -- the caller

    def listen(self, milliseconds: int) -> list[Command]:
        """The microphone goes on: as much of whatever it is as `milliseconds` say."""
        first = len(self.commands)
        for _ in range(milliseconds * SAMPLE_RATE // 1_000 // WINDOW):
            self.heard += WINDOW
            self.wait(WINDOW * 1_000 / SAMPLE_RATE)
            self.tell(Listened(self.heard))
            if self._onset is not None and self.heard - self._onset >= 8 * WINDOW and self.conversation.state is State.OVERLAP:
                self._onset = None
                if self.overlap is not None:
                    self.tell(OverlapScore(self.heard, self.overlap, 0.95))
        return self.commands[first:]

    def speak(self, milliseconds: int) -> list[Command]:
        first = len(self.commands)
        self._onset = self.heard
        self.tell(SpeechStarted(self.heard, 0.9))
        self.listen(milliseconds)
        return self.commands[first:]

    def hush(self, milliseconds: int) -> list[Command]:
        first = len(self.commands)
        self._onset = None
        self.tell(SpeechStopped(self.heard, 0.1))
        self.listen(milliseconds)
        return self.commands[first:]

    def ask(self, words: str = "What is a tortoise?") -> None:
        """A whole turn, to its transcript."""
        self.speak(960)
        self.hush(640)
        self.transcribe(words)

    # -- the client

    def update(self, **changes: object) -> list[Command]:
        return self.tell(UpdateSession("update", replace(self.conversation.settings, **changes)))

    def write_item(self, text: str, item_id: str = "", previous: str | None = None, role: str = "user") -> list[Command]:
        kind = PartKind.OUTPUT_TEXT if role == "assistant" else PartKind.INPUT_TEXT
        return self.tell(CreateItem("create", Message(item_id, role, (ContentPart(kind, text),)), previous))

    def create_response(self, **fields: object) -> list[Command]:
        return self.tell(CreateResponse("respond", **fields))

    # -- the engine

    @property
    def turn_item(self) -> str:
        """The item of the turn committed last."""
        return self.ordered(CommitTurn)[-1].item_id

    @property
    def response_id(self) -> str:
        """The response ordered last."""
        return self.ordered((Respond, Say))[-1].response_id

    def transcribe(self, words: str) -> list[Command]:
        return self.tell(TranscriptDone(self.turn_item, words, 0.9, "en"))

    def text(self, words: str, response_id: str | None = None) -> list[Command]:
        return self.tell(TextDelta(response_id or self.response_id, words))

    def say(self, words: str, response_id: str | None = None) -> list[Command]:
        """A clause: its text and its sound, 200 ms a word."""
        response_id = response_id or self.response_id
        first = len(self.commands)
        characters, samples = self._made.get(response_id, (0, 0))
        self.text(words, response_id)
        marks, count = [], 0
        for index, letter in enumerate(words, 1):
            if index == len(words) or (letter == " " and index > 1):
                count += 1
                marks.append(WordMark(characters + index, samples + count * WORD))
        ready = AudioReady(response_id, samples, count * WORD, characters + len(words), tuple(marks), True)
        self._made[response_id] = (characters + len(words), samples + count * WORD)
        self.tell(ready)
        return self.commands[first:]

    def finish(self, reason: FinishReason = FinishReason.STOP, error: str | None = None, response_id: str | None = None) -> list[Command]:
        return self.tell(ResponseFinished(response_id or self.response_id, reason, error, Usage(40, 30, 5)))

    def answer(self, words: str = "A tortoise is a slow animal.") -> None:
        self.say(words)
        self.finish()

    # -- playout and time

    def send(self, milliseconds: int | None = None) -> None:
        """Let sound leave: so much more of every response, or all."""
        for response_id, voice in list(self.voices.items()):
            more = voice.released - voice.sent if milliseconds is None else milliseconds * RATE // 1_000
            sent = min(voice.released, voice.sent + more)
            if sent != voice.sent:
                voice.first_sent_at = voice.first_sent_at if voice.sent else self.now
                voice.sent = sent
                self._report(response_id, voice)

    def wait(self, milliseconds: float) -> list[Command]:
        """Time passes; playout reports every 100 ms, and when something has been heard to its end."""
        first = len(self.commands)
        until = self.now + int(milliseconds * SAMPLE_RATE / 1_000)
        while self.now < until:
            self.now = min(until, self.now + WINDOW)
            for response_id, voice in list(self.voices.items()):
                played = self.played(voice)
                if voice.reported[1] < voice.sent and (played == voice.sent or self.now - voice.reported_at >= REPORT):
                    self._report(response_id, voice)
            deadline = self.conversation.deadline()
            if deadline is not None and self.now >= deadline:
                self.tell(Tick())
        return self.commands[first:]

    def played(self, voice: Voice) -> int:
        return min(voice.sent, (self.now - voice.first_sent_at) * RATE // SAMPLE_RATE)

    def _report(self, response_id: str, voice: Voice) -> None:
        voice.reported, voice.reported_at = (voice.sent, self.played(voice)), self.now
        self._tell(PlaybackProgress(response_id, *voice.reported))

    # -- what came of it

    def notices(self) -> list[Notify]:
        """What the client has been told since this was last asked."""
        new, self._noticed = self.commands[self._noticed :], len(self.commands)
        return [command for command in new if isinstance(command, Notify)]

    def kinds(self) -> list[str]:
        """The same, only the names."""
        return [type(notice).__name__ for notice in self.notices()]

    def ordered(self, kind: type | tuple[type, ...]) -> list[Command]:
        """All commands of this kind, the oldest first."""
        return [command for command in self.commands if isinstance(command, kind)]

    def last(self, kind: type) -> Command:
        return self.ordered(kind)[-1]

    @property
    def believed(self) -> tuple[ContextMessage, ...]:
        """The conversation as the engine was last told."""
        return self.last(SetHistory).messages

    @property
    def dialogue(self) -> list[tuple[str, str | None]]:
        """The same, roles and texts only; a cut may or may not keep the space behind its last word."""
        return [(message.role, message.text.rstrip() if message.text else message.text) for message in self.believed]


@pytest.fixture(scope="session")
def begun_calls() -> list[Call]:
    """The calls of the test that runs."""
    return []


@pytest.fixture(autouse=True)
def every_call_replays(begun_calls: list[Call], assert_told_replays: Callable[..., None]) -> Iterator[None]:
    """Each call of a test, told to another conversation through its log, has the same commands."""
    yield
    for begun in begun_calls:
        assert_told_replays("sess_test", 7, begun.recorded)
    begun_calls.clear()


@pytest.fixture(scope="session")
def call(begun_calls: list[Call]) -> Callable[..., Call]:
    """Begin a call; `call(transcription=False, **settings)`. The opening has been read already."""

    def begin(*, transcription: bool = False, **settings: object) -> Call:
        asked = Transcription("whisper-1") if transcription else None
        begun = Call(SessionSettings(transcription=asked, **settings))
        begun.notices()
        begun_calls.append(begun)
        return begun

    return begin
