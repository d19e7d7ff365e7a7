"""Agents as a person writes them: tools from functions, what is refused, and the two kinds of file."""

import json
import threading
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from agent.settings import SessionSettings
from server.agents.agent import every_agent
from server.agents.function_tool import arguments_of, as_tool, output_text
from server.agents.loader import load_agent
from server.agents.team import open_team
from vivavoce import Agent, AgentError, Call, CallError, McpServer, Spoken, tool


def book(people: Annotated[int, Field(ge=1, le=12)], time: str = "19:00") -> str:
    """Book a table for tonight."""
    return f"{people} at {time}"


async def hang_up(call: Call, politely: bool) -> None:
    """End the call."""


@tool(name="menu", timeout=5, needs_approval=True)
def what_there_is(course: Literal["starter", "main"]) -> Spoken:
    """What there is to eat."""
    return Spoken("There is soup.", course)


# -------------------------------------------------------------------------------------------------------------- tools


def test_a_function_becomes_a_tool() -> None:
    spec = as_tool(book).spec
    assert (spec.name, spec.description) == ("book", "Book a table for tonight.")
    assert json.loads(spec.parameters) == {
        "type": "object",
        "properties": {"people": {"type": "integer", "minimum": 1, "maximum": 12}, "time": {"type": "string", "default": "19:00"}},
        "required": ["people"],
        "additionalProperties": False,
    }


def test_the_call_is_not_the_models_to_fill() -> None:
    made = as_tool(hang_up)
    assert list(json.loads(made.spec.parameters)["properties"]) == ["politely"]
    call = object()
    assert arguments_of(made, '{"politely": true}', call) == {"politely": True, "call": call}


def test_a_decorated_function_is_still_one() -> None:
    assert (what_there_is.name, what_there_is.timeout, what_there_is.needs_approval) == ("menu", 5, True)
    assert what_there_is("main") == Spoken("There is soup.", "main")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"people": 0}', "people: "), ('{"people": "many"}', "people: "), ("{}", "people: Field required"), ("nonsense", "the arguments: ")],
)
def test_wrong_arguments_are_told_by_name(text: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        arguments_of(as_tool(book), text, None)


def test_results_are_told_as_text_or_json() -> None:
    assert [output_text(value) for value in ("yes", None, {"table": 4}, [1, 2], 3)] == ["yes", "Done.", '{"table":4}', "[1,2]", "3"]
    assert len(output_text("x" * 100_000)) == 16_000


def untyped(people) -> str:
    return ""


def starred(*people: int) -> str:
    return ""


def odd(lock: threading.Lock) -> str:
    return ""


@pytest.mark.parametrize(
    ("function", "message"), [(untyped, "no type"), (starred, "by name"), (lambda: "", "needs a name"), (odd, "can't be described")]
)
def test_a_function_that_is_no_tool_is_refused(function: object, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        Agent(name="desk", tools=[function])


# -------------------------------------------------------------------------------------------------------------- agents


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "front desk"}, "front desk"),
        ({"name": ""}, "name"),
        ({"name": "a", "eagerness": "wild"}, "low, medium, high, auto"),
        ({"name": "a", "tool_timeout": 0}, "tool_timeout"),
        ({"name": "a", "temperature": 3}, "temperature"),
        ({"name": "a", "tools": [book, book]}, "two tools of the name book"),
    ],
)
def test_an_agent_is_checked_when_it_is_made(fields: dict[str, object], message: str) -> None:
    with pytest.raises(AgentError, match=message):
        Agent(**fields)


def test_an_mcp_server_is_a_program_or_an_address() -> None:
    assert McpServer(label="a", url="http://127.0.0.1", require_approval={"pay": "always"}).needs_approval("pay")
    assert not McpServer(label="a", url="http://127.0.0.1", require_approval={"pay": "always"}).needs_approval("look")
    for fields in ({}, {"command": ["a"], "url": "b"}, {"command": "python weather.py"}, {"url": "b", "require_approval": "perhaps"}):
        with pytest.raises(AgentError):
            McpServer(label="a", **fields)


