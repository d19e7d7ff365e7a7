"""What clients ask of items and of the session, and how they are refused (protocols.md 1.4, 1.5, 1.12, 1.13)."""

from dataclasses import replace

import pytest

from agent.commands import (
    ErrorRaised,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    OutputItemAdded,
    OutputItemDone,
    ResponseDone,
    ResponseStatus,
    SessionUpdated,
)
from agent.conversation import Conversation
from agent.events import (
    CreateItem,
    DeleteItem,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    SessionOpened,
    Tick,
    TruncateItem,
    UpdateSession,
)
from agent.items import ContentPart, FunctionCall, FunctionCallOutput, Message, PartKind
from agent.settings import SessionKind, SessionSettings
from streaming.events import CommitTurn, Respond, SetHistory


def ids(session) -> list[str]:
    """The conversation's items in order, by what the model believes."""
    return [message.item_id for message in session.believed]


def test_items_go_where_the_client_says(call) -> None:
    session = call()
    session.write_item("b", "item_b")
    session.write_item("d", "item_d")
    session.write_item("c", "item_c", previous="item_b")
    session.write_item("a", "item_a", previous="root")
    assert ids(session) == ["item_a", "item_b", "item_c", "item_d"]
    assert [added.previous_item_id for added in session.ordered(ItemAdded)] == [None, "item_b", "item_b", None]
    assert [done.previous_item_id for done in session.ordered(ItemDone)] == [None, "item_b", "item_b", None]


def test_an_item_without_an_id_gets_one(call) -> None:
    session = call()
    session.write_item("Hello.")
    item_id = session.last(ItemAdded).item.id
    assert item_id.startswith("item_")
    assert len(item_id) == len("item_") + 21
    assert item_id[5:].isalnum()


