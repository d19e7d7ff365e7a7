"""RTVI to Realtime and back, message by message; and a call whose client speaks it."""

import json

import pytest

from agent.conversation import Conversation
from server.webrtc.rtvi import Rtvi, Translation, is_rtvi
from streaming.fakes import ScriptedEngine, ScriptedReply

NOW = "2026-11-29T12:00:00Z"


def message(kind: str, data: object = None, **more: object) -> str:
    return json.dumps({"label": "rtvi-ai", "type": kind, "data": data} | more)


def told(rtvi: Rtvi, kind: str, **fields: object) -> list[tuple[str, object]]:
    sent = [json.loads(text) for text in rtvi.tell(json.dumps({"type": kind} | fields), NOW)]
    assert all(one["label"] == "rtvi-ai" for one in sent)
    return [(one["type"], one.get("data")) for one in sent]


def requests(translation: Translation) -> list[dict]:
    return [json.loads(request) for request in translation.requests]


@pytest.mark.parametrize("other", ["ping", '{"type": "session.update"}', b"\xff", '["rtvi-ai"]', '{"rtvi-ai"', '{"type": "rtvi-ai"}'])
def test_what_is_not_rtvi(other) -> None:
    assert not is_rtvi(other)


def test_a_client_that_is_ready_hears_that_the_bot_is() -> None:
    ready = message("client-ready", {"version": "2.2.0"}, id="a1")
    assert is_rtvi(ready)
    translation = Rtvi().hear(ready)
    (reply,) = map(json.loads, translation.replies)
    assert (reply["type"], reply["id"], reply["data"]["version"]) == ("bot-ready", "a1", "2.2.0")
    (update,) = requests(translation)
    assert update["session"]["audio"]["input"]["transcription"]


def test_text_is_asked_and_cuts_what_is_being_answered() -> None:
    rtvi = Rtvi()
    kinds = [request["type"] for request in requests(rtvi.hear(message("send-text", {"content": "Hello"})))]
    assert kinds == ["conversation.item.create", "response.create"]
    told(rtvi, "response.created")
    kinds = [request["type"] for request in requests(rtvi.hear(message("send-text", {"content": "Hello"})))]
    assert kinds == ["response.cancel", "conversation.item.create", "response.create"]
    later = {"content": "x", "options": {"run_immediately": False}}
    assert [request["type"] for request in requests(rtvi.hear(message("send-text", later)))] == ["conversation.item.create"]
    told(rtvi, "response.done")
    silent = {"content": "x", "options": {"audio_response": False}}
    assert requests(rtvi.hear(message("send-text", silent)))[-1]["response"] == {"output_modalities": ["text"]}


def test_a_function_is_called_and_answers() -> None:
    rtvi = Rtvi()
    ((kind, data),) = told(rtvi, "response.function_call_arguments.done", name="f", call_id="call_1", arguments='{"a": 1}')
    assert (kind, data) == ("llm-function-call-in-progress", {"function_name": "f", "tool_call_id": "call_1", "arguments": {"a": 1}})
    item, create = requests(rtvi.hear(message("llm-function-call-result", {"tool_call_id": "call_1", "result": {"b": 2}})))
    assert item["item"] == {"type": "function_call_output", "call_id": "call_1", "output": '{"b": 2}'}
    assert create["type"] == "response.create"


def test_what_the_caller_says_grows_until_it_is_final() -> None:
    rtvi, kind = Rtvi(), "conversation.item.input_audio_transcription."
    texts = [told(rtvi, kind + "delta", item_id="i", delta=delta)[0][1]["text"] for delta in ("Hel", "lo")]
    assert texts == ["Hel", "Hello"]
    ((_, final),) = told(rtvi, kind + "completed", item_id="i", transcript="Hello.")
    assert final == {"text": "Hello.", "user_id": "user", "timestamp": NOW, "final": True}
    assert told(rtvi, kind + "delta", item_id="j", delta="New")[0][1]["text"] == "New"


def test_a_message_of_the_clients_own_is_refused_by_its_number() -> None:
    (reply,) = map(json.loads, Rtvi().hear(message("client-message", {"t": "x"}, id="7")).replies)
    assert (reply["type"], reply["id"]) == ("error-response", "7")


@pytest.mark.parametrize("odd", [message("send-text", []), message("ui-event"), message("llm-function-call-result"), '{"label":"rtvi-ai"}'])
def test_odd_messages_are_no_fault_of_ours(odd) -> None:
    Rtvi().hear(odd)


async def test_a_call_in_rtvi(start, caller, client, speech) -> None:
    served = await start(ScriptedEngine([ScriptedReply("One two three."), ScriptedReply("Four.")], ["Hello."]), factory=Conversation)
    one = caller()
    answer = (await client.post(served.url + "/api/offer", json={"sdp": await one.offer(), "type": "offer"})).json()
    await one.accept(answer["sdp"])
    await one.opened.wait()
    one.channel.send("ping: 1764453600000")
    one.channel.send('{"type":"signalling","message":{"type":"trackStatus"}}')
    one.channel.send(message("client-ready", {"version": "2.2.0"}, id="a1"))
    assert (await one.until("bot-ready"))["id"] == "a1"
    one.mouth.say(speech(600, rate=48_000))
    assert (await one.until("user-transcription"))["data"]["text"]
    await one.until("bot-stopped-speaking")
    words = "".join(event["data"]["text"] for event in one.got if event["type"] == "bot-output")
    assert words.split() == ["One", "two", "three."]
    begin = len(one.got)
    one.channel.send(message("send-text", {"content": "And now?"}))
    await one.until("bot-stopped-speaking", begin)
    kinds = one.kinds()
    assert kinds.index("user-started-speaking") < kinds.index("user-stopped-speaking") < kinds.index("bot-started-speaking")
    assert "error" not in kinds
    one.channel.send(message("disconnect-bot"))
    await one.closed()
