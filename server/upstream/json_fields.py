"""Fields of the JSON that an upstream sends, looked at without trust."""

import base64
import json
from collections.abc import Mapping

from server.upstream.errors import UpstreamError

__all__ = ["count_at", "object_at", "objects_at", "parsed", "sound_at", "text_at"]

_JsonObject = Mapping[str, object]


def parsed(message: str) -> dict[str, object]:
    """The object that a message is. Raises UpstreamError."""
    try:
        value: object = json.loads(message)
    except (ValueError, RecursionError):
        raise UpstreamError("it sent what is no JSON") from None
    if not isinstance(value, dict):
        raise UpstreamError("it sent what is no object")
    return value


def object_at(value: _JsonObject, key: str) -> dict[str, object]:
    """The object under `key`; an empty one where there is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def objects_at(value: _JsonObject, key: str) -> list[dict[str, object]]:
    """The objects in the list under `key`."""
    found = value.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def text_at(value: _JsonObject, key: str) -> str:
    """The string under `key`; "" where there is none."""
    found = value.get(key)
    return found if isinstance(found, str) else ""


def sound_at(value: _JsonObject, key: str) -> bytes:
    """The bytes under `key`, which are base64; b"" where there are none. Raises UpstreamError."""
    try:
        return base64.b64decode(text_at(value, key), validate=True)
    except ValueError:  # letters beyond ASCII are none of binascii.Error
        raise UpstreamError("it sent sound that is no base64") from None


def count_at(value: _JsonObject, key: str) -> int:
    """The number under `key`; 0 where there is none."""
    found = value.get(key)
    return found if isinstance(found, int) and found > 0 else 0
