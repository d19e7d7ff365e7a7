"""Gemini Live behind us: a server that speaks its protocol as protocols.md and the official SDK's types have it, through real sockets."""

import asyncio
import base64
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed

from agent.conversation import Conversation
from server.apology import UNABLE
from server.engine_link import LocalEngineLink
from server.upstream.connection import ConnectionOptions
from server.upstream.gemini_live import GeminiService, Setups, gemini_address
from server.upstream.link import UpstreamLink
from server.upstream.service_session import ServiceOptions, ServiceUpstream
from streaming.fakes import ScriptedEngine

try:
    from google.genai import types  # the official SDK, where it is installed: its types judge both sides
except ImportError:
    types = None

TOOL = {"type": "function", "name": "weather", "description": "Weather", "parameters": {"type": "object"}}
QUICK = ServiceOptions(ConnectionOptions(connect=5.0, backoff=0.01), first_piece=5.0, next_piece=5.0)
RATE = 24_000


@dataclass
class Answer:
    """What a turn of the model says: words with their sound, or calls; `endless` goes on until it is interrupted."""

    words: str = ""
    calls: tuple[tuple[str, dict[str, object]], ...] = ()
    endless: bool = False


@dataclass
class GeminiServer:
    """BidiGenerateContent with activities by hand. One answer after another, in each connection from where the last left off."""

    answers: list[Answer]
    url: str = ""
    setups: list[dict[str, object]] = field(default_factory=list)
    # What came, by kind: sound as its number of samples.
    came: list[tuple[str, object]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    interrupted: int = 0
    sockets: list[ServerConnection] = field(default_factory=list)

    async def serve(self, socket: ServerConnection) -> None:
        self.keys.append(socket.request.headers.get("x-goog-api-key"))
        self.sockets.append(socket)
        speaking: asyncio.Task[None] | None = None
        calls: list[str] = []
        try:
            setup = self._read(await socket.recv())
            self.setups.append(setup["setup"])
            await self._send(socket, {"setupComplete": {}})
            async for frame in socket:
                message = self._read(frame)
                starts, begins = self._take(message)
                if begins and speaking is not None and not speaking.done():
                    speaking.cancel()
                    self.interrupted += 1
                    await self._send(socket, {"serverContent": {"interrupted": True}})
                    await self._send(socket, {"serverContent": {"turnComplete": True}})
                if begins and calls:
                    await self._send(socket, {"toolCallCancellation": {"ids": calls}})
                    calls = []
                if starts:
                    answer = self.answers.pop(0)
                    calls = [f"call-{len(self.came)}-{n}" for n in range(len(answer.calls))]
                    speaking = asyncio.ensure_future(self._speak(socket, answer, calls))
        except ConnectionClosed:
            pass
        finally:
            if speaking is not None:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)

    def _take(self, message: dict[str, dict[str, object]]) -> tuple[bool, bool]:
        """Whether an answer is due, and whether a running one is interrupted."""
        (kind,) = message
        content = message[kind]
        if kind == "realtimeInput" and "audio" in content:
            assert content["audio"]["mimeType"] == "audio/pcm;rate=16000"
            self.came.append(("sound", len(base64.b64decode(content["audio"]["data"])) // 2))
            return False, False
        self.came.append((next(iter(content)) if kind == "realtimeInput" else kind, content))
        if kind == "realtimeInput":
            return "activityEnd" in content, "activityStart" in content
        whole = kind == "clientContent" and bool(content.get("turnComplete"))
        return whole or kind == "toolResponse", whole

    async def _speak(self, socket: ServerConnection, answer: Answer, calls: list[str]) -> None:
        words = answer.words.split()
        for n, word in enumerate(words) if not answer.endless else ((n, f"w{n}") for n in range(100_000)):
            tone = (np.sin(np.arange(RATE // 10) * 0.1) * 4_000).astype("<i2").tobytes()
            part = {"inlineData": {"data": base64.b64encode(tone).decode(), "mimeType": f"audio/pcm;rate={RATE}"}}
            content = {"modelTurn": {"role": "model", "parts": [part]}, "outputTranscription": {"text": f" {word}" if n else word}}
            await self._send(socket, {"serverContent": content})
            await asyncio.sleep(0.005 if answer.endless else 0)
        if answer.calls:
            made = [{"id": call_id, "name": name, "args": args} for call_id, (name, args) in zip(calls, answer.calls, strict=True)]
            await self._send(socket, {"toolCall": {"functionCalls": made}})
            return
        await self._send(socket, {"serverContent": {"generationComplete": True}})
        usage = {"promptTokenCount": 7, "responseTokenCount": len(words), "totalTokenCount": 7 + len(words)}
        await self._send(socket, {"serverContent": {"turnComplete": True}, "usageMetadata": usage})

    async def _send(self, socket: ServerConnection, message: dict[str, object]) -> None:
        if types is not None:
            types.LiveServerMessage.model_validate(message)
        await socket.send(json.dumps(message).encode())  # in binary frames, as the hosted service does

    def _read(self, frame: str | bytes) -> dict[str, dict[str, object]]:
        message = json.loads(frame)
        if types is not None:
            checked = json.loads(frame)
            if "setup" in checked:  # the SDK's type has no place for this part, which it sends all the same
                types.RealtimeInputConfig.model_validate(checked["setup"].pop("realtimeInputConfig"))
            types.LiveClientMessage.model_validate(checked)
        return message

    def kinds(self) -> list[str]:
        """What came, repeated kinds once."""
        kinds = [kind for kind, _ in self.came]
        return [kind for n, kind in enumerate(kinds) if not n or kinds[n - 1] != kind]


@pytest.fixture
async def gemini(start):
    """`await gemini(answers, transcripts=...)` gives the server in front and the service behind."""
    async with AsyncExitStack() as stack:

        async def start_both(*answers: Answer, transcripts=(), options: ServiceOptions = QUICK, handler=None):
            service = GeminiServer(list(answers))
            server = await stack.enter_async_context(serve_websocket(handler or service.serve, "127.0.0.1", 0))
            stack.callback(server.close)
            service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            engine = ScriptedEngine(transcripts=transcripts)
            address = gemini_address(service.url, "the-key")
            upstream = ServiceUpstream(address, lambda: partial(GeminiService, "live", "Puck", Setups()), options)
            return await start(engine, link=UpstreamLink(LocalEngineLink(engine), upstream), factory=Conversation), service

        yield start_both


async def ask(client, text: str) -> dict[str, object]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await client.send(type="conversation.item.create", item=item)
    await client.send(type="response.create")
    return (await client.until("response.done"))["response"]


def transcript(response) -> str:
    return "".join(part["transcript"] for item in response["output"] for part in item.get("content", ()))


def said(service: GeminiServer) -> list[tuple[str, str]]:
    """What it was told in words."""
    turns = [turn for kind, content in service.came if kind == "clientContent" for turn in content.get("turns", ())]
    return [(turn["role"], turn["parts"][0]["text"]) for turn in turns]


async def test_a_spoken_turn(gemini, dial, speech) -> None:
    front, service = await gemini(Answer("It is raining."), transcripts=["Will it rain?"])
    client = await dial(front)
    await client.send(type="session.update", session={"type": "realtime", "instructions": "Be brief."})
    await client.until("session.updated")
    await client.append(np.concatenate([speech(600), np.zeros(24_000, np.int16)]))
    response = (await client.until("response.done"))["response"]
    assert (response["status"], transcript(response)) == ("completed", "It is raining.")
    assert len(client.audio()) == 2 * RATE * 3 // 10
    setup = service.setups[-1]
    assert setup["model"] == "models/live"
    assert setup["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert setup["generationConfig"]["speechConfig"]["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"] == "Puck"
    assert set(service.keys) == {"the-key"}


async def test_sound_is_passed_on_while_it_is_spoken(gemini, dial, speech) -> None:
    front, service = await gemini(Answer("Yes."), Answer("No."), transcripts=["One?", "Two?"])
    client = await dial(front)
    await asyncio.wait_for(_ready(service), 5)
    for expected in ("Yes.", "No."):
        await client.append(np.concatenate([speech(600), np.zeros(24_000, np.int16)]))
        assert transcript((await client.until("response.done"))["response"]) == expected
    assert service.kinds() == ["activityStart", "sound", "activityEnd"] * 2
    samples = [count for kind, count in service.came if kind == "sound"]
    assert sum(samples) > 2 * 16_000 * 600 // 1000


async def _ready(service: GeminiServer) -> None:
    while not service.setups:  # noqa: ASYNC110 - what is awaited has no event to wait for
        await asyncio.sleep(0.01)


async def test_an_interruption_stops_it_and_it_is_told_what_was_heard(gemini, dial, speech) -> None:
    front, service = await gemini(Answer(endless=True), Answer("Well."), Answer("On."), transcripts=["A story.", "Stop."])
    client = await dial(front)
    await asyncio.wait_for(_ready(service), 5)
    await client.append(np.concatenate([speech(600), np.zeros(24_000, np.int16)]))
    item = (await client.until("response.output_item.added"))["item"]
    while len(client.audio()) < 2 * RATE:
        await client.receive()
    await client.append(speech(800))
    assert (await client.until("response.done"))["response"]["status"] == "cancelled"
    await client.send(type="conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=500)
    await client.until("conversation.item.truncated")
    await client.append(np.zeros(24_000, np.int16))
    assert transcript((await client.until("response.done"))["response"]) == "Well."
    assert service.interrupted == 1
    assert [text for role, text in said(service) if role == "user" and "heard only" in text]
    assert transcript(await ask(client, "Go on.")) == "On."
    assert ("user", "Go on.") in said(service)


async def test_calls_and_their_results(gemini, dial) -> None:
    calls = (("weather", {"city": "Bern"}), ("weather", {"city": "Rome"}))
    front, service = await gemini(Answer("Let me see.", calls), Answer("Rain in both."))
    client = await dial(front)
    await client.send(type="session.update", session={"type": "realtime", "tools": [TOOL]})
    first = await ask(client, "And the weather?")
    assert [item["type"] for item in first["output"]] == ["message", "function_call", "function_call"]
    assert [json.loads(item["arguments"]) for item in first["output"][1:]] == [args for _, args in calls]
    for call in first["output"][1:]:
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        await client.send(type="conversation.item.create", item=output)
    await client.send(type="response.create")
    assert transcript((await client.until("response.done"))["response"]) == "Rain in both."
    ((_, told),) = [(kind, content) for kind, content in service.came if kind == "toolResponse"]
    assert [result["response"] for result in told["functionResponses"]] == [{"output": "rain"}] * 2
    assert len({result["id"] for result in told["functionResponses"]}) == 2
    assert service.setups[-1]["tools"][0]["functionDeclarations"][0]["name"] == "weather"


async def test_a_caller_who_speaks_before_the_result_is_there(gemini, dial) -> None:
    front, _ = await gemini(Answer(calls=(("weather", {}),)), Answer("I am at it."), Answer("Rain."))
    client = await dial(front)
    await client.send(type="session.update", session={"type": "realtime", "tools": [TOOL]})
    (call,) = (await ask(client, "And the weather?"))["output"]
    assert transcript(await ask(client, "Hello?")) == "I am at it."
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
    await client.send(type="conversation.item.create", item=output)
    await client.send(type="response.create")
    assert transcript((await client.until("response.done"))["response"]) == "Rain."


async def test_a_service_that_comes_back_is_told_all_of_it_again(gemini, dial) -> None:
    front, service = await gemini(Answer("One."), Answer("Two."))
    client = await dial(front)
    assert transcript(await ask(client, "First?")) == "One."
    service.sockets[-1].transport.abort()
    service.came.clear()
    assert transcript(await ask(client, "Second?")) == "Two."
    assert said(service) == [("user", "First?"), ("model", "One."), ("user", "Second?")]


async def test_a_reply_that_it_cannot_make(gemini, dial) -> None:
    front, _ = await gemini()
    client = await dial(front)
    await client.send(type="response.create", response={"conversation": "none", "input": []})
    failed = (await client.until("response.done"))["response"]
    assert "Gemini Live makes no replies" in failed["status_details"]["error"]["message"]


async def test_a_service_that_does_not_like_the_settings(gemini, dial) -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(1007, "Request contains an invalid argument.")

    front, _ = await gemini(handler=refuse)
    client = await dial(front)
    failed = await ask(client, "Hi")
    assert "it closed the connection (1007): Request contains an invalid argument." in failed["status_details"]["error"]["message"]
    assert transcript(failed) == UNABLE


async def test_a_service_that_never_takes_the_settings(gemini, dial) -> None:
    async def hang(socket: ServerConnection) -> None:
        await socket.wait_closed()

    impatient = replace(QUICK, connection=replace(QUICK.connection, connect=0.1))
    front, _ = await gemini(handler=hang, options=impatient)
    client = await dial(front)
    failed = await ask(client, "Hi")
    assert "it did not take the settings in time" in failed["status_details"]["error"]["message"]
