"""A chat endpoint that behaves, and every way in which one does not: over real sockets."""

import asyncio
import gzip
import logging
from contextlib import aclosing
from dataclasses import replace

import pytest

from server.upstream.chat_client import ChatClient, ChatOptions
from server.upstream.chat_wire import CallDelta, ReplyEnded, TokensUsed, WordsDelta
from server.upstream.errors import UpstreamError
from streaming.events import FinishReason, Usage

QUICK = ChatOptions("", "m", key="sk-secret-of-the-operator", first_word=5.0, next_word=5.0, backoff=0.01)
HASTY = replace(QUICK, first_word=0.5, next_word=0.5)


async def replies(server, options: ChatOptions = QUICK) -> list[object]:
    client = ChatClient(replace(options, url=server.url))
    try:
        async with aclosing(client.reply(b"{}")) as deltas:
            return [delta async for delta in deltas]
    finally:
        await client.close()


async def fault(server, options: ChatOptions = QUICK) -> str:
    with pytest.raises(UpstreamError) as caught:
        await replies(server, options)
    assert str(caught.value).startswith("the language model m failed: ")
    assert QUICK.key not in str(caught.value)
    return str(caught.value).removeprefix("the language model m failed: ")


async def test_a_reply_and_its_cost(chat_server, wire) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    server = await chat_server(wire["says"]("Hello ", "there.", usage=usage))
    got = await replies(server)
    assert got == [WordsDelta("Hello "), WordsDelta("there."), TokensUsed(Usage(12, 8, 3)), ReplyEnded(FinishReason.STOP, ())]
    assert server.headers[0]["authorization"] == f"bearer {QUICK.key}"


async def test_calls_whose_arguments_are_streamed(chat_server, wire) -> None:
    delta, write = wire["delta"], wire["write"]
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}}
    second = {"index": 1, "id": "b", "type": "function", "function": {"name": "time", "arguments": ""}}

    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        await write(writer, delta(calls=[first]), delta(calls=[{"index": 0, "function": {"arguments": '{"city": '}}]))
        await write(writer, delta(calls=[{"index": 0, "function": {"arguments": '"Bern"}'}}]), delta(calls=[second]))
        await write(writer, delta(reason="tool_calls"), wire["event"]("[DONE]"))
        await wire["end"](writer)

    got = await replies(await chat_server(answer))
    assert got == [
        CallDelta(0, "weather", ""),
        CallDelta(0, "weather", '{"city": '),
        CallDelta(0, "weather", '"Bern"}'),
        CallDelta(1, "time", ""),
        ReplyEnded(FinishReason.TOOL_CALLS, (("weather", '{"city": "Bern"}'), ("time", "{}"))),
    ]


async def test_one_connection_serves_many_replies(chat_server, wire) -> None:
    server = await chat_server(wire["says"]("Yes."))
    client = ChatClient(replace(QUICK, url=server.url))
    await client.warm()
    for _ in range(3):
        async with aclosing(client.reply(b"{}")) as deltas:
            assert [delta async for delta in deltas]
    await client.warm()  # it was used just now
    await client.close()
    assert server.connections == 1
    assert server.paths == ["GET /v1/models HTTP/1.1", *["POST /v1/chat/completions HTTP/1.1"] * 3]


async def test_a_reply_that_nobody_wants_is_not_made_further(chat_server, wire) -> None:
    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, wire["delta"]("Once "))
        await asyncio.Event().wait()

    server = await chat_server(answer)
    client = ChatClient(replace(QUICK, url=server.url))
    async with aclosing(client.reply(b"{}")) as deltas:
        assert await anext(deltas) == WordsDelta("Once ")
    async with asyncio.timeout(5):
        await server.gone.wait()
    await client.close()


def refuses(status: str, wire, **headers: str):
    async def answer(_, writer) -> None:
        writer.write(wire["head"](status, "application/json", **headers))
        await wire["write"](writer, b'{"error": {"message": "sk-secret-of-the-operator is not known"}}')
        await wire["end"](writer)

    return answer


