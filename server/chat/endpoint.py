"""`POST /v1/chat/completions`: access, limits, the body; then the answer, whole or as server-sent events. A client that goes away
ends it."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.auth import AccessPolicy, Refusal
from server.body import bounded_body
from server.chat.completion import CompletionError, Piece
from server.chat.request import ChatRequest, read_chat
from server.chat.wire import AnswerWriter
from server.limits import Limits
from server.metrics import Metrics
from server.realtime.fields import BadField
from server.realtime.websocket import refusal_response
from server.sessions import Sessions

__all__ = ["ChatEndpoint"]

_BODY_SECONDS: Final = 60.0
"""How long a body may take to come: 16 MiB over 2 Mbit/s."""


class ChatEndpoint:
    """The route, an ASGI application."""

    def __init__(self, sessions: Sessions, policy: AccessPolicy, metrics: Metrics, limits: Limits) -> None:
        self._sessions = sessions
        self._policy = policy
        self._metrics = metrics
        self._limits = limits
        # Bodies in memory, or on their way there, that have no session yet.
        self._reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        request = Request(scope, receive)
        refusal = self._policy.refuses(request) or self._sessions.refuses() or self._too_many()
        if refusal is not None:
            await self._refuse(refusal)(scope, receive, send)
            return
        self._reading += 1
        try:
            chat = await self._read(request)
        except ClientDisconnect:
            return
        finally:
            self._reading -= 1
        # Whoever was admitted meanwhile has filled the engine: asked again, and answered without waiting in between.
        refused = chat if isinstance(chat, Response) else None
        if refused is None and (refusal := self._sessions.refuses()) is not None:
            refused = self._refuse(refusal)
        if refused is not None:
            await refused(scope, receive, send)
            return
        assert isinstance(chat, ChatRequest)
        await _while_connected(receive, self._answer(chat, scope, receive, send))

    def _too_many(self) -> Refusal | None:
        if self._reading < self._limits.max_sessions:
            return None
        return Refusal(503, "too_many_sessions", "Too many requests are being read; try again later.", 5)

    def _refuse(self, refusal: Refusal) -> Response:
        self._metrics.refused.labels(refusal.code).inc()
        return refusal_response(refusal)

    async def _read(self, request: Request) -> ChatRequest | Response:
        """What is asked for, or why not."""
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await bounded_body(request, self._limits.max_chat_bytes)
        except TimeoutError:
            return self._refuse(Refusal(408, "request_timeout", f"The request did not come within {_BODY_SECONDS:g} seconds."))
        if body is None:
            return self._refuse(Refusal(413, "request_too_large", f"At most {self._limits.max_chat_bytes} bytes, with sound in base64."))
        try:
            return await asyncio.to_thread(read_chat, body, self._sessions.defaults, self._limits)
        except BadField as bad:
            return refusal_response(Refusal(400, bad.code, bad.message), bad.param)

    async def _answer(self, chat: ChatRequest, scope: Scope, receive: Receive, send: Send) -> None:
        writer = AnswerWriter(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), chat)
        async with contextlib.aclosing(self._sessions.complete(chat)) as pieces:
            try:
                # Until the first piece has come, a failure can be told by its status.
                first = await anext(pieces)
                if not chat.stream:
                    whole = await asyncio.to_thread(_encoded, writer, [first, *[piece async for piece in pieces]])
            except CompletionError as error:
                await self._refuse(error.refusal)(scope, receive, send)
                return
            if chat.stream:
                await self._stream(writer, first, pieces, send)
        if not chat.stream:
            async with asyncio.timeout(self._limits.session_seconds):
                await Response(whole, media_type="application/json")(scope, receive, send)

    async def _stream(self, writer: AnswerWriter, first: Piece, rest: AsyncGenerator[Piece, None], send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send(send, writer.opening() + writer.event(first))
        try:
            async for piece in rest:
                await self._send(send, writer.event(piece))
        except CompletionError as error:
            await self._send(send, writer.failure(error.refusal))
        await self._send(send, "", more=False)

    async def _send(self, send: Send, text: str, *, more: bool = True) -> None:
        """Raises TimeoutError where the client does not read."""
        async with asyncio.timeout(self._limits.send_timeout):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})


def _encoded(writer: AnswerWriter, pieces: list[Piece]) -> bytes:
    """Minutes of sound take a while: not on the event loop."""
    return json.dumps(writer.whole(pieces), separators=(",", ":")).encode()


async def _while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Do `work`, unless the client goes away: then it is cancelled."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            with contextlib.suppress(TimeoutError, OSError):  # the client has stopped reading, or has gone
                working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
