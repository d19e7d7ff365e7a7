"""The agent that `vivavoce serve` was given: `my_agent.py:agent`, or the same without code in TOML."""

import importlib.util
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from server.agents.agent import Agent, Approval, McpServer
from server.agents.errors import AgentError

__all__ = ["load_agent"]

_HOOKS: Final = ("on_start", "on_turn", "on_end", "tools")
"""What only code can say."""


@checked(kw_only=True, config=ConfigDict(extra="forbid"))
class _Words:
    """The keys of an agent in TOML, and their types; values are checked again by `Agent`."""

    name: str
    instructions: str = ""
    description: str = ""
    voice: str | None = None
    handoffs: list[str] | None = None
    greeting: str = ""
    idle_prompts: list[str] | None = None
    idle_seconds: float | None = None
    goodbye: str = ""
    filler: str | None = None
    filler_seconds: float | None = None
    interruptible: bool | None = None
    interjects: bool | None = None
    eagerness: str | None = None
    temperature: float | None = None
    tool_timeout: float | None = None


@checked(kw_only=True, config=ConfigDict(extra="forbid"))
class _Server:
    """The keys of `[mcp.LABEL]`."""

    command: list[str] | None = None
    env: dict[str, str] | None = None
    url: str = ""
    headers: dict[str, str] | None = None
    tools: list[str] | None = None
    require_approval: Approval | dict[str, Approval] | None = None
    timeout: float | None = None


def load_agent(place: str) -> Agent:
    """The agent at `FILE.py:NAME` (`agent` where no name is given) or in `FILE.toml`. Raises AgentError."""
    file, separator, name = place.rpartition(":") if ".py:" in place else (place, "", "")
    path = Path(file)
    if path.suffix not in (".py", ".toml"):
        raise AgentError(f"{place} is no agent: give a Python file and the agent's name in it, like my_agent.py:agent, or a TOML file")
    if not path.is_file():
        raise AgentError(f"there is no file {path}")
    if path.suffix == ".toml":
        return _from_toml(path)
    return _from_python(path, name if separator and name else "agent")


def _from_python(path: Path, name: str) -> Agent:
    """Runs the file, as `python FILE` would find its neighbours."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except AgentError as error:
        raise AgentError(f"{path}: {error}") from error
    except Exception as error:
        raise AgentError(f"{path} can't be run: {type(error).__name__}: {error}{_line_of(error, path)}") from error
    if not hasattr(module, name):
        agents = [key for key, value in vars(module).items() if isinstance(value, Agent)]
        has = f"its agents are {', '.join(agents)}" if agents else "it has no agent at all"
        raise AgentError(f"{path} has no {name}: {has}")
    found = getattr(module, name)
    if not isinstance(found, Agent):
        raise AgentError(f"{name} in {path} is a {type(found).__name__}, not a vivavoce.Agent")
    return found


def _line_of(error: BaseException, path: Path) -> str:
    """Where in the file it happened."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" (line {lines[-1]})" if lines else ""


def _from_toml(path: Path) -> Agent:
    try:
        words = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise AgentError(f"{path} is not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    others = _tables(path, words.pop("agents", {}), "agents")
    try:
        known = {name: _agent(path, f"agents.{name}.", {"name": name, **table}, {}) for name, table in others.items()}
        # Only the first one holds the others as values, the rest know them by name: so a team may hand a call back.
        return _agent(path, "", words, known)
    except AgentError as error:
        raise AgentError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def _agent(path: Path, where: str, words: dict[str, Any], known: Mapping[str, Agent]) -> Agent:
    servers = _tables(path, words.pop("mcp", {}), f"{where}mcp")
    if (hook := next((key for key in _HOOKS if key in words), None)) is not None:
        raise AgentError(f"{path}: {where}{hook} needs code: write the agent in Python (docs/agents.md)")
    given = _given(_checked(_Words, words, path, where))
    mcp = [McpServer(label=label, **_given(_checked(_Server, table, path, f"{where}mcp.{label}."))) for label, table in servers.items()]
    named = given.pop("handoffs", [])
    # Agents that nobody is handed to from the first one may still be reached through others.
    handoffs = [known.get(name, name) for name in named]
    return Agent(**given, mcp=mcp, handoffs=handoffs)


def _tables(path: Path, value: object, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
        raise AgentError(f"{path}: {where} is tables, like [{where}.NAME]")
    return value


def _given(values: Any) -> dict[str, Any]:
    return {one.name: value for one in fields(values) if (value := getattr(values, one.name)) is not None}


def _checked(kind: type[Any], words: Mapping[str, Any], path: Path, where: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(dict(words))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = f"{where}{'.'.join(str(step) for step in first['loc'])}"
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = ", ".join(one.name for one in fields(kind))
            raise AgentError(f"{path}: there is no key {key}; known are {known}{', mcp, agents' if kind is _Words else ''}") from None
        raise AgentError(f"{path}: {key}: {first['msg']}") from None
