"""Long conversations: what the model is told stays bounded, what matters of the beginning stays in it, and clients see all of it."""

from agent.commands import ItemRetrieved
from agent.events import CreateItem, DeleteItem, RetrieveItem
from agent.items import ContentPart, FunctionCall, FunctionCallOutput, Message, PartKind
from agent.memory import notes_of
from streaming.events import NOTES, SetHistory

CHAT = "The weather has been quite mild of late and the river is high again after all that rain in the hills."
BOUND = 8_000 + 2_000 + 4 * 450
"""Characters: what is told word for word, notes, results of tools."""


def long_message(text: str, role: str = "user", item_id: str = "") -> Message:
    return Message(item_id, role, (ContentPart(PartKind.INPUT_TEXT, text),))


def write(dialogue, *messages) -> None:
    for message in messages:
        dialogue.tell(CreateItem(None, message, None))


def chat(dialogue, turns: int) -> None:
    for number in range(turns):
        write(dialogue, long_message(f"{CHAT} What about it?"), long_message(f"Indeed. {CHAT} {'So' * (number % 3)}", "assistant"))


def told(dialogue) -> tuple:
    return dialogue.last(SetHistory).messages


def size(messages) -> int:
    return sum(len(message.text or "") for message in messages)


def notes(dialogue) -> str:
    return next((message.text for message in told(dialogue) if message.item_id == NOTES), "")


def test_a_short_conversation_is_told_word_for_word(play) -> None:
    dialogue = play(instructions="Be kind.")
    chat(dialogue, 20)
    assert notes(dialogue) == ""
    assert len(told(dialogue)) == 41


def test_the_beginning_of_a_long_one_becomes_notes_and_stays_with_the_client(play) -> None:
    dialogue = play(instructions="Be kind.")
    write(dialogue, long_message("Hello. My name is Miriam Okafor. How are you?", item_id="item_name"))
    write(dialogue, long_message("Your booking has the number 4312. I am well.", "assistant"))
    chat(dialogue, 40)
    assert [message.role for message in told(dialogue)[:2]] == ["system", "system"]
    assert told(dialogue)[0].text == "Be kind."
    assert notes(dialogue).splitlines()[:3] == [
        "Earlier in this call:",
        "The caller said: My name is Miriam Okafor.",
        "You said: Your booking has the number 4312.",
    ]
    assert size(told(dialogue)) < BOUND
    dialogue.tell(RetrieveItem(None, "item_name"))
    assert dialogue.last(ItemRetrieved).item.id == "item_name"
    assert len(dialogue.conversation.items) == 82


def test_what_a_client_deletes_is_in_no_notes(play) -> None:
    dialogue = play()
    write(dialogue, long_message("My name is Miriam.", item_id="one"), long_message("My PIN is 1234.", item_id="two"))
    chat(dialogue, 40)
    assert "1234" in notes(dialogue)
    dialogue.tell(DeleteItem(None, "two"))
    assert notes(dialogue) == "Earlier in this call:\nThe caller said: My name is Miriam."
    dialogue.tell(DeleteItem(None, "one"))
    assert notes(dialogue) == ""


def test_what_a_client_inserts_in_front_is_told(play) -> None:
    dialogue = play()
    chat(dialogue, 40)
    dialogue.tell(CreateItem(None, long_message("Be formal.", "system", "rule"), "root"))
    assert [message.text for message in told(dialogue) if message.role == "system"] == ["Be formal."]
    chat(dialogue, 40)
    assert [message.text for message in told(dialogue) if message.role == "system"] == ["Be formal."]


def test_results_of_tools_are_kept_and_never_parted_from_their_calls(play) -> None:
    dialogue = play()
    write(dialogue, long_message("Book a table."), FunctionCall("call", "call_1", "book", '{"at": 7}'))
    write(dialogue, FunctionCallOutput("result", "call_1", "Table 4 at 19:00"))
    chat(dialogue, 40)
    assert "Result of book: Table 4 at 19:00" in notes(dialogue)
    assert all(message.role not in ("tool_call", "tool_result") for message in told(dialogue))
    late = play()
    write(late, FunctionCall("call", "call_1", "book", "{}"))
    chat(late, 60)
    assert notes(late) == ""  # it waits for the result; till then the engine leaves out what does not fit
    write(late, FunctionCallOutput("result", "call_1", "Table 4"))
    assert told(late)[0].role == "tool_call"


def test_nothing_is_covered_while_the_caller_speaks(play) -> None:
    dialogue = play()
    chat(dialogue, 10)
    dialogue.speech(600)
    write(dialogue, long_message("My name is Miriam."))
    chat(dialogue, 40)
    assert notes(dialogue) == ""
    assert size(told(dialogue)) > 8_000
    dialogue.commit()
    dialogue.transcript("Hello there.")
    assert size(told(dialogue)) < BOUND


def test_an_hour_is_bounded_turn_by_turn(play) -> None:
    dialogue = play(instructions="Be kind.")
    write(dialogue, long_message("My name is Miriam Okafor and my order is 55 123."))
    anew = []
    before: tuple = ()
    for number in range(300):
        dialogue.turn(f"I said {number} things to my sister. {CHAT}", milliseconds=300)
        dialogue.answer(f"That makes {number}.")
        now = told(dialogue)
        same = next((i for i, (one, other) in enumerate(zip(before, now, strict=False)) if one != other), min(len(before), len(now)))
        anew.append(size(now[same:]))
        before = now
        assert size(now) < BOUND
        assert len(now) < 200
    assert "Miriam Okafor" in notes(dialogue)
    assert sum(one > 400 for one in anew) <= 300 // 25  # all else is the turn itself
    assert max(anew) < BOUND


def test_of_too_many_sentences_the_weightiest_stay_and_of_equals_the_newest() -> None:
    items = [long_message(f"My sister likes chess {'so very much ' * 5}{number}.", item_id=f"u{number}") for number in range(40)]
    items.insert(0, long_message("My name is Miriam and I live at 12 Mill Street.", item_id="first"))
    text = notes_of(items, 600)
    assert len(text) < 650
    lines = text.splitlines()
    assert lines[1] == "The caller said: My name is Miriam and I live at 12 Mill Street."
    assert lines[-1].endswith("39.")
    assert notes_of([], 600) == ""
