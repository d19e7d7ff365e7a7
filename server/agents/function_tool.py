"""Tools from typed functions: the docstring is the description, the annotations become the JSON Schema and check the arguments.

    def book_table(people: int, time: Annotated[str, Field(description="like 19:30")]) -> str:
        "Book a table for tonight."

A parameter annotated `Call` is not the model's to fill: it gets the call (`server.agents.call`). What a tool returns is told to the
model as text or JSON; `Spoken` is said to the caller as it is.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from server.agents.call import Call
from server.agents.errors import AgentError, CallError
from streaming.events import ToolSpec

__all__ = ["MOST_OUTPUT", "FunctionTool", "Spoken", "arguments_of", "as_tool", "output_text", "tool"]

MOST_OUTPUT: Final = 16_000
"""Characters of a result that the model is told: more than a small model's context holds."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Spoken:
    """A tool's result that is said to the caller word for word. The model is told `output`, by default the words."""

    words: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A function as a tool. `timeout` in seconds, None for the agent's."""

    function: Callable[..., Any]
    spec: ToolSpec
    model: type[BaseModel]
    # The parameter that gets the call, "" for none.
    call_parameter: str
    timeout: float | None = None
    needs_approval: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself: a decorated one can be called and tested like any other."""
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        """What the model calls it by."""
        return self.spec.name

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function; any other is run on a thread."""
        return inspect.iscoroutinefunction(self.function)


def tool(*, name: str = "", timeout: float | None = None, needs_approval: bool = False) -> Callable[[Callable[..., Any]], FunctionTool]:
    """A decorator for what a plain function can't say: another name, the seconds a call may take, whether the client is asked before.
    Example: `@tool(timeout=60)`."""

    def make(function: Callable[..., Any]) -> FunctionTool:
        return _make(function, name, timeout, needs_approval)

    return make


def as_tool(function: Callable[..., Any]) -> FunctionTool:
    """The tool of a plain function, or the tool itself. Raises AgentError where there is no schema for its parameters."""
    return function if isinstance(function, FunctionTool) else _make(function, "", None, needs_approval=False)


def arguments_of(function: FunctionTool, text: str, call: Call) -> dict[str, Any]:
    """The arguments in the model's JSON, checked and converted, with the call where one is wanted. Raises CallError."""
    try:
        parsed = function.model.model_validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the arguments"
        raise CallError(f"{where}: {first['msg']}") from error
    arguments = {name: getattr(parsed, name) for name in function.model.model_fields}
    return arguments | ({function.call_parameter: call} if function.call_parameter else {})


def output_text(value: object) -> str:
    """A result as the model is told it: text as it is, None as "Done.", anything else as JSON."""
    if isinstance(value, str):
        text = value
    elif value is None:
        text = "Done."
    else:
        text = TypeAdapter(type(value)).dump_json(value, fallback=str).decode()
    return text[:MOST_OUTPUT]


def _make(function: Callable[..., Any], name: str, timeout: float | None, needs_approval: bool) -> FunctionTool:
    name = name or getattr(function, "__name__", "")
    if not _NAME.fullmatch(name):
        raise AgentError(f"a tool needs a name of letters, digits, _ and -, at most 64 of them: {name or function!r} has none")
    try:
        model, call_parameter = _model(function, name)
        schema = model.model_json_schema()
    except (NameError, PydanticUserError, TypeError, ValueError) as error:
        raise AgentError(f"the tool {name} can't be described to a model: {str(error).splitlines()[0]}") from error
    spec = ToolSpec(name, inspect.getdoc(function) or "", json.dumps(_plain(schema)))
    return FunctionTool(function, spec, model, call_parameter, timeout, needs_approval)


def _model(function: Callable[..., Any], name: str) -> tuple[type[BaseModel], str]:
    """A model of the parameters, and the name of the one that gets the call. Raises TypeError for one that can't be told by name."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    call_parameter = ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"the parameter {parameter.name} can't be passed by name")
        annotation = hints.get(parameter.name)
        if annotation is None:
            raise TypeError(f"the parameter {parameter.name} has no type")
        if annotation is Call:
            call_parameter = parameter.name
        else:
            fields[parameter.name] = (annotation, ... if parameter.default is parameter.empty else parameter.default)
    model: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields)
    return model, call_parameter


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without the titles that pydantic makes of the names: every model reads them, none needs them."""
    kept = {key: value for key, value in schema.items() if key != "title"}
    properties = kept.get("properties")
    if isinstance(properties, Mapping):
        kept["properties"] = {name: {key: one for key, one in field.items() if key != "title"} for name, field in properties.items()}
    return kept
