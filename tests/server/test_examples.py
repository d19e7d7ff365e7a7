"""The examples in real sessions: the model's part by a script, and the booking with the real models."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from agent.conversation import Conversation
from server.agents.loader import load_agent
from server.caller_audio import load_recording
from server.engine_process import ProcessEngineLink
from streaming.events import Respond
from streaming.fakes import ScriptedEngine, ScriptedReply

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture
def phone(start, dial, speech):
    """`await phone("booking.py:agent", engine)` gives `say(transcripts are the engine's)` and `hears(pattern)`."""

    class Phone:
        def __init__(self, client) -> None:
            self.client = client

        async def speak(self) -> None:
            """A turn; its words are the engine's script."""
            await self.client.append(speech(800))
            await self.client.append(speech(3_000, amplitude=0))

        async def hears(self, pattern: str) -> str:
            """Listen on until something like this has been said."""
            while True:
                response = (await self.client.until("response.done"))["response"]
                said = " ".join(part["transcript"] for item in response["output"] if item["type"] == "message" for part in item["content"])
                if re.search(pattern, said):
                    return said

    async def begin(place: str, engine=None, link=None) -> Phone:
        return Phone(await dial(await start(engine, link=link, factory=Conversation, agent=load_agent(str(EXAMPLES / place)))))

    return begin


async def test_booking(phone) -> None:
    words = ("I would like to book a table.", "We are four.", "At seven.", "Do you have soup?", "No, thank you.")
    call = await phone("booking.py:agent", ScriptedEngine([ScriptedReply("We do.")], words))
    await call.hears("Luigi's, good evening")
    for answer in ("For how many", "At what time", "table for 4 tonight at 7 is booked", "We do", "See you tonight"):
        await call.speak()
        await call.hears(answer)
    await call.client.connection.wait_closed()
    assert call.client.connection.close_code == 1000


async def test_booking_by_a_model_that_chooses_the_tool_itself(phone) -> None:
    replies = [ScriptedReply("", (("book_table", '{"people": 2, "hour": 8}'),))]
    call = await phone("booking.py:agent", ScriptedEngine(replies, ("Something for us both tonight, late?",)))
    await call.speak()
    await call.hears("table for 2 tonight at 8 is booked")


async def test_support(phone) -> None:
    words = ("I do not understand my invoice.", "It is number 17.")
    replies = [ScriptedReply("", (("find_invoice", '{"number": 17}'),)), ScriptedReply("It is 49 francs, due on Friday.")]
    engine = ScriptedEngine(replies, words)
    call = await phone("support.py:desk", engine)
    await call.speak()
    await call.client.until("session.updated")
    await call.hears("number of the invoice")
    await call.speak()
    await call.hears("49 francs")
    responds = [order for _, order in engine.orders if isinstance(order, Respond)]
    assert [order.options.tool_choice for order in responds] == ["find_invoice", "auto"]
    assert ("tool_result", "Invoice 17: 49 francs, due on Friday.") in [(one.role, one.text) for one in engine.contexts[-1]]


async def test_support_by_a_model_that_hands_over_itself(phone) -> None:
    replies = [
        ScriptedReply("", (("transfer_to_technician", "{}"),)),
        ScriptedReply("Technician here.", (("call_a_person", "{}"),)),
        ScriptedReply("Nobody can come to the phone."),
    ]
    engine = ScriptedEngine(replies, ("My telephone makes a strange noise.",))
    call = await phone("support.py:desk", engine)
    await call.speak()
    await call.client.until("session.updated")
    await call.hears("Technician here")
    await call.hears("Nobody can come")
    assert ("tool_result", "Error: This call can't be transferred.") in [(one.role, one.text) for one in engine.contexts[-1]]


async def test_interview(phone, capsys) -> None:
    words = ("I bake.", "Bread, in the old town.", "I like the quiet at night.", "I would sleep a little more.")
    call = await phone("interview.py:agent", ScriptedEngine([ScriptedReply("What do you bake?")], words))
    await call.hears("What do you do for a living")
    for answer in ("What do you bake", "What do you like", "what would you change", "That was all"):
        await call.speak()
        await call.hears(answer)
    await call.client.connection.wait_closed()
    assert call.client.connection.close_reason == "finished"


@pytest.mark.models
async def test_booking_with_the_real_models(phone, pocket) -> None:
    from streaming.load import load_engine  # brings torch, which the other tests do without

    call = await phone("booking.py:agent", link=ProcessEngineLink(partial(load_engine, pocket)))
    for name, answer in (("table_for_four.flac", "At what time"), ("at_seven.flac", "table for 4 tonight at 7 is booked")):
        recording = load_recording(EXAMPLES / "recordings" / name)
        await call.client.append(np.concatenate([recording.pcm, np.zeros(24_000 * 3, np.int16)]))
        await call.hears(answer)
