"""Every event in every state: handled, ignored or refused, and on purpose. A new event or state fails here until it is decided."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from agent.commands import CallTool, ErrorRaised
from agent.conversation import Conversation
from agent.events import (
    AgentChanged,
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
    ItemReference,
    LineRequested,
    PlaybackProgress,
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
from agent.items import ContentPart, Message, PartKind
from agent.settings import PlaybackOwner, ServerTool, ServerVad, SessionSettings, Transcription
from agent.state import IllegalEventError, State
from streaming.events import (
    AudioReady,
    CommitTurn,
    EndOfTurnScore,
    EngineFailed,
    EngineLost,
    FinishReason,
    Listened,
    OverlapKind,
    OverlapScore,
    ReplyRestarted,
    ResponseFinished,
    SoundKind,
    SoundStarted,
    SoundStopped,
    SpeechStarted,
    SpeechStopped,
    SpeechSuspected,
    StartTurn,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
    ToolSpec,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    TranscriptProvisional,
)

SETTINGS = SessionSettings(
    turn_detection=ServerVad(),
    transcription=Transcription(),
    playback=PlaybackOwner.ACKED,
    server_tools=(ServerTool(ToolSpec("book", "", "{}"), "desk"),),
)

STATES = (State.CLOSED, State.LISTENING, State.CALLER_SPEAKING, State.THINKING, State.SPEAKING, State.OVERLAP)

OUTCOMES: dict[type, str] = {
    SessionOpened: "oXXXXX",  # once
    Tick: "X-----",  # nothing is due
    UpdateSession: "Xooooo",
    CommitInput: "Xooooo",
    ClearInput: "Xooooo",
    ClearOutput: "X---oo",  # nothing sounds
    CreateItem: "Xooooo",
    RetrieveItem: "Xooooo",
    TruncateItem: "Xoo!oo",  # nothing of it has been heard
    DeleteItem: "Xooooo",
    CreateResponse: "Xoo!!!",  # one is being made
    CancelResponse: "X!!ooo",  # none is being made
    PlaybackReported: "X-----",  # playout counts it
    RefuseRequest: "X!!!!!",  # this is how the client is told
    PlaybackProgress: "X--nnn",  # of a reply that has been played, nothing is news
    ToolReturned: "Xooooo",
    TurnDecided: "X-----",  # nobody has asked
    WordsOffered: "Xonnnn",  # they wait until nobody speaks
    AgentChanged: "Xooooo",
    FactPinned: "Xooooo",
    LineRequested: "Xoonnn",  # it waits until all has been played
    EndRequested: "Xoonnn",  # it waits until all has been played
    InterjectionWanted: "Xonnnn",  # it waits for a breath of the caller, or until nobody speaks
    SpeechSuspected: "Xnnnon",
    SpeechStarted: "Xonoon",  # an overlap goes on
    SpeechStopped: "Xnnnnn",
    EndOfTurnScore: "X-n---",  # only a turn can end
    SoundStarted: "Xnnnnn",
    SoundStopped: "X-----",  # nothing sounds
    OverlapScore: "X----o",  # only an overlap is judged
    Listened: "Xnnnnn",
    TranscriptDelta: "X-o--n",  # of a turn that is over; withheld while its item has not been told
    TranscriptProvisional: "X-o--n",  # the caller has no turn; that there are words in it is noted where they have gone on
    TranscriptDone: "X-----",  # none is due
    TranscriptFailed: "X-----",  # none is due
    TextDelta: "X--nnn",  # of a reply that is over
    AudioReady: "X--ooo",  # of a reply that is over
    ToolArgumentsDelta: "X--ooo",  # of a reply that is over
    ToolCallReady: "X--ooo",  # of a reply that is over
    ResponseFinished: "X--ooo",  # of a reply that is over
    ReplyRestarted: "X-----",  # all of its words stand
    EngineLost: "Xnnnnn",
    EngineFailed: "X!!!!!",  # this is how the client is told
}
"""What an event leads to in each of `STATES`, a letter a state: `X` it can't happen and raises IllegalEventError, `!` the client is told of
an error, `o` something is ordered or told, `n` it is noted, `-` it is ignored. The remark says why it is ignored, refused or put off."""


class Scene:
    """A call in one of the states. Before it there was a whole turn, its answer and a tool that was called."""

    def __init__(self, dialogue_of: Callable[..., object], state: State) -> None:
        self.dialogue = dialogue_of(SETTINGS)
        self.conversation = self.dialogue.conversation
        dialogue = self.dialogue
        dialogue.turn("Book a table.")
        dialogue.tell(ToolCallReady(dialogue.ordered(), 0, "book", "{}"))
        dialogue.answer("One moment please.")
        if state is State.CALLER_SPEAKING:
            dialogue.speech(400)
        elif state is not State.LISTENING:
            dialogue.turn("And then?")
            dialogue.decode("Then two three four five six.")
        if state in (State.SPEAKING, State.OVERLAP):
            dialogue.tell(AudioReady(dialogue.ordered(), 0, 48_000, 29, (), True))
            dialogue.played(1, 10)
        if state is State.OVERLAP:
            dialogue.tell(SpeechStarted(dialogue.now, 0.9))
        assert self.conversation.state is state

    def events(self) -> dict[type, Event]:
        """One of every type, about what there is."""
        dialogue = self.dialogue
        now, response, item = dialogue.now, dialogue.ordered(), dialogue.message_id()
        turn, call = dialogue.last(StartTurn).item_id, dialogue.last(CallTool).call_id
        pause = next(event.at for _, event in reversed(dialogue.log) if isinstance(event, SpeechStopped))
        events = (
            SessionOpened(SETTINGS),
            Tick(),
            UpdateSession("e", replace(SETTINGS, instructions="Be brief.")),
            CommitInput("e", now + 3_200),
            ClearInput("e", now),
            ClearOutput("e"),
            CreateItem("e", Message("", "user", (ContentPart(PartKind.INPUT_TEXT, "Hello."),)), None),
            RetrieveItem("e", item),
            TruncateItem("e", item, 0, 100),
            DeleteItem("e", item),
            CreateResponse("e"),
            CancelResponse("e", None),
            PlaybackReported("e", response, 200),
            RefuseRequest("e", "invalid_value", "It is bad."),
            PlaybackProgress(response, 48_000, 9_600),
            ToolReturned(call, "{}"),
            TurnDecided(turn, "Hello."),
            WordsOffered("By the way."),
            AgentChanged(replace(SETTINGS, agent="other")),
            FactPinned("Gold customer."),
            LineRequested("r", "dtmf", "1"),
            EndRequested("booked"),
            InterjectionWanted("Wait."),
            SpeechSuspected(now),
            SpeechStarted(now, 0.9),
            SpeechStopped(now, 0.1),
            EndOfTurnScore(now, 0.9),
            SoundStarted(now, SoundKind.DOG, 0.9),
            SoundStopped(now, SoundKind.DOG),
            OverlapScore(now, OverlapKind.SPEECH, 0.95),
            Listened(now + 512),
            TranscriptDelta(turn, " more", 0.9, "en"),
            TranscriptProvisional(turn, pause, "And then?", 0.9),
            TranscriptDone(dialogue.last(CommitTurn).item_id, "And then?", 0.9, "en"),
            TranscriptFailed(dialogue.last(CommitTurn).item_id, "out of memory"),
            TextDelta(response, " seven"),
            AudioReady(response, 48_000, 4_800, 29, (), True),
            ToolArgumentsDelta(response, 2, "show", "{"),
            ToolCallReady(response, 1, "book", "{}"),
            ResponseFinished(response, FinishReason.STOP),
            ReplyRestarted(response, 29),
            EngineLost("gone"),
            EngineFailed("exited with -9"),
        )
        return {type(event): event for event in events}

    def outcome(self, event: Event) -> str:
        return outcome(self.conversation, event, self.dialogue.now)


def outcome(conversation: Conversation, event: Event, now: int) -> str:
    """A letter of `OUTCOMES`."""
    before = pickle.dumps(conversation)
    try:
        commands = conversation.handle(event, now)
    except IllegalEventError:
        return "X"
    if any(isinstance(command, ErrorRaised) for command in commands):
        return "!"
    if commands:
        return "o"
    return "-" if pickle.dumps(conversation) == before else "n"


def grid(dialogue_of: Callable[..., object]) -> dict[type, str]:
    """What happens, a letter a state."""
    kinds = Scene(dialogue_of, State.LISTENING).events()
    closed = {kind: outcome(Conversation("sess_1", 7), event, 0) for kind, event in kinds.items()}
    opened = [{kind: (scene := Scene(dialogue_of, state)).outcome(scene.events()[kind]) for kind in kinds} for state in STATES[1:]]
    return {kind: closed[kind] + "".join(column[kind] for column in opened) for kind in kinds}


def test_every_pair(dialogue_of) -> None:
    found = grid(dialogue_of)
    assert found.keys() == set(get_args(Event))
    assert set(STATES) == set(State)
    assert found == OUTCOMES


STRANGERS: tuple[Event, ...] = (
    TextDelta("resp_none", "Hello"),
    AudioReady("resp_none", 0, 4_800, 5),
    ToolCallReady("resp_none", 0, "book", "{}"),
    ResponseFinished("resp_none", FinishReason.STOP),
    ReplyRestarted("resp_none", 0),
    PlaybackProgress("resp_none", 4_800, 4_800),
    PlaybackReported("e", "resp_none", 100),
    TranscriptDelta("item_none", "Hello", 0.9, "en"),
    TranscriptProvisional("item_none", 0, "Hello", 0.9),
    TranscriptDone("item_none", "Hello", 0.9, "en"),
    TranscriptFailed("item_none", "out of memory"),
    ToolReturned("item_none", "{}"),
    TurnDecided("item_none", "Hello."),
)
"""Facts about what nobody knows, or knows no more."""

MISTAKES: tuple[Event, ...] = (
    RetrieveItem("e", "item_none"),
    TruncateItem("e", "item_none", 0, 100),
    DeleteItem("e", "item_none"),
    CreateItem("e", Message("", "user", ()), "item_none"),
    CreateResponse("e", in_conversation=False, input=(ItemReference("item_none"),)),
    CancelResponse("e", "resp_none"),
    CommitInput("e", 0),
)
"""Requests about what is not there."""


@pytest.mark.parametrize("state", STATES[1:])
@pytest.mark.parametrize(("events", "expected"), [(STRANGERS, "-"), (MISTAKES, "!")], ids=["facts are ignored", "requests are refused"])
def test_what_is_not_known(dialogue_of, state: State, events: tuple[Event, ...], expected: str) -> None:
    scene = Scene(dialogue_of, state)
    assert {type(event).__name__: scene.outcome(event) for event in events} == {type(event).__name__: expected for event in events}
