"""Conversation items as the agent keeps them: what was said, called and answered (OpenAI Realtime, `conversation.item.*`).

Plain values; the wire's spellings (GA or beta) are the codec's business.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from streaming.events import SoundKind, ToolSpec

__all__ = [
    "ApprovalRequest",
    "ApprovalResponse",
    "ContentPart",
    "FunctionCall",
    "FunctionCallOutput",
    "Item",
    "ItemStatus",
    "Message",
    "PartKind",
    "ServerCall",
    "ToolList",
    "is_servers",
    "with_status",
]


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
    """A system, user or assistant message. `sounds` are those that were heard in a turn of the caller, or since the one before; `note` is
    what the language model is told of them, behind the words."""

    id: str
    role: Literal["system", "user", "assistant"]
    content: tuple[ContentPart, ...]
    status: ItemStatus = ItemStatus.COMPLETED
    sounds: tuple[SoundKind, ...] = ()
    note: str = ""


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


@dataclass(frozen=True, slots=True)
class ServerCall:
    """The model called a tool that the server runs (`mcp_call` on the wire, whatever runs it). Its id is its call's. `output` and `error`
    are None until it has ended, then one of them is set. `approval_id` is the request a client has answered, where one was needed."""

    id: str
    server_label: str
    name: str
    arguments: str
    status: ItemStatus = ItemStatus.COMPLETED
    output: str | None = None
    error: str | None = None
    approval_id: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """The model would call a tool that needs the client's approval (`mcp_approval_request`)."""

    id: str
    server_label: str
    name: str
    arguments: str
    status: ItemStatus = ItemStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class ApprovalResponse:
    """The client's answer to an `ApprovalRequest` (`mcp_approval_response`)."""

    id: str
    request_id: str
    approve: bool
    reason: str = ""
    status: ItemStatus = ItemStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of one label that the server runs (`mcp_list_tools`)."""

    id: str
    server_label: str
    tools: tuple[ToolSpec, ...]
    status: ItemStatus = ItemStatus.COMPLETED


Item = Message | FunctionCall | FunctionCallOutput | ApprovalRequest | ServerCall | ApprovalResponse | ToolList


def is_servers(item: Item) -> bool:
    """Whether it is about tools that the server runs: told only to clients that ask for it, as some refuse items they don't know."""
    return isinstance(item, ServerCall | ApprovalRequest | ApprovalResponse | ToolList)


def with_status(item: Item, status: ItemStatus) -> Item:
    """The same item with another status."""
    return replace(item, status=status)
