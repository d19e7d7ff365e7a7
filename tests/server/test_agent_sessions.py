"""The code of agents in real sessions: over a WebSocket, the model's part played by a script."""

import asyncio
import json
import threading

import pytest

from agent.commands import AskAgent, CallTool, UseLine
from agent.conversation import Conversation
from agent.events import AgentChanged, FactPinned, LineRequested, ToolReturned, TurnDecided, WordsOffered
from agent.items import ContentPart, Message, PartKind
from agent.settings import SessionSettings
from server.agents.runner import AgentRunner
from server.agents.team import open_team
from streaming.events import Respond
from streaming.fakes import ScriptedEngine, ScriptedReply
from vivavoce import Agent, Call, CallError, Spoken, tool


def book(people: int, name: str = "you") -> str:
    """Book a table."""
    return f"Table 4 for {people}, {name}."


CALLS_BOOK = ScriptedReply("", (("book", '{"people": 4}'),))


@pytest.fixture
def serve(start, dial):
    """`await serve(agent, replies...)` gives a client of that agent, and the engine."""

    async def begin(agent: Agent, *replies: ScriptedReply, transcripts: tuple[str, ...] = ()):
        engine = ScriptedEngine(replies, transcripts)
        return await dial(await start(engine, factory=Conversation, agent=agent)), engine

    return begin


async def ask(client, text: str = "A table for four.") -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await client.send(type="conversation.item.create", item=item)
    await client.send(type="response.create")


async def answer(client) -> str:
    """What is said in the next response that says something."""
    while True:
        response = (await client.until("response.done"))["response"]
        said = [part["transcript"] for item in response["output"] if item["type"] == "message" for part in item["content"]]
        if said:
            return said[0]


def results(engine: ScriptedEngine) -> list[str | None]:
    return [message.text for message in engine.contexts[-1] if message.role == "tool_result"]


async def test_the_agent_is_the_session(serve) -> None:
    client, _ = await serve(Agent(name="desk", instructions="Be kind.", eagerness="low"))
    session = client.got[0]["session"]
    assert (session["instructions"], session["tools"]) == ("Be kind.", [])
    assert session["audio"]["input"]["turn_detection"]["eagerness"] == "low"


async def test_a_client_can_not_change_what_the_agent_is_told_and_may_change_the_rest(serve) -> None:
    client, engine = await serve(Agent(name="desk", instructions="Be kind.", voice="joe", tools=[book]))
    wanted = {"instructions": "Be rude.", "tools": [], "audio": {"output": {"voice": "amy", "speed": 1.2}}}
    await client.send(type="session.update", session={"type": "realtime", **wanted})
    session = (await client.until("session.updated"))["session"]
    assert (session["instructions"], session["audio"]["output"]["voice"], session["audio"]["output"]["speed"]) == ("Be kind.", "joe", 1.2)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
    await client.send(type="conversation.item.create", item=item)
    await client.send(type="response.create", response={"instructions": "Be rude."})
    await client.until("response.done")
    assert engine.contexts[-1][0].text == "Be kind."
    assert [tool.name for _, order in engine.orders if isinstance(order, Respond) for tool in order.options.tools] == ["book"]


async def test_a_short_lived_key_changes_no_more_than_a_client_may(start, dial) -> None:
    served = await start(ScriptedEngine(), factory=Conversation, agent=Agent(name="desk", instructions="Be kind."), api_keys=["k" * 20])
    wanted = {"session": {"type": "realtime", "instructions": "Be rude.", "audio": {"output": {"speed": 1.2}}}}
    made = (await served.post("/v1/realtime/client_secrets", json.dumps(wanted).encode(), {"Authorization": "Bearer " + "k" * 20})).json()
    client = await dial(served, additional_headers={"Authorization": f"Bearer {made['value']}"})
    session = client.got[0]["session"]
    assert (session["instructions"], session["audio"]["output"]["speed"]) == ("Be kind.", 1.2)


