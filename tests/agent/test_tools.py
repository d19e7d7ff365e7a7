"""Tools that the server runs: once, never from a speculation, and every result is answered when nobody speaks."""

import json

import pytest

from agent.commands import (
    AskAgent,
    CallTool,
    ErrorRaised,
    ItemAdded,
    ItemDone,
    OutputItemAdded,
    OutputItemDone,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerCallMoved,
    SessionUpdated,
    UseLine,
)
from agent.events import (
    AgentChanged,
    CreateItem,
    EndRequested,
    FactPinned,
    LineRequested,
    Tick,
    ToolReturned,
    TurnDecided,
    UpdateSession,
    WordsOffered,
)
from agent.items import ApprovalRequest, ApprovalResponse, ServerCall, ToolList
from agent.settings import Initiative, SemanticVad, ServerTool, ServerVad, SessionSettings
from streaming.events import (
    Abort,
    FinishReason,
    Respond,
    ResponseFinished,
    Say,
    SetHistory,
    Speculate,
    SpeechStarted,
    ToolCallReady,
    ToolSpec,
)

MS = 16
BOOK = ServerTool(ToolSpec("book", "Book a table", "{}"), "desk")
MENU = ServerTool(ToolSpec("menu", "What there is to eat", "{}"), "desk")
PAY = ServerTool(ToolSpec("pay", "Take money", "{}"), "desk", needs_approval=True)
CLIENTS = ToolSpec("show", "Show a picture", "{}")


@pytest.fixture
def desk(play):
    """`desk(...)` gives a dialogue with tools; replies to a turn can call them with `call`."""

    def begin(**fields: object):
        fields = {"agent": "desk", "server_tools": (BOOK, MENU, PAY), "tools": (CLIENTS,), "speculation": False} | fields
        return play(**fields)

    return begin


def call(dialogue, *names: str) -> list[str]:
    """The model makes these calls and says nothing; gives the ids of those that the server runs."""
    response_id, before = dialogue.ordered(), len(dialogue.all(CallTool))
    for index, name in enumerate(names):
        dialogue.tell(ToolCallReady(response_id, index, name, json.dumps({"n": index})))
    dialogue.tell(ResponseFinished(response_id, FinishReason.TOOL_CALLS))
    return [order.call_id for order in dialogue.all(CallTool)[before:]]


def replies(dialogue) -> int:
    return len(dialogue.all(Respond))


def results(dialogue) -> list[tuple[str, str | None]]:
    return [pair for pair in dialogue.believed() if pair[0] in ("tool_call", "tool_result")]


