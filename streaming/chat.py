"""The prompt: a pure function of messages to tokens, in ChatML.

Texts of people and tools never become control tokens. While the caller is still speaking the prompt ends in the words that have settled;
what follows them later (more words, or the end of the message) is appended, so that the prefill is not lost.

Where a conversation does not fit its budget the oldest messages are left out, the instructions and notes never. They are left out in steps,
down to half of the budget, and the steps depend on what came before only: so the prompt keeps its beginning from turn to turn, and what
is in the KV stays good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from streaming.decoder import LanguageModel, Prompt, Segment
from streaming.events import NOTES, ContextMessage, Role
from streaming.instructions import SPOKEN_INSTRUCTIONS

__all__ = ["SPOKEN_INSTRUCTIONS", "ChatTemplate"]

_SPEAKERS: Final[Mapping[Role, str]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool_call": "assistant",
    "tool_result": "user",
}
"""ChatML's speaker of each role. SmolLM2's template knows no tools: a call reads as what the assistant did, its result as told by the
user."""

_REMEMBERED: Final = 2_048
"""Messages whose tokens are kept from one prompt to the next: as many as a conversation may have items, so that a prompt costs the new
ones only."""


class ChatTemplate:
    """ChatML for one language model. `system` is said where a session gives no instructions of its own."""

    def __init__(self, model: LanguageModel, system: str = SPOKEN_INSTRUCTIONS) -> None:
        self._model = model
        self._system = system
        self._start = model.control("<|im_start|>")
        self._end = model.control("<|im_end|>")
        self._line = model.encode("\n")
        # Tokens of closed messages by (speaker, text): a memory, not a state.
        self._known: dict[tuple[str, str], list[int]] = {}

    def reply_prompt(self, messages: tuple[ContextMessage, ...], texts: Mapping[str, str], budget: int) -> Prompt:
        """The prompt whose continuation is the assistant's reply. `texts` has the transcripts of the messages whose text is None. A message
        without words (nothing understood, nothing heard of a reply) is left out. At most `budget` tokens, unless the instructions alone
        are longer: of a last message that is too long its end is kept."""
        opened = self._open("assistant")
        head, body = self._fit(messages, texts, None, budget - len(opened))
        return _prompt([head, *body, _Part("assistant", "", opened)])

    def listening_prompt(self, messages: tuple[ContextMessage, ...], texts: Mapping[str, str], settled: str, budget: int) -> Prompt:
        """A prompt for a caller who has so far said `settled`: as far as words are tokenised alone, a prefix of the reply's prompt once the
        caller has finished."""
        head, body = self._fit(messages, texts, settled, budget)
        return _prompt([head, *body])

    def _fit(
        self, messages: tuple[ContextMessage, ...], texts: Mapping[str, str], settled: str | None, budget: int
    ) -> tuple["_Part", list["_Part"]]:
        """Instructions and notes, then as many of the last messages as fit, then the caller's open turn, if they have `settled` words."""
        leading = messages[:1] if messages and messages[0].role == "system" and messages[0].item_id != NOTES else ()
        noted = tuple(message for message in messages[len(leading) : len(leading) + 1] if message.item_id == NOTES)
        instructions = (leading and _text(leading[0], texts)) or self._system
        first = [instructions, *(text for one in noted if (text := _text(one, texts)))]
        head = _Part("system", "", [token for text in first for token in self._closed("system", text)])
        said = _turns([(message, _text(message, texts)) for message in messages[len(leading) + len(noted) :]])
        opening = ""
        if settled is not None and said and said[-1][0].role == "user":  # a wrong start of ours: the turn goes on
            opening = said.pop()[1]
        rest = [_Part(message.role, message.item_id, self._closed(_SPEAKERS[message.role], text)) for message, text in said]
        if settled is not None:
            rest.append(_Part("user", "", [*self._open("user"), *self._model.encode(f"{opening} {settled}".strip())]))
        room = max(0, budget - len(head.tokens))
        body = rest[_first_kept([len(part.tokens) for part in rest], room) :]
        if len(body) == 1 and len(tokens := body[0].tokens) > room:  # a single message, longer than everything that fits
            control = len(self._open("user"))
            kept = max(0, room - control)
            body = [replace(body[0], tokens=[*tokens[:control], *tokens[len(tokens) - kept :]])]
        return head, body

    def _closed(self, speaker: str, text: str) -> list[int]:
        key = (speaker, text)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = [*self._open(speaker), *self._model.encode(text), self._end, *self._line]
        return self._known[key]

    def _open(self, speaker: str) -> list[int]:
        return [self._start, *self._model.encode(f"{speaker}\n")]


@dataclass(frozen=True, slots=True)
class _Part:
    """A message as tokens."""

    role: Role
    item_id: str
    tokens: list[int]


def _text(message: ContextMessage, texts: Mapping[str, str]) -> str:
    """What a message reads; "" for one without words. One that was cut to what was heard ends like any other: for the model it is all that
    was said."""
    text = (texts.get(message.item_id, "") if message.text is None else message.text).strip()
    match message.role:
        case "tool_call":
            return f"I call {message.name} with {text or '{}'}."
        case "tool_result":
            return f"Result of {message.name or 'the call'}: {text or 'nothing'}"
        case _:
            return text


def _turns(said: Sequence[tuple[ContextMessage, str]]) -> list[tuple[ContextMessage, str]]:
    """The messages that have words; those of the caller with nothing between them are one turn: what we began to answer was not heard."""
    turns: list[tuple[ContextMessage, str]] = []
    for message, text in said:
        if text and turns and message.role == "user" == turns[-1][0].role:
            turns[-1] = (message, f"{turns[-1][1]} {text}")
        elif text:
            turns.append((message, text))
    return turns


def _prompt(parts: Sequence[_Part]) -> Prompt:
    ends = accumulate(len(part.tokens) for part in parts)
    segments = tuple(Segment(part.role, part.item_id, end) for part, end in zip(parts, ends, strict=True))
    return Prompt([token for part in parts for token in part.tokens], segments)


def _first_kept(lengths: list[int], room: int) -> int:
    """The first message that is kept of messages with these token counts. Read in order: whenever they outgrow `room`, the oldest go until
    they fill half of it. The last one always stays."""
    first = held = 0
    for index, length in enumerate(lengths):
        held += length
        if held > room:
            while first < index and held > room // 2:
                held -= lengths[first]
                first += 1
    return first
