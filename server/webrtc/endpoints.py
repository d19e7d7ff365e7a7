"""Where WebRTC calls come in over HTTP: OpenAI's (protocols.md 1.15), WHIP (RFC 9725) and Pipecat's SmallWebRTC (protocols.md 4). They
differ in how the offer is wrapped and how a call is named; the call is the same. And where a browser learns of the STUN and TURN servers.
"""

import re
import time
from email.parser import BytesParser
from email.policy import HTTP
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.settings import SessionSettings
from server.auth import AccessPolicy, EphemeralKeys, Refusal, presented_key
from server.body import bounded_body
from server.limits import Limits
from server.metrics import Metrics
from server.realtime.dialect import handshake_dialect
from server.realtime.fields import BadField, Fields, parse_object
from server.realtime.initial import initial_settings
from server.realtime.session_update import merge_session
from server.realtime.websocket import refusal_response
from server.webrtc.calls import Call, CallRefusedError, Calls
from server.webrtc.offer import OfferError, is_usable_candidate

__all__ = ["CallEndpoints"]

_BASES: Final = ("/v1/realtime", "/openai/v1/realtime")
_SDP: Final = "application/sdp"
_FRAGMENT: Final = "application/trickle-ice-sdpfrag"
_MAX_BODY_BYTES: Final = 512 << 10
"""An offer, and a session object with its tools."""
_MAX_FRAGMENT_LINES: Final = 128


