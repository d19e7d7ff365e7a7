"""What a session needs of a realtime service: a whole conversation elsewhere that hears, thinks and speaks. Sans-IO.

One object is one connection. Its methods give the messages to send, `read` gives what one that came means; nothing here waits. What a
connection knew of the conversation goes with it: the next is told all of it again, in words.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from streaming.audio import Pcm16
from streaming.events import NOTES, ContextMessage, FinishReason, Respond, RespondOptions, Usage

__all__ = [
    "REPLY_RATE",
    "Address",
    "CallMade",
    "CallWritten",
    "Heard",
    "ReplyDone",
    "ReplySound",
    "ReplyWords",
    "Service",
    "ServiceEvent",
    "ServiceReady",
    "key_of",
    "split_instructions",
    "websocket_scheme",
]

REPLY_RATE = 24_000
"""Samples a second of the speech of both services (protocols.md 1.2 and 2)."""

_LONGEST_ID: Final = 32


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, and the headers that prove who we are."""

    url: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceReady:
    """It has taken the settings and takes requests."""


@dataclass(frozen=True, slots=True)
class ReplyWords:
    """More words of a reply."""

    response_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplySound:
    """More sound of a reply: PCM16, little-endian, at `REPLY_RATE`."""

    response_id: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class CallWritten:
    """More of the arguments of a call, counted from 0."""

    response_id: str
    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallMade:
    """A call with all of its arguments, JSON as text."""

    response_id: str
    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """Nothing more comes of a reply."""

    response_id: str
    reason: FinishReason
    error: str | None
    usage: Usage


ServiceEvent = ServiceReady | ReplyWords | ReplySound | CallWritten | CallMade | ReplyDone


class Heard(Protocol):
    """A reply of the service as the conversation knows it."""

    @property
    def text(self) -> str:
        """All words of it."""

    def milliseconds(self, characters: int) -> int:
        """How much of the service's sound has been heard when the first `characters` of the text have."""


class Service(Protocol):
    """One connection. `read` raises UpstreamError for what can't be understood, or ends it."""

    @property
    def input_rate(self) -> int:
        """Samples a second of the caller's sound as it wants it."""

    @property
    def listens(self) -> bool:
        """Whether it takes sound now; if not, later."""

    def opening(self) -> list[str]:
        """What is said first."""

    def prepare(self, options: RespondOptions | None) -> bool:
        """A reply is likely, with these options if any are known; whether that takes a new connection."""

    def believe(self, messages: Sequence[ContextMessage], texts: Mapping[str, str], replies: Mapping[str, Heard]) -> list[str]:
        """The conversation as it is to be believed. `texts` are the words of the caller's turns, `replies` those made here, by response."""

    def lacks(self, messages: Sequence[ContextMessage], texts: Mapping[str, str]) -> bool:
        """Whether it was not given the sound of a turn among `messages` whose words are not known either."""

    def listen(self) -> list[str]:
        """A turn of the caller begins; what was heard of one that has not been committed is forgotten."""

    def sound(self, pcm: Pcm16) -> list[str]:
        """The caller's sound."""

    def commit(self, item_id: str) -> list[str]:
        """The turn is over: it is this item."""

    def discard(self) -> list[str]:
        """It was no turn."""

    def respond(self, order: Respond, texts: Mapping[str, str]) -> list[str]:
        """Make a reply. Raises UpstreamError where it makes none like that."""

    def stop(self, response_id: str) -> list[str]:
        """The reply is not wanted any more: no event of it follows."""

    def read(self, message: str) -> list[ServiceEvent]:
        """What a message means."""

    def take_late(self) -> list[str]:
        """What is to be sent because of what was read."""


def split_instructions(messages: Sequence[ContextMessage]) -> tuple[str, list[ContextMessage]]:
    """The instructions, with the notes about what is not among the messages any more, and the other messages."""
    instructions, said = [], []
    for message in messages:
        if message.role == "system" and message.item_id in ("", NOTES):
            instructions.append(message.text or "")
        else:
            said.append(message)
    return "\n".join(instructions), said


def websocket_scheme(scheme: str) -> str:
    """The WebSocket's scheme where an address has HTTP's; any other as it is."""
    return {"http": "ws", "https": "wss"}.get(scheme, scheme)


def key_of(message: ContextMessage) -> str:
    """What a message is known by, in at most 32 characters, as services want it. A call that the server ran and its result are one item."""
    key = f"{message.item_id}_r" if message.role == "tool_result" else message.item_id
    return key if len(key) <= _LONGEST_ID else f"item_{hashlib.sha256(key.encode()).hexdigest()[:24]}"