async def test_a_tool_runs_on_a_thread_and_its_result_is_answered(serve) -> None:
    threads: list[str] = []

    def slow(people: int) -> dict[str, int]:
        threads.append(threading.current_thread().name)
        return {"table": 4}

    client, engine = await serve(Agent(name="desk", tools=[tool(name="book")(slow)]), CALLS_BOOK, ScriptedReply("You have table four."))
    await ask(client)
    assert await answer(client) == "You have table four."
    assert results(engine) == ['{"table":4}']
    assert threads[0].startswith("tool")


async def test_calls_of_the_server_are_shown_to_a_client_that_asks(serve) -> None:
    client, _ = await serve(Agent(name="desk", tools=[book]), CALLS_BOOK, ScriptedReply("You have table four."))
    await client.send(type="session.update", session={"type": "realtime", "tools": [{"type": "mcp", "server_label": "desk"}]})
    assert (await client.until("session.updated"))["session"]["tools"] == [
        {"type": "mcp", "server_label": "desk", "allowed_tools": ["book"], "require_approval": "never"}
    ]
    assert (await client.until("conversation.item.done"))["item"]["type"] == "mcp_list_tools"
    await ask(client)
    await client.until("response.mcp_call.completed")
    item = (await client.until("conversation.item.done"))["item"]
    assert (item["type"], item["name"], item["arguments"], item["output"]) == ("mcp_call", "book", '{"people": 4}', "Table 4 for 4, you.")


async def test_approval_is_the_clients(serve) -> None:
    paid: list[int] = []

    @tool(needs_approval=True)
    def pay(amount: int) -> None:
        paid.append(amount)

    calls_pay = ScriptedReply("", (("pay", '{"amount": 5}'),))
    client, engine = await serve(Agent(name="desk", tools=[pay]), calls_pay, ScriptedReply("Paid."), calls_pay, ScriptedReply("Not paid."))
    await client.send(type="session.update", session={"type": "realtime", "vivavoce": {"tools": True}})
    for approve, said in ((True, "Paid."), (False, "Not paid.")):
        await ask(client)
        while (item := (await client.until("conversation.item.done"))["item"])["type"] != "mcp_approval_request":
            pass
        answered = {"type": "mcp_approval_response", "approval_request_id": item["id"], "approve": approve}
        await client.send(type="conversation.item.create", item=answered)
        assert await answer(client) == said
    assert paid == [5]
    assert results(engine)[-1] == "Error: The approval was refused."


@pytest.mark.parametrize(
    ("arguments", "result"),
    [('{"people": "many"}', "Error: people: "), ('{"people": 0}', "Error: book failed: no such table"), ("{}", "Error: people: ")],
)
async def test_whatever_goes_wrong_is_told_to_the_model(serve, arguments: str, result: str) -> None:
    def book(people: int) -> str:
        raise ValueError("no such table")

    client, engine = await serve(Agent(name="desk", tools=[book]), ScriptedReply("", (("book", arguments),)), ScriptedReply("Sorry."))
    await ask(client)
    assert await answer(client) == "Sorry."
    assert results(engine)[0].startswith(result)


async def test_a_tool_that_hangs_is_given_up(serve) -> None:
    async def book(people: int) -> str:
        await asyncio.Event().wait()
        return ""

    client, engine = await serve(Agent(name="desk", tools=[book], tool_timeout=0.05), CALLS_BOOK, ScriptedReply("Sorry."))
    await ask(client)
    assert await answer(client) == "Sorry."
    assert results(engine) == ["Error: book did not answer in time"]


async def test_a_filler_bridges_a_slow_tool(serve) -> None:
    go_on = asyncio.Event()

    async def book(people: int) -> str:
        await go_on.wait()
        return "Table 4."

    client, _ = await serve(
        Agent(name="desk", tools=[book], filler="Let me look.", filler_seconds=0.01), CALLS_BOOK, ScriptedReply("It is four.")
    )
    await ask(client)
    assert await answer(client) == "Let me look."
    go_on.set()
    assert await answer(client) == "It is four."


