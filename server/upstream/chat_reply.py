"""One reply of a language model elsewhere, on its way to the voice here: clause by clause, each a `Say` that leaves the response open.

What the voice tells is passed on; the response's end is told with the model's reason and cost. The caller is never left in silence: if
no word comes for a while they hear that it will take a moment, and if the answer does not come, or breaks off, they hear that.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from server.apology import APOLOGY, UNABLE
from server.engine_link import Fact
from server.upstream.chat_wire import CallDelta, Delta, ReplyEnded, TokensUsed, WordsDelta
from server.upstream.errors import UpstreamError
from server.upstream.link import Local
from streaming.events import (
    Abort,
    EngineEvent,
    FinishReason,
    ReplyRestarted,
    RespondOptions,
    ResponseFinished,
    Say,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
)
from streaming.text import ClauseCutter

__all__ = ["ChatReply", "ReplyDoors"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplyDoors:
    """What a reply needs of others: the session's two sides, the model (`ask` gives the deltas of a request), and who forgets it at its
    end."""

    local: Local
    ask: Callable[[bytes], AsyncGenerator[Delta, None]]
    forget: Callable[[], object]


class ChatReply:
    """`run` is its task. A speculation says no more than its first clause until it is adopted."""

    def __init__(self, doors: ReplyDoors, response_id: str, options: RespondOptions, apology: float, *, speculative: bool) -> None:
        """`apology` is after how many seconds without a word the caller is told so."""
        self._doors = doors
        self._response_id = response_id
        self._options = options
        self._apology = apology
        self._speculative = speculative
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # The model's words, and where they are cut into clauses.
        self._text = ""
        self._cutter = ClauseCutter()
        # Whether the voice knows the response; whether it has been told its end; whether the model has said anything.
        self._opened = False
        self._ended = False
        # Its end has been told.
        self._over = False
        self._begun = False
        # Clauses of a speculation that wait for its adoption, and whether one is out.
        self._held: list[str] = []
        self._shown = False
        # Characters handed to the voice, and those of them that the session has been told of.
        self._said = 0
        self._told = 0
        # Calls that wait until the words before them have been told.
        self._calls: list[EngineEvent] = []
        self._finish = ResponseFinished(response_id, FinishReason.STOP)

    # ----------------------------------------------------------------------------------------------- from the session

    def begin(self, task: asyncio.Task[None]) -> None:
        """The task that runs `run`."""
        self._task = task
        if not self._speculative:
            self._arm()

    def adopt(self) -> None:
        """It is the answer now."""
        self._speculative = False
        held, self._held = self._held, []
        for clause in held:
            self._say(clause)
        if self._ended and held:  # or else its end has been said already
            self._say("", more=False)
        elif not self._begun:
            self._arm()

    def abort(self) -> None:
        """Close the request. The end is told when the voice has let go."""
        self.close()
        if self._opened:
            self._doors.local.order(Abort(self._response_id))
        else:
            self._tell_end(replace(self._finish, reason=FinishReason.ABORTED))

    def close(self) -> None:
        """Close the request."""
        self._disarm()
        if self._task is not None:
            self._task.cancel()

    def hear(self, fact: Fact) -> None:
        """What the voice tells of it."""
        match fact:
            case ResponseFinished(reason=reason):
                self.close()
                self._flush_calls()
                spoken = reason is FinishReason.STOP
                self._tell_end(self._finish if spoken else replace(fact, usage=self._finish.usage))
                return
            case TextDelta(text=text):
                self._told += len(text)
            case ReplyRestarted(text_end=text_end):
                self._told = text_end
        self._doors.local.tell(fact)
        if self._told >= self._said:
            self._flush_calls()

    # --------------------------------------------------------------------------------------------------- from the model

    async def run(self, request: Callable[[], Awaitable[bytes]]) -> None:
        """Ask, and hand on what comes, to the end."""
        try:
            async with aclosing(self._doors.ask(await request())) as deltas:
                async for delta in deltas:
                    self._take(delta)
        except UpstreamError as error:
            log.warning("session %s: %s: %s", self._doors.local.session_id, self._response_id, error)
            self._fail(str(error))
        except Exception as error:
            log.exception("session %s: %s failed", self._doors.local.session_id, self._response_id)
            self._fail(f"{type(error).__name__}: {error}")

    def _take(self, delta: Delta) -> None:
        if not self._begun and not isinstance(delta, TokensUsed):
            self._begun = True
            self._disarm()
        match delta:
            case WordsDelta(text) if not self._options.audio:
                self._give(text)
            case WordsDelta(text):
                self._text += text
                for clause in self._cutter.push(text):
                    self._give(self._text[clause.start : clause.end])
            case CallDelta(index, name, arguments):
                self._flush()  # what was said before it is complete
                self._call(ToolArgumentsDelta(self._response_id, index, name, arguments))
            case TokensUsed(usage):
                self._finish = replace(self._finish, usage=usage)
            case ReplyEnded(reason, calls):
                for index, (name, arguments) in enumerate(calls):
                    self._call(ToolCallReady(self._response_id, index, name, arguments))
                self._finish = replace(self._finish, reason=reason)
                self._end()

    def _fail(self, error: str) -> None:
        """The caller hears that the answer does not come, or not to its end."""
        self._finish = replace(self._finish, reason=FinishReason.ERROR, error=error)
        self._flush()
        if self._options.audio and not self._speculative:
            self._say(f" {UNABLE}" if self._said else UNABLE)
        self._end()

    def _end(self) -> None:
        """The model says no more."""
        self._disarm()
        self._flush()
        self._ended = True
        if not self._held:
            self._say("", more=False)

    def _flush(self) -> None:
        for clause in self._cutter.flush():
            self._give(self._text[clause.start : clause.end])

    # --------------------------------------------------------------------------------------------------- to the voice

    def _give(self, clause: str) -> None:
        """The next words; of a speculation only the first clause, for now."""
        if self._speculative and self._shown:
            self._held.append(clause)
        else:
            self._shown = True
            self._say(clause)

    def _say(self, text: str, *, more: bool = True) -> None:
        if self._over:
            return  # what the voice has ended does not begin again
        self._opened = True
        self._said += len(text)
        self._doors.local.order(Say(self._response_id, text, self._options, more))

    def _call(self, fact: EngineEvent) -> None:
        self._calls.append(fact)
        if self._told >= self._said:
            self._flush_calls()

    def _flush_calls(self) -> None:
        calls, self._calls = self._calls, []
        for fact in calls:
            self._doors.local.tell(fact)

    def _tell_end(self, finish: ResponseFinished) -> None:
        self._over = True
        self._doors.forget()
        self._doors.local.tell(finish)

    # ------------------------------------------------------------------------------------------------------- patience

    def _arm(self) -> None:
        if self._options.audio:
            self._timer = asyncio.get_running_loop().call_later(self._apology, self._apologise)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _apologise(self) -> None:
        """The answer takes its time."""
        self._timer = None
        self._say(f"{APOLOGY} ")
