"""The HTTP side: routes, CORS, health, metrics, ephemeral keys and the page. The WebSocket is `server.realtime.websocket`'s, WebRTC
`server.webrtc.endpoints`'s."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

import web_demo
from server.auth import AccessPolicy, EphemeralKeys, Refusal, is_local
from server.body import bounded_body
from server.chat.endpoint import ChatEndpoint
from server.limits import Limits
from server.metrics import CONTENT_TYPE, Metrics
from server.realtime.client_secrets import make_secret
from server.realtime.websocket import RealtimeEndpoint, refusal_response
from server.sessions import Sessions
from server.webrtc.calls import Calls
from server.webrtc.endpoints import CallEndpoints

__all__ = ["AppParts", "make_app"]

_REALTIME_PATHS: Final = ("/v1/realtime", "/openai/v1/realtime", "/openai/realtime")
_PAGE_SUFFIXES: Final = (".html", ".js", ".css", ".svg", ".png", ".ico")
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "worker-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_FULL: Final = ("too_many_sessions", "engine_busy")
"""Refusals of a server that is well."""
_HTTP_BODY_BYTES: Final = 512 << 10
"""A session object with its tools."""

_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class AppParts:
    """What the application is made of. `origins` are the web origins whose pages may use the API; `voices` and `languages` what the model
    speaks with and in, where it is known."""

    sessions: Sessions
    calls: Calls
    policy: AccessPolicy
    ephemeral: EphemeralKeys
    metrics: Metrics
    limits: Limits
    origins: Sequence[str] = ()
    models: Sequence[str] = ("pocket",)
    voices: Sequence[str] = ()
    languages: Sequence[str] = ()


def make_app(parts: AppParts) -> Starlette:
    """The ASGI application."""
    endpoint = RealtimeEndpoint(parts.sessions, parts.calls, parts.policy, parts.ephemeral, parts.metrics)

    async def realtime(websocket: WebSocket) -> None:
        await endpoint(websocket)

    api = _Api(parts)
    calls = CallEndpoints(parts.calls, parts.policy, parts.ephemeral, parts.metrics, parts.limits)
    routes = [
        *(WebSocketRoute(path, realtime) for path in _REALTIME_PATHS),
        *calls.routes(),
        Route("/v1/realtime/client_secrets", api.client_secrets, methods=["POST"]),
        Route("/v1/realtime/sessions", api.beta_sessions, methods=["POST"]),
        Route("/v1/chat/completions", ChatEndpoint(parts.sessions, parts.policy, parts.metrics, parts.limits), methods=["POST"]),
        Route("/v1/models", api.models),
        Route("/v1/models/{model:path}", api.model),
        Route("/healthz", api.health),
        Route("/metrics", api.exposition),
        Mount("/", _Page(directory=Path(web_demo.__file__).parent, html=True)),
    ]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=parts.origins,
        allow_methods=["GET", "POST", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=["Location", "ETag", "Link"],
    )
    return Starlette(routes=routes, middleware=[Middleware(_CollapseSlashes), cors])


class _Api:
    """The JSON endpoints."""

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        if (refusal := self._refuses(request)) is not None:
            return refusal_response(refusal)
        return JSONResponse({"object": "list", "data": [self._model_json(name) for name in self._parts.models]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/NAME`."""
        name: str = request.path_params["model"]
        refusal = self._refuses(request)
        if refusal is None and name not in self._parts.models:
            refusal = Refusal(404, "model_not_found", "No such model.")
        return JSONResponse(self._model_json(name)) if refusal is None else refusal_response(refusal)

    async def health(self, _request: Request) -> Response:
        """`GET /healthz`: 200 once a session can begin. A full server is a healthy one."""
        refusal = self._parts.sessions.refuses()
        if refusal is not None and refusal.code not in _FULL:
            return JSONResponse({"status": refusal.code}, refusal.status, {"Retry-After": str(refusal.retry_after)})
        return JSONResponse({"status": "ok"})

    async def exposition(self, request: Request) -> Response:
        """`GET /metrics`, for programs of this machine and holders of a key."""
        if not is_local(request):
            refusal = self._parts.policy.refuses(request, ephemeral=False)
            if refusal is not None:
                return refusal_response(refusal)
        return Response(self._parts.metrics.text(), media_type=CONTENT_TYPE)

    async def client_secrets(self, request: Request) -> Response:
        """`POST /v1/realtime/client_secrets` (protocols.md 1.15)."""
        return await self._secret(request, beta=False)

    async def beta_sessions(self, request: Request) -> Response:
        """`POST /v1/realtime/sessions`, its beta form."""
        return await self._secret(request, beta=True)

    async def _secret(self, request: Request, *, beta: bool) -> Response:
        refusal = self._refuses(request, ephemeral=False)
        if refusal is not None:
            return refusal_response(refusal)
        body = await bounded_body(request, _HTTP_BODY_BYTES)
        if body is None:
            return refusal_response(Refusal(413, "request_too_large", f"At most {_HTTP_BODY_BYTES} bytes."))
        status, content = make_secret(body, beta, self._parts.sessions.defaults, self._parts.limits, self._parts.ephemeral)
        return JSONResponse(content, status)

    def _model_json(self, name: str) -> dict[str, object]:
        """As the hosted service tells it, and what a page may let its visitor choose from."""
        ours = {"voices": [*self._parts.voices], "languages": [*self._parts.languages]}
        return {"id": name, "object": "model", "created": 0, "owned_by": "vivavoce"} | ours

    def _refuses(self, request: Request, *, ephemeral: bool = True) -> Refusal | None:
        refusal = self._parts.policy.refuses(request, ephemeral=ephemeral)
        if refusal is not None:
            self._parts.metrics.refused.labels(refusal.code).inc()
        return refusal


class _Page(StaticFiles):
    """The page's files and nothing else of its package, under a strict policy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path not in ("", ".") and not path.endswith(_PAGE_SUFFIXES):
            return Response("Not Found", 404, _PAGE_HEADERS)
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            return Response(error.detail, error.status_code, _PAGE_HEADERS)
        response.headers.update(_PAGE_HEADERS)
        return response


class _CollapseSlashes:
    """Some clients put slashes together without looking: `//v1//realtime` (protocols.md checklist 17)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "//" in scope.get("path", ""):
            scope = dict(scope) | {"path": re.sub("/{2,}", "/", scope["path"])}
        await self._app(scope, receive, send)