def test_a_call_is_ordered_at_once_and_its_result_is_answered(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    assert dialogue.all(CallTool) == [CallTool(call_id, "book", '{"n": 0}')]
    assert dialogue.done().output == ()
    assert replies(dialogue) == 1
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    assert replies(dialogue) == 2
    assert results(dialogue) == [("tool_call", '{"n": 0}'), ("tool_result", "Table 4.")]
    dialogue.answer("You have table four.")
    assert replies(dialogue) == 2


def test_a_client_that_did_not_ask_sees_nothing_of_the_servers_tools(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    dialogue.answer()
    dialogue.write("Thank you.")
    assert not [told for told in dialogue.told() if "ServerCall" in told]
    # What it is told of the order of items leaves them out.
    known = {command.item.id for command in dialogue.all(ItemAdded)} | {None}
    assert {command.previous_item_id for command in dialogue.all((ItemAdded, ItemDone))} <= known


def test_a_client_that_asks_sees_each_call_as_an_item_of_the_protocol(desk) -> None:
    dialogue = desk(shows_tools=True)
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    (done,) = [command.item for command in dialogue.all(ItemDone) if isinstance(command.item, ServerCall)]
    assert (done.id, done.name, done.output) == (call_id, "book", "Table 4.")
    assert [command.to for command in dialogue.all(ServerCallMoved)] == ["in_progress", "completed"]
    added = [command for command in dialogue.all((OutputItemAdded, OutputItemDone)) if isinstance(command.item, ServerCall)]
    assert len(added) == 2
    assert [type(item).__name__ for item in dialogue.all(ResponseDone)[0].response.output] == ["ServerCall"]


def test_parallel_calls_are_answered_when_the_last_result_is_there(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    first, second = call(dialogue, "book", "menu")
    dialogue.tell(ToolReturned(second, "Soup."))
    assert replies(dialogue) == 1
    dialogue.tell(ToolReturned(first, "Table 4."))
    assert replies(dialogue) == 2
    texts = [text for role, text in dialogue.believed() if role == "tool_result"]
    assert texts == ["Table 4.", "Soup."]


def test_the_same_call_is_run_once_and_ends_once(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    response_id = dialogue.ordered()
    for _ in range(2):
        dialogue.tell(ToolCallReady(response_id, 0, "book", "{}"))
    dialogue.tell(ResponseFinished(response_id, FinishReason.TOOL_CALLS))
    (order,) = dialogue.all(CallTool)
    dialogue.tell(ToolReturned(order.call_id, "Table 4."))
    dialogue.answer()
    dialogue.tell(ToolReturned(order.call_id, "Table 5."))
    assert replies(dialogue) == 2
    assert results(dialogue)[1] == ("tool_result", "Table 4.")


def test_no_tool_is_called_from_a_speculation(desk) -> None:
    dialogue = desk(speculation=True, turn_detection=SemanticVad())
    dialogue.speech(800)
    dialogue.provisional()
    prepared = dialogue.last(Speculate).response_id
    dialogue.tell(ToolCallReady(prepared, 0, "book", "{}"))
    assert dialogue.all(CallTool) == []
    dialogue.wait(9_000)
    dialogue.transcript("What is a tortoise?")
    assert len(call(dialogue, "book")) == 1


def test_out_of_band_the_servers_tools_are_not_offered(desk) -> None:
    dialogue = desk()
    dialogue.write("Book a table.")
    dialogue.ask(in_conversation=False)
    assert [tool.name for tool in dialogue.last(Respond).options.tools] == ["show"]
    dialogue.ask()
    assert [tool.name for tool in dialogue.last(Respond).options.tools] == ["book", "menu", "pay", "show"]


def test_a_failed_call_is_told_to_the_model(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.tell(ToolReturned(call_id, "", "No table left."))
    assert results(dialogue)[1] == ("tool_result", "Error: No table left.")
    assert replies(dialogue) == 2


def test_a_result_that_never_comes_is_told_as_one(desk) -> None:
    dialogue = desk(server_tools=(ServerTool(BOOK.spec, "desk", timeout_ms=2_000),), initiative=Initiative(filler=""))
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.now = dialogue.conversation.deadline()
    dialogue.tell(Tick())
    assert results(dialogue)[1] == ("tool_result", "Error: The tool did not answer in time.")
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    assert replies(dialogue) == 2


def test_a_filler_is_said_once_while_a_tool_keeps_the_caller_waiting(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.wait(1_400)
    assert dialogue.conversation.deadline() is not None
    dialogue.wait(200)
    dialogue.tell(Tick())
    assert dialogue.last(Say).text == "One moment."
    dialogue.answer("One moment.")
    dialogue.wait(5_000)
    dialogue.tell(Tick())
    assert len(dialogue.all(Say)) == 1
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    assert replies(dialogue) == 2


def test_no_filler_while_the_reply_that_called_still_sounds(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    response_id = dialogue.ordered()
    dialogue.clause("Let me see what there is.", response_id)
    dialogue.tell(ToolCallReady(response_id, 0, "menu", "{}"))
    dialogue.tell(ResponseFinished(response_id, FinishReason.TOOL_CALLS))
    dialogue.played(0, 6, response_id)
    dialogue.wait(600)
    dialogue.played(3, 6, response_id)
    dialogue.wait(400)
    dialogue.tell(Tick())
    assert dialogue.all(Say) == []


def test_what_the_caller_says_between_call_and_result_is_a_turn_like_any_other(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.turn("And is there soup?")
    assert replies(dialogue) == 2
    dialogue.answer("There is.")
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    assert replies(dialogue) == 3  # what came too late for that answer is answered after it


def test_a_result_that_came_in_time_for_the_callers_next_answer_is_not_answered_again(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.speech(800)
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    assert replies(dialogue) == 1  # the caller speaks
    dialogue.wait(500)
    dialogue.transcript("And is there soup?")
    dialogue.answer("There is, and you have table four.")
    dialogue.wait(1_000)
    assert replies(dialogue) == 2
    assert ("tool_result", "Table 4.") in dialogue.believed()


def test_a_call_of_an_interrupted_reply_is_still_answered(desk) -> None:
    dialogue = desk(turn_detection=ServerVad(create_response=False))
    dialogue.turn()
    dialogue.ask()
    response_id = dialogue.ordered()
    dialogue.clause("Let me see.", response_id)
    dialogue.tell(ToolCallReady(response_id, 0, "menu", "{}"))
    dialogue.cancel()
    (order,) = dialogue.all(CallTool)
    dialogue.tell(ToolReturned(order.call_id, "Soup."))
    dialogue.played(3, 3, response_id)
    dialogue.wait(100)
    assert replies(dialogue) == 2


def test_a_client_whose_function_was_called_too_asks_for_the_answer_itself(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book", "show")
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    assert replies(dialogue) == 1
    dialogue.ask()
    dialogue.answer()
    assert replies(dialogue) == 2


def test_a_forced_call_is_not_forced_again_and_calls_without_end_are_stopped(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    for number in range(9):
        choice = dialogue.last(Respond).options.tool_choice
        if choice == "none":
            break
        (call_id,) = call(dialogue, "book")
        dialogue.tell(ToolReturned(call_id, f"Table {number}."))
    assert (number, choice) == (8, "none")


def test_fixed_words_of_a_tool_are_the_answer(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    first, second = call(dialogue, "book", "menu")
    dialogue.tell(ToolReturned(first, "4", say="You have table four."))
    dialogue.tell(ToolReturned(second, "soup", say="There is soup."))
    assert dialogue.last(Say).text == "You have table four. There is soup."
    assert replies(dialogue) == 1


# ----------------------------------------------------------------------------------------------------------- approval


def approval(dialogue, approve: bool, request_id: str | None = None) -> None:
    asked = [command.item for command in dialogue.all(ItemDone) if isinstance(command.item, ApprovalRequest)]
    dialogue.tell(CreateItem("client_1", ApprovalResponse("", request_id or asked[-1].id, approve), None))


def test_a_call_that_needs_approval_waits_for_it(desk) -> None:
    dialogue = desk(shows_tools=True)
    dialogue.turn()
    assert call(dialogue, "pay") == []
    approval(dialogue, True)
    (order,) = dialogue.all(CallTool)
    assert order.name == "pay"
    dialogue.tell(ToolReturned(order.call_id, "Paid."))
    assert replies(dialogue) == 2
    (done,) = [command.item for command in dialogue.all(ItemDone) if isinstance(command.item, ServerCall)]
    assert done.approval_id is not None
    approval(dialogue, True)
    assert dialogue.last(ErrorRaised).code == "invalid_value"
    assert len(dialogue.all(CallTool)) == 1


def test_a_refused_call_is_never_made(desk) -> None:
    dialogue = desk(shows_tools=True)
    dialogue.turn()
    call(dialogue, "pay")
    approval(dialogue, False)
    assert dialogue.all(CallTool) == []
    assert results(dialogue)[1] == ("tool_result", "Error: The approval was refused.")
    assert replies(dialogue) == 2


def test_a_client_that_can_not_be_asked_has_not_approved(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    call(dialogue, "pay")
    assert dialogue.all(CallTool) == []
    assert replies(dialogue) == 2


def test_an_approval_that_nobody_gives_ends(desk) -> None:
    dialogue = desk(shows_tools=True)
    dialogue.turn()
    call(dialogue, "pay")
    dialogue.now += 130_000 * MS
    dialogue.tell(Tick())
    assert dialogue.all(CallTool) == []
    assert results(dialogue)[1][1] == "Error: Nobody approved it in time."


# ------------------------------------------------------------------------------------------------------ the agent's code


def test_the_agents_code_is_asked_once_before_a_turn_is_answered(desk) -> None:
    dialogue = desk(asks_agent=True)
    dialogue.turn("Four people.")
    (asked,) = dialogue.all(AskAgent)
    assert asked.words == "Four people."
    assert replies(dialogue) == 0
    dialogue.tell(TurnDecided(asked.item_id))
    assert replies(dialogue) == 1
    dialogue.tell(TurnDecided(asked.item_id, say="Late."))
    assert dialogue.all(Say) == []
    dialogue.answer()
    dialogue.ask()
    assert len(dialogue.all(AskAgent)) == 1


def test_it_may_answer_by_itself_or_force_a_tool(desk) -> None:
    dialogue = desk(asks_agent=True)
    dialogue.turn("Four people.")
    dialogue.tell(TurnDecided(dialogue.last(AskAgent).item_id, say="For when?"))
    assert dialogue.last(Say).text == "For when?"
    dialogue.answer("For when?")
    dialogue.turn("Tuesday.")
    dialogue.tell(TurnDecided(dialogue.last(AskAgent).item_id, tool="book"))
    assert dialogue.last(Respond).options.tool_choice == "book"


def test_a_caller_who_goes_on_makes_its_decision_stale(desk) -> None:
    dialogue = desk(asks_agent=True)
    dialogue.turn("Four people.")
    asked = dialogue.last(AskAgent)
    dialogue.speech(800)
    assert dialogue.done().reason == "turn_detected"
    assert dialogue.all(Abort) == []  # nothing had been asked of the engine
    dialogue.tell(TurnDecided(asked.item_id, say="For when?"))
    assert dialogue.all(Say) == []


def test_offered_words_wait_until_nobody_speaks(desk) -> None:
    dialogue = desk()
    onset = dialogue.now
    dialogue.wait(64)
    dialogue.tell(SpeechStarted(onset, 0.9))
    dialogue.tell(WordsOffered("You have a message."))
    dialogue.wait(200)
    assert dialogue.all(Say) == []
    dialogue.commit()
    assert dialogue.last(Say).text == "You have a message."


def test_the_line_is_used_when_all_has_been_played(desk) -> None:
    dialogue = desk()
    dialogue.tell(WordsOffered("I put you through."))
    response_id = dialogue.ordered()
    dialogue.tell(LineRequested("line_1", "transfer", "+41"))
    dialogue.clause("I put you through.", response_id)
    dialogue.finish(response_id=response_id)
    dialogue.played(0, 4, response_id)
    assert dialogue.all(UseLine) == []
    dialogue.played(4, 4, response_id)
    assert dialogue.all(UseLine) == [UseLine("line_1", "transfer", "+41")]


def test_pinned_facts_stay_with_the_instructions(desk) -> None:
    dialogue = desk(instructions="Be kind.")
    dialogue.tell(FactPinned("The caller is called Ada."))
    assert dialogue.believed()[0] == ("system", "Be kind.\nThe caller is called Ada.")


def test_a_handoff_changes_instructions_tools_and_voice_and_keeps_the_history(desk) -> None:
    dialogue = desk(instructions="Be kind.", shows_tools=True)
    dialogue.turn()
    dialogue.answer("A tortoise is slow.")
    billing = ServerTool(PAY.spec, "billing")
    other = SessionSettings(instructions="Be exact.", agent="billing", voice="amy", fixed_voice=True, server_tools=(billing,))
    dialogue.tell(AgentChanged(other))
    told = dialogue.last(SessionUpdated).settings
    assert (told.instructions, told.voice, told.server_tools, told.tools) == ("Be exact.", "amy", (billing,), (CLIENTS,))
    assert dialogue.believed() == [
        ("system", "Be exact."), ("user", "What is a tortoise?"), ("assistant", "A tortoise is slow."),
    ]  # fmt: skip
    assert [command.item.server_label for command in dialogue.all(ItemDone) if isinstance(command.item, ToolList)] == ["desk", "billing"]
    dialogue.turn("What do I owe?")
    assert (dialogue.last(Respond).options.voice, dialogue.last(Respond).options.tools) == ("amy", (PAY.spec, CLIENTS))


def test_a_hook_that_hands_over_leaves_the_turn_to_the_other_agents_model(desk) -> None:
    dialogue = desk(asks_agent=True)
    dialogue.turn("I have a bill.")
    asked = dialogue.last(AskAgent)
    dialogue.tell(AgentChanged(SessionSettings(instructions="Be exact.", agent="billing", server_tools=(PAY,))))
    dialogue.tell(TurnDecided(asked.item_id))
    assert dialogue.last(Respond).options.tools == (PAY.spec, CLIENTS)
    assert dialogue.believed()[0] == ("system", "Be exact.")


def test_facts_are_kept_once_and_not_without_end() -> None:
    settings = SessionSettings(instructions="Be kind.")
    for number in range(100):
        settings = settings.knowing(f"Fact {number}.").knowing(f"Fact {number}.").knowing(" ")
    assert settings.facts == tuple(f"Fact {number}." for number in range(36, 100))


def test_no_filler_for_a_call_that_ends_at_that_very_moment(desk) -> None:
    dialogue = desk(server_tools=(ServerTool(BOOK.spec, "desk", timeout_ms=500),))
    dialogue.turn()
    call(dialogue, "book")
    dialogue.now += 1_500 * MS
    dialogue.tell(Tick())
    assert dialogue.all(Say) == []
    assert replies(dialogue) == 2


def test_a_client_may_not_take_the_name_of_a_servers_tool(desk) -> None:
    dialogue = desk()
    dialogue.tell(UpdateSession("client_9", SessionSettings(server_tools=(BOOK,), tools=(BOOK.spec,))))
    assert dialogue.error() == ("invalid_value", "client_9")


def test_every_response_that_is_created_is_done(desk) -> None:
    dialogue = desk()
    dialogue.turn()
    (call_id,) = call(dialogue, "book")
    dialogue.tell(ToolReturned(call_id, "Table 4."))
    dialogue.answer()
    assert len(dialogue.all(ResponseCreated)) == len(dialogue.all(ResponseDone))
    assert dialogue.all(SetHistory)


def test_a_reply_that_was_never_ordered_is_not_aborted(desk) -> None:
    """The call ends while the agent's code decides."""
    dialogue = desk(asks_agent=True)
    dialogue.turn()
    dialogue.tell(EndRequested("booked"))
    dialogue.tell(TurnDecided(dialogue.last(AskAgent).item_id))
    assert dialogue.done().status is ResponseStatus.CANCELLED
    assert dialogue.all(Abort) == []
