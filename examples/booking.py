"""A restaurant's telephone. Serve it with `vivavoce serve examples/booking.py:agent`.

The small model that comes with vivavoce does not choose tools by itself, so the booking is made by `on_turn`, which listens for how many
and when; what it does not understand is left to the model. A larger model may call `book_table` on its own.
"""

import re
from typing import Annotated

from pydantic import Field

from vivavoce import Agent, Call, Spoken

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
NUMBER = rf"\b(\d+|{'|'.join(NUMBERS)})\b"


def book_table(
    people: Annotated[int, Field(ge=1, le=8)], hour: Annotated[int, Field(ge=6, le=10, description="in the evening")], call: Call
) -> Spoken:
    """Book a table for tonight."""
    call.state["booked"] = (people, hour)  # a real restaurant asks its calendar here
    call.pin(f"The caller has a table for {people} tonight at {hour}.")
    return Spoken(f"Your table for {people} tonight at {hour} is booked. Anything else?")


def on_turn(call: Call, words: str) -> str | None:
    """Listen for the two things that a booking needs, and ask for what is missing."""
    words, asked = words.lower(), call.state.pop("asked", "")
    if "booked" in call.state:
        if re.search(r"\b(no|nothing|thank|bye)", words):
            call.end("See you tonight.")
        return None  # the model knows what was booked, and talks on
    people = re.search(rf"(?:for|we are|we're|of)\s+{NUMBER}", words)
    hour = re.search(rf"(?:at|around)\s+{NUMBER}|{NUMBER}\s*(?:o'clock|p\.?m)", words)
    number = re.search(NUMBER, words)
    if people or (number and asked == "people"):
        call.state["people"] = value_of(people or number)
    if hour or (number and asked == "hour"):
        call.state["hour"] = value_of(hour or number)
    if not (people or hour or number or "book" in words or "table" in words):
        return None
    if not 1 <= call.state.get("people", 0) <= 8:
        call.state["asked"] = "people"
        return "For how many people, up to eight?"
    if not 6 <= call.state.get("hour", 0) <= 10:
        call.state["asked"] = "hour"
        return "At what time, between six and ten?"
    return book_table(call.state["people"], call.state["hour"], call).words


def value_of(match: re.Match[str]) -> int:
    """The number in what was found."""
    word = next(group for group in match.groups() if group)
    return NUMBERS.get(word) or int(word)


agent = Agent(
    name="luigi",
    instructions="You answer the telephone of Luigi's, a small Italian restaurant, open from six to ten in the evening. Be brief and warm.",
    greeting="Luigi's, good evening. How can I help you?",
    tools=[book_table],
    on_turn=on_turn,
)
