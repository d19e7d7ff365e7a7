"""`POST /v1/chat/completions` of a real server with a scripted engine."""

import asyncio
import base64
import json
from dataclasses import replace

import httpx
import numpy as np
import pytest

from server.engine_link import LocalEngineLink
from server.limits import Limits
from streaming.events import Abort, CommitTurn, EngineLost, EngineOrder, Respond, TextDelta
from streaming.fakes import ScriptedEngine, ScriptedReply
from streaming.wav import read_wav, wav_bytes

PATH = "/v1/chat/completions"
SAID = "The weather in Paris is fine, and it will stay so until the end of the week."
TONE = (np.sin(np.arange(16_000) / 9) * 9_000).astype(np.int16)


def body(**fields: object) -> bytes:
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav_bytes(TONE, 16_000)).decode(), "format": "wav"}}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [sound]}]
    return json.dumps({"model": "pocket", "messages": messages} | fields).encode()


def events(text: str) -> list[dict[str, object]]:
    """The objects of a stream that ended as it should."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def scripted(**reply: object) -> ScriptedEngine:
    return ScriptedEngine([ScriptedReply(SAID, **reply)], ["How is the weather?"])


async def test_sound_is_answered_in_text(start) -> None:
    engine = scripted()
    served = await start(engine)
    response = await served.post(PATH, body(vivavoce={"transcripts": True}))
    answer = response.json()
    assert response.status_code == 200
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": SAID, "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len(SAID.split())
    assert answer["vivavoce"] == {"transcripts": ["How is the weather?"]}
    assert [(one.role, one.text) for one in engine.contexts[0]] == [("system", "Be brief."), ("user", "How is the weather?")]
    assert [order for _, order in engine.orders if isinstance(order, CommitTurn)] == [CommitTurn("item_1", 0, 16_000)]
    assert "vivavoce_sessions 0.0" in (await served.get("/metrics")).text


async def test_a_stream(start) -> None:
    served = await start(scripted())
    response = await served.post(PATH, body(stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events(response.text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert len(deltas) > 3
    assert "".join(delta.get("content", "") for delta in deltas) == SAID
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], len(SAID.split()))
    assert len({chunk["id"] for chunk in (*chunks, last)}) == 1


async def test_a_spoken_answer(start) -> None:
    served = await start(scripted())
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "joe", "format": "wav"}}
    message = (await served.post(PATH, body(**spoken))).json()["choices"][0]["message"]
    assert (message["content"], message["audio"]["transcript"]) == (None, SAID)
    wav = read_wav(base64.b64decode(message["audio"]["data"]))
    assert (wav.rate, len(wav.samples)) == (24_000, len(SAID.split()) * 60 * 24)
    spoken["audio"] = {"voice": "joe", "format": "pcm16"}
    chunks = events((await served.post(PATH, body(stream=True, **spoken))).text)
    audio = [chunk["choices"][0]["delta"].get("audio", {}) for chunk in chunks]
    assert "".join(part.get("transcript", "") for part in audio) == SAID
    assert sum(len(base64.b64decode(part.get("data", ""))) for part in audio) == 2 * len(wav.samples)


async def test_an_answer_that_is_stopped(start) -> None:
    engine = scripted(stall_after=8)  # only an abort ends it
    served = await start(engine)
    choice = (await served.post(PATH, body(stop=[", and"]))).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The weather in Paris is fine", "stop")
    assert any(isinstance(order, Abort) for _, order in engine.orders)


async def test_a_spoken_answer_has_a_length(start) -> None:
    reply = ScriptedReply(" ".join(["word"] * 80), stall_after=72)  # only an abort ends it
    served = await start(ScriptedEngine([reply]), limits=replace(Limits(), max_chat_seconds=1.5))
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "joe", "format": "wav"}}
    choice = (await served.post(PATH, body(**spoken))).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(read_wav(base64.b64decode(choice["message"]["audio"]["data"])).samples) < 80 * 60 * 24


async def test_a_function_is_called(start) -> None:
    served = await start(ScriptedEngine([ScriptedReply("", tool_calls=(("look", '{"at": 1}'),))]))
    choice = (await served.post(PATH, body())).json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"], choice["finish_reason"]) == ({"name": "look", "arguments": '{"at": 1}'}, "tool_calls")
    (chunk,) = [one for one in events((await served.post(PATH, body(stream=True))).text) if "tool_calls" in one["choices"][0]["delta"]]
    assert chunk["choices"][0]["delta"]["tool_calls"][0]["index"] == 0


async def test_minutes_of_sound_go_in_bit_by_bit(start) -> None:
    engine = scripted()
    served = await start(engine, limits=replace(Limits(), max_input_lead=2.0))
    sound = {"data": base64.b64encode(wav_bytes(np.tile(TONE, 60), 16_000)).decode(), "format": "wav"}
    response = await served.post(PATH, body(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": sound}]}]))
    assert response.status_code == 200
    turns = [order for _, order in engine.orders if isinstance(order, CommitTurn)]
    assert len(turns) == 3
    assert [turn.start for turn in turns[1:]] == [turn.end for turn in turns[:-1]]
    assert turns[-1].end == 60 * 16_000


async def test_who_may_ask(start) -> None:
    served = await start(scripted(), api_keys=["right"])
    assert (await served.post(PATH, body())).status_code == 401
    assert (await served.post(PATH, body(), {"Authorization": "Bearer right"})).status_code == 200
    open_to_all = await start(scripted())
    assert (await open_to_all.post(PATH, body(), {"Origin": "https://evil.example"})).status_code == 403
    assert (await open_to_all.get(PATH)).status_code == 404


@pytest.mark.parametrize(
    ("content", "status", "code", "param"),
    [
        (b"{", 400, "invalid_event", None),
        (body(messages=[]), 400, "invalid_value", "messages"),
        (body(n=2), 400, "invalid_value", "n"),
        (b" " * 70_000, 413, "request_too_large", None),
    ],
)
async def test_a_bad_request(start, content: bytes, status: int, code: str, param: str | None) -> None:
    served = await start(scripted(), limits=replace(Limits(), max_chat_bytes=64 << 10))
    response = await served.post(PATH, content)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"


async def test_a_full_server_refuses(start, dial) -> None:
    served = await start(scripted(), limits=replace(Limits(), max_sessions=1))
    await dial(served)
    response = await served.post(PATH, body())
    assert (response.status_code, response.json()["error"]["code"]) == (503, "too_many_sessions")
    assert response.headers["retry-after"] == "5"


async def test_an_answer_that_fails_is_told(start) -> None:
    served = await start(ScriptedEngine([ScriptedReply(error="out of memory")]))
    response = await served.post(PATH, body())
    assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_failed")
    assert "out of memory" in response.json()["error"]["message"]
    served = await start(ScriptedEngine([ScriptedReply(SAID, error="out of memory")]))
    *_, last = (line for line in (await served.post(PATH, body(stream=True))).text.split("\n\n") if line)
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"


class DyingLink(LocalEngineLink):
    """An engine that apologises and dies as soon as an answer is wanted."""

    def order(self, session_id: str, order: EngineOrder) -> None:
        sink = self._sinks[session_id]
        if isinstance(order, Respond):
            for fact in (TextDelta(order.response_id, "Sorry, one moment please."), EngineLost("killed")):
                sink(fact)


async def test_an_engine_that_dies_leaves_no_apology_for_an_answer(start) -> None:
    served = await start(link=DyingLink(ScriptedEngine()))
    response = await served.post(PATH, body(stream=True))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_restarting")


class WatchedEngine(ScriptedEngine):
    """Begins an answer and never ends it. `begun` and `closed` are set on the loop it was made on."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.begun, self.closed = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def _reply(self, _: object) -> ScriptedReply:
        self._loop.call_soon_threadsafe(self.begun.set)
        return ScriptedReply(SAID, stall_after=0)

    def close(self, session_id: str) -> None:
        super().close(session_id)
        self._loop.call_soon_threadsafe(self.closed.set)


async def test_a_client_that_leaves_ends_its_session(start) -> None:
    engine = WatchedEngine()
    served = await start(engine)
    async with httpx.AsyncClient() as client, asyncio.timeout(10):
        asking = asyncio.create_task(client.post(served.url + PATH, content=body()))
        await engine.begun.wait()
        assert "vivavoce_sessions 1.0" in (await served.get("/metrics")).text
        asking.cancel()
        await engine.closed.wait()
    assert "vivavoce_sessions 0.0" in (await served.get("/metrics")).text


async def test_a_server_that_goes_down_ends_what_does_not_end(start) -> None:
    engine = WatchedEngine()
    served = await start(engine)
    asking = asyncio.create_task(served.post(PATH, body()))
    await engine.begun.wait()
    served.stop.set()
    response = await asking
    assert (response.status_code, response.json()["error"]["code"]) == (503, "server_shutting_down")
