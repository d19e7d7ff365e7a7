"""`/v1/realtime`: the handshake (protocols.md 1.1), and a WebSocket as a session's channel."""

import asyncio
from dataclasses import replace
from typing import Final

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from agent.settings import SessionKind, SessionSettings, Transcription
from server.auth import AccessPolicy, EphemeralKeys, Refusal
from server.doors import ChannelClosedError
from server.metrics import Metrics
from server.realtime.dialect import SUBPROTOCOL, handshake_dialect
from server.realtime.initial import initial_settings
from server.realtime.transport import TRANSPORT
from server.session import SessionEnd
from server.sessions import Sessions
from server.webrtc.attending import attend
from server.webrtc.calls import Calls

__all__ = ["RealtimeEndpoint", "WebSocketChannel", "refusal_response"]

_CLOSE_SECONDS: Final = 1.0
"""How long a close frame may take to leave; a client that does not read never lets it."""
_LINGER_SECONDS: Final = 12.0
"""After this a connection is cut, answered close frame or not; uvicorn waits 10 s for the answer and then for ever for its buffer."""


def refusal_response(refusal: Refusal, param: str | None = None) -> JSONResponse:
    """The refusal as an HTTP answer; `param` is the field of the request it is about."""
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(refusal.to_json(param), refusal.status, headers)


class RealtimeEndpoint:
    """The WebSocket route."""

    def __init__(self, sessions: Sessions, calls: Calls, policy: AccessPolicy, ephemeral: EphemeralKeys, metrics: Metrics) -> None:
        self._sessions = sessions
        self._calls = calls
        self._policy = policy
        self._ephemeral = ephemeral
        self._metrics = metrics

    async def __call__(self, websocket: WebSocket) -> None:
        """One connection, from the handshake to the close."""
        call_id = websocket.query_params.get("call_id")
        refusal = self._policy.refuses(websocket) or (self._sessions.refuses() if call_id is None else None)
        call = None if call_id is None else self._calls.get(call_id)
        if refusal is None and call_id is not None and call is None:
            refusal = Refusal(404, "call_not_found", "There is no such call, or it has ended.")
        if refusal is not None:
            self._metrics.refused.labels(refusal.code).inc()
            await websocket.send_denial_response(refusal_response(refusal))
            return
        offered: list[str] = websocket.scope["subprotocols"]
        channel = WebSocketChannel(websocket, SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if call is not None:
            await _close(websocket, await attend(call.channel, channel))
            return
        run = self._sessions.run(
            channel, self._initial_settings(websocket), handshake_dialect(websocket.headers.get("openai-beta", ""), offered)
        )
        await _close(websocket, await run)

    def _initial_settings(self, websocket: WebSocket) -> SessionSettings:
        """The server's defaults or those of an ephemeral key, with what the address says."""
        settings = initial_settings(websocket, self._ephemeral, self._sessions.defaults)
        if settings.echo_cancellation is None:  # over WebRTC there is a browser, which has its own
            settings = replace(settings, echo_cancellation=self._sessions.cancels_echo)
        if websocket.query_params.get("intent") == "transcription":
            settings = replace(settings, kind=SessionKind.TRANSCRIPTION, transcription=settings.transcription or Transcription())
        return settings


class WebSocketChannel:
    """`server.session.Channel` over a WebSocket."""

    def __init__(self, websocket: WebSocket, subprotocol: str | None) -> None:
        self._websocket = websocket
        self._subprotocol = subprotocol

    async def accept(self) -> None:
        """Complete the handshake."""
        try:
            await self._websocket.accept(self._subprotocol)
        except OSError as error:
            raise ChannelClosedError from error

    async def receive(self) -> str | bytes | None:
        """The next frame; None when the client has gone."""
        try:
            message = await self._websocket.receive()
        except WebSocketDisconnected:
            return None
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data

    async def send(self, text: str) -> None:
        """Waits while the transport's buffer is above its mark."""
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, WebSocketDisconnected) as error:
            raise ChannelClosedError from error


async def _close(websocket: WebSocket, end: SessionEnd) -> None:
    """Close politely if the client lets us, else cut the connection."""
    transport: asyncio.Transport = websocket.scope["state"][TRANSPORT]
    if end.code is None:
        return
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await websocket.close(end.code, end.reason)
    except (TimeoutError, WebSocketDisconnect, WebSocketDisconnected, RuntimeError):
        transport.abort()
        return
    asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.abort)
