"""Ephemeral keys for browsers (protocols.md 1.15): a request's JSON in, status and JSON out."""

import secrets
from typing import Final

from agent.settings import SessionSettings
from server.auth import EphemeralKeys
from server.limits import Limits
from server.realtime.dialect import Dialect
from server.realtime.fields import BadField, Fields, parse_object
from server.realtime.session_object import session_json
from server.realtime.session_update import merge_session

__all__ = ["make_secret"]

_DEFAULT_SECONDS: Final = 600
_BETA_SECONDS: Final = 60


def make_secret(body: bytes, beta: bool, defaults: SessionSettings, limits: Limits, keys: EphemeralKeys) -> tuple[int, dict[str, object]]:
    """A key whose sessions begin with the given settings. `beta` is `POST /v1/realtime/sessions`, where the body is the session."""
    try:
        fields = parse_object(body) if body.strip() else Fields({})
        session = fields if beta else (fields.child("session") or Fields({}, "session"))
        settings = merge_session(defaults, session, limits)
        after = fields.child("expires_after") or Fields({}, "expires_after")
        seconds = _BETA_SECONDS if beta else after.integer("seconds", 10, 7200) or _DEFAULT_SECONDS
    except BadField as bad:
        error = {"message": bad.message, "type": "invalid_request_error", "param": bad.param, "code": bad.code}
        return 400, {"error": error}
    key, expires_at = keys.make(seconds, settings)
    # The session of the reply is a promise, not a session: its id is not one that will be used.
    session_id = "sess_" + secrets.token_hex(10)
    wire = session_json(session_id, settings, expires_at, Dialect.BETA if beta else Dialect.GA)
    if beta:
        return 200, wire | {"client_secret": {"value": key, "expires_at": expires_at}}
    return 200, {"value": key, "expires_at": expires_at, "session": wire}
