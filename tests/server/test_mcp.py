"""Tools of real MCP servers, in processes of their own: over stdio and over HTTP on this machine."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.conversation import Conversation
from agent.settings import SessionSettings
from server.agents.mcp import connect
from server.agents.team import open_team
from streaming.fakes import ScriptedEngine, ScriptedReply
from vivavoce import Agent, AgentError, CallError, McpServer

WEATHER = Path(__file__).with_name("weather_mcp.py")
PROGRAM = McpServer(label="weather", command=[sys.executable, str(WEATHER)])


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """The address of a server over HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, str(WEATHER), str(port), stderr=pipe)
    async with asyncio.timeout(30):
        while b"running on" not in await process.stderr.readline():
            assert process.returncode is None
    yield f"http://127.0.0.1:{port}/mcp"
    process.terminate()
    await process.communicate()


async def use(server: McpServer) -> None:
    async with connect(server) as connection:
        assert [tool.name for tool in connection.tools] == ["tell", "change", "fall"]
        assert await connection.call("tell", {"city": "Bern"}) == "Rain in Bern."
        with pytest.raises(CallError, match="There is no such city"):
            await connection.call("tell", {"city": "Atlantis"})
        with pytest.raises(CallError):
            await connection.call("tell", {})


async def test_a_program_is_spoken_to_over_its_stdin_and_stdout() -> None:
    await use(PROGRAM)


async def test_an_address_is_spoken_to_over_http(address) -> None:
    await use(McpServer(label="weather", url=address))


async def test_a_server_that_goes_away_is_told_and_comes_back() -> None:
    async with connect(PROGRAM) as connection:
        with pytest.raises(CallError, match="can't be reached"):
            await connection.call("fall", {})
        with pytest.raises(CallError, match="can't be reached at the moment"):
            await connection.call("tell", {"city": "Bern"})
        await asyncio.wait_for(connection.connected.wait(), 30)
        assert await connection.call("tell", {"city": "Bern"}) == "Rain in Bern."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"command": ["/nowhere/at/all"]}, "the MCP server weather can't be used"),
        ({"url": "http://127.0.0.1:9/mcp"}, "the MCP server weather can't be used"),
        ({"command": [sys.executable, str(WEATHER)], "tools": ["tells"]}, "it has no tool tells: it has tell, change, fall"),
    ],
)
async def test_a_server_that_can_not_be_used_is_an_error_at_the_start(fields: dict[str, object], message: str) -> None:
    with pytest.raises(AgentError, match=message):
        async with connect(McpServer(label="weather", **fields)):
            pass


async def test_tools_and_approval_are_the_operators_to_choose() -> None:
    one = McpServer(label="weather", command=PROGRAM.command, tools=["change"], require_approval="always", timeout=5)
    async with open_team(Agent(name="desk", mcp=[one]), SessionSettings()) as team:
        (tool,) = team.first.settings.server_tools
        assert (tool.spec.name, tool.server_label, tool.needs_approval, tool.timeout_ms) == ("change", "weather", True, 5_000)


async def test_a_session_calls_them_like_any_other(start, dial) -> None:
    engine = ScriptedEngine([ScriptedReply("", (("tell", '{"city": "Bern"}'),)), ScriptedReply("It rains in Bern.")])
    client = await dial(await start(engine, factory=Conversation, agent=Agent(name="desk", mcp=[PROGRAM])))
    await client.send(type="session.update", session={"type": "realtime", "tools": [{"type": "mcp", "server_label": "weather"}]})
    listed = (await client.until("conversation.item.done"))["item"]
    assert (listed["type"], [tool["name"] for tool in listed["tools"]]) == ("mcp_list_tools", ["tell", "change", "fall"])
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "The weather?"}]}
    await client.send(type="conversation.item.create", item=item)
    await client.send(type="response.create")
    await client.until("response.mcp_call.completed")
    assert (await client.until("conversation.item.done"))["item"]["output"] == "Rain in Bern."
    await client.until("response.done")
    assert "Rain in Bern." in [message.text for message in engine.contexts[-1]]
