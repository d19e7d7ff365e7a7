"""Runs the code of one session's agent: hooks, tools, uses of the line. Whatever that code does, the session goes on.

A tool's exception is told to the model, a hook's is logged. Plain functions run on a few threads that all calls share, so that the event
loop waits for none of them; one that does not come back in its time is given up, and its thread is lost until it does.
"""

import asyncio
import inspect
import itertools
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Literal

from agent.commands import AgentOrder, AskAgent, CallTool, UseLine
from agent.events import AgentChanged, AgentEvent, LineRequested, ToolReturned, TurnDecided
from agent.items import Item
from server.agents.agent import Agent
from server.agents.call import Call
from server.agents.errors import CallError
from server.agents.function_tool import FunctionTool
from server.agents.team import Member, Team
from server.doors import Channel, Line, LineError

__all__ = ["AgentRunner"]

log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
"""Tools of one call that run at once; a model that asks for more is told so."""
_END_SECONDS: Final = 5.0
"""What `on_end` may take; the client has gone."""


class AgentRunner:
    """`server.doors.AgentCode` for one session."""

    def __init__(self, session_id: str, team: Team) -> None:
        self._session_id = session_id
        self._team = team
        self._member: Member = team.first
        # By name: those of the agent in charge, and of those before, whose calls may still be on their way.
        self._runs = dict(team.first.runs)
        # Bounded by the conversation, which ends each call before it is forgotten.
        self._orders: asyncio.Queue[AgentOrder] = asyncio.Queue()
        self._running = 0
        self._lines: dict[str, Future[None]] = {}
        self._line_ids = itertools.count(1)
        self._line: Line | None = None
        self._tell: Callable[[AgentEvent], None] = lambda _event: None
        self._items: Callable[[], tuple[Item, ...]] = tuple
        self._call: Call | None = None

    # ------------------------------------------------------------------------------------------- server.doors.AgentCode

    async def run(self, channel: Channel, tell: Callable[[AgentEvent], None], items: Callable[[], tuple[Item, ...]]) -> None:
        """Until cancelled."""
        self._line = channel if isinstance(channel, Line) else None
        self._tell, self._items = tell, items
        self._call = Call(self._session_id, self, asyncio.get_running_loop(), threading.get_ident())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hook(self._member.agent.on_start))
            while True:
                order = await self._orders.get()
                match order:
                    case CallTool():
                        group.create_task(self._run_tool(order, self._runs.get(order.name)))
                    case AskAgent():
                        group.create_task(self._decide(order))
                    case UseLine():
                        group.create_task(self._use_line(order))

    def order(self, order: AgentOrder) -> None:
        """Take an order."""
        self._orders.put_nowait(order)

    async def end(self) -> None:
        """The session is over: `on_end` of whoever is in charge."""
        for waiting in self._lines.values():
            waiting.cancel()
        self._tell = lambda _event: None
        await self._hook(self._member.agent.on_end, _END_SECONDS)

    # ------------------------------------------------------------------------------------------- server.agents.call.CallControl

    @property
    def agent(self) -> Agent:
        """Who is in charge."""
        return self._member.agent

    def tell(self, event: AgentEvent) -> None:
        """Tell the conversation."""
        self._tell(event)

    def items(self) -> tuple[Item, ...]:
        """The conversation so far."""
        return self._items()

    def hand_off(self, to: Agent | str) -> None:
        """Another agent takes over."""
        name = to if isinstance(to, str) else to.name
        if name not in self._team.members:
            raise CallError(f"there is no agent {name}: there are {', '.join(self._team.members)}")
        self._member = self._team.members[name]
        self._runs |= self._member.runs
        self._tell(AgentChanged(self._member.settings))

    def begin_line(self, action: Literal["transfer", "dtmf"], target: str) -> tuple[LineRequested, "Future[None]"]:
        """A use of the line."""
        if self._line is None:
            raise CallError("This call can't be transferred." if action == "transfer" else "This call can't send digits.")
        request = LineRequested(f"line_{next(self._line_ids)}", action, target)
        done = self._lines[request.request_id] = Future[None]()
        return request, done

    # --------------------------------------------------------------------------------------------------------------- work

    async def _run_tool(self, order: CallTool, run: Callable[[Call, str], Awaitable[Any]] | None) -> None:
        """One call of a tool, which ends in one `ToolReturned`."""
        assert self._call is not None
        if run is None or self._running >= _AT_ONCE:
            why = f"there is no tool {order.name}" if run is None else "too many tools are running: try again"
            self._tell(ToolReturned(order.call_id, "", why))
            return
        self._running += 1
        try:
            async with asyncio.timeout(self._seconds(order.name)):
                result = await run(self._call, order.arguments)
            self._tell(ToolReturned(order.call_id, result.output, None, result.words))
        except TimeoutError:
            self._tell(ToolReturned(order.call_id, "", f"{order.name} did not answer in time"))
        except CallError as error:
            self._tell(ToolReturned(order.call_id, "", str(error)))
        except Exception as error:
            log.exception("session %s: the tool %s failed", self._session_id, order.name)
            self._tell(ToolReturned(order.call_id, "", f"{order.name} failed: {error or type(error).__name__}"))
        finally:
            self._running -= 1

    def _seconds(self, name: str) -> float:
        members = (self._member, *self._team.members.values())
        return next(tool.timeout_ms / 1_000 for member in members for tool in member.settings.server_tools if tool.spec.name == name)

    async def _decide(self, order: AskAgent) -> None:
        """What the agent makes of the caller's words. A hook that fails leaves the turn to the model."""
        answer = await self._hook(self._member.agent.on_turn, None, order.words)
        if isinstance(answer, str):
            self._tell(TurnDecided(order.item_id, say=answer))
            return
        name = answer.name if isinstance(answer, FunctionTool) else getattr(answer, "__name__", "")
        if name and name not in self._member.runs:
            log.error("session %s: on_turn wants the tool %s, which %s does not have", self._session_id, name, self.agent.name)
            name = ""
        self._tell(TurnDecided(order.item_id, tool=name))

    async def _hook(self, hook: Callable[..., Any] | None, seconds: float | None = None, *arguments: str) -> Any:
        """What a hook returns; None where there is none, it fails or takes too long."""
        if hook is None or self._call is None:
            return None
        name = getattr(hook, "__name__", "hook")
        try:
            async with asyncio.timeout(self.agent.hook_timeout if seconds is None else seconds):
                if inspect.iscoroutinefunction(hook):
                    return await hook(self._call, *arguments)
                bound = partial(hook, self._call, *arguments)
                return await asyncio.get_running_loop().run_in_executor(self._team.pool, bound)
        except TimeoutError:
            log.error("session %s: %s of %s took too long and is given up", self._session_id, name, self.agent.name)
        except Exception:
            log.exception("session %s: %s of %s failed", self._session_id, name, self.agent.name)
        return None

    async def _use_line(self, order: UseLine) -> None:
        done = self._lines.pop(order.request_id, None)
        if self._line is None or done is None or not done.set_running_or_notify_cancel():
            return
        try:
            if order.action == "transfer":
                await self._line.transfer(order.target)
            else:
                await self._line.send_dtmf(order.target)
            done.set_result(None)
        except LineError as error:
            done.set_exception(CallError(str(error)))
        except Exception as error:
            log.exception("session %s: the line failed", self._session_id)
            done.set_exception(CallError(f"the line failed: {type(error).__name__}"))
