"""What an evaluation cannot do, in a line for a person; and libraries that are not everybody's."""

import importlib
from types import ModuleType

__all__ = ["EvalError", "optional"]


class EvalError(Exception):
    """The evaluation can't run, or not with this; the message says what to do."""


def optional(name: str) -> ModuleType:
    """A module of the extra `eval`. Raises EvalError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).split(".")[0]
        raise EvalError(f"{missing} is not installed: pip install 'vivavoce[eval]'") from error
