"""An agent and those it may hand a call to, ready to serve: their settings for the conversation, and what runs each of their tools."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from agent.settings import ServerTool, SessionSettings
from server.agents.agent import Agent, every_agent
from server.agents.call import Call
from server.agents.errors import AgentError
from server.agents.function_tool import FunctionTool, Spoken, arguments_of, output_text
from server.agents.mcp import McpConnection, connect
from streaming.events import ToolSpec

__all__ = ["Member", "Team", "ToolRun", "open_team"]

_THREADS: Final = 8
"""Plain functions that run at once, of all calls; more wait, and their time runs. They hold the interpreter, not the event loop."""

ToolRun = Callable[[Call, str], Awaitable[Spoken]]
"""Runs a tool for a call on JSON arguments; raises whatever goes wrong."""


@dataclass(frozen=True, slots=True)
class Member:
    """One agent of the team. `settings` are its own; `runs` has what runs each of `settings.server_tools`, by name."""

    agent: Agent
    settings: SessionSettings
    runs: Mapping[str, ToolRun]


@dataclass(frozen=True, slots=True)
class Team:
    """All agents a call may come to. `first` answers it."""

    first: Member
    members: Mapping[str, Member]
    pool: ThreadPoolExecutor


@asynccontextmanager
async def open_team(agent: Agent, defaults: SessionSettings) -> AsyncIterator[Team]:
    """Connect what the team's tools need, and close it in the end. `defaults` is the session of a client without an agent. Raises
    AgentError for an MCP server that can't be reached, or tools of one name."""
    agents = every_agent(agent)
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tool")
    try:
        async with AsyncExitStack() as stack:
            connections: dict[str, McpConnection] = {}
            for one in agents.values():
                for server in one.mcp:
                    if server.label in connections and connections[server.label].server != server:
                        raise AgentError(f"two MCP servers have the label {server.label}")
                    if server.label not in connections:
                        connections[server.label] = await stack.enter_async_context(connect(server))
            members = {name: _member(one, agents, connections, defaults, pool) for name, one in agents.items()}
            yield Team(members[agent.name], members, pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _member(
    agent: Agent, agents: Mapping[str, Agent], connections: Mapping[str, McpConnection], defaults: SessionSettings, pool: ThreadPoolExecutor
) -> Member:
    offered: list[tuple[ServerTool, ToolRun]] = []
    for function in agent.own_tools:
        seconds = agent.tool_timeout if function.timeout is None else function.timeout
        tool = ServerTool(function.spec, agent.name, round(seconds * 1_000), function.needs_approval)
        offered.append((tool, partial(_run_function, function, pool)))
    for server in agent.mcp:
        connection = connections[server.label]
        for spec in connection.tools:
            tool = ServerTool(spec, server.label, round(server.timeout * 1_000), server.needs_approval(spec.name))
            offered.append((tool, partial(_run_mcp, connection, spec.name)))
    for other in agent.handoffs:
        there = agents[other if isinstance(other, str) else other.name]
        offered.append((ServerTool(_transfer_spec(there), agent.name, round(agent.tool_timeout * 1_000)), partial(_hand_off, there)))
    names = [tool.spec.name for tool, _ in offered]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise AgentError(f"{agent.name} has two tools of the name {twice}")
    settings = replace(
        defaults,
        agent=agent.name,
        instructions=agent.instructions,
        voice=agent.voice or defaults.voice,
        fixed_voice=agent.voice is not None,
        temperature=agent.temperature,
        turn_detection=agent.turn_detection,
        initiative=agent.initiative,
        server_tools=tuple(tool for tool, _ in offered),
        asks_agent=agent.on_turn is not None,
    )
    return Member(agent, settings, {tool.spec.name: run for tool, run in offered})


def _transfer_spec(there: Agent) -> ToolSpec:
    about = f": {there.description}" if there.description else ""
    return ToolSpec(f"transfer_to_{there.name}", f"Hand the call to {there.name}{about}", '{"type": "object", "properties": {}}')


async def _hand_off(there: Agent, call: Call, _arguments: str) -> Spoken:
    call.hand_off(there)
    return Spoken("", f"The call is yours now, {there.name}. Go on with it.")


async def _run_function(function: FunctionTool, pool: ThreadPoolExecutor, call: Call, text: str) -> Spoken:
    arguments = arguments_of(function, text, call)
    if function.is_async:
        result: Any = await function.function(**arguments)
    else:
        result = await asyncio.get_running_loop().run_in_executor(pool, partial(function.function, **arguments))
    if isinstance(result, Spoken):
        return Spoken(result.words, output_text(result.output or result.words))
    return Spoken("", output_text(result))


async def _run_mcp(connection: McpConnection, name: str, _call: Call, text: str) -> Spoken:
    arguments = json.loads(text or "{}")
    return Spoken("", output_text(await connection.call(name, arguments)))
