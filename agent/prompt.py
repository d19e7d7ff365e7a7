"""What the model believes was said: items as context messages, a pure function."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from agent.items import FunctionCall, FunctionCallOutput, Item, ItemStatus, Message, PartKind, ServerCall
from streaming.events import ContextMessage

__all__ = ["NOBODY", "UNCLEAR", "asks_back", "context_of", "is_nobodys", "is_owed", "is_unclear", "words_of"]

UNCLEAR: Final = 0.4
"""Confidence below which the words of a turn are asked back, the highest in the sweep of `python -m benchmarks.unclear` at which at most
5 % of the clean speech of its half `tune` is."""

NOBODY: Final = 0.15
"""Probability of speech below which a turn without words was nobody's: neither answered nor asked back. `python -m benchmarks.no_speech`
prints how many turns of people that costs."""


def context_of(instructions: str, items: Iterable[Item], heard: Mapping[str, str]) -> tuple[ContextMessage, ...]:
    """The instructions, then every item in order. `heard` has what the caller heard of the replies that were cut short."""
    system = (ContextMessage("system", "", instructions),) if instructions else ()
    items = tuple(items)
    names = {item.call_id: item.name for item in items if isinstance(item, FunctionCall)}
    return system + tuple(message for item in items for message in _messages(item, names, heard))


def _messages(item: Item, names: Mapping[str, str], heard: Mapping[str, str]) -> tuple[ContextMessage, ...]:
    match item:
        case FunctionCall() if item.status is not ItemStatus.COMPLETED:
            return ()  # its arguments are being written, or were never written to their end
        case FunctionCall():
            return (ContextMessage("tool_call", item.id, item.arguments, item.name, item.call_id),)
        case FunctionCallOutput():
            return (ContextMessage("tool_result", item.id, item.output, names.get(item.call_id, ""), item.call_id),)
        case ServerCall():
            call = ContextMessage("tool_call", item.id, item.arguments, item.name, item.id)
            result = item.output if item.error is None else f"Error: {item.error}"
            return (call,) if result is None else (call, ContextMessage("tool_result", item.id, result, item.name, item.id))
        case Message(role="assistant") if item.id in heard:
            return (ContextMessage("assistant", item.id, heard[item.id], complete=False),) if heard[item.id] else ()
        case Message():
            words = words_of(item)
            told = words if words is None else words + item.note
            return (ContextMessage(item.role, item.id, told, complete=item.status is not ItemStatus.INCOMPLETE),)
        case _:
            return ()  # approvals and lists are between the client and the server


def asks_back(items: Sequence[Item], heard: Mapping[str, str], unclear: Container[str] = ()) -> bool:
    """Whether the last item is a turn of the caller in which no words were found, or `unclear` ones, and no earlier words of theirs wait
    for an answer."""
    return bool(items) and (_is_wordless(items[-1]) or items[-1].id in unclear) and not is_owed(items[:-1], heard, unclear)


def is_owed(items: Sequence[Item], heard: Mapping[str, str], unclear: Container[str] = ()) -> bool:
    """Whether words of the caller wait for an answer, with nothing but turns without words, or with `unclear` ones, behind them: they do
    where the reply to them was cut before any of it was heard."""
    for item in reversed(items):
        unheard = isinstance(item, Message) and item.role == "assistant" and heard.get(item.id) == ""
        if not unheard and not _is_wordless(item) and item.id not in unclear:
            return isinstance(item, Message) and item.role == "user"
    return False


def _is_wordless(item: Item) -> bool:
    """Sound of the caller with no words in it."""
    if not isinstance(item, Message) or not any(part.kind is PartKind.INPUT_AUDIO for part in item.content):
        return False
    text = words_of(item)
    return text is not None and not text.strip()


def words_of(message: Message) -> str | None:
    """The message's words; None while the transcript of its sound is not known. Images are left out: no bundle sees."""
    parts = [part for part in message.content if part.kind is not PartKind.INPUT_IMAGE]
    if any(part.kind is PartKind.INPUT_AUDIO and part.text is None for part in parts):
        return None
    return " ".join(part.text for part in parts if part.text)


def is_unclear(text: str, confidence: float) -> bool:
    """Whether a turn of the caller is to be asked back: no words were found in it, or the recogniser is not sure of them
    (`confidence`, 0 to 1)."""
    return not text.strip() or confidence < UNCLEAR


def is_nobodys(text: str, speech: float) -> bool:
    """Whether a turn in which `text` was found was nobody's: no words, and hardly a chance (`speech`, 0 to 1) that anybody spoke."""
    return not text.strip() and speech < NOBODY
