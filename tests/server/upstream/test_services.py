"""What the services are told, as values: cases that a whole call seldom shows."""

import json

import pytest

from server.upstream.errors import UpstreamError
from server.upstream.gemini_live import GeminiService, Setups
from server.upstream.openai_realtime import OpenAIService
from server.upstream.service import CallMade, ReplyDone, ReplyWords, Service, key_of
from streaming.events import ContextMessage, FinishReason, Respond, RespondOptions, Usage

CALL = ContextMessage("tool_call", "item_1", '{"city": "Bern"}', "weather", "item_1")
RESULT = ContextMessage("tool_result", "item_1", "rain", "weather", "item_1")


@pytest.fixture(params=["openai", "gemini"])
def service(request) -> Service:
    return OpenAIService() if request.param == "openai" else GeminiService("m", "", Setups())


def sent(messages: list[str]) -> list[dict[str, object]]:
    return [json.loads(message) for message in messages]


def test_a_call_that_the_server_ran_and_its_result_are_both_told(service) -> None:
    told = json.dumps(sent(service.believe((CALL, RESULT), {}, {})))
    assert "Bern" in told
    assert "rain" in told
    assert service.believe((CALL, RESULT), {}, {}) == []


def test_names_are_short_enough() -> None:
    long = ContextMessage("user", "an_item_whose_client_likes_long_names_very_much", "Hi")
    assert len(key_of(long)) <= 32
    assert key_of(long) == key_of(long)
    assert key_of(CALL) != key_of(RESULT)


@pytest.mark.parametrize("message", ["", "[]", "7", '{"type": 7}x', "[" * 100_000])
def test_garbage_is_an_error(service, message) -> None:
    with pytest.raises(UpstreamError, match="it sent what is no"):
        service.read(message)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "response.done"},
        {"type": "response.created", "response": 7},
        {"type": "error", "error": []},
        {"type": "response.output_audio.delta", "response_id": "nobody's", "delta": "AAAA"},
        {"serverContent": []},
        {"serverContent": {"modelTurn": {"parts": "none"}, "turnComplete": True}},
        {"toolCall": {"functionCalls": [{"id": 7}]}},
        {"toolCallCancellation": {"ids": "none"}},
        {"usageMetadata": {"promptTokenCount": "many"}},
    ],
)
def test_what_means_nothing_is_passed_over(service, message) -> None:
    assert service.read(json.dumps(message)) == []


def test_a_turn_that_is_too_short_there_is_told_in_words() -> None:
    service = OpenAIService()
    (commit,) = sent(service.commit("item_1"))
    error = {"code": "input_audio_buffer_commit_empty", "message": "too small", "event_id": commit["event_id"]}
    assert service.read(json.dumps({"type": "error", "error": error})) == []
    (created,) = sent(service.believe((ContextMessage("user", "item_1", None),), {"item_1": "Hm."}, {}))
    assert created["item"]["content"] == [{"type": "input_text", "text": "Hm."}]


def test_a_reply_that_came_too_soon_is_asked_for_again() -> None:
    service = OpenAIService()
    asked = sent(service.respond(Respond("ours", RespondOptions()), {}))[-1]
    error = {"code": "conversation_already_has_active_response", "message": "one is running", "event_id": asked["event_id"]}
    assert service.read(json.dumps({"type": "error", "error": error})) == []
    assert service.take_late() == []
    service.read(json.dumps({"type": "response.done", "response": {"id": "theirs"}}))
    assert sent(service.take_late()) == [asked]


def test_a_reply_that_is_stopped_before_it_has_a_name_is_cancelled_when_it_has_one() -> None:
    service = OpenAIService()
    service.respond(Respond("ours", RespondOptions()), {})
    assert service.stop("ours") == []
    service.read(json.dumps({"type": "response.created", "response": {"id": "r", "metadata": {"vivavoce_response": "ours"}}}))
    assert sent(service.take_late()) == [{"type": "response.cancel", "response_id": "r"}]
    delta = {"type": "response.output_audio_transcript.delta", "response_id": "r", "delta": "Too late"}
    assert service.read(json.dumps(delta)) == []


def test_a_turn_of_gemini_that_was_interrupted_and_never_completed() -> None:
    service = GeminiService("m", "", Setups())
    service.respond(Respond("one", RespondOptions()), {})
    service.stop("one")
    service.read(json.dumps({"serverContent": {"interrupted": True}}))
    service.respond(Respond("two", RespondOptions()), {})
    content = {"modelTurn": {"parts": [{"text": ""}]}, "outputTranscription": {"text": "Hello."}}
    assert service.read(json.dumps({"serverContent": content})) == [ReplyWords("two", "Hello.")]
    usage = {"promptTokenCount": 3, "responseTokenCount": 2}
    (done,) = service.read(json.dumps({"serverContent": {"generationComplete": True}, "usageMetadata": usage}))
    assert done == ReplyDone("two", FinishReason.STOP, None, Usage(3, 0, 2))


def test_calls_of_gemini_end_the_reply_and_not_its_turn() -> None:
    service = GeminiService("m", "", Setups())
    service.respond(Respond("one", RespondOptions()), {})
    call = {"id": "x", "name": "weather", "args": {"city": "Bern"}}
    made, done = service.read(json.dumps({"toolCall": {"functionCalls": [call]}}))
    assert (made, done.reason) == (CallMade("one", 0, "weather", '{"city": "Bern"}'), FinishReason.TOOL_CALLS)
    assert service.believe((CALL, RESULT), {}, {}) == []
    (answer,) = sent(service.respond(Respond("two", RespondOptions()), {}))
    assert answer == {"toolResponse": {"functionResponses": [{"id": "x", "name": "weather", "response": {"output": "rain"}}]}}
    content = {"outputTranscription": {"text": "Rain."}}
    assert service.read(json.dumps({"serverContent": content})) == [ReplyWords("two", "Rain.")]