def test_history_of_an_earlier_session_is_replayed(call) -> None:
    session = call()
    session.write_item("Hello.", "item_1", previous="root")
    session.write_item("Hi.", "item_2", previous="item_1", role="assistant")
    session.tell(CreateItem(None, FunctionCall("item_3", "call_1", "get_time", "{}"), "item_2"))
    session.tell(CreateItem(None, FunctionCallOutput("item_4", "call_1", "noon"), "item_3"))
    session.write_item("Be nice.", "item_5", role="system")
    assert session.dialogue == [
        ("user", "Hello."),
        ("assistant", "Hi."),
        ("tool_call", "{}"),
        ("tool_result", "noon"),
        ("system", "Be nice."),
    ]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (CreateItem("x", Message("item_a", "user", ()), None), "item_create_duplicate_item_id"),
        (CreateItem("x", Message("item_b", "user", ()), "none"), "item_create_invalid_previous_item_id"),
        (CreateItem("x", FunctionCallOutput("", "call_none", ""), None), "invalid_value"),
        (RetrieveItem("x", "none"), "item_retrieve_invalid_item_id"),
        (DeleteItem("x", "none"), "item_delete_invalid_item_id"),
        (TruncateItem("x", "none", 0, 100), "item_truncate_invalid_item_id"),
        (TruncateItem("x", "item_a", 0, 100), "unsupported_content_type"),
        (RefuseRequest("x", "invalid_type", "not a number", "audio_end_ms"), "invalid_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_refusals_name_the_request_and_change_nothing(call, request_, code) -> None:
    session = call()
    session.write_item("Hello.", "item_a")
    session.notices()
    told = len(session.ordered(SetHistory))
    session.tell(request_)
    (error,) = session.notices()
    assert isinstance(error, ErrorRaised)
    assert (error.code, error.event_id, error.kind) == (code, "x", "invalid_request_error")
    assert len(session.ordered(SetHistory)) == told
    session.tell(RetrieveItem(None, "item_a"))
    assert session.last(ItemRetrieved).item.id == "item_a"


def test_what_is_deleted_is_not_believed(call) -> None:
    session = call()
    session.write_item("Hello.", "item_a")
    session.write_item("Forget this.", "item_b")
    session.notices()
    session.tell(DeleteItem(None, "item_b"))
    assert session.notices() == [ItemDeleted("item_b")]
    assert ids(session) == ["item_a"]
    session.write_item("And this?", "item_b")  # the id is free again
    assert ids(session) == ["item_a", "item_b"]


def test_retrieving_a_turn_shows_its_transcript(call) -> None:
    session = call()
    session.ask("Hello.")
    session.tell(RetrieveItem(None, session.turn_item))
    assert session.last(ItemRetrieved).item.content == (ContentPart(PartKind.INPUT_AUDIO, "Hello."),)


def test_a_turn_deleted_before_its_transcript(call) -> None:
    session = call()
    session.speak(640)
    session.hush(640)
    session.tell(DeleteItem(None, session.turn_item))
    session.transcribe("Hello.")
    assert session.believed == ()
    if session.ordered(Respond):
        session.answer("Hi.")
        assert len(session.ordered(ResponseDone)) == 1


def test_a_reply_deleted_while_it_is_said(call) -> None:
    session = call()
    session.create_response()
    session.say("One two")
    item = session.last(OutputItemAdded).item.id
    session.tell(DeleteItem(None, item))
    session.say(" three.")
    session.finish()
    done = session.last(ResponseDone).response
    assert (done.status, done.output[0].id) == (ResponseStatus.COMPLETED, item)
    assert session.ordered(ItemDone) == []
    assert len(session.ordered(OutputItemDone)) == 1
    assert session.believed == ()
    session.tell(TruncateItem(None, item, 0, 100))
    assert session.last(ErrorRaised).code == "item_truncate_invalid_item_id"


# ------------------------------------------------------------------------------------------------------ the session


def test_the_voice_is_locked_once_heard(call) -> None:
    session = call(voice="joe")
    session.update(voice="amy")
    session.create_response()
    session.say("Hello.")
    session.notices()
    session.update(voice="joe", instructions="Be nice.")
    (error,) = session.notices()
    assert (error.code, error.event_id) == ("cannot_update_voice", "update")
    assert session.conversation.settings == SessionSettings(voice="amy")
    session.update(voice="amy", instructions="Be nice.")
    assert [type(notice) for notice in session.notices()] == [SessionUpdated]


def test_the_kind_is_chosen_in_the_first_update_only(call) -> None:
    session = call()
    session.update(kind=SessionKind.TRANSCRIPTION)
    assert session.conversation.settings.kind is SessionKind.TRANSCRIPTION
    session.notices()
    session.update(kind=SessionKind.REALTIME)
    assert session.kinds() == ["ErrorRaised"]
    assert session.conversation.settings.kind is SessionKind.TRANSCRIPTION


def test_an_update_takes_effect_for_the_next_response(call) -> None:
    session = call()
    session.create_response()
    session.update(output_audio=False)
    session.answer("Hello.")
    assert session.last(ResponseDone).response.output_audio is True
    session.create_response()
    assert session.last(Respond).options.audio is False


def test_turn_detection_takes_effect_at_once(call) -> None:
    session = call(turn_detection=None)
    session.speak(640)
    session.hush(64)
    assert session.kinds() == []
    session.update(turn_detection=SessionSettings().turn_detection)
    session.listen(960)
    kinds = [kind for kind in session.kinds() if kind != "SessionUpdated"]
    assert kinds[-4:] == ["InputCommitted", "ItemAdded", "ItemDone", "ResponseCreated"]
    assert len(session.ordered(CommitTurn)) == 1


# ------------------------------------------------------------------------------------------------- the core itself


def test_reports_and_ticks_that_nothing_waits_for(call) -> None:
    session = call()
    assert session.tell(Tick()) == []
    assert session.tell(PlaybackReported(None, "resp_none", 100)) == []


def test_ids_come_from_the_session_and_its_seed() -> None:
    def first_id(session_id: str, seed: int) -> str:
        conversation = Conversation(session_id, seed)
        conversation.handle(SessionOpened(SessionSettings()), 0)
        commands = conversation.handle(CreateItem(None, Message("", "user", ()), None), 0)
        return next(command.item.id for command in commands if isinstance(command, ItemAdded))

    assert first_id("sess_a", 1) == first_id("sess_a", 1)
    assert len({first_id("sess_a", 1), first_id("sess_a", 2), first_id("sess_b", 1)}) == 3


def test_an_event_that_is_none_is_our_fault_not_the_clients(call) -> None:
    session = call()
    with pytest.raises(Exception, match="object"):
        session.conversation.handle(object(), 0)


def test_settings_are_readable(call) -> None:
    session = call(instructions="Be brief.")
    changed = replace(session.conversation.settings, instructions="Be long.")
    session.tell(UpdateSession(None, changed))
    assert session.conversation.settings is changed
