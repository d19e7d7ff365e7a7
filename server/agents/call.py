"""`Call`: what the hooks and tools of an agent may do with the call they are in. Any thread may use it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from agent.events import AgentEvent, EndRequested, FactPinned, InterjectionWanted, LineRequested, WordsOffered
from agent.items import FunctionCallOutput, Item, Message, ServerCall
from agent.prompt import words_of
from server.agents.errors import CallError

if TYPE_CHECKING:
    from server.agents.agent import Agent

__all__ = ["Call", "CallControl", "Line", "Said"]

_DTMF: Final = frozenset("0123456789*#")
_CONTROL_SECONDS: Final = 30.0
"""How long a transfer may take to begin, the sound that is played out first included."""

_LOOP_SECONDS: Final = 10.0
"""What a thread waits for the event loop, which is seldom busy for a hundredth of a second."""

Line = Literal["transfer", "dtmf"]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the transcript. `who` is "caller", "agent" or "tool"; of the agent's words, those that were heard."""

    who: Literal["caller", "agent", "tool"]
    words: str


class CallControl(Protocol):
    """What `Call` needs of whatever runs the agent's code. On the event loop only."""

    @property
    def agent(self) -> "Agent":
        """Who is in charge."""

    def tell(self, event: AgentEvent) -> None:
        """Tell the conversation."""

    def items(self) -> tuple[Item, ...]:
        """The conversation so far."""

    def hand_off(self, to: "Agent | str") -> None:
        """Another agent takes over. Raises CallError for one that is not known."""

    def begin_line(self, action: Line, target: str) -> "tuple[LineRequested, Future[None]]":
        """A use of the line, and what becomes of it. Raises CallError where there is no line."""


@dataclass(slots=True)
class Call:
    """One call. `state` is the agent's own, for whatever should last from turn to turn."""

    id: str
    _control: CallControl
    _loop: asyncio.AbstractEventLoop
    _thread: int
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def agent(self) -> "Agent":
        """Who is in charge now."""
        return self._control.agent

    @property
    def transcript(self) -> list[Said]:
        """What was said so far, as far as it was heard, oldest first."""
        return [line for item in self._now(self._control.items) if (line := _said(item)) is not None]

    def say(self, words: str) -> None:
        """Say these words as soon as nobody speaks. The model knows that they were said."""
        self._now(lambda: self._control.tell(WordsOffered(words)))

    def interject(self, words: str = "") -> None:
        """Say these words, or, where there are none, what the model makes of it, at the caller's next breath, if the agent `interjects`;
        else when nobody speaks."""
        self._now(lambda: self._control.tell(InterjectionWanted(words)))

    def pin(self, fact: str) -> None:
        """Tell the model this for the rest of the call, however long it is, whoever takes it over."""
        self._now(lambda: self._control.tell(FactPinned(fact)))

    def end(self, words: str = "", reason: str = "ended by the agent") -> None:
        """End the call: what has been said and offered is heard out, then these words, then the agent's goodbye. Nothing else is begun.
        `reason` goes with the close of the connection."""
        if words:
            self.say(words)
        self._now(lambda: self._control.tell(EndRequested(reason)))

    def hand_off(self, to: "Agent | str") -> None:
        """Another agent takes the call over, and knows what was said. Raises CallError for a name that is not among the handoffs."""
        self._now(lambda: self._control.hand_off(to))

    async def transfer(self, target: str) -> None:
        """Connect the caller with a telephone number or SIP address, once all that was said has been played. Raises CallError where the
        call can't be transferred: it is no telephone call, or the line refuses."""
        await self._use_line("transfer", target)

    async def send_dtmf(self, digits: str) -> None:
        """Send the digits 0 to 9, * and #. Raises CallError like `transfer`."""
        if not digits or not _DTMF.issuperset(digits):
            raise CallError(f"{digits!r} can't be dialled: only 0 to 9, * and # can")
        await self._use_line("dtmf", digits)

    async def _use_line(self, action: Line, target: str) -> None:
        request, done = self._control.begin_line(action, target)
        self._control.tell(request)
        try:
            async with asyncio.timeout(_CONTROL_SECONDS):
                await asyncio.wrap_future(done)
        except TimeoutError as error:
            raise CallError("the line did not answer in time") from error

    def _now(self, act: Callable[[], _T]) -> _T:
        """Do it on the event loop, and wait until it is done there."""
        if threading.get_ident() == self._thread:
            return act()
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(act())
            except Exception as error:  # noqa: BLE001 - it is raised on the thread that asked
                done.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
            return done.result(_LOOP_SECONDS)
        except (RuntimeError, TimeoutError) as error:  # the server is going down
            raise CallError("the call is over") from error


def _said(item: Item) -> Said | None:
    match item:
        case Message(role="system"):
            return None
        case Message(role="user"):
            words = words_of(item)
            return Said("caller", words) if words else None
        case Message():
            words = words_of(item)
            return Said("agent", words) if words else None
        case FunctionCallOutput(output=output):
            return Said("tool", output)
        case ServerCall(output=str() as output):
            return Said("tool", output)
        case _:
            return None