class CallEndpoints:
    """The routes."""

    def __init__(self, calls: Calls, policy: AccessPolicy, ephemeral: EphemeralKeys, metrics: Metrics, limits: Limits) -> None:
        self._calls = calls
        self._policy = policy
        self._ephemeral = ephemeral
        self._metrics = metrics
        self._limits = limits

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            *(Route(f"{base}/calls", self.create, methods=["POST"]) for base in _BASES),
            *(Route(f"{base}/calls/{{call_id}}/hangup", self.hang_up, methods=["POST"]) for base in _BASES),
            *(Route(f"{base}/ice_servers", self.ice_servers) for base in _BASES),
            Route("/v1/realtime", self.create, methods=["POST"]),
            Route("/whip", self.whip, methods=["POST", "OPTIONS"]),
            Route("/whip/{call_id}", self.whip_session, methods=["PATCH", "DELETE"]),
            Route("/api/offer", self.small_webrtc, methods=["POST"]),
            Route("/api/offer", self.small_webrtc_candidates, methods=["PATCH"]),
        ]

    # -- OpenAI

    async def create(self, request: Request) -> Response:
        """`POST /v1/realtime/calls`, and beta's `POST /v1/realtime?model=`: the offer as the body, or beside a session in a form."""
        body = await self._admit(request)
        if isinstance(body, Response):
            return body
        kind = _content_type(request)
        settings = self._initial_settings(request)
        try:
            if kind == "multipart/form-data":
                parts = _form_parts(request.headers["content-type"], body)
                offer = parts.get("sdp", b"")
                if session := parts.get("session"):
                    settings = merge_session(settings, parse_object(session), self._limits)
            elif kind == _SDP:
                offer = body
            else:
                return _error(415, "unsupported_media_type", f"Send the offer as {_SDP}, or as the part 'sdp' of a multipart form.")
        except BadField as bad:
            return _error(400, bad.code, bad.message, bad.param)
        call = await self._begin(request, offer, settings)
        if isinstance(call, Response):
            return call
        return Response(call.answer, 201, {"Location": f"/v1/realtime/calls/{call.id}"}, _SDP)

    async def hang_up(self, request: Request) -> Response:
        """`POST /v1/realtime/calls/{call_id}/hangup`."""
        call = self._find(request)
        if isinstance(call, Response):
            return call
        call.channel.hang_up()
        return Response(status_code=200)

    async def ice_servers(self, request: Request) -> Response:
        """`GET /v1/realtime/ice_servers`, ours: what a browser makes its `RTCPeerConnection` with, credentials and their end included."""
        refusal = self._refuses(request)
        if refusal is not None:
            return refusal
        return JSONResponse(self._calls.ice.configuration(time.time(), self._key_expiry(request)), headers={"Cache-Control": "no-store"})

    # -- WHIP

    async def whip(self, request: Request) -> Response:
        """RFC 9725 section 4.2. A client that also wants to hear offers `sendrecv`."""
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Accept-Post": _SDP})
        body = await self._admit(request)
        if isinstance(body, Response):
            return body
        if _content_type(request) != _SDP:
            return _error(415, "unsupported_media_type", f"Send the offer as {_SDP}.")
        call = await self._begin(request, body, self._initial_settings(request))
        if isinstance(call, Response):
            return call
        response = Response(call.answer, 201, {"Location": f"/whip/{call.id}", "ETag": _entity_tag(call)}, _SDP)
        for link in self._calls.ice.links(time.time(), self._key_expiry(request)):
            response.headers.append("Link", link)
        return response

    async def whip_session(self, request: Request) -> Response:
        """`DELETE` ends the call, `PATCH` adds candidates (sections 4.2 and 4.3). ICE can't be restarted."""
        call = self._find(request)
        if isinstance(call, Response):
            return call
        if request.method == "DELETE":
            call.channel.hang_up()
            return Response(status_code=200)
        if _content_type(request) != _FRAGMENT:
            return _error(415, "unsupported_media_type", f"Send candidates as {_FRAGMENT}.")
        match = request.headers.get("if-match")
        if match is None:
            return _error(428, "precondition_required", "Send the call's ETag as 'If-Match'.")
        if match == "*":
            return _error(501, "not_implemented", "ICE can't be restarted; begin another call.")
        if match != _entity_tag(call):
            return _error(412, "precondition_failed", "The ETag is not this call's.")
        body = await bounded_body(request, _MAX_BODY_BYTES)
        if body is None:
            return _error(413, "request_too_large", "The fragment is too large.")
        mid = ""
        for line in body.decode("utf-8", "replace").splitlines()[:_MAX_FRAGMENT_LINES]:
            if line.startswith("a=mid:"):
                mid = line.removeprefix("a=mid:").strip()
            elif is_usable_candidate(line.strip()):
                await call.channel.peer.add_candidate(mid, line.strip().removeprefix("a="))
        return Response(status_code=204)

    # -- Pipecat's SmallWebRTC

    async def small_webrtc(self, request: Request) -> Response:
        """`POST /api/offer`: `pc_id` names a call to be begun anew (`restart_pc`)."""
        fields = await self._object(request)
        if isinstance(fields, Response):
            return fields
        try:
            offer, old = fields.need_text("sdp"), fields.text("pc_id")
            restarts = fields.flag("restart_pc")
        except BadField as bad:
            return _error(400, bad.code, bad.message, bad.param)
        if old is not None and (before := self._calls.get(old)) is not None:
            if not restarts:
                return _error(501, "not_implemented", "A call can't be renegotiated; send 'restart_pc' to begin it anew.")
            before.channel.hang_up()
        call = await self._begin(request, offer.encode(), self._initial_settings(request))
        if isinstance(call, Response):
            return call
        return JSONResponse({"sdp": call.answer, "type": "answer", "pc_id": call.id})

    async def small_webrtc_candidates(self, request: Request) -> Response:
        """`PATCH /api/offer`: candidates found after the offer."""
        fields = await self._object(request)
        if isinstance(fields, Response):
            return fields
        try:
            call = self._calls.get(fields.need_text("pc_id"))
            found = [(item.text("sdp_mid") or "", item.need_text("candidate")) for item in fields.children("candidates") or ()]
        except BadField as bad:
            return _error(400, bad.code, bad.message, bad.param)
        if call is None:
            return _no_such_call()
        for mid, candidate in found[:_MAX_FRAGMENT_LINES]:
            if is_usable_candidate("a=" + candidate.strip()):
                await call.channel.peer.add_candidate(mid, candidate.strip())
        return JSONResponse({"status": "success"})

    # -- what they share

    def _refuses(self, request: Request) -> Response | None:
        refusal = self._policy.refuses(request)
        if refusal is None:
            return None
        self._metrics.refused.labels(refusal.code).inc()
        return refusal_response(refusal)

    def _key_expiry(self, request: Request) -> int | None:
        """When the short-lived key of the request ends: what is told to its holder ends with it. None for a lasting one."""
        key = presented_key(request)
        return None if key is None else self._ephemeral.expiry(key)

    async def _admit(self, request: Request) -> bytes | Response:
        """The body of a request that may pass."""
        refusal = self._refuses(request)
        if refusal is not None:
            return refusal
        body = await bounded_body(request, _MAX_BODY_BYTES)
        return _error(413, "request_too_large", "The request is too large.") if body is None else body

    async def _object(self, request: Request) -> Fields | Response:
        body = await self._admit(request)
        if isinstance(body, Response):
            return body
        try:
            return parse_object(body)
        except BadField as bad:
            return _error(400, bad.code, bad.message, bad.param)

    def _find(self, request: Request) -> Call | Response:
        """The call that the address names, for one who may ask."""
        return self._refuses(request) or self._calls.get(request.path_params["call_id"]) or _no_such_call()

    def _initial_settings(self, request: Request) -> SessionSettings:
        return initial_settings(request, self._ephemeral, self._calls.defaults)

    async def _begin(self, request: Request, offer: bytes, settings: SessionSettings) -> Call | Response:
        dialect = handshake_dialect(request.headers.get("openai-beta", ""), ())
        try:
            return await self._calls.begin(offer.decode("utf-8", "replace"), settings, dialect)
        except OfferError as error:
            return _error(400, "invalid_offer", str(error))
        except CallRefusedError as refused:
            self._metrics.refused.labels(refused.refusal.code).inc()
            return refusal_response(refused.refusal)


def _entity_tag(call: Call) -> str:
    """The call's ICE session: there is only ever one."""
    return f'"{call.id}"'


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _form_parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a form by name. Raises BadField."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n" + body)
    parts: dict[str, bytes] = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = re.search(r'name="?([^";]*)"?', str(part.get("content-disposition", "")))
        payload = part.get_payload(decode=True)
        if name is not None and isinstance(payload, bytes):
            parts[name[1]] = payload
    if "sdp" not in parts:
        raise BadField("missing_required_parameter", "The form has no part 'sdp'.", "sdp")
    return parts


def _no_such_call() -> Response:
    return _error(404, "call_not_found", "There is no such call, or it has ended.")


def _error(status: int, code: str, message: str, param: str | None = None) -> Response:
    return refusal_response(Refusal(status, code, message), param)
