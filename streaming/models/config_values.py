"""Values of a checkpoint's `config.json`, checked as they are read."""

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["number_of"]

_Value = TypeVar("_Value", int, float)


def number_of(values: Mapping[str, object], key: str, kind: type[_Value], default: _Value | None = None) -> _Value:
    """The number at `key`, or the default where there is none. Raises ValueError, naming the key, for what is no number."""
    value = values.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, not a number")
    return kind(value)
