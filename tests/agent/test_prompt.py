"""Items to context messages."""

import pytest

from agent.items import ContentPart, FunctionCall, FunctionCallOutput, ItemStatus, Message, PartKind
from agent.prompt import asks_back, context_of
from streaming.events import ContextMessage


def user(text: str | None, item_id: str = "u", kind: PartKind = PartKind.INPUT_AUDIO) -> Message:
    return Message(item_id, "user", (ContentPart(kind, text),))


def reply(text: str, status: ItemStatus = ItemStatus.COMPLETED) -> Message:
    return Message("a", "assistant", (ContentPart(PartKind.OUTPUT_AUDIO, text),), status)


@pytest.mark.parametrize(
    ("items", "heard", "expected"),
    [
        ([user("Hi")], {}, [ContextMessage("user", "u", "Hi")]),
        ([user(None)], {}, [ContextMessage("user", "u", None)]),
        ([reply("One two")], {}, [ContextMessage("assistant", "a", "One two")]),
        ([reply("One two")], {"a": "One"}, [ContextMessage("assistant", "a", "One", complete=False)]),
        ([reply("One two")], {"a": ""}, []),
        ([reply("One", ItemStatus.INCOMPLETE)], {}, [ContextMessage("assistant", "a", "One", complete=False)]),
        (
            [FunctionCall("f", "call_1", "get", "{}"), FunctionCallOutput("o", "call_1", "4")],
            {},
            [ContextMessage("tool_call", "f", "{}", "get", "call_1"), ContextMessage("tool_result", "o", "4", "get", "call_1")],
        ),
    ],
)
def test_context(items, heard, expected) -> None:
    assert list(context_of("", items, heard)) == expected
    assert context_of("Be brief.", items, heard)[0] == ContextMessage("system", "", "Be brief.")


@pytest.mark.parametrize(
    ("items", "heard", "expected"),
    [
        ([], {}, False),
        ([user("")], {}, True),
        ([user(" ")], {}, True),
        ([user("Hi")], {}, False),
        ([user(None)], {}, False),
        ([user("", kind=PartKind.INPUT_TEXT)], {}, False),
        ([user("Hi"), user("")], {}, False),
        ([user("Hi"), reply("Hello"), user("")], {}, True),
        ([user("Hi"), reply("Hello"), user("")], {"a": ""}, False),
        ([user("Hi"), reply("Hello"), user("")], {"a": "Hel"}, True),
        ([user("Hi"), user(""), user("")], {}, False),
    ],
)
def test_when_we_ask_back(items, heard, expected) -> None:
    assert asks_back(items, heard) is expected
