"""Conversation items as the agent keeps them: what was said, called and answered (OpenAI Realtime, `conversation.item.*`).

Plain values; the wire's spellings (GA or beta) are the codec's business.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

__all__ = ["ContentPart", "FunctionCall", "FunctionCallOutput", "Item", "ItemStatus", "Message", "PartKind", "with_status"]


class ItemStatus(Enum):
    """`status` of an item on the wire."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


class PartKind(Enum):
    """Kind of a content part; the value is the GA spelling inside items."""

    INPUT_TEXT = "input_text"
    INPUT_AUDIO = "input_audio"
    INPUT_IMAGE = "input_image"
    OUTPUT_TEXT = "output_text"
    OUTPUT_AUDIO = "output_audio"


@dataclass(frozen=True, slots=True)
class ContentPart:
    """One part. `text` is the text of text parts, the transcript of audio parts (None: not known, or dropped), the data URI of images."""

    kind: PartKind
    text: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """A system, user or assistant message."""

    id: str
    role: Literal["system", "user", "assistant"]
    content: tuple[ContentPart, ...]
    status: ItemStatus = ItemStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """The model called a function; `arguments` is JSON text."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus = ItemStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class FunctionCallOutput:
    """The client's answer to a call."""

    id: str
    call_id: str
    output: str
    status: ItemStatus = ItemStatus.COMPLETED


Item = Message | FunctionCall | FunctionCallOutput


def with_status(item: Item, status: ItemStatus) -> Item:
    """The same item with another status."""
    return replace(item, status=status)
