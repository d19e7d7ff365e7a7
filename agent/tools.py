"""Tools that the server runs, as far as the conversation is concerned: which calls have not ended, and when what they gave is answered.

A call is ordered once, as soon as the model has made it in a reply of the conversation; out of band and in a reply that is only prepared
(`agent.speculation`) none is. When all calls of a response have ended the conversation goes on by itself, as soon as nobody speaks. Where
the caller has gone on meanwhile, their turn is answered first; what came too late for that answer is answered after it. A call always ends:
the server says how, or after its time, and a little, it is told as failed here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from agent.commands import CallTool, Command, ItemAdded, ItemDone, ServerCallMoved, ToolsListed
from agent.events import ToolReturned
from agent.history import History, RefusedError
from agent.idle import IdleTimer
from agent.items import ApprovalRequest, ApprovalResponse, ItemStatus, Message, ServerCall, ToolList
from agent.response import Phase, Response
from agent.settings import ServerTool, ToolChoice
from streaming.events import SAMPLE_RATE, ToolCallReady

__all__ = ["ToolCalls"]

_GRACE: Final = SAMPLE_RATE
"""After a call's time the server, which runs it, has a second more to say so itself."""

_APPROVAL: Final = 120 * SAMPLE_RATE
"""How long a client may think about an approval, in ticks: a person is asked."""

_MOST_CALLS: Final = 8
"""Calls to one turn of the caller, after which the model must answer: a model that calls and calls again would never speak."""


@dataclass(slots=True)
class _Batch:
    """The calls of one response."""

    response: Response
    pending: set[str] = field(default_factory=set)
    # What is to be said of them; None where the model is to word it.
    words: list[str | None] = field(default_factory=list)
    # A reply has been ordered since that did not know all of their results.
    overtaken: bool = False

    @property
    def is_owed(self) -> bool:
        """Whether the conversation goes on by itself: a client whose own functions were called beside these asks for that reply."""
        return self.overtaken or not self.response.called_client


@dataclass(frozen=True, slots=True)
class _Pending:
    """A call that has not ended, or the request for its approval, and when its time is over."""

    item: ServerCall | ApprovalRequest
    tool: ServerTool
    batch: _Batch
    output_index: int
    deadline: int


