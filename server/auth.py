"""Who may speak to the server (protocols.md 1.1; design.md 8.8).

With keys configured, every session and API request needs one. Without, the server is on loopback and open to programs of this machine,
but not to a web page of somebody else in a browser of this machine: its requests carry an Origin, or a Host that is not ours.
Keys are compared in constant time and never logged.
"""

import hmac
import ipaddress
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from agent.settings import SessionSettings

__all__ = ["AccessPolicy", "EphemeralKeys", "Refusal", "is_local", "is_loopback_host", "presented_key"]

_KEY_SUBPROTOCOL: Final = "openai-insecure-api-key."
_MAX_EPHEMERAL: Final = 1_000
"""Ephemeral keys alive at once; the oldest makes room."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: HTTP status, and code and message of the JSON error. `retry_after` is when to come back, in seconds, where
    that may help."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def to_json(self, param: str | None = None) -> dict[str, object]:
        """The JSON error body the hosted service uses; `param` is the field of the request it is about."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": param, "code": self.code}}


class EphemeralKeys:
    """Short-lived keys for browsers, in memory: made with a lasting key, used until they expire."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives unix seconds."""
        self._clock = clock
        # Key to the second it expires and the settings its sessions begin with, in the order they were made.
        self._keys: dict[str, tuple[int, SessionSettings]] = {}

    def make(self, seconds: int, settings: SessionSettings) -> tuple[str, int]:
        """A new key for sessions that begin with `settings`, and the unix second it expires."""
        now = int(self._clock())
        self._keys = {key: kept for key, kept in self._keys.items() if kept[0] > now}
        while len(self._keys) >= _MAX_EPHEMERAL:
            del self._keys[next(iter(self._keys))]
        key = "ek_" + secrets.token_hex(16)
        self._keys[key] = (now + seconds, settings)
        return key, now + seconds

    def expiry(self, key: str) -> int | None:
        """The unix second a key expires; None for one that is none of these."""
        return self._keys[key][0] if key in self._keys else None

    def settings(self, key: str) -> SessionSettings | None:
        """What a living key's sessions begin with; None for any other key."""
        # 128 random bits found by hash: nothing to learn from the time it takes.
        expiry, settings = self._keys.get(key, (0, None))
        return settings if expiry > self._clock() else None


class AccessPolicy:
    """One server's rules. `origins` are web origins (`https://example.org`) whose pages may connect, "*" means all."""

    def __init__(self, keys: Sequence[str], origins: Sequence[str], ephemeral: EphemeralKeys) -> None:
        self._keys = tuple(key.encode() for key in keys)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._ephemeral = ephemeral

    def refuses(self, request: HTTPConnection, *, ephemeral: bool = True) -> Refusal | None:
        """Why the request may not pass, None if it may. `ephemeral` False wants a lasting key."""
        if not self._keys:
            return self._refuses_open(request)
        key = presented_key(request)
        if key is None:
            return Refusal(401, "missing_api_key", "No API key: send 'Authorization: Bearer KEY'.")
        if self._is_lasting(key) or (ephemeral and self._ephemeral.settings(key) is not None):
            return None
        return Refusal(401, "invalid_api_key", "The API key is not valid.")

    def allows_origin(self, request: HTTPConnection) -> bool:
        """Whether the page that made the request, if a page did, is ours or allow-listed."""
        origin = request.headers.get("origin")
        if origin is None or "*" in self._origins or origin.lower() in self._origins:
            return True
        host = request.headers.get("host", "")
        scheme = "https" if request.url.scheme in ("https", "wss") else "http"
        return origin.lower() == f"{scheme}://{host}".lower()

    def _refuses_open(self, request: HTTPConnection) -> Refusal | None:
        # A page of another site that points its own name at 127.0.0.1 (DNS rebinding) is same-origin with us, but its Host is not ours.
        if not is_loopback_host(_host_name(request.headers.get("host", ""))):
            return Refusal(403, "host_not_allowed", "Without API keys this server answers only as localhost.")
        if not self.allows_origin(request):
            return Refusal(403, "origin_not_allowed", "This web page may not use the server; allow its origin in the configuration.")
        return None

    def _is_lasting(self, key: str) -> bool:
        """Compares with every key, always, in constant time."""
        given = key.encode()
        return bool(sum(hmac.compare_digest(given, known) for known in self._keys))


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(request: HTTPConnection) -> bool:
    """Whether the request comes straight from a program of this machine: not through a proxy, not by a rebound name."""
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for"))
    here = request.client is not None and is_loopback_host(request.client.host)
    return here and not forwarded and is_loopback_host(_host_name(request.headers.get("host", "")))


def presented_key(request: HTTPConnection) -> str | None:
    """From `Authorization: Bearer`, Azure's `api-key`, or the subprotocol a browser has to use."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if key := request.headers.get("api-key"):
        return key.strip()
    offered: list[str] = request.scope.get("subprotocols", [])
    return next((name.removeprefix(_KEY_SUBPROTOCOL) for name in offered if name.startswith(_KEY_SUBPROTOCOL)), None)


def _host_name(host: str) -> str:
    """The name in a Host header, without its port; "" for nonsense."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
