"""OpenAI Realtime behind us, spoken by a second server of ours: turns, interruptions and calls through real sockets, and bad services."""

import asyncio
import contextlib
import json
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from websockets.asyncio.server import serve as serve_websocket

from agent.conversation import Conversation
from server.apology import APOLOGY, UNABLE
from server.engine_link import LocalEngineLink
from server.upstream.connection import Connection, ConnectionOptions, Listener
from server.upstream.link import UpstreamLink
from server.upstream.openai_realtime import OpenAIService, openai_address
from server.upstream.service_session import ServiceOptions, ServiceUpstream
from streaming.fakes import ScriptedEngine, ScriptedReply

TOOL = {"type": "function", "name": "weather", "description": "Weather", "parameters": {"type": "object"}}
QUICK = ServiceOptions(ConnectionOptions(connect=5.0, backoff=0.01), first_piece=5.0, next_piece=5.0)


async def until(condition) -> None:
    """Let the loop run until `condition()` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event to wait for
            await asyncio.sleep(0.01)


@pytest.fixture
def front(start):
    """`await front(url, transcripts=...)` gives a server whose upstream is at `url`."""

    async def start_front(url: str, *, transcripts=(), options: ServiceOptions = QUICK):
        engine = ScriptedEngine(transcripts=transcripts)
        upstream = ServiceUpstream(openai_address(url, "pocket", ""), lambda: partial(OpenAIService, ""), options)
        return await start(engine, link=UpstreamLink(LocalEngineLink(engine), upstream), factory=Conversation)

    return start_front


@pytest.fixture
def both(start, front):
    """`await both(replies, transcripts=...)` gives the server in front and the engine of the one behind."""

    async def start_both(replies, *, transcripts=(), **knobs):
        engine = ScriptedEngine(replies, transcripts, **knobs)
        behind = await start(engine, factory=Conversation)
        return await front(f"{behind.url}/v1", transcripts=transcripts), engine

    return start_both


async def write_text(client, text: str) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await client.send(type="conversation.item.create", item=item)


async def ask(client, text: str) -> dict[str, object]:
    await write_text(client, text)
    await client.send(type="response.create")
    return (await client.until("response.done"))["response"]


def transcript(response) -> str:
    return "".join(part["transcript"] for item in response["output"] for part in item.get("content", ()))


def told(engine: ScriptedEngine) -> list[tuple[str, str]]:
    """What the model behind was told for its last reply."""
    return [(message.role, (message.text or "").strip()) for message in engine.contexts[-1]]


async def test_a_spoken_turn(both, dial, speech) -> None:
    front, engine = await both([ScriptedReply("It is raining. Take a coat.")], transcripts=["Will it rain?"])
    client = await dial(front)
    await client.send(type="session.update", session={"type": "realtime", "instructions": "Be brief."})
    await client.append(np.concatenate([speech(600), np.zeros(24_000, np.int16)]))
    response = (await client.until("response.done"))["response"]
    assert (response["status"], transcript(response)) == ("completed", "It is raining. Take a coat.")
    assert told(engine) == [("system", "Be brief."), ("user", "Will it rain?")]
    assert len(client.audio()) == 2 * 24_000 * 60 * 6 // 1000
    assert response["usage"]["output_tokens"] == 6


@pytest.mark.parametrize("late", [False, True])
async def test_what_was_not_heard_is_truncated_there(both, dial, speech, late) -> None:
    story = ScriptedReply(" ".join(f"w{n}" for n in range(400)), stall_after=80)
    front, engine = await both([story, ScriptedReply("Well.")], transcripts=["Tell me a story.", "Stop."])
    client = await dial(front)
    await client.append(np.concatenate([speech(600), np.zeros(24_000, np.int16)]))
    item = (await client.until("response.output_item.added"))["item"]
    while len(client.audio()) < 2 * 24_000:
        await client.receive()
    await client.append(speech(800))
    assert (await client.until("response.done"))["response"]["status"] == "cancelled"
    if late:  # the caller's client says how much was heard, after the reply to what they said over it has begun
        await client.append(np.zeros(24_000, np.int16))
        await client.until("response.created")
    await client.send(type="conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=600)
    await client.until("conversation.item.truncated")
    if not late:
        await client.append(np.zeros(24_000, np.int16))
    assert transcript((await client.until("response.done"))["response"]) == "Well."
    await ask(client, "Go on.")
    roles = [role for role, _ in told(engine)]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    heard = told(engine)[1][1].split()
    assert heard == [f"w{n}" for n in range(len(heard))]
    assert 0 < len(heard) <= 10  # 600 ms are ten words of 60 ms


async def test_calls_and_their_results(both, dial) -> None:
    calls = (("weather", '{"city": "Bern"}'), ("weather", '{"city": "Rome"}'))
    front, engine = await both([ScriptedReply("Let me see.", tool_calls=calls), ScriptedReply("Rain in both.")])
    client = await dial(front)
    await client.send(type="session.update", session={"type": "realtime", "tools": [TOOL]})
    first = await ask(client, "And the weather?")
    assert [item["type"] for item in first["output"]] == ["message", "function_call", "function_call"]
    assert [item["arguments"] for item in first["output"][1:]] == [arguments for _, arguments in calls]
    for call, result in zip(first["output"][1:], ("rain", "snow"), strict=True):
        await client.send(
            type="conversation.item.create", item={"type": "function_call_output", "call_id": call["call_id"], "output": result}
        )
    await client.send(type="response.create")
    assert transcript((await client.until("response.done"))["response"]) == "Rain in both."
    assert [role for role, _ in told(engine)] == ["user", "assistant", "tool_call", "tool_call", "tool_result", "tool_result"]
    assert [text for _, text in told(engine)[4:]] == ["rain", "snow"]


async def test_a_reply_out_of_band_and_one_in_text(both, dial) -> None:
    front, engine = await both([ScriptedReply("Apart."), ScriptedReply("In text.")])
    client = await dial(front)
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Only this?"}]}
    await client.send(type="response.create", response={"conversation": "none", "instructions": "Be terse.", "input": [message]})
    assert transcript((await client.until("response.done"))["response"]) == "Apart."
    assert told(engine) == [("system", "Be terse."), ("user", "Only this?")]
    await client.send(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
    assert (await ask(client, "Hi"))["output"][0]["content"][0]["text"] == "In text."


async def test_words_that_were_said_here_are_known_there(both, dial) -> None:
    front, engine = await both([ScriptedReply("Good.")])
    client = await dial(front)
    await client.send(type="session.update", session={"type": "realtime", "vivavoce": {"initiative": {"greeting": "Hello."}}})
    assert transcript((await client.until("response.done"))["response"]) == "Hello."
    await ask(client, "How are you?")
    assert told(engine) == [("assistant", "Hello."), ("user", "How are you?")]


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
async def bad_service():
    """`await bad_service(handler)` gives the address of a WebSocket server that does as `handler(socket)` says."""
    async with AsyncExitStack() as stack:

        async def start_service(handler, **arguments) -> str:
            server = await stack.enter_async_context(serve_websocket(handler, "127.0.0.1", 0, **arguments))
            stack.callback(server.close)
            return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

        yield start_service


def event(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind, "event_id": "e", **fields})


async def greet(socket) -> None:
    """As far as every service comes."""
    await socket.send(event("session.created", session={}))
    await socket.recv()
    await socket.send(event("session.updated", session={}))


async def begin(socket) -> None:
    """The beginning of a reply."""
    while (asked := json.loads(await socket.recv()))["type"] != "response.create":
        pass
    await socket.send(event("response.created", response={"id": "r", "metadata": asked["response"]["metadata"]}))
    await socket.send(event("response.output_item.added", response_id="r", output_index=0, item={"id": "i", "type": "message"}))


async def hang(socket) -> None:
    await greet(socket)
    await socket.wait_closed()


async def garbage(socket) -> None:
    await greet(socket)
    await socket.recv()
    await socket.send("<html>")
    await socket.wait_closed()


async def flood(socket) -> None:
    await greet(socket)
    await socket.recv()
    await socket.send("x" * (5 << 20))
    await socket.wait_closed()


async def die_amid(socket) -> None:
    await greet(socket)
    await begin(socket)
    delta = "AAAA" * 2_000
    await socket.send(event("response.output_audio_transcript.delta", response_id="r", item_id="i", delta="Once upon "))
    await socket.send(event("response.output_audio.delta", response_id="r", item_id="i", delta=delta))
    socket.transport.abort()


async def begin_to_speak(socket) -> None:
    await greet(socket)
    await begin(socket)
    await socket.send(event("response.output_audio_transcript.delta", response_id="r", item_id="i", delta="Once "))


async def fall_silent(socket) -> None:
    await begin_to_speak(socket)
    await socket.wait_closed()


async def drip(socket) -> None:
    await begin_to_speak(socket)
    socket.transport.write(b"\x81\x7e\x03\xe8")  # the head of a text message of 1,000 bytes
    while not socket.transport.is_closing():
        socket.transport.write(b" ")
        await asyncio.sleep(0.05)


async def no_sound(socket) -> None:
    await greet(socket)
    await begin(socket)
    await socket.send(event("response.output_audio.delta", response_id="r", item_id="i", delta="???"))
    await socket.wait_closed()


async def refuse_reply(socket) -> None:
    await greet(socket)
    while (asked := json.loads(await socket.recv()))["type"] != "response.create":
        pass
    error = {"type": "server_error", "code": "inference_rate_limit_exceeded", "message": "slow down", "event_id": asked["event_id"]}
    await socket.send(event("error", error=error))
    await socket.wait_closed()


@pytest.mark.parametrize(
    ("service", "error"),
    [
        (hang, "it did not answer in time"),
        (garbage, "it sent what is no JSON"),
        (flood, "it sent a message of more than 4 MiB"),
        (die_amid, "its connection broke"),
        (fall_silent, "it fell silent"),
        (drip, "it fell silent"),
        (no_sound, "it sent sound that is no base64"),
        (refuse_reply, "it refused the reply: slow down"),
    ],
)
async def test_services_that_fail(bad_service, front, dial, service, error) -> None:
    served = await front(await bad_service(service), options=replace(QUICK, first_piece=1.0, next_piece=1.0))
    client = await dial(served)
    failed = await ask(client, "Hi")
    assert failed["status"] == "failed"
    assert failed["status_details"]["error"]["message"] == f"the realtime service failed: {error}"
    assert transcript(failed).endswith(UNABLE)
    assert client.audio()


async def test_the_key_is_in_no_log(bad_service, caplog) -> None:
    def refuse(connection, request):
        assert request.headers["Authorization"] == "Bearer sk-secret"
        return connection.respond(401, "no\n")

    address = openai_address(await bad_service(hang, process_request=refuse), "m", "sk-secret")
    lost = asyncio.Event()
    connection = Connection(address, lambda: OpenAIService(), Listener(print, lambda _: lost.set()), ConnectionOptions())
    with caplog.at_level(logging.DEBUG):
        task = asyncio.ensure_future(connection.run())
        await asyncio.wait_for(lost.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("websockets.server")]
    assert "sk-secret" not in " ".join(ours)
    assert "sk-secret" not in repr(address)


async def test_a_service_that_does_not_finish_the_handshake(front, dial) -> None:
    async def begin_to_answer(reader, writer) -> None:
        writer.write(b"HTTP/1.1 101 Switch")
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                pass
        writer.close()

    async with await asyncio.start_server(begin_to_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        served = await front(f"ws://127.0.0.1:{port}/v1", options=replace(QUICK, connection=ConnectionOptions(connect=0.2, backoff=0.01)))
        client = await dial(served)
        failed = await ask(client, "Hi")
        assert "it could not be reached in time" in failed["status_details"]["error"]["message"]
        assert transcript(failed) == UNABLE
        await client.connection.close()
        served.stop.set()
        await served.task


@pytest.mark.parametrize(("status", "error"), [(401, "the key was refused (HTTP 401)"), (429, "it refused (HTTP 429)")])
async def test_services_that_refuse(bad_service, front, dial, status, error) -> None:
    def refuse(connection, _):
        return connection.respond(status, "no\n")

    served = await front(await bad_service(hang, process_request=refuse))
    client = await dial(served)
    failed = await ask(client, "Hi")
    assert error in failed["status_details"]["error"]["message"]
    assert transcript(failed) == UNABLE


async def test_a_service_that_takes_its_time_is_excused_and_then_heard(bad_service, front, dial) -> None:
    goes_on = asyncio.Event()

    async def slow(socket) -> None:
        await greet(socket)
        await begin(socket)
        await goes_on.wait()
        await socket.send(event("response.output_audio_transcript.delta", response_id="r", item_id="i", delta="Here it is."))
        await socket.send(event("response.output_audio.delta", response_id="r", item_id="i", delta="AAAA" * 12_000))
        await socket.send(event("response.done", response={"id": "r", "status": "completed"}))
        await socket.wait_closed()

    served = await front(await bad_service(slow), options=replace(QUICK, apology=0.05))
    client = await dial(served)
    await write_text(client, "Hi")
    await client.send(type="response.create")
    await client.until("response.output_audio.delta")
    goes_on.set()
    response = (await client.until("response.done"))["response"]
    assert (response["status"], transcript(response)) == ("completed", f"{APOLOGY} Here it is.")


async def test_a_service_that_comes_back_is_told_all_of_it_again(start, front, dial) -> None:
    behind = await start(ScriptedEngine([ScriptedReply("One.")]), factory=Conversation)
    port = int(behind.url.rsplit(":", 1)[1])
    served = await front(f"{behind.url}/v1")
    client = await dial(served)
    assert transcript(await ask(client, "First?")) == "One."
    behind.stop.set()
    await behind.task
    again = await start(ScriptedEngine([ScriptedReply("Two.")]), factory=Conversation, port=port)
    assert transcript(await ask(client, "Second?")) == "Two."
    assert told(again.engine) == [("user", "First?"), ("assistant", "One."), ("user", "Second?")]


async def test_one_session_s_service_is_not_the_other_s(bad_service, front, dial) -> None:
    first = asyncio.Event()

    async def mixed(socket) -> None:
        if not first.is_set():
            first.set()
            await hang(socket)
            return
        await greet(socket)
        await begin(socket)
        await socket.send(event("response.output_audio_transcript.delta", response_id="r", item_id="i", delta="Hello."))
        await socket.send(event("response.output_audio.delta", response_id="r", item_id="i", delta="AAAA" * 12_000))
        await socket.send(event("response.done", response={"id": "r", "status": "completed"}))
        await socket.wait_closed()

    served = await front(await bad_service(mixed))
    stuck = await dial(served)
    await until(first.is_set)
    other = await dial(served)
    await write_text(stuck, "Hi")
    await stuck.send(type="response.create")
    await stuck.until("response.created")
    assert transcript(await ask(other, "Hi")) == "Hello."
