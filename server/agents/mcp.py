"""One MCP server, as long as ours runs: connected at the start, its tools listed once, connected anew when it goes away.

Connecting, protocol and transports are the official SDK's. Only the operator's definition of an agent names servers; nothing that a client
sends is ever run or fetched.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, CallToolResult, TextContent

from server.agents.agent import McpServer
from server.agents.errors import AgentError, CallError
from streaming.events import ToolSpec

__all__ = ["McpConnection", "connect"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 20.0
"""A program that starts an interpreter and imports its libraries needs some."""
_RETRY_SECONDS: Final = 2.0
_MOST_TOOLS: Final = 128


class McpConnection:
    """Calls tools of one server. `tools` are those that may be used, as the server described them at the start."""

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tools: tuple[ToolSpec, ...] = ()
        # While connected.
        self._client: Client | None = None
        self.connected = asyncio.Event()
        # Set when the connection turned out to be broken.
        self._broken = asyncio.Event()

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The result as text. Raises CallError where the server or the tool says no, or is not there."""
        client = self._client
        if client is None:
            raise CallError(f"{self.server.label} can't be reached at the moment")
        try:
            result = await client.call_tool(name, arguments)
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise CallError(str(error)) from error
            self._lose()
            raise CallError(f"{self.server.label} can't be reached: it closed the connection") from error
        except (OSError, httpx2.HTTPError, RuntimeError) as error:
            self._lose()
            raise CallError(f"{self.server.label} can't be reached: {type(error).__name__}") from error
        text = _text_of(result)
        if result.is_error:
            raise CallError(text or f"{name} failed")
        return text

    def _lose(self) -> None:
        """The connection is broken: another one is made."""
        self._client = None
        self.connected.clear()
        self._broken.set()

    async def keep(self, ready: "asyncio.Future[None]") -> None:
        """Stay connected, until cancelled. `ready` is done when the tools are known, or fails where the first connection does."""
        while True:
            self._broken.clear()
            try:
                async with contextlib.AsyncExitStack() as stack:
                    async with asyncio.timeout(_CONNECT_SECONDS):
                        client = await stack.enter_async_context(await self._make_client(stack))
                        tools = await _list_tools(client, self.server)
                    if not ready.done():
                        self.tools = tools
                        ready.set_result(None)
                    self._client = client
                    self.connected.set()
                    await self._broken.wait()
            except Exception as error:  # noqa: BLE001 - whatever a library or another program did, we go on
                if not ready.done():
                    ready.set_exception(AgentError(f"the MCP server {self.server.label} can't be used: {_reason(error)}"))
                    return
                log.warning("the MCP server %s is lost: %s", self.server.label, _reason(error))
            finally:
                self._client = None
                self.connected.clear()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _make_client(self, stack: contextlib.AsyncExitStack) -> Client:
        server = self.server
        if server.url:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(server.headers), timeout=server.timeout))
            return Client(streamable_http_client(server.url, http_client=http), cache=None)
        program, *words = server.command
        return Client(StdioServerParameters(command=program, args=words, env=dict(server.env) or None), cache=None)


@asynccontextmanager
async def connect(server: McpServer) -> AsyncIterator[McpConnection]:
    """A connection, with its tools. Raises AgentError where there is none to be had."""
    connection = McpConnection(server)
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    # The SDK's connections are to be left by the task that entered them.
    keeping = asyncio.create_task(connection.keep(ready), name=f"mcp-{server.label}")
    try:
        await ready
        yield connection
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def _list_tools(client: Client, server: McpServer) -> tuple[ToolSpec, ...]:
    found: list[ToolSpec] = []
    cursor: str | None = None
    while len(found) < _MOST_TOOLS:
        page = await client.list_tools(cursor=cursor)
        found += [ToolSpec(tool.name, tool.description or "", json.dumps(tool.input_schema)) for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            break
    if server.tools is None:
        return tuple(found[:_MOST_TOOLS])
    names = [tool.name for tool in found]
    if (missing := next((name for name in server.tools if name not in names), None)) is not None:
        raise AgentError(f"it has no tool {missing}: it has {', '.join(names)}")
    return tuple(tool for tool in found if tool.name in server.tools)


def _text_of(result: CallToolResult) -> str:
    """Its text; what else it holds is named, as no model here sees or hears it."""
    parts = [part.text if isinstance(part, TextContent) else f"({part.type})" for part in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content)
    return "\n".join(parts)


def _reason(error: BaseException) -> str:
    """What went wrong, of a group the first thing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__