def test_a_team_is_all_that_a_call_may_come_to() -> None:
    billing = Agent(name="billing", handoffs=["desk"])
    desk = Agent(name="desk", handoffs=[billing])
    assert every_agent(desk) == {"desk": desk, "billing": billing}
    with pytest.raises(AgentError, match="there is no such agent"):
        every_agent(billing)
    with pytest.raises(AgentError, match="two agents have the name desk"):
        every_agent(Agent(name="desk", handoffs=[Agent(name="desk", greeting="Hi.")]))


async def test_a_member_is_offered_its_own_tools_and_its_handoffs() -> None:
    billing = Agent(name="billing", description="Bills and refunds.", handoffs=["desk"])
    desk = Agent(name="desk", instructions="Be kind.", tools=[book, what_there_is], handoffs=[billing], interruptible=False)
    async with open_team(desk, SessionSettings(model="other")) as team:
        settings = team.first.settings
        assert [tool.spec.name for tool in settings.server_tools] == ["book", "menu", "transfer_to_billing"]
        assert [(tool.timeout_ms, tool.needs_approval) for tool in settings.server_tools[:2]] == [(20_000, False), (5_000, True)]
        assert (settings.model, settings.agent, settings.instructions) == ("other", "desk", "Be kind.")
        assert settings.turn_detection.interrupt_response is False
        assert "Bills and refunds." in settings.server_tools[2].spec.description


# --------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def written(tmp_path: Path):
    """`written(name, text)` is a file."""

    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_an_agent_in_python(written) -> None:
    place = written("desk_agent.py", "from vivavoce import Agent\nagent = Agent(name='desk')\nnight = Agent(name='night')\n")
    assert load_agent(place).name == "desk"
    assert load_agent(f"{place}:night").name == "night"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("from vivavoce import Agent\ndesk = Agent(name='desk')", "agent", "has no agent: its agents are desk"),
        ("x = 1", "agent", "it has no agent at all"),
        ("agent = 1", "agent", "is a int, not a vivavoce.Agent"),
        ("1 / 0", "agent", r"ZeroDivisionError.*\(line 1\)"),
        ("agent = (", "agent", "SyntaxError"),
        ("from vivavoce import Agent\nagent = Agent(name='a b')", "agent", "unlike 'a b'"),
    ],
)
def test_a_python_file_that_has_none_says_what_it_has(written, text: str, name: str, message: str) -> None:
    place = written("wrong_agent.py", text)
    with pytest.raises(AgentError, match=message):
        load_agent(f"{place}:{name}")


@pytest.mark.parametrize(("place", "message"), [("nowhere.py:agent", "there is no file"), ("agent.json", "is no agent"), ("x", "is no")])
def test_a_place_without_an_agent(place: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        load_agent(place)


def test_an_agent_in_toml(written) -> None:
    found = load_agent(
        written(
            "desk.toml",
            """
            name = "desk"
            instructions = "Be kind."
            idle_prompts = ["Are you there?"]
            handoffs = ["billing"]

            [agents.billing]
            voice = "amy"
            handoffs = ["desk"]

            [mcp.weather]
            command = ["python", "weather.py"]
            require_approval = {tell = "always"}
            """,
        )
    )
    assert list(every_agent(found)) == ["desk", "billing"]
    assert (found.idle_prompts, found.mcp[0].command, found.mcp[0].needs_approval("tell")) == (
        ["Are you there?"], ["python", "weather.py"], True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\ninstruction = "x"', "there is no key instruction; known are name, instructions, .* mcp, agents"),
        ('name = "a"\n[mcp.x]\nurls = "x"', r"there is no key mcp.x.urls; known are command"),
        ('name = "a"\n[agents.b]\nnames = "x"', "there is no key agents.b.names"),
        ('name = "a"\nidle_seconds = "x"', "idle_seconds: "),
        ('name = "a"\non_turn = "x"', "on_turn needs code"),
        ("name = ", "is not valid TOML"),
        ('instructions = "x"', "name: "),
        ('name = "a"\nhandoffs = ["b"]\neagerness = "wild"', "eagerness"),
        ('name = "a"\nmcp = 3', "mcp is tables"),
    ],
)
def test_a_mistake_in_toml_is_named(written, text: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        load_agent(written("wrong.toml", text))
