"""The prompt: a pure function of messages to tokens, in ChatML.

Texts of people and tools never become control tokens. While the caller is still speaking the prompt ends in the words that have
settled; what follows them later (more words, or the end of the message) is appended, so the prefill is not lost.
"""

from collections.abc import Mapping
from typing import Final

from streaming.decoder import LanguageModel
from streaming.events import ContextMessage, Role

__all__ = ["ChatTemplate"]

_SPEAKERS: Final[Mapping[Role, str]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool_call": "assistant",
    "tool_result": "user",
}
"""ChatML's speaker of each role. SmolLM2's template knows no tools: a call reads as what the assistant did, its result as told by
the user."""

_DEFAULT_SYSTEM: Final = (
    "You are a friendly voice assistant talking with a person. Answer in one or two short, plain spoken sentences. "
    "Do not use lists, headings, symbols or markup."
)


class ChatTemplate:
    """ChatML for one language model. `system` is said where a session gives no instructions of its own."""

    def __init__(self, model: LanguageModel, system: str = _DEFAULT_SYSTEM) -> None:
        self._model = model
        self._system = system
        self._start = model.control("<|im_start|>")
        self._end = model.control("<|im_end|>")
        self._line = model.encode("\n")

    def reply_prompt(self, messages: tuple[ContextMessage, ...], texts: Mapping[str, str], budget: int) -> list[int]:
        """The prompt whose continuation is the assistant's reply, at most `budget` tokens. `texts` has the transcripts of the messages
        whose text is None; one that is not there reads as said but not understood."""
        return [*self._history(messages, texts, budget), *self._open("assistant")]

    def listening_prompt(self, messages: tuple[ContextMessage, ...], texts: Mapping[str, str], settled: str, budget: int) -> list[int]:
        """A prefix of the prompt of the reply to a caller who has so far said `settled`."""
        return [*self._history(messages, texts, budget), *self._open("user"), *self._model.encode(settled)]

    def _history(self, messages: tuple[ContextMessage, ...], texts: Mapping[str, str], budget: int) -> list[int]:
        """All messages, closed; the oldest but the instructions are left out where they do not fit."""
        leading = messages[:1] if messages and messages[0].role == "system" else ()
        system = leading or (ContextMessage("system", "", self._system),)
        head = [token for message in system for token in self._message(message, texts)]
        rest = [self._message(message, texts) for message in messages[len(leading) :]]
        room = budget - len(head)
        first = len(rest)
        while first and len(rest[first - 1]) <= room:
            first -= 1
            room -= len(rest[first])
        return [*head, *(token for tokens in rest[first:] for token in tokens)]

    def _message(self, message: ContextMessage, texts: Mapping[str, str]) -> list[int]:
        text = texts.get(message.item_id, "") if message.text is None else message.text
        if message.role == "tool_call":
            text = f"I call {message.name} with {text}."
        elif message.role == "tool_result":
            text = f"Result of {message.name or 'the call'}: {text}"
        return [*self._open(_SPEAKERS[message.role]), *self._model.encode(text), self._end, *self._line]

    def _open(self, speaker: str) -> list[int]:
        return [self._start, *self._model.encode(f"{speaker}\n")]
