"""A reply prepared in a pause: withheld until the turn ends there, dropped as soon as it would not be made any more."""

import pytest

from agent.commands import (
    Command,
    ErrorRaised,
    ItemAdded,
    Notify,
    OpenPlayout,
    OutputAudioDone,
    Release,
    ResponseCreated,
    TranscriptionCompleted,
)
from agent.conversation import Conversation
from agent.events import ClearInput, CreateItem, CreateResponse, Event, SessionOpened, UpdateSession
from agent.items import ContentPart, Message, PartKind
from agent.settings import SemanticVad, SessionKind, SessionSettings, ToolChoice, Transcription
from streaming.events import (
    Adopt,
    AudioReady,
    CommitTurn,
    Drop,
    EndOfTurnScore,
    EngineFailed,
    FinishReason,
    Listened,
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
    TranscriptDone,
    TranscriptProvisional,
    WordMark,
)

SETTINGS = SessionSettings(turn_detection=SemanticVad(), transcription=Transcription(), output_audio=True)
WORDS = "Tell me more."


class Call:
    """A conversation in which the caller has just paused, 20,000 samples in; everything ordered is kept."""

    def __init__(self, settings: SessionSettings = SETTINGS) -> None:
        self.conversation = Conversation("sess_1", 1)
        self.orders: list[Command] = []
        self.tell(SessionOpened(settings), SpeechStarted(4_800, 0.9), Listened(8_000), SpeechStopped(20_000, 0.1))
        (self.item,) = [order.item_id for order in self.orders if isinstance(order, StartTurn)]

    def tell(self, *events: Event) -> list[Command]:
        found = [order for event in events for order in self.conversation.handle(event, 100_000)]
        self.orders += found
        return found

    def words(self, text: str = WORDS, at: int = 20_000) -> list[Command]:
        return self.tell(TranscriptProvisional(self.item, at, text, 0.9))

    def end(self) -> list[Command]:
        """The pause is scored as an end, and lasts."""
        return self.tell(EndOfTurnScore(23_072, 0.99), Listened(24_000))

    def of(self, kind: type) -> list[Command]:
        return [order for order in self.orders if isinstance(order, kind)]


def made(response_id: str) -> tuple[Event, ...]:
    return (
        TextDelta(response_id, "It is so."),
        AudioReady(response_id, 0, 4_000, 9, (WordMark(9, 4_000),), True),
        ResponseFinished(response_id, FinishReason.STOP),
    )


def test_it_is_prepared_in_the_pause_and_adopted_when_the_turn_ends_there() -> None:
    call = Call()
    (prepared,) = call.words()
    assert isinstance(prepared, Speculate)
    assert (prepared.item_id, prepared.text) == (call.item, WORDS)
    assert call.tell(*made(prepared.response_id)) == []
    ended = call.end()
    (commit,) = [order for order in ended if isinstance(order, CommitTurn)]
    assert commit.transcript == WORDS
    kinds = [type(order) for order in ended]
    assert kinds.index(SetHistory) < kinds.index(Adopt) < kinds.index(OpenPlayout) < kinds.index(Release)
    assert kinds.index(ResponseCreated) < kinds.index(TranscriptionCompleted) < kinds.index(OpenPlayout)
    assert Adopt(prepared.response_id) in ended
    assert not call.of(Respond)
    assert not call.of(Drop)
    late = call.tell(TranscriptDone(call.item, "Other words.", 0.9, "en"))
    assert not [order for order in late if isinstance(order, Notify)]


def test_the_client_sees_the_same_with_and_without() -> None:
    seen = []
    for speculation in (True, False):
        call = Call(SessionSettings(turn_detection=SemanticVad(), transcription=Transcription(), speculation=speculation))
        prepared = call.words()
        assert bool(prepared) is speculation
        call.end()
        if not speculation:
            call.tell(TranscriptDone(call.item, WORDS, 0.9, "en"))
        (order,) = [order for order in call.orders if isinstance(order, Adopt | Respond)]
        call.tell(*made(order.response_id))
        notices = [type(order) for order in call.orders if isinstance(order, Notify)]
        seen.append(notices)
    assert seen[0] == seen[1]
    assert ItemAdded in seen[0]