async def test_spoken_results_and_words_of_the_code_are_said_as_they_are(serve) -> None:
    def book(people: int, call: Call) -> Spoken:
        call.pin(f"They are {people}.")
        return Spoken("You have table four.")

    def greet(call: Call) -> None:
        call.say("Welcome.")

    client, engine = await serve(Agent(name="desk", tools=[book], on_start=greet), CALLS_BOOK, ScriptedReply("Bye."))
    assert await answer(client) == "Welcome."
    await ask(client)
    assert await answer(client) == "You have table four."
    await ask(client, "Thank you.")
    assert await answer(client) == "Bye."
    assert engine.contexts[-1][0].text == "They are 4."


async def test_on_turn_answers_forces_a_tool_or_leaves_it_to_the_model(serve) -> None:
    def on_turn(call: Call, words: str) -> object:
        if "hello" in words.lower():
            return "Hello. How many are you?"
        if "four" in words:
            return book
        if "crash" in words:
            raise RuntimeError
        return None

    says = [ScriptedReply(words) for words in ("It is booked.", "Goodbye.", "Well.")]
    client, engine = await serve(Agent(name="desk", tools=[book], on_turn=on_turn), CALLS_BOOK, *says)
    await ask(client, "Hello!")
    assert await answer(client) == "Hello. How many are you?"
    await ask(client, "We are four.")
    assert await answer(client) == "It is booked."
    choices = [order.options.tool_choice for _, order in engine.orders if isinstance(order, Respond)]
    assert choices == ["book", "auto"]
    await ask(client, "Thank you.")
    assert await answer(client) == "Goodbye."
    await ask(client, "crash")
    assert await answer(client) == "Well."


async def test_on_turn_hears_spoken_words_too(serve, speech) -> None:
    heard: list[str] = []

    def on_turn(call: Call, words: str) -> str:
        heard.append(words)
        return "I see."

    client, _ = await serve(Agent(name="desk", on_turn=on_turn), transcripts=("We are four.",))
    await client.append(speech(800))
    await client.append(speech(2_000, amplitude=0))
    assert await answer(client) == "I see."
    assert heard == ["We are four."]


async def test_a_handoff_by_the_model_changes_the_agent_and_keeps_the_conversation(serve) -> None:
    billing = Agent(name="billing", instructions="You do bills.", tools=[book], handoffs=["desk"])
    desk = Agent(name="desk", instructions="You answer.", handoffs=[billing])
    client, engine = await serve(desk, ScriptedReply("", (("transfer_to_billing", "{}"),)), ScriptedReply("Billing here."))
    await ask(client, "I have a bill.")
    assert (await client.until("session.updated"))["session"]["instructions"] == "You do bills."
    assert await answer(client) == "Billing here."
    assert engine.contexts[-1][0].text == "You do bills."
    assert "I have a bill." in [message.text for message in engine.contexts[-1]]
    last = [order for _, order in engine.orders if isinstance(order, Respond)][-1]
    assert [tool.name for tool in last.options.tools] == ["book", "transfer_to_desk"]


async def test_a_hook_may_hand_off_too_and_on_end_is_the_last_agents(serve) -> None:
    ended, over = [], asyncio.Event()

    async def on_end(call: Call) -> None:
        ended.append((call.agent.name, [(line.who, line.words) for line in call.transcript]))
        over.set()

    def on_turn(call: Call, words: str) -> str:
        call.hand_off("billing")
        return "I put you through."

    billing = Agent(name="billing", on_end=on_end)
    client, _ = await serve(Agent(name="desk", handoffs=[billing], on_turn=on_turn))
    await ask(client, "I have a bill.")
    await client.until("session.updated")
    await answer(client)
    await client.connection.close()
    await asyncio.wait_for(over.wait(), 10)
    assert ended[0][0] == "billing"
    assert ended[0][1][0] == ("caller", "I have a bill.")


