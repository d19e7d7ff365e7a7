"""`Agent`: who answers a call, as a person writes it down. Plain values, checked when made; what runs it is `server.agents.runner`."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from agent.settings import Eagerness, Initiative, SemanticVad
from server.agents.call import Call
from server.agents.errors import AgentError
from server.agents.function_tool import FunctionTool, as_tool

__all__ = ["Agent", "Approval", "EndHook", "McpServer", "StartHook", "TurnAnswer", "TurnHook", "every_agent"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
_EAGERNESS: Final = tuple(level.value for level in Eagerness)

Approval = Literal["always", "never"]
TurnAnswer = str | FunctionTool | Callable[..., Any] | None
StartHook = Callable[[Call], Awaitable[None] | None]
TurnHook = Callable[[Call, str], Awaitable[TurnAnswer] | TurnAnswer]
EndHook = Callable[[Call], Awaitable[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server of tools that speaks MCP: a program (`command`, spoken to over its stdin and stdout) or an address (`url`, streamable
    HTTP), one of the two. `env` is the program's whole environment besides a few safe variables; `headers` go with every HTTP request.
    `tools` are those that may be used, None for all. `require_approval` is "always", "never", or by tool; those not named need none."""

    label: str
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tools: Sequence[str] | None = None
    require_approval: Approval | Mapping[str, Approval] = "never"
    timeout: float = 20.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.label):
            raise AgentError(f"an MCP server's label is letters, digits, _ and -, unlike {self.label!r}")
        if bool(self.command) == bool(self.url):
            raise AgentError(f"the MCP server {self.label} needs either a command or a url")
        if isinstance(self.command, str):
            raise AgentError(f'the command of the MCP server {self.label} is a list of words, like ["python", "weather.py"]')
        given = self.require_approval.values() if isinstance(self.require_approval, Mapping) else [self.require_approval]
        if any(one not in get_args(Approval) for one in given):
            raise AgentError(f"require_approval of the MCP server {self.label} is always, never, or one of them for each tool")
        _positive(f"timeout of the MCP server {self.label}", self.timeout)

    def needs_approval(self, tool: str) -> bool:
        """Whether the client is asked before each call of this tool."""
        wanted = self.require_approval
        return (wanted if isinstance(wanted, str) else wanted.get(tool, "never")) == "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Who answers a call.

    `instructions` are the language model's; `voice` is one of the bundle's, None lets the client choose. `tools` are functions that the
    model may call (`server.agents.function_tool`), `mcp` servers that have more. `handoffs` are the agents that it may hand the call to, or
    the names of agents that are known from elsewhere in the team; `description` says when to. `greeting` is said first, `idle_prompts` one
    after another whenever nobody has spoken for `idle_seconds`, then `goodbye`, which ends the call; `filler` when a tool takes longer
    than `filler_seconds`. `interruptible` False lets the agent finish what it says; `interjects` lets it speak while the caller does.
    `eagerness` is how soon it takes its turn: low, medium, high or auto. `tool_timeout` bounds a tool in seconds, `hook_timeout` a hook.

    Hooks, plain or async: `on_start(call)`; `on_turn(call, words)`, which may answer with fixed words (a string), have a tool called (the
    tool; its arguments are the model's), or leave the turn to the model (None); `on_end(call)`, when the call is over."""

    name: str
    instructions: str = ""
    description: str = ""
    voice: str | None = None
    tools: Sequence[Callable[..., Any]] = ()
    mcp: Sequence[McpServer] = ()
    handoffs: Sequence["Agent | str"] = ()
    greeting: str = ""
    idle_prompts: Sequence[str] = ()
    idle_seconds: float = 10.0
    goodbye: str = ""
    filler: str = "One moment."
    filler_seconds: float = 1.5
    interruptible: bool = True
    interjects: bool = False
    eagerness: str = "auto"
    temperature: float | None = None
    tool_timeout: float = 20.0
    hook_timeout: float = 2.0
    on_start: StartHook | None = None
    on_turn: TurnHook | None = None
    on_end: EndHook | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise AgentError(f"an agent's name is up to 48 letters, digits, _ and -, unlike {self.name!r}")
        if self.eagerness not in _EAGERNESS:
            raise AgentError(f"the eagerness of {self.name} is one of {', '.join(_EAGERNESS)}, not {self.eagerness!r}")
        for what in ("idle_seconds", "filler_seconds", "tool_timeout", "hook_timeout"):
            _positive(f"{what} of {self.name}", getattr(self, what))
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise AgentError(f"the temperature of {self.name} is from 0 to 2, not {self.temperature}")
        names = [tool.name for tool in self.own_tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise AgentError(f"{self.name} has two tools of the name {twice}")

    @property
    def own_tools(self) -> list[FunctionTool]:
        """Its functions as tools. Raises AgentError for one that is none."""
        return [as_tool(function) for function in self.tools]

    @property
    def initiative(self) -> Initiative:
        """What it says by itself, as the conversation is told."""
        return Initiative(
            greeting=self.greeting,
            idle_prompts=tuple(self.idle_prompts),
            idle_ms=round(self.idle_seconds * 1_000),
            goodbye=self.goodbye,
            filler=self.filler,
            filler_ms=round(self.filler_seconds * 1_000),
            interjects=self.interjects,
        )

    @property
    def turn_detection(self) -> SemanticVad:
        """How it takes turns, unless the client says otherwise."""
        return SemanticVad(Eagerness(self.eagerness), interrupt_response=self.interruptible)


def every_agent(first: Agent) -> dict[str, Agent]:
    """The agents that a call which begins with `first` may come to, by name. Raises AgentError for two of one name, and for a handoff to a
    name that nobody has."""
    found: dict[str, Agent] = {}
    waiting = [first]
    while waiting:
        one = waiting.pop(0)
        if found.setdefault(one.name, one) is not one and found[one.name] != one:
            raise AgentError(f"two agents have the name {one.name}")
        waiting += [other for other in one.handoffs if isinstance(other, Agent) and found.get(other.name) is not other]
    for one in found.values():
        for other in one.handoffs:
            if isinstance(other, str) and other not in found:
                raise AgentError(f"{one.name} hands off to {other}, but there is no such agent: there are {', '.join(found)}")
    return found


def _positive(what: str, value: float) -> None:
    if not 0 < value <= 3_600:
        raise AgentError(f"the {what} must be more than 0 and at most an hour, not {value}")
