"""A session's doors: the conversation it drives, the client it talks with, the code of its agent, and the line, where there is one."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from agent.commands import AgentOrder, Command
from agent.events import AgentEvent, Event
from agent.items import Item
from agent.settings import SessionSettings

__all__ = ["AgentCode", "Channel", "ChannelClosedError", "Dialogue", "Line", "LineError", "Media"]


class Dialogue(Protocol):
    """What a session needs of `agent.conversation.Conversation`."""

    @property
    def settings(self) -> SessionSettings:
        """The settings in force."""

    def handle(self, event: Event, now: int) -> list[Command]:
        """Tell it something; do what it orders."""

    @property
    def items(self) -> tuple[Item, ...]:
        """What was said, called and answered so far, as far as it was heard."""

    def deadline(self) -> int | None:
        """When it wants a `Tick`."""


class AgentCode(Protocol):
    """What runs the code of a session's agent (`server.agents.runner`)."""

    async def run(self, channel: "Channel", tell: Callable[[AgentEvent], None], items: Callable[[], tuple[Item, ...]]) -> None:
        """Do what is ordered, until cancelled. `tell` takes facts, `items` gives the conversation; both on the event loop only."""

    def order(self, order: AgentOrder) -> None:
        """Take an order; before `run` too."""

    async def end(self) -> None:
        """The session is over."""


class ChannelClosedError(Exception):
    """The client has gone."""


class Channel(Protocol):
    """The client's side of a session."""

    async def accept(self) -> None:
        """Take the client on; called once, first. Raises ChannelClosedError."""

    async def receive(self) -> str | bytes | None:
        """The next frame; None when the client has gone."""

    async def send(self, text: str) -> None:
        """Hand an event to the transport; returns when the transport can take the next one. Raises ChannelClosedError."""


@runtime_checkable
class Media(Protocol):
    """What a channel can do besides whose sound does not come and go in messages: then the server owns playback (`PlaybackOwner.SERVER`),
    and the session's formats are the transport's."""

    async def hear(self) -> bytes | None:
        """The caller's next sound in the session's input format, its gaps filled, as soon as there is some; None when the client has
        gone."""

    def play(self, frame: bytes) -> None:
        """The next 20 ms of our sound in the session's output format, called when their time has come; what a frame lacks is silence."""


class LineError(Exception):
    """The line can't do what was asked; the message says why."""


@runtime_checkable
class Line(Protocol):
    """What a channel that is a telephone call can do besides."""

    async def transfer(self, target: str) -> None:
        """Connect the caller with `target`, a telephone number or SIP address; returns when that is under way. Raises LineError."""

    async def send_dtmf(self, digits: str) -> None:
        """Send the digits 0 to 9, * and #. Raises LineError."""
