"""A language model elsewhere behind a whole server: turns, interruptions, tools and every kind of failure, through real sockets."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

from agent.conversation import Conversation
from server.apology import APOLOGY, UNABLE
from server.engine_link import LocalEngineLink
from server.engine_process import ProcessEngineLink
from server.upstream.chat_client import ChatOptions
from server.upstream.chat_session import ChatUpstream
from server.upstream.link import UpstreamLink
from streaming.doors import SessionEvent
from streaming.events import Say, SpeechStopped, StartTurn, TranscriptProvisional
from streaming.fakes import ScriptedEngine, load_scripted

PATIENT = ChatOptions("", "m", first_word=5.0, next_word=5.0, backoff=0.01)
TOOL = {"type": "function", "name": "weather", "description": "Weather", "parameters": {"type": "object"}}


class Pausing(ScriptedEngine):
    """Knows the words of a turn in its pauses, as the real engine does."""

    def step(self):
        outputs = []
        for output in super().step():
            outputs.append(output)
            if isinstance(output, SessionEvent) and isinstance(output.event, SpeechStopped):
                turn = self._sessions[output.session_id].turn
                if turn is not None:
                    words = TranscriptProvisional(turn.item_id, output.event.at, "Is it?", 0.9)
                    outputs.append(SessionEvent(output.session_id, words))
        return outputs


@pytest.fixture
def serve(start, chat_server):
    """`await serve(answer, ..., transcripts=..., first_word=...)` gives the server in front and the chat server behind."""

    async def serve_with(*answers, transcripts=(), engine=None, **options):
        chat = await chat_server(*answers)
        engine = engine or ScriptedEngine(transcripts=transcripts)
        upstream = ChatUpstream(replace(PATIENT, url=chat.url, **options))
        return await start(engine, link=UpstreamLink(LocalEngineLink(engine), upstream), factory=Conversation), chat

    return serve_with


async def until(condition) -> None:
    """Let the loop run until `condition()` holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event to wait for
            await asyncio.sleep(0.01)


async def write_text(client, text: str) -> None:
    await client.send(
        type="conversation.item.create", item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )


async def ask(client, text: str) -> dict[str, object]:
    """Ask in writing, hear the answer; gives the response."""
    await write_text(client, text)
    await client.send(type="response.create")
    return (await client.until("response.done"))["response"]


def transcript(response) -> str:
    return "".join(part["transcript"] for item in response["output"] for part in item.get("content", ()))


async def test_a_spoken_turn(serve, dial, speech, wire) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
    served, chat = await serve(wire["says"]("It is ", "raining. ", "Take a coat.", usage=usage), transcripts=["Will it rain?"])
    client = await dial(served)
    await client.send(type="session.update", session={"type": "realtime", "instructions": "Be brief."})
    await client.append(np.concatenate([speech(600), np.zeros(24_000, np.int16)]))
    response = (await client.until("response.done"))["response"]
    assert (response["status"], transcript(response)) == ("completed", "It is raining. Take a coat.")
    assert chat.requests[0]["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Will it rain?"}]
    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (9, 4)
    assert response["usage"]["input_token_details"]["cached_tokens"] == 5
    assert len(client.audio()) == 2 * 24_000 * 60 * 6 // 1000  # six words of 60 ms, as 16-bit samples


