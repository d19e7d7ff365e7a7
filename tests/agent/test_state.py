"""The state of the whole: the way of a call through it, and what can't happen."""

from pathlib import Path

import pytest

from agent.commands import ItemDeleted
from agent.conversation import Conversation
from agent.events import CreateItem, SessionOpened, Tick
from agent.history import MAX_ITEMS
from agent.items import Message
from agent.settings import ServerVad, SessionSettings
from agent.state import MOVES, IllegalEventError, State, StateMachine
from streaming.events import (
    AudioReady,
    CommitTurn,
    FinishReason,
    Listened,
    OverlapKind,
    OverlapScore,
    Respond,
    ResponseFinished,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    TranscriptDone,
    WordMark,
)


@pytest.fixture
def conversation() -> Conversation:
    opened = Conversation("sess_test", 7)
    opened.handle(SessionOpened(SessionSettings(turn_detection=ServerVad(silence_duration_ms=200))), 0)
    return opened


def test_the_way_of_a_call(conversation) -> None:
    ordered = []

    def tell(event, now: int) -> State:
        ordered.extend(conversation.handle(event, now))
        return conversation.state

    def last(kind):
        return next(command for command in reversed(ordered) if isinstance(command, kind))

    assert tell(Listened(16_000), 16_000) is State.LISTENING
    assert tell(SpeechStarted(16_000, 0.9), 17_000) is State.CALLER_SPEAKING
    assert tell(SpeechStopped(32_000, 0.1), 33_600) is State.CALLER_SPEAKING
    assert tell(Listened(36_000), 36_000) is State.THINKING
    assert tell(TranscriptDone(last(CommitTurn).item_id, "Hello.", 0.9, "en"), 36_100) is State.THINKING
    response_id = last(Respond).response_id
    assert tell(TextDelta(response_id, "Hi there."), 36_200) is State.THINKING
    assert tell(AudioReady(response_id, 0, 24_000, 9, (WordMark(3, 12_000), WordMark(9, 24_000))), 36_300) is State.SPEAKING
    assert tell(SpeechStarted(40_000, 0.9), 41_000) is State.OVERLAP
    assert tell(SpeechStopped(42_000, 0.1), 43_600) is State.OVERLAP
    assert tell(OverlapScore(43_600, OverlapKind.NOISE, 0.8), 43_700) is State.SPEAKING
    assert tell(SpeechStarted(44_000, 0.9), 45_000) is State.OVERLAP
    assert tell(Listened(50_656), 50_656) is State.CALLER_SPEAKING
    assert tell(ResponseFinished(response_id, FinishReason.ABORTED), 50_700) is State.CALLER_SPEAKING


def test_nothing_happens_before_the_opening() -> None:
    with pytest.raises(IllegalEventError, match="Tick while CLOSED"):
        Conversation("sess_test", 7).handle(Tick(), 0)


def test_a_session_is_opened_once(conversation) -> None:
    with pytest.raises(IllegalEventError, match="SessionOpened while LISTENING"):
        conversation.handle(SessionOpened(SessionSettings()), 0)


def test_a_move_that_is_none_is_noticed() -> None:
    machine = StateMachine()
    machine.move(State.LISTENING)
    machine.move(State.LISTENING)
    with pytest.raises(AssertionError, match="from LISTENING to OVERLAP"):
        machine.move(State.OVERLAP)


def test_a_conversation_grown_too_long_loses_its_oldest_items(conversation) -> None:
    for index in range(MAX_ITEMS):
        conversation.handle(CreateItem(None, Message(f"item_{index}", "user", ()), None), 0)
    (refused,) = conversation.handle(CreateItem("full", Message("", "user", ()), None), 0)
    assert (refused.code, refused.event_id) == ("invalid_value", "full")
    conversation.handle(SpeechStarted(0, 0.9), 0)
    conversation.handle(SpeechStopped(16_000, 0.1), 16_000)
    commands = conversation.handle(Listened(20_000), 20_000)
    assert ItemDeleted("item_0") in commands
    assert ItemDeleted("item_1") not in commands


def test_the_id_of_the_turn_being_spoken_is_taken(conversation) -> None:
    started = conversation.handle(SpeechStarted(0, 0.9), 0)
    item_id = next(command.item_id for command in started if hasattr(command, "item_id"))
    (refused,) = conversation.handle(CreateItem(None, Message(item_id, "user", ()), None), 0)
    assert refused.code == "item_create_duplicate_item_id"


def test_the_picture_is_that_of_the_table() -> None:
    """After a change of the table: put what this says into the page."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "conversation.md").read_text(encoding="utf-8")
    moves = [f"    {state.name} --> {following.name}" for state in State for following in State if following in MOVES[state]]
    drawn = "\n".join(["stateDiagram-v2", f"    [*] --> {State.CLOSED.name}", *moves])
    listed = "\n".join(f"| `{state.name}` | {state.value} |" for state in State)
    assert f"```mermaid\n{drawn}\n```\n" in page, drawn
    assert listed in page, listed