def test_a_caller_who_goes_on_drops_it_and_nothing_of_it_is_seen() -> None:
    call = Call()
    (prepared,) = call.words()
    assert isinstance(prepared, Speculate)
    call.tell(*made(prepared.response_id)[:2])
    assert call.tell(SpeechStarted(22_000, 0.9)) == [Drop(prepared.response_id)]
    assert call.tell(*made(prepared.response_id)) == []
    call.tell(SpeechStopped(40_000, 0.1))
    (again,) = call.words("Tell me more. Please.", at=40_000)
    assert isinstance(again, Speculate)
    assert again.response_id != prepared.response_id
    assert not call.of(ResponseCreated)


@pytest.mark.parametrize(
    "change",
    [
        UpdateSession(None, SessionSettings(turn_detection=SemanticVad(), instructions="Be rude.")),
        CreateItem(None, Message("m", "user", (ContentPart(PartKind.INPUT_TEXT, "Hi"),)), None),
        CreateResponse(None),
        ClearInput(None, 21_000),
        EngineFailed("dead"),
    ],
)
def test_whatever_changes_what_the_reply_is_made_from_drops_it(change: Event) -> None:
    call = Call()
    (prepared,) = call.words()
    assert isinstance(prepared, Speculate)
    call.tell(*made(prepared.response_id)[:1], change)
    assert call.of(Drop) == [Drop(prepared.response_id)]
    call.end()
    assert not call.of(Adopt)
    assert len(call.of(Drop)) == 1


def test_other_words_of_the_same_pause_replace_it_and_the_same_do_not() -> None:
    call = Call()
    (first,) = call.words()
    assert call.words() == []
    dropped, second = call.words("Tell me no more.")
    assert isinstance(first, Speculate)
    assert dropped == Drop(first.response_id)
    assert isinstance(second, Speculate)
    call.end()
    assert call.of(Adopt) == [Adopt(second.response_id)]


@pytest.mark.parametrize(
    "settings",
    [
        SessionSettings(turn_detection=SemanticVad(), speculation=False),
        SessionSettings(turn_detection=SemanticVad(create_response=False)),
        SessionSettings(turn_detection=SemanticVad(), kind=SessionKind.TRANSCRIPTION),
        SessionSettings(turn_detection=SemanticVad(), tool_choice=ToolChoice("required")),
        SessionSettings(turn_detection=SemanticVad(), tool_choice=ToolChoice("function", "f")),
    ],
)
def test_where_no_reply_follows_or_a_tool_is_forced_none_is_prepared(settings: SessionSettings) -> None:
    assert Call(settings).words() == []


def test_a_pause_without_words_is_asked_back() -> None:
    call = Call()
    assert call.words("") == []
    call.end()
    call.tell(TranscriptDone(call.item, "", 0.0, "en"))
    assert [order.text for order in call.orders if isinstance(order, Say)] == ["Sorry, I did not catch that."]


def test_words_of_an_earlier_pause_are_late() -> None:
    call = Call()
    call.tell(SpeechStarted(22_000, 0.9))
    assert call.words() == []


def test_a_tool_is_never_called_from_it() -> None:
    call = Call()
    (prepared,) = call.words()
    assert isinstance(prepared, Speculate)
    assert call.tell(ToolCallReady(prepared.response_id, 0, "f", "{}")) == []
    call.end()
    assert not [order for order in call.orders if isinstance(order, ErrorRaised | OutputAudioDone)]
    assert len(call.of(ItemAdded)) == 1  # the caller's


def test_a_question_mark_ends_a_turn_that_is_scored_as_open() -> None:
    asked, told = Call(), Call()
    for call, text in ((asked, "Is it so?"), (told, "It is so")):
        call.words(text)
        call.tell(EndOfTurnScore(23_072, 0.3), Listened(24_000))
    assert asked.of(CommitTurn)
    assert not told.of(CommitTurn)