async def test_what_was_not_heard_is_not_sent_as_said(serve, dial, speech, wire) -> None:
    async def endless(_, writer) -> None:
        writer.write(wire["head"]())
        for n in range(10_000):
            await wire["write"](writer, wire["delta"](f"w{n} "))
            await asyncio.sleep(0.001)

    served, chat = await serve(endless, wire["says"]("Well."), transcripts=["Tell me a story.", "Stop."])
    client = await dial(served)
    await client.append(np.concatenate([speech(600), np.zeros(24_000, np.int16)]))
    item = (await client.until("response.output_item.added"))["item"]
    while client.kinds().count("response.output_audio.delta") < 1:
        await client.receive()
    await client.append(np.concatenate([speech(800), np.zeros(24_000, np.int16)]))
    assert (await client.until("response.done"))["response"]["status"] == "cancelled"
    async with asyncio.timeout(5):
        await chat.gone.wait()  # the request was closed
    await client.send(type="conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=190)
    assert transcript((await client.until("response.done"))["response"]) == "Well."
    await ask(client, "Go on.")
    messages = chat.requests[-1]["messages"]
    assert [(message["role"], message["content"].strip()) for message in messages[1:]] == [
        ("user", "Tell me a story."),
        ("assistant", "w0 w1 w2"),
        ("user", "Stop."),
        ("assistant", "Well."),
        ("user", "Go on."),
    ]


async def test_calls_and_their_results(serve, dial, wire) -> None:
    calls = [
        {"index": n, "id": f"x{n}", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
        for n, city in enumerate(("Bern", "Rome"))
    ]

    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, wire["delta"]("Let me see. "), *(wire["delta"](calls=[call]) for call in calls))
        await wire["write"](writer, wire["delta"](reason="tool_calls"), wire["event"]("[DONE]"))
        await wire["end"](writer)

    served, chat = await serve(answer, wire["says"]("Rain in both."))
    client = await dial(served)
    await client.send(type="session.update", session={"type": "realtime", "tools": [TOOL]})
    first = await ask(client, "And the weather?")
    assert [item["type"] for item in first["output"]] == ["message", "function_call", "function_call"]
    for call in first["output"][1:]:
        await client.send(
            type="conversation.item.create", item={"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        )
    await client.send(type="response.create")
    assert transcript((await client.until("response.done"))["response"]) == "Rain in both."
    told = chat.requests[1]["messages"]
    assert [message["role"] for message in told] == ["system", "user", "assistant", "assistant", "tool", "tool"]
    assert [call["function"]["arguments"] for call in told[3]["tool_calls"]] == ['{"city": "Bern"}', '{"city": "Rome"}']
    assert [call["id"] for call in told[3]["tool_calls"]] == [message["tool_call_id"] for message in told[4:]]


async def test_a_text_reply_comes_as_it_is_written(serve, dial, wire) -> None:
    served, _ = await serve(wire["says"]("*Hel", "lo*", " there"))
    client = await dial(served)
    await client.send(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
    assert (await ask(client, "Hi"))["output"][0]["content"][0]["text"] == "*Hello* there"
    assert [event["delta"] for event in client.got if event["type"] == "response.output_text.delta"] == ["*Hel", "lo*", " there"]


@pytest.mark.parametrize("words", [("Yes.",), ("Yes. ", "Of course it is.")])
@pytest.mark.parametrize("speculates", [False, True])
async def test_speculation_is_a_setting(serve, dial, speech, wire, speculates, words) -> None:
    served, chat = await serve(wire["says"](*words), engine=Pausing(transcripts=["Is it?"]), speculates=speculates)
    client = await dial(served)
    await client.append(speech(600))
    await until(lambda: any(isinstance(order, StartTurn) for _, order in served.engine.orders))
    await client.append(np.zeros(6_000, np.int16))
    await until(lambda: chat.requests or not speculates)
    before = len(chat.requests)
    await client.append(np.zeros(24_000, np.int16))
    response = (await client.until("response.done"))["response"]
    assert (before, len(chat.requests)) == (int(speculates), 1)
    assert (response["status"], transcript(response)) == ("completed", "".join(words))
    said = [order for _, order in served.engine.orders if isinstance(order, Say)]
    assert [order.more for order in said] == [True] * len(words) + [False]


# ----------------------------------------------------------------------------------------------------------- bad input


async def test_an_answer_that_takes_its_time_is_excused(serve, dial, wire) -> None:
    goes_on = asyncio.Event()

    async def slow(body, writer) -> None:
        await goes_on.wait()
        await wire["says"]("Here it is.")(body, writer)

    served, _ = await serve(slow, apology=0.05)
    client = await dial(served)
    await write_text(client, "Well?")
    await client.send(type="response.create")
    await client.until("response.output_audio.delta")
    goes_on.set()
    response = (await client.until("response.done"))["response"]
    assert (response["status"], transcript(response)) == ("completed", f"{APOLOGY} Here it is.")


async def test_the_caller_hears_of_a_refusal_and_the_next_turn_works(serve, dial, wire) -> None:
    async def refuse(_, writer) -> None:
        writer.write(wire["head"]("401 Unauthorized"))
        await wire["end"](writer)

    served, _ = await serve(refuse, wire["says"]("Hello."))
    client = await dial(served)
    failed = await ask(client, "Hi")
    assert (failed["status"], transcript(failed)) == ("failed", UNABLE)
    assert "the key was refused (HTTP 401)" in failed["status_details"]["error"]["message"]
    assert client.audio()
    assert transcript(await ask(client, "Hi again")) == "Hello."


async def test_an_answer_that_breaks_off(serve, dial, wire) -> None:
    async def die(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, wire["delta"]("The answer is"))
        writer.close()

    served, chat = await serve(die)
    client = await dial(served)
    failed = await ask(client, "Hi")
    assert (failed["status"], transcript(failed)) == ("failed", f"The answer is {UNABLE}")
    assert len(chat.requests) == 1


async def test_one_session_s_silence_is_not_the_other_s(serve, dial, wire) -> None:
    async def hang(_, writer) -> None:
        await asyncio.Event().wait()

    served, _ = await serve(hang, wire["says"]("Hello."))
    stuck, other = await dial(served), await dial(served)
    await write_text(stuck, "Hi")
    await stuck.send(type="response.create")
    await stuck.until("response.created")
    assert transcript(await ask(other, "Hi")) == "Hello."
    await stuck.connection.close()


async def test_a_reply_that_is_cancelled_before_its_first_word(serve, dial, wire) -> None:
    async def hang(_, writer) -> None:
        await asyncio.Event().wait()

    served, chat = await serve(hang)
    client = await dial(served)
    await write_text(client, "Hi")
    await client.send(type="response.create")
    await until(lambda: chat.requests)
    await client.send(type="response.cancel")
    assert (await client.until("response.done"))["response"]["status"] == "cancelled"
    async with asyncio.timeout(5):
        await chat.gone.wait()


async def test_a_reply_outlives_the_engine_that_speaks_it(start, chat_server, dial, wire) -> None:
    goes_on = asyncio.Event()

    async def answer(body, writer) -> None:
        await goes_on.wait()
        await wire["says"]("Here it is. ", "All of it.")(body, writer)

    chat = await chat_server(answer)
    engine = ProcessEngineLink(load_scripted)
    served = await start(
        None, link=UpstreamLink(engine, ChatUpstream(replace(PATIENT, url=chat.url, first_word=60.0))), factory=Conversation
    )
    client = await dial(served)
    await write_text(client, "Well?")
    await client.send(type="response.create")
    await until(lambda: chat.requests)
    assert engine._process is not None
    engine._process.kill()
    await until(lambda: not engine.running)
    goes_on.set()
    response = (await client.until("response.done"))["response"]
    assert (response["status"], transcript(response)) == ("completed", f"{APOLOGY} Here it is. All of it.")
