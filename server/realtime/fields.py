"""Reading a client's JSON field by field: every mistake becomes one `BadField` with the protocol's error code and the field's path.

Fields that nobody reads are ignored, as clients add some every month.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["BadField", "Fields", "parse_object"]

_TYPE_NAMES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}
_MAX_VALUES: Final = 200_000
"""Commas and openers in a message: parsing more would hold the event loop for longer than a frame of sound."""


class BadField(Exception):  # noqa: N818 - a fact about the peer's message, not an error of ours
    """A field the protocol does not allow. `code` is one of protocols.md 1.12, `param` the path of the field."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object and where in the message it stands (`path` is "" for the message itself). The readers return None where the
    field is absent, and where it is null."""

    raw: dict[str, object]
    path: str = ""

    def __contains__(self, key: str) -> bool:
        return key in self.raw

    def param(self, key: str) -> str:
        """The path of a field, as errors name it."""
        return f"{self.path}.{key}" if self.path else key

    def text(self, key: str) -> str | None:
        """A string."""
        value = self.raw.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong_type(key, "a string")

    def need_text(self, key: str) -> str:
        """A string that must be there."""
        value = self.text(key)
        if value is None:
            raise self.missing(key)
        return value

    def choice(self, key: str, allowed: Sequence[str]) -> str | None:
        """A string out of a list."""
        value = self.text(key)
        if value is not None and value not in allowed:
            raise self.not_among(key, value, allowed)
        return value

    def flag(self, key: str) -> bool | None:
        """A boolean."""
        value = self.raw.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.wrong_type(key, "a boolean")

    def number(self, key: str, low: float, high: float) -> float | None:
        """A number from `low` to `high`."""
        value = self.raw.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong_type(key, "a number")
        if not low <= value <= high:
            raise self.bad_value(key, f"Invalid value for '{self.param(key)}': expected a value from {low:g} to {high:g}, but got {value}.")
        return float(value)

    def integer(self, key: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`; 500.0 counts as one, as JavaScript does not tell them apart."""
        value = self.number(key, low, high)
        if value is None:
            return None
        if not value.is_integer():
            raise self.wrong_type(key, "an integer")
        return int(value)

    def need_integer(self, key: str, low: int, high: int) -> int:
        """A whole number that must be there."""
        value = self.integer(key, low, high)
        if value is None:
            raise self.missing(key)
        return value

    def child(self, key: str) -> "Fields | None":
        """An object."""
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong_type(key, "an object")
        return Fields(value, self.param(key))

    def need_child(self, key: str) -> "Fields":
        """An object that must be there."""
        value = self.child(key)
        if value is None:
            raise self.missing(key)
        return value

    def array(self, key: str) -> list[object] | None:
        """A list."""
        value = self.raw.get(key)
        if value is None or isinstance(value, list):
            return value
        raise self.wrong_type(key, "an array")

    def children(self, key: str) -> "list[Fields] | None":
        """A list of objects."""
        values = self.array(key)
        if values is None:
            return None
        children = []
        for index, value in enumerate(values):
            name = f"{key}[{index}]"
            if not isinstance(value, dict):
                raise BadField("invalid_type", _type_message(self.param(name), "an object", value), self.param(name))
            children.append(Fields(value, self.param(name)))
        return children

    def missing(self, key: str) -> BadField:
        """The field is required and not there."""
        param = self.param(key)
        return BadField("missing_required_parameter", f"Missing required parameter: '{param}'.", param)

    def wrong_type(self, key: str, expected: str) -> BadField:
        """The field holds another JSON type than `expected`."""
        param = self.param(key)
        return BadField("invalid_type", _type_message(param, expected, self.raw.get(key)), param)

    def not_among(self, key: str, value: str, allowed: Sequence[str]) -> BadField:
        """The string is none of those allowed."""
        names = ", ".join(f"'{name}'" for name in allowed)
        return self.bad_value(key, f"Invalid value: '{value[:64]}'. Supported values are: {names}.")

    def bad_value(self, key: str, message: str) -> BadField:
        """The type is right and the value is not."""
        return BadField("invalid_value", message, self.param(key))


def _type_message(param: str, expected: str, value: object) -> str:
    return f"Invalid type for '{param}': expected {expected}, but got {_TYPE_NAMES.get(type(value), 'something else')} instead."


def parse_object(message: str | bytes) -> Fields:
    """One client message (UTF-8 where it came in a binary frame) as fields; raises `BadField` (invalid_event) for anything that is no
    JSON object in valid Unicode, or has more values than any message of the protocol."""
    try:
        text = message.decode() if isinstance(message, bytes) else message
        if len(text) > _MAX_VALUES and sum(_count(text, opener) for opener in ",[{") > _MAX_VALUES:
            raise ValueError("it holds too many values")
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\" in text:
            # Half of an escaped surrogate pair makes a string that cannot be encoded again; without a backslash there is none.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadField("invalid_event", f"The message is not valid JSON: {_reason(error)}.", None) from error
    if not isinstance(value, dict):
        raise BadField("invalid_event", "The message must be a JSON object.", None)
    return Fields(value)


def _count(text: str, character: str) -> int:
    """Up to one more than _MAX_VALUES. Leaps from find to find: `str.count` looks at 15 MiB of audio one character at a time."""
    count, position = 0, text.find(character)
    while position >= 0 and count <= _MAX_VALUES:
        count, position = count + 1, text.find(character, position + 1)
    return count


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not valid Unicode"
    return str(error)[:120]