async def test_a_call_that_is_no_telephone_call_says_so_to_the_model(serve) -> None:
    async def connect_me(call: Call) -> str:
        await call.transfer("+41 44 000 00 00")
        return "done"

    client, engine = await serve(
        Agent(name="desk", tools=[connect_me]), ScriptedReply("", (("connect_me", "{}"),)), ScriptedReply("Sorry.")
    )
    await ask(client)
    assert await answer(client) == "Sorry."
    assert results(engine) == ["Error: This call can't be transferred."]


async def test_a_hook_ends_the_call_after_its_last_words(serve) -> None:
    def on_turn(call: Call, words: str) -> str | None:
        call.end("Goodbye, then.", reason="booked")
        return None

    client, engine = await serve(Agent(name="desk", on_turn=on_turn))
    await ask(client, "That is all.")
    assert await answer(client) == "Goodbye, then."
    await client.connection.wait_closed()
    assert (client.connection.close_code, client.connection.close_reason) == (1000, "booked")
    assert not any(isinstance(order, Respond) for _, order in engine.orders)


# --------------------------------------------------------------------------------------------------- a line, faked


class PhoneChannel:
    """A channel that is a telephone call."""

    def __init__(self) -> None:
        self.did: list[tuple[str, str]] = []

    async def accept(self) -> None: ...

    async def receive(self) -> None: ...

    async def send(self, text: str) -> None: ...

    async def transfer(self, target: str) -> None:
        self.did.append(("transfer", target))

    async def send_dtmf(self, digits: str) -> None:
        self.did.append(("dtmf", digits))


async def test_a_telephone_call_is_transferred_and_digits_are_sent() -> None:
    async def through(call: Call) -> str:
        await call.send_dtmf("12#")
        await call.transfer("+41")
        with pytest.raises(CallError, match="can't be dialled"):
            await call.send_dtmf("12a")
        return "done"

    told: list[object] = []
    channel, returned = PhoneChannel(), asyncio.Event()
    async with open_team(Agent(name="desk", tools=[through]), SessionSettings()) as team:
        runner = AgentRunner("sess_1", team)

        def tell(event: object) -> None:
            told.append(event)
            if isinstance(event, LineRequested):  # as the conversation does once all has been played
                runner.order(UseLine(event.request_id, event.action, event.target))
            if isinstance(event, ToolReturned):
                returned.set()

        running = asyncio.create_task(runner.run(channel, tell, tuple))
        runner.order(CallTool("item_1", "through", "{}"))
        await asyncio.wait_for(returned.wait(), 10)
        running.cancel()
        await asyncio.wait([running])
    assert channel.did == [("dtmf", "12#"), ("transfer", "+41")]
    assert told[-1] == ToolReturned("item_1", "done")


async def test_a_plain_function_may_use_the_call_from_its_thread() -> None:
    said = Message("item_1", "user", (ContentPart(PartKind.INPUT_TEXT, "Hello"),))
    seen: list[object] = []

    def on_turn(call: Call, words: str) -> str:
        call.say("One.")
        call.pin("Two.")
        call.hand_off("other")
        seen.append((threading.current_thread() is threading.main_thread(), call.transcript[0].words, call.agent.name))
        return "Three."

    told: list[object] = []
    decided = asyncio.Event()

    def tell(event: object) -> None:
        told.append(event)
        if isinstance(event, TurnDecided):
            decided.set()

    agent = Agent(name="desk", on_turn=on_turn, handoffs=[Agent(name="other")], hook_timeout=10)
    async with open_team(agent, SessionSettings()) as team:
        runner = AgentRunner("sess_1", team)
        running = asyncio.create_task(runner.run(PhoneChannel(), tell, lambda: (said,)))
        runner.order(AskAgent("item_1", "Hello"))
        await asyncio.wait_for(decided.wait(), 10)
        running.cancel()
        await asyncio.wait([running])
    assert seen == [(False, "Hello", "other")]
    assert [type(event) for event in told] == [WordsOffered, FactPinned, AgentChanged, TurnDecided]