@pytest.mark.parametrize(
    ("status", "message", "tries"),
    [
        ("401 Unauthorized", "the key was refused (HTTP 401)", 1),
        ("404 Not Found", "there is no such model or address (HTTP 404)", 1),
        ("302 Found", "it refused (HTTP 302)", 1),
        ("429 Too Many Requests", "it refused (HTTP 429)", 3),
        ("500 Internal Server Error", "it refused (HTTP 500)", 3),
    ],
)
async def test_refusals(chat_server, wire, caplog, status, message, tries) -> None:
    server = await chat_server(refuses(status, wire))
    with caplog.at_level(logging.DEBUG):
        assert await fault(server) == message
    assert len(server.requests) == tries
    assert QUICK.key not in caplog.text


async def test_what_passes_is_tried_again(chat_server, wire) -> None:
    server = await chat_server(refuses("503 Service Unavailable", wire), refuses("429 Busy", wire), wire["says"]("Here I am."))
    assert WordsDelta("Here I am.") in await replies(server)
    assert len(server.requests) == 3


async def test_who_asks_to_be_left_alone_for_too_long_is(chat_server, wire) -> None:
    server = await chat_server(refuses("429 Busy", wire, **{"Retry-After": "60"}))
    assert await fault(server) == "it refused (HTTP 429)"
    assert len(server.requests) == 1


async def test_nobody_there() -> None:
    class Nobody:
        url = "http://127.0.0.1:1/v1"

    assert await fault(Nobody) == "it could not be reached (ConnectError)"


async def test_a_server_that_hangs(chat_server) -> None:
    async def answer(_, writer) -> None:
        await asyncio.Event().wait()

    server = await chat_server(answer)
    assert await fault(server, HASTY) == "it did not answer in time"
    assert len(server.requests) == 1
    await server.gone.wait()


async def test_bytes_that_drip_without_a_word(chat_server, wire) -> None:
    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        while True:
            await wire["write"](writer, b": keep-alive\n\n")
            await asyncio.sleep(0.02)

    assert await fault(await chat_server(answer), HASTY) == "it fell silent"


async def test_a_server_that_falls_silent_between_words(chat_server, wire) -> None:
    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, wire["delta"]("Once "))
        await asyncio.Event().wait()

    server = await chat_server(answer)
    assert await fault(server, HASTY) == "it fell silent"
    assert len(server.requests) == 1


async def test_a_server_that_dies(chat_server, wire) -> None:
    async def before(_, writer) -> None:
        writer.write(wire["head"]())
        writer.close()

    async def amid(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, wire["delta"]("Once "))
        writer.close()

    server = await chat_server(before, amid)
    assert "its connection broke" in await fault(server)
    assert len(server.requests) == 2  # before the first word it is tried again, after it never


async def test_an_end_that_is_none(chat_server, wire) -> None:
    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, wire["delta"]("Once "), wire["event"]("[DONE]"))
        await wire["end"](writer)

    assert await fault(await chat_server(answer)) == "its answer broke off"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"data: <html>\n\n", "it sent what is no JSON"),
        (b"data: [1]\n\n", "it sent what is no chat completion: an event is no object"),
        (b'data: {"choices": {}}\n\n', "it sent what is no chat completion: choices is no list"),
        (b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', "it sent what is no chat completion: content is no text"),
        (b'data: {"choices": [{"delta": {"tool_calls": [3]}}]}\n\n', "it sent what is no chat completion: a tool call is no object"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "it reported an error: out of memory"),
        (b"data: \xff\xfe\n\n", "it sent what is no text"),
        (b"data: " + b"x" * (2 << 20), "it sent a line of more than 1 MiB"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "it sent what is no JSON"),
        (b"<html><body>Welcome</body></html>", "its answer broke off"),
    ],
)
async def test_garbage(chat_server, wire, body, message) -> None:
    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, body)
        await wire["end"](writer)

    assert await fault(await chat_server(answer)) == message


async def test_arguments_that_are_no_object(chat_server, wire) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "weather", "arguments": "{"}}

    async def answer(_, writer) -> None:
        writer.write(wire["head"]())
        await wire["write"](writer, wire["delta"](calls=[call]), wire["delta"](reason="tool_calls"), wire["event"]("[DONE]"))
        await wire["end"](writer)

    assert await fault(await chat_server(answer)) == "it sent what is no JSON"


async def test_a_reply_without_end(chat_server, wire) -> None:
    endless = gzip.compress(wire["delta"]("word ") * 200_000)

    async def answer(_, writer) -> None:
        writer.write(wire["head"](**{"Content-Encoding": "gzip"}))
        await wire["write"](writer, endless)

    assert await fault(await chat_server(answer)) == "its reply does not end"
