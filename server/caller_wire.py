"""The caller's end of the wire: a connection to a Realtime server, its events as JSON, and what to tell a person when it fails."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

__all__ = [
    "HANDSHAKE_SECONDS",
    "ROOM_SECONDS",
    "Arrival",
    "CallError",
    "JsonObject",
    "again_after",
    "error_line",
    "number_of",
    "open_connection",
    "text_of",
]

HANDSHAKE_SECONDS: Final = 10.0
"""For the connection, and for `session.updated` after it."""

ROOM_SECONDS: Final = 60.0
"""How long a caller who has time waits for a server that is full."""

_AGAIN_SECONDS: Final = 5.0
"""Until it is asked again, where it does not say."""

_LEAST_SECONDS: Final = 0.1
"""However soon it says."""

_FULL: Final = 503

_REALTIME_PATH: Final = "/v1/realtime"

JsonObject = Mapping[str, object]


class CallError(Exception):
    """The call can't go on; the message is one line for a person. `unauthorised` where a key is missing or wrong."""

    def __init__(self, message: str, *, unauthorised: bool = False) -> None:
        super().__init__(message)
        self.unauthorised = unauthorised


@dataclass(frozen=True, slots=True)
class Arrival:
    """A server event and when its frame was read, in seconds of the event loop's clock. Audio deltas come without their `delta`."""

    at: float
    event: JsonObject

    @property
    def kind(self) -> str:
        """The event's `type`."""
        return text_of(self.event, "type")


def text_of(event: JsonObject, *path: str) -> str:
    """The string at `path` in an event; "" where there is none."""
    value: object = event
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def number_of(event: JsonObject, key: str) -> float | None:
    """The number under `key`; None where there is none."""
    value = event.get(key)
    return float(value) if isinstance(value, int | float) else None


async def open_connection(url: str, api_key: str | None, patience: float = 0.0) -> ClientConnection:
    """Connects; a key goes into the Authorization header. A server that is full is asked again, for `patience` seconds. Raises CallError
    with what to do about it."""
    address = _address(url)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else None
    # No proxy between a machine and itself.
    proxy: Literal[True] | None = None if urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1") else True
    while True:
        try:
            # No compression: audio does not shrink, and the time is the caller's.
            return await connect(
                address, additional_headers=headers, compression=None, open_timeout=HANDSHAKE_SECONDS, close_timeout=1, proxy=proxy
            )
        except InvalidStatus as refused:
            wait = again_after(refused.response.status_code, refused.response.headers.get("Retry-After"))
            if wait is None or wait > patience:
                raise _refusal(refused) from None
        except InvalidURI:
            raise CallError(f"{url} is not an address such as ws://127.0.0.1:8765/v1/realtime") from None
        except InvalidHandshake as error:
            raise CallError(f"what answers at {url} is not a Realtime server ({error})") from None
        except TimeoutError:
            raise CallError(f"the server at {url} did not answer within {HANDSHAKE_SECONDS:.0f} seconds") from None
        except OSError:
            raise CallError(f"no server answers at {url}: start one with `vivavoce serve`") from None
        await asyncio.sleep(wait)
        patience -= wait


def again_after(status: int, retry_after: str | None) -> float | None:
    """Seconds until a server that answered with this HTTP status may be asked again; None where it is not full, but refuses (RFC 9110,
    section 10.2.3; a date there counts as nothing)."""
    if status != _FULL:
        return None
    return max(_LEAST_SECONDS, float(retry_after)) if retry_after and retry_after.isdecimal() else _AGAIN_SECONDS


def _address(url: str) -> str:
    """A WebSocket address with a model in its query, as the protocol wants, and the usual path where it has none."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = _REALTIME_PATH if parts.netloc and parts.path in ("", "/") else parts.path
    return urlunsplit((scheme, parts.netloc, path, urlencode({"model": "pocket"} | query), ""))


def _refusal(refused: InvalidStatus) -> CallError:
    status = refused.response.status_code
    if status == 401:
        return CallError("the server wants an API key: give it one with --api-key KEY", unauthorised=True)
    try:
        said = text_of(json.loads(refused.response.body or b"{}"), "error", "message")
    except (ValueError, AttributeError):
        said = ""
    return CallError(f"the server answered HTTP {status}{': ' + said if said else ''}")


def error_line(event: JsonObject) -> str:
    """An `error` event on one line."""
    code, message = text_of(event, "error", "code"), text_of(event, "error", "message")
    return f"{message} ({code})" if code else message or "no message"
