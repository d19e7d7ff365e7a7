"""A support line of three agents that hand the call on. Serve it with `vivavoce serve examples/support.py:desk`.

The desk listens for what the call is about and hands it over; billing forces its tool, whose arguments even a small model writes so that
they fit. A larger model hands over by itself: each handoff is a tool, `transfer_to_billing`.
"""

import asyncio
import re

from vivavoce import Agent, Call, CallError, tool

INVOICES = {17: "49 francs, due on Friday", 18: "12 francs, paid"}


@tool(timeout=5)
async def find_invoice(number: int) -> str:
    """Look an invoice up by its number."""
    await asyncio.sleep(0)  # a real one asks a database here; while it takes long, "One moment." is said
    if number not in INVOICES:
        raise CallError(f"There is no invoice {number}.")
    return f"Invoice {number}: {INVOICES[number]}."


async def call_a_person(call: Call) -> str:
    """Transfer the caller to a person."""
    await call.transfer("+41 44 000 00 00")  # a call from a browser can't be transferred: the model is told so
    return "The caller is being connected."


def at_the_desk(call: Call, words: str) -> str | None:
    """Who is this for?"""
    if re.search(r"bill|invoice|pay|money", words.lower()):
        call.hand_off("billing")
        return "That is a matter for billing. What is the number of the invoice?"
    if re.search(r"broken|not work|error|slow", words.lower()):
        call.hand_off("technician")
        return "I hand you to our technician. What do you see?"
    return None


def at_billing(_call: Call, words: str) -> object:
    """A number is an invoice's: have it looked up. Whatever else is the model's."""
    return find_invoice if re.search(r"\d", words) else None


technician = Agent(
    name="technician",
    description="Things that do not work.",
    instructions="You help callers whose device does not work. Ask one question at a time.",
    tools=[call_a_person],
    handoffs=["desk"],
)
billing = Agent(
    name="billing",
    description="Invoices and payments.",
    instructions="You answer questions about invoices. Tell only what the tool told you.",
    tools=[find_invoice],
    on_turn=at_billing,
    handoffs=["desk"],
)
desk = Agent(
    name="desk",
    instructions="You answer the support line of a small telephone company. Find out what the call is about.",
    greeting="Support, hello. What is it about?",
    idle_prompts=["Are you still there?"],
    goodbye="I hear nothing, so I hang up. Goodbye.",
    handoffs=[billing, technician],
    on_turn=at_the_desk,
)
