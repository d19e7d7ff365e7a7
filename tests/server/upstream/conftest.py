"""Servers that speak the upstreams' protocols on a loopback port, and sessions in front of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

Answer = Callable[[dict[str, object], asyncio.StreamWriter], Awaitable[None]]
"""Writes the answer to a request's body."""


def event(value: object) -> bytes:
    """A server-sent event."""
    return b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"


def delta(content: str | None = None, *, calls: Sequence[dict[str, object]] = (), reason: str | None = None) -> bytes:
    """A `chat.completion.chunk`, as OpenAI's API reference has it."""
    said: dict[str, object] = {} if content is None else {"content": content}
    if calls:
        said["tool_calls"] = list(calls)
    choice = {"index": 0, "delta": said, "finish_reason": reason}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def head(status: str = "200 OK", kind: str = "text/event-stream", **headers: str) -> bytes:
    """The head of an HTTP answer in chunks."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Transfer-Encoding: chunked", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def write(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    """Pieces of a chunked body, each in a packet of its own as far as the network is concerned."""
    for piece in pieces:
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()


async def end(writer: asyncio.StreamWriter) -> None:
    """The body is complete; the connection stays."""
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def says(*words: str, usage: dict[str, object] | None = None) -> Answer:
    """A reply in these words, as a server that behaves streams it."""

    async def answer(_: dict[str, object], writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        await write(writer, *(delta(word) for word in words), delta(reason="stop"))
        if usage is not None:
            await write(writer, event({"choices": [], "usage": usage}))
        await write(writer, event("[DONE]"))
        await end(writer)

    return answer


@dataclass
class ChatServer:
    """`POST /v1/chat/completions` on a port of its own: every request gets the next answer, the last one stays."""

    answers: list[Answer]
    url: str = ""
    # Bodies and headers of the requests for replies, and how many connections were made and lost by the other side.
    requests: list[dict[str, object]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    serving: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def close(self) -> None:
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        begun = b""
        try:
            while (begun := await self._request(begun, reader, writer)) or not reader.at_eof():
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _request(self, begun: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answer a request whose first byte has been read; gives the next one's."""
        lines = (begun + await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.paths.append(lines[0])
        if not lines[0].startswith("POST /v1/chat/completions "):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            return b""
        self.requests.append(json.loads(body))
        self.headers.append(headers)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answering = asyncio.ensure_future(answer(self.requests[-1], writer))
        # A client says nothing before it has its answer, so what can be read meanwhile is the end.
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() or isinstance(answering.exception(), ConnectionError):
                self.gone.set()
                raise ConnectionError
            answering.result()
            return b"" if writer.is_closing() else await leaving
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)


@pytest.fixture
async def chat_server() -> AsyncIterator[Callable[..., Awaitable[ChatServer]]]:
    """`await chat_server(answer, ...)` gives a `ChatServer` that runs until the test is over."""
    async with AsyncExitStack() as stack:

        async def start(*answers: Answer) -> ChatServer:
            server = ChatServer(list(answers))
            listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
            host, port = listening.sockets[0].getsockname()[:2]
            server.url = f"http://{host}:{port}/v1"
            stack.push_async_callback(server.close)
            stack.callback(listening.close)
            return server

        yield start


@pytest.fixture
def wire() -> dict[str, Callable[..., object]]:
    """The functions with which a test writes an answer of its own."""
    return {"delta": delta, "end": end, "event": event, "head": head, "says": says, "write": write}