class ToolCalls:
    """One session's."""

    def __init__(self, history: History, make_id: Callable[[str], str]) -> None:
        self._history = history
        self._make_id = make_id
        # By item id. Bounded: a call ends in its time, and a response makes few.
        self._pending: dict[str, _Pending] = {}
        self._batches: list[_Batch] = []
        # Until "one moment" is said, and whether it has been in this wait.
        self._filler = IdleTimer()
        self._filled = False

    @property
    def waiting(self) -> bool:
        """Whether a call has not ended."""
        return bool(self._pending)

    def deadline(self) -> int | None:
        """When a `Tick` is wanted."""
        times = [pending.deadline for pending in self._pending.values()]
        return min([*times, *([] if self._filler.deadline is None else [self._filler.deadline])], default=None)

    # ---------------------------------------------------------------------------------------------------------- calls

    def call(self, response: Response, ready: ToolCallReady, tool: ServerTool, now: int) -> list[Command]:
        """The model calls `tool` in `response`."""
        commands, item, index = response.server_call(ready, tool)
        if item is None:
            return []  # the same call again
        batch = next((batch for batch in self._batches if batch.response is response), None)
        if batch is None:
            batch = _Batch(response)
            self._batches.append(batch)
        if isinstance(item, ServerCall):
            return [*commands, *self._begin(item, tool, batch, index, now)]
        batch.pending.add(item.id)
        self._pending[item.id] = _Pending(item, tool, batch, index, now + _APPROVAL)
        if not self._history.shows(item):
            return [*commands, *self._refuse(item.id, "It needs an approval that this client can't give.", now)]
        return commands

    def _begin(self, call: ServerCall, tool: ServerTool, batch: _Batch, index: int, now: int) -> list[Command]:
        batch.pending.add(call.id)
        deadline = now + tool.timeout_ms * SAMPLE_RATE // 1_000 + _GRACE
        self._pending[call.id] = _Pending(call, tool, batch, index, deadline)
        return [CallTool(call.id, call.name, call.arguments)]

    def returned(self, event: ToolReturned) -> list[Command]:
        """A call has ended. Nothing where it had already."""
        pending = self._pending.get(event.call_id)
        if pending is None or not isinstance(pending.item, ServerCall):
            return []
        self._close(pending, event.say or None)
        status = ItemStatus.COMPLETED if event.error is None else ItemStatus.INCOMPLETE
        output = event.output if event.error is None else None
        item = replace(pending.item, status=status, output=output, error=event.error)
        if item.id not in self._history:
            return []  # the client has deleted it
        self._history.replace(item)
        if not self._history.shows(item) or pending.output_index < 0:
            return []
        moved = ServerCallMoved(item.id, pending.output_index, "completed" if event.error is None else "failed")
        return [moved, ItemDone(item, self._history.previous_id(item.id))]

    def _close(self, pending: _Pending, words: str | None) -> None:
        del self._pending[pending.item.id]
        pending.batch.pending.discard(pending.item.id)
        pending.batch.words.append(words)
        self._filled = self._filled and self.waiting

    # ------------------------------------------------------------------------------------------------------- approval

    def approve(self, response: ApprovalResponse, now: int) -> list[Command]:
        """The client's answer to a request. Raises RefusedError where nothing was asked."""
        pending = self._pending.get(response.request_id)
        if pending is None or not isinstance(pending.item, ApprovalRequest):
            message = f"No approval is asked for under the id '{response.request_id}'."
            raise RefusedError("invalid_value", message, "item.approval_request_id")
        if not response.approve:
            return self._refuse(response.request_id, response.reason or "The approval was refused.", now)
        return self._go_ahead(pending, now)

    def _go_ahead(self, pending: _Pending, now: int) -> list[Command]:
        asked = pending.item
        call = ServerCall(
            self._make_id("item"), asked.server_label, asked.name, asked.arguments, ItemStatus.IN_PROGRESS, approval_id=asked.id
        )
        del self._pending[asked.id]
        pending.batch.pending.discard(asked.id)
        previous = self._history.add(call)
        added: list[Command] = [ItemAdded(call, previous), ServerCallMoved(call.id, 0, "in_progress")]
        return [*(added if self._history.shows(call) else []), *self._begin(call, pending.tool, pending.batch, 0, now)]

    def _refuse(self, request_id: str, why: str, now: int) -> list[Command]:
        """The call is not made, and the model is told why."""
        commands = self._go_ahead(self._pending[request_id], now)
        call = next(command for command in commands if isinstance(command, CallTool))
        return [*(command for command in commands if command is not call), *self.returned(ToolReturned(call.call_id, "", why))]

    # ----------------------------------------------------------------------------------------------------------- time

    def watch(self, filler_ms: int | None, *, quiet: bool, now: int) -> None:
        """`quiet` says whether, as of `now`, nobody speaks and nothing is being made. `filler_ms` None is no filler."""
        self._filler.watch(filler_ms, waiting=self.waiting and quiet and not self._filled, now=now)

    def take_filler(self, now: int) -> bool:
        """Whether "one moment" is due: once a wait."""
        due = self.waiting and self._filler.expired(now) and not self._filled
        self._filled = self._filled or due
        return due

    def expire(self, now: int) -> list[Command]:
        """End the calls whose time is over."""
        commands: list[Command] = []
        for item_id in [item_id for item_id, pending in self._pending.items() if now >= pending.deadline]:
            if isinstance(self._pending[item_id].item, ServerCall):
                commands += self.returned(ToolReturned(item_id, "", "The tool did not answer in time."))
            else:
                commands += self._refuse(item_id, "Nobody approved it in time.", now)
        return commands

    # --------------------------------------------------------------------------------------------------------- answer

    def reply_ordered(self) -> None:
        """A reply of the conversation has been ordered: it knows what has been returned, and not what has not."""
        self._batches = [batch for batch in self._batches if batch.pending or batch.response.phase is not Phase.DONE]
        for batch in self._batches:
            batch.overtaken = True

    def take_owed(self) -> str | None:
        """What is due of responses whose calls have all ended: fixed words, or "" for a reply of the model; None where nothing is."""
        ended = [batch for batch in self._batches if not batch.pending and batch.response.phase is Phase.DONE]
        self._batches = [batch for batch in self._batches if batch not in ended]
        words = [words for batch in ended if batch.is_owed for words in batch.words]
        if not words:
            return None
        return " ".join(one for one in words if one is not None) if None not in words else ""

    @property
    def choice(self) -> ToolChoice:
        """What the model may choose in a reply to results: a call that was forced is not forced again."""
        calls = 0
        for item in reversed(self._history.items):
            if isinstance(item, Message) and item.role == "user":
                break
            calls += isinstance(item, ServerCall)
        return ToolChoice("none" if calls >= _MOST_CALLS else "auto")

    def listed(self, tools: Iterable[ServerTool], known: Iterable[ServerTool]) -> list[Command]:
        """Tell the client of the tools of each label that it does not know yet."""
        if not self._history.shows_tools:
            return []
        commands: list[Command] = []
        told = {tool.server_label for tool in known}
        by_label: dict[str, list[ServerTool]] = {}
        for tool in tools:
            if tool.server_label not in told:
                by_label.setdefault(tool.server_label, []).append(tool)
        for label, offered in by_label.items():
            item = ToolList(self._make_id("item"), label, tuple(tool.spec for tool in offered))
            previous = self._history.add(item)
            listed = [ToolsListed(item.id, "in_progress"), ToolsListed(item.id, "completed")]
            commands += [ItemAdded(item, previous), *listed, ItemDone(item, previous)]
        return commands
