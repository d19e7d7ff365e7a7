"""Requests and streams of the chat protocol, as values."""

import json

from server.upstream.chat_wire import CallDelta, StreamReader, request_body
from streaming.events import ContextMessage, RespondOptions, ToolSpec
from streaming.instructions import SPOKEN_INSTRUCTIONS

SYSTEM = ContextMessage("system", "", "Be brief.")
ASKED = ContextMessage("user", "u1", None)
WEATHER = ContextMessage("tool_call", "c1", '{"city": "Bern"}', "weather", "call_1")
TIME = ContextMessage("tool_call", "c2", "{}", "time", "call_2")
RAIN = ContextMessage("tool_result", "r1", "rain", "weather", "call_1")


def body(*context: ContextMessage, options: RespondOptions | None = None, texts: dict[str, str] | None = None) -> dict[str, object]:
    return json.loads(request_body("m", context, texts or {"u1": "Will it rain?"}, options or RespondOptions()))


def test_a_conversation() -> None:
    said = ContextMessage("assistant", "a1", "It will", complete=False)
    request = body(SYSTEM, ASKED, said, ContextMessage("user", "u2", ""), ContextMessage("user", "u3", "Where?"))
    assert request == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Will it rain?"},
            {"role": "assistant", "content": "It will"},
            {"role": "user", "content": "Where?"},
        ],
    }


def test_calls_are_answered_at_once_whatever_was_said_between() -> None:
    messages = body(SYSTEM, ASKED, WEATHER, TIME, ContextMessage("user", "u2", "Hello?"), RAIN)["messages"]
    assert [(m["role"], m.get("content")) for m in messages[1:]] == [
        ("user", "Will it rain?"),
        ("assistant", None),
        ("tool", "rain"),
        ("tool", "There is no result yet."),
        ("user", "Hello?"),
    ]
    assert [(call["id"], call["function"]["name"]) for call in messages[2]["tool_calls"]] == [("call_1", "weather"), ("call_2", "time")]


def test_tools_and_limits() -> None:
    tool = ToolSpec("weather", "Weather in a city", '{"type": "object"}')
    request = body(ASKED, options=RespondOptions(tools=(tool,), tool_choice="weather", temperature=0.3, max_output_tokens=9))
    assert request["tools"][0]["function"] == {"name": "weather", "description": "Weather in a city", "parameters": {"type": "object"}}
    assert (request["tool_choice"], request["temperature"], request["max_tokens"]) == (
        {"type": "function", "function": {"name": "weather"}},
        0.3,
        9,
    )


def test_requests_of_a_conversation_begin_alike() -> None:
    first = request_body("m", (SYSTEM, ASKED), {"u1": "Hello"}, RespondOptions())
    second = request_body("m", (SYSTEM, ASKED, ContextMessage("assistant", "a", "Hi.")), {"u1": "Hello"}, RespondOptions())
    assert second.startswith(first.removesuffix(b"]}"))


def test_servers_that_do_not_count_calls() -> None:
    reader = StreamReader()
    for call_id, name in (("a", "weather"), ("b", "time")):
        call = {"id": call_id, "function": {"name": name, "arguments": "{}"}}
        (delta,) = reader.push(json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]}))
        assert delta == CallDelta("ab".index(call_id), name, "{}")
    reader.push(json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    assert reader.end().calls == (("weather", "{}"), ("time", "{}"))


def test_a_voice_is_told_that_it_is_one() -> None:
    assert body(ASKED)["messages"][0] == {"role": "system", "content": SPOKEN_INSTRUCTIONS}
    assert body(ASKED, options=RespondOptions(audio=False))["messages"][0]["role"] == "user"
