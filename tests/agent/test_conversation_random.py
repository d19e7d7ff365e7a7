"""In whatever order things happen: no client can tell whether its replies were prepared ahead, and what was deleted is gone. What is always
true of any order is in `scripts/test_invariants.py`."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commands import Release, ResponseCreated, ResponseDone
from agent.events import (
    ClearInput,
    CreateItem,
    CreateResponse,
    DeleteItem,
    ItemReference,
    PlaybackProgress,
    RetrieveItem,
    Tick,
    UpdateSession,
)
from agent.items import ContentPart, FunctionCallOutput, Message, PartKind
from agent.settings import PlaybackOwner, SemanticVad, ServerVad, SessionKind, SessionSettings, Transcription
from streaming.events import (
    Adopt,
    AudioReady,
    CommitTurn,
    Drop,
    EndOfTurnScore,
    FinishReason,
    Respond,
    ResponseFinished,
    Say,
    SetHistory,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    ToolCallReady,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    TranscriptProvisional,
    WordMark,
)

SETTINGS = [
    SessionSettings(transcription=Transcription()),
    SessionSettings(turn_detection=SemanticVad(), playback=PlaybackOwner.ACKED),
    SessionSettings(turn_detection=ServerVad(interrupt_response=False, idle_timeout_ms=5_000)),
    SessionSettings(turn_detection=ServerVad(create_response=False), output_audio=False),
    SessionSettings(turn_detection=None, transcription=Transcription()),
    SessionSettings(kind=SessionKind.TRANSCRIPTION),
]
WORD = 4_800


class World:
    """An engine, a playout and a client that do what they may at any time, chosen by two numbers."""

    def __init__(self, talk) -> None:
        self.talk = talk
        # Text written, samples made, samples sent and played, by response; what `ResponseFinished` has ended.
        self.made: dict[str, list[int]] = {}
        self.finished: set[str] = set()
        # Where the newest pause began.
        self.paused: int | None = None

    def responses(self) -> list[str]:
        return [command.response.id for command in self.talk.all(ResponseCreated)]

    def items(self) -> list[str]:
        return ["none", *(message.item_id for c in self.talk.all(SetHistory)[-1:] for message in c.messages)]

    def engine(self, kind: int, number: int) -> None:
        """Something about one of the responses and speculations, also those that have long been cut or dropped."""
        speculated = [command.response_id for command in self.talk.all(Speculate)]
        ids = [i for i in dict.fromkeys([*self.responses(), *speculated]) if i not in self.finished]
        if ids:
            self.make(ids[number % len(ids)], kind, number)

    def make(self, response_id: str, kind: int, number: int) -> None:
        """Words, a clause's sound, a call, or the end of a reply."""
        made = self.made.setdefault(response_id, [0, 0, 0, 0])
        if kind == 0:
            self.talk.tell(TextDelta(response_id, "wörd "))
            made[0] += 5
        elif kind == 1 and made[0]:
            words = (made[0] * WORD // 5 - made[1]) // WORD
            marks = tuple(WordMark(made[1] // WORD * 5 + 5 * n, made[1] + WORD * n) for n in range(1, words + 1))
            if words:
                self.talk.tell(AudioReady(response_id, made[1], words * WORD, made[0], marks, True))
                made[1] += words * WORD
        elif kind == 2:
            self.talk.tell(ToolCallReady(response_id, number % 2, "f", "{}"))
        else:
            self.finished.add(response_id)
            self.talk.tell(ResponseFinished(response_id, list(FinishReason)[number % 5]))

    def playout(self, number: int) -> None:
        """Some more is sent and played of what was released."""
        released = {c.response_id: c.until for c in self.talk.all(Release)}
        if released:
            response_id = list(released)[number % len(released)]
            made = self.made[response_id]
            made[2] = min(released[response_id], made[2] + (number % 3) * WORD)
            made[3] = min(made[2], made[3] + number * 100)
            self.talk.tell(PlaybackProgress(response_id, made[2], made[3]))

    def transcripts(self, number: int) -> None:
        commits = [c.item_id for c in self.talk.all(CommitTurn)]
        started = [c.item_id for c in self.talk.all(StartTurn)]
        if started and number % 4 == 0:
            self.talk.tell(TranscriptDelta(started[number % len(started)], "so", 0.5, "en"))
        elif commits and number % 4 == 1:
            self.talk.tell(TranscriptFailed(commits[number % len(commits)], "broken"))
        elif number % 4 == 2 and self.paused is not None and started:
            self.suppose(started[-1], self.paused, ("So far.", "So far, so good.", "")[number // 4 % 3])
        elif commits:
            self.talk.tell(TranscriptDone(commits[number % len(commits)], "so far" if number % 8 == 3 else "", 0.5, "en"))

    def suppose(self, item_id: str, at: int, words: str) -> None:
        """The words of a turn if it ends in the newest pause."""
        self.talk.tell(TranscriptProvisional(item_id, at, words, 0.5))

    def ear(self, kind: int, number: int) -> None:
        now = self.talk.now
        if kind == 0:
            self.talk.tell(SpeechStarted(max(0, now - number * 16), 0.9))
        elif kind == 1:
            self.paused = max(0, now - number * 16)
            self.talk.tell(SpeechStopped(self.paused, 0.1))
        elif kind == 2:
            self.talk.tell(EndOfTurnScore(now, number / 100))
        else:
            self.wait(number * 10)

    def wait(self, milliseconds: int) -> None:
        self.talk.wait(milliseconds)

    def client(self, kind: int, number: int) -> None:
        talk, items = self.talk, self.items()
        item_id = items[number % len(items)]
        match kind:
            case 0:
                talk.commit()
            case 1:
                talk.tell(ClearInput("c", talk.now))
            case 2:
                talk.write("Hello", "mine" if number % 5 == 0 else "")
            case 3:
                talk.tell(CreateItem("c", FunctionCallOutput("", "call_none", "x"), item_id))
            case 4:
                talk.tell(DeleteItem("c", item_id))
            case 5:
                talk.truncate(item_id, number * 20)
            case 6:
                talk.tell(RetrieveItem("c", item_id))
            case 7:
                talk.ask(**({"input": (ItemReference(item_id),)} if number % 3 == 0 else {}))
            case 8:
                talk.ask(in_conversation=False, output_audio=number % 2 == 0, input=())
            case 9:
                ids = [None, "none", *self.responses()]
                talk.cancel(ids[number % len(ids)])
            case 10:
                talk.tell(UpdateSession("c", self.other_settings(SETTINGS[number % 5])))
            case _:
                talk.tell(Tick())

    def other_settings(self, others: SessionSettings) -> SessionSettings:
        ours = self.talk.conversation.settings
        return replace(others, kind=ours.kind, speculation=ours.speculation)

    def end(self) -> None:
        """The engine finishes, playout sends and plays everything: no response may be left without its end."""
        for _ in range(100):
            open_ids = set(self.responses()) - {c.response.id for c in self.talk.all(ResponseDone)}
            if not open_ids:
                return
            for commit in self.talk.all(CommitTurn):
                self.talk.tell(TranscriptDone(commit.item_id, "so far", 0.5, "en"))
            for response_id in [response_id for response_id in self.responses() if response_id in open_ids]:
                self.talk.tell(ResponseFinished(response_id, FinishReason.STOP))
                samples = self.made.get(response_id, [0, 0, 0, 0])[1]
                self.talk.tell(PlaybackProgress(response_id, samples, samples))
        raise AssertionError(f"{open_ids} never end")


PAUSE = st.tuples(st.integers(0, 99), st.integers(0, 99)).map(
    lambda drawn: [("ear", 0, 0), ("ear", 3, 40), ("ear", 1, 10), ("transcripts", 0, drawn[0] // 4 * 4 + 2), ("ear", 3, drawn[1])]
)
"""A turn of the caller up to the words of its pause, and some of that pause."""


def play(world: World, events: list) -> None:
    for who, kind, number in events:
        match who:
            case "engine":
                world.engine(kind % 4, number)
            case "playout":
                world.playout(number)
            case "transcripts":
                world.transcripts(number)
            case "ear":
                world.ear(kind % 4, number)
            case "client":
                world.client(kind, number)


class PromptWorld(World):
    """Its engine obeys at once: the transcript follows the commit, and a first piece of the reply the order for it, or where it is `late`
    with a speculation, its adoption. What the reply says depends on nothing but how many the client knows of."""

    def __init__(self, talk, *, late: bool = False) -> None:
        super().__init__(talk)
        self.late = late
        self.words = ""
        self.obeyed = 0

    def obey(self) -> None:
        while self.obeyed < len(self.talk.commands):
            command = self.talk.commands[self.obeyed]
            self.obeyed += 1
            match command:
                case StartTurn():
                    self.words = "so far"
                case CommitTurn(item_id, transcript=None):
                    self.talk.tell(TranscriptDone(item_id, self.words, 0.5, "en"))
                case Speculate(response_id) if not self.late:
                    self.begin(response_id)
                case Adopt(response_id) if self.late:
                    self.begin(response_id)
                case Respond(response_id) | Say(response_id):
                    self.begin(response_id)
                case Drop(response_id):
                    self.talk.tell(ResponseFinished(response_id, FinishReason.ABORTED))

    def begin(self, response_id: str) -> None:
        self.make(response_id, 0, 0)
        self.make(response_id, 1, 0)
        if len(self.words) % 2:
            self.make(response_id, 3, 0)

    def engine(self, kind: int, number: int) -> None:
        ids = [response_id for response_id in self.responses() if response_id not in self.finished]
        if ids:
            self.make(ids[number % len(ids)], kind, number)
            self.obey()

    def playout(self, number: int) -> None:
        super().playout(number)
        self.obey()

    def transcripts(self, number: int) -> None:
        super().transcripts(number)
        self.obey()

    def suppose(self, item_id: str, at: int, words: str) -> None:
        turns = self.talk.conversation._turns
        if (turns.open_item_id, turns.paused_at) == (item_id, at):
            self.words = words
        super().suppose(item_id, at, words)

    def ear(self, kind: int, number: int) -> None:
        super().ear(kind, number)
        self.obey()

    def wait(self, milliseconds: int) -> None:
        for _ in range(0, milliseconds, 32):
            self.talk.wait(32)
            self.obey()

    def client(self, kind: int, number: int) -> None:
        super().client(kind, number)
        self.obey()


CALL = st.tuples(
    st.sampled_from(["engine", "playout", "transcripts", "ear", "ear", "client"]),
    st.integers(0, 11),
    st.integers(0, 99),
)
CALLS = st.lists(st.one_of(PAUSE, PAUSE, st.lists(CALL, max_size=3)), max_size=15).map(lambda parts: list(chain.from_iterable(parts)))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SETTINGS), CALLS)
def test_the_client_cannot_tell_what_was_prepared(checked: Callable, dialogue_of: type, begun: SessionSettings, events: list) -> None:
    """The same script with the speculation's events before its adoption, after it, and without a speculation."""
    seen = []
    for speculation, late in ((True, False), (True, True), (False, False)):
        world = PromptWorld(dialogue_of(replace(begun, speculation=speculation)), late=late)
        play(world, events)
        world.end()
        checked(world.talk)
        seen.append([re.sub("speculation=(True|False)", "", notice) for notice in world.talk.told()])
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("settings_", SETTINGS)
def test_deleted_items_are_gone(dialogue_of: type, settings_: SessionSettings) -> None:
    """Of what was deleted the model is told nothing."""
    talk = dialogue_of(replace(settings_, transcription=None))
    for number in range(50):
        message = Message(f"m{number}", "user", (ContentPart(PartKind.INPUT_TEXT, "Hello"),))
        talk.tell(CreateItem(None, message, None))
        if settings_.kind is SessionKind.REALTIME:
            talk.tell(CreateResponse(None))
            if settings_.output_audio:
                talk.answer("One two")
                talk.tell(DeleteItem(None, talk.message_id()))
            else:
                talk.decode("One two")
                talk.finish()
                talk.tell(DeleteItem(None, talk.message_id()))
        talk.tell(DeleteItem(None, f"m{number}"))
    assert talk.believed() == []
