"""One connection's translator: client messages to typed requests, notices to JSON text. No socket, no clock.

It holds what translation depends on: the dialect, fixed by the handshake or the first `session.update`, and the count of events sent.
"""

import json
from collections.abc import Mapping

from agent.commands import Notify, PartRef
from agent.events import UpdateSession
from agent.settings import SessionSettings
from server.limits import Limits
from server.realtime.dialect import Dialect, update_dialect
from server.realtime.fields import BadField, Fields, parse_object
from server.realtime.notices import audio_delta, notice_json
from server.realtime.requests import ClientMessage, Situation, read_request, refusal

__all__ = ["Codec"]


class Codec:
    """Translates for one session. `expires_at` is when it ends, in unix seconds."""

    def __init__(self, session_id: str, dialect: Dialect | None, limits: Limits, expires_at: int) -> None:
        """`dialect` is what the handshake implied; None waits for the first `session.update`, GA until then."""
        self._limits = limits
        self._expires_at = expires_at
        # Event ids are this and a counter: unique over sessions, as session ids are.
        self._event_prefix = "event_" + session_id.removeprefix("sess_")
        self._sent = 0
        self._dialect = dialect or Dialect.GA
        self._dialect_fixed = dialect is not None
        # Whether a session.update has been accepted; the first one may choose the session's type.
        self._updated = False

    @property
    def dialect(self) -> Dialect:
        """The spelling of what is sent."""
        return self._dialect

    def read(self, message: str | bytes, settings: SessionSettings, at: int) -> ClientMessage:
        """The request in one frame, given the settings in force and the input position reached (16 kHz samples)."""
        try:
            fields = parse_object(message)
        except BadField as bad:
            return refusal(None, bad)
        self._detect_dialect(fields)
        request = read_request(fields, Situation(settings, at, may_change_kind=not self._updated), self._limits)
        self._updated = self._updated or isinstance(request, UpdateSession)
        return request

    def write(self, notice: Notify) -> str | None:
        """The event as text; None where the dialect has no such event."""
        event = notice_json(notice, self._dialect, self._expires_at)
        return None if event is None else self._text(event)

    def write_audio(self, part: PartRef, payload: bytes) -> str:
        """An audio delta as text."""
        return self._text(audio_delta(part, payload, self._dialect))

    def write_extension(self, event: Mapping[str, object]) -> str:
        """An event of our own (`vivavoce.*`), for clients that asked for it."""
        return self._text(event)

    def _text(self, event: Mapping[str, object]) -> str:
        """ASCII JSON: half a surrogate pair in a model's text must not end a session."""
        self._sent += 1
        return json.dumps({"event_id": f"{self._event_prefix}_{self._sent}"} | dict(event), separators=(",", ":"))

    def _detect_dialect(self, message: Fields) -> None:
        if self._dialect_fixed:
            return
        kind, session = message.raw.get("type"), message.raw.get("session")
        if kind == "transcription_session.update":
            self._dialect, self._dialect_fixed = Dialect.BETA, True
        elif kind == "session.update" and isinstance(session, dict):
            self._dialect, self._dialect_fixed = update_dialect(session), True
