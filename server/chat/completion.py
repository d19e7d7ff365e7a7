"""One chat completion: a session of its own without a conversation, through the engine's doors as any other. The sound is fed and committed
message by message, the history set, one reply asked for; then the session is closed.

An engine that dies ends it: a call would wait and be told an apology, a program can ask again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal

from server.admission import ENGINE_RESTARTING, SHUTTING_DOWN
from server.auth import Refusal
from server.chat.request import SPOKEN_RATE, ChatRequest
from server.chat.stopping import StopWords
from server.engine_link import EngineLink, Fact
from server.limits import Limits
from streaming.audio import AudioFrame, Pcm16
from streaming.doors import SynthesisedAudio
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    CommitTurn,
    ConfigureEar,
    EngineFailed,
    EngineLost,
    FinishReason,
    Listened,
    Respond,
    ResponseFinished,
    SessionSpec,
    SetHistory,
    TextDelta,
    ToolCallReady,
    TranscriptDone,
    Usage,
)

__all__ = ["CalledTool", "Completion", "CompletionError", "Ended", "Piece", "SpokenSound", "WrittenText"]

_SLICE: Final = SAMPLE_RATE // 2
"""Sound handed over in one go."""
_RESPONSE: Final = "resp_1"


@dataclass(frozen=True, slots=True)
class WrittenText:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class SpokenSound:
    """More of its sound, at `SPOKEN_RATE`."""

    pcm: Pcm16


@dataclass(frozen=True, slots=True)
class CalledTool:
    """The answer calls a function; calls count from 0."""

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing follows. `transcripts` are the words heard in each piece of sound, as far as they were known by then."""

    reason: Literal["stop", "length", "tool_calls"]
    usage: Usage
    transcripts: tuple[str, ...]


Piece = WrittenText | SpokenSound | CalledTool | Ended


class CompletionError(Exception):
    """There will be no answer; `refusal` says why, as an HTTP answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Completion:
    """Run once."""

    def __init__(self, session_id: str, request: ChatRequest, link: EngineLink, limits: Limits) -> None:
        self._id = session_id
        self._request = request
        self._link = link
        self._limits = limits
        # What the engine has told and nobody has taken yet: one reply at most.
        self._facts: deque[Fact] = deque()
        self._news = asyncio.Event()
        # Why it can't go on.
        self._failed: Refusal | None = None
        # The input position the engine has heard.
        self._listened = 0
        self._transcripts = {heard.item_id: "" for heard in request.heard}
        self._last_call: asyncio.TimerHandle | None = None

    def drain(self, seconds: float) -> None:
        """The server is shutting down: end within `seconds`."""
        self._last_call = asyncio.get_running_loop().call_later(seconds, self._fail, SHUTTING_DOWN)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The answer as it is made, `Ended` last. Raises CompletionError."""
        request, link = self._request, self._link
        link.open(self._id, SessionSpec(seed=request.seed), self._hear)
        try:
            link.order(self._id, ConfigureEar(end_of_turn=False))
            await self._feed()
            link.order(self._id, SetHistory(request.messages))
            link.order(self._id, Respond(_RESPONSE, request.options))
            async for piece in self._reply():
                yield piece
        finally:
            link.close(self._id)
            if self._last_call is not None:
                self._last_call.cancel()

    def _hear(self, fact: Fact) -> None:
        """The sink of the link. Failing goes before whatever else has been told: an engine's last words may be an apology for a caller."""
        match fact:
            case EngineLost():
                self._fail(ENGINE_RESTARTING)
            case EngineFailed(error):
                self._fail(Refusal(500, "engine_failed", f"The engine could not answer: {error[:200]}"))
            case Listened(at):
                self._listened = at
                self._news.set()
            case _:
                self._facts.append(fact)
                self._news.set()

    def _fail(self, refusal: Refusal) -> None:
        self._failed = self._failed or refusal
        self._news.set()

    async def _wait(self) -> None:
        """For news."""
        await self._news.wait()
        self._news.clear()
        self._check()

    def _check(self) -> None:
        """Raises CompletionError where it can't go on."""
        if self._failed is not None:
            raise CompletionError(self._failed)

    async def _feed(self) -> None:
        """Every piece of sound as a turn, never further ahead of the Ear than a session may be."""
        at, lead = 0, int(self._limits.max_input_lead * SAMPLE_RATE)
        for heard in self._request.heard:
            start = at
            for offset in range(0, len(heard.pcm), _SLICE):
                pcm = heard.pcm[offset : offset + _SLICE]
                self._link.feed(self._id, AudioFrame(pcm, at))
                at += len(pcm)
                await asyncio.sleep(0)
                while at - self._listened > lead:
                    await self._wait()
            self._link.order(self._id, CommitTurn(heard.item_id, start, at))

    async def _reply(self) -> AsyncGenerator[Piece, None]:
        stops, stopped, samples = StopWords(self._request.stops), False, 0
        most = int(self._limits.max_chat_seconds * SPOKEN_RATE)
        while True:
            while not self._facts:
                await self._wait()
            self._check()
            match self._facts.popleft():
                case TranscriptDone(item_id, text) if item_id in self._transcripts:
                    self._transcripts[item_id] = text
                case TextDelta(_, text) if not stopped:
                    written = stops.push(text)
                    if stops.found:
                        stopped = True
                        self._link.order(self._id, Abort(_RESPONSE))
                    if written:
                        yield WrittenText(written)
                case SynthesisedAudio(pcm=pcm) if not stopped:
                    samples += len(pcm)
                    yield SpokenSound(pcm)
                    if samples > most:
                        stopped = True
                        self._link.order(self._id, Abort(_RESPONSE))
                case ToolCallReady(_, index, name, arguments):
                    yield CalledTool(index, name, arguments)
                case ResponseFinished() as finished:
                    if not stops.found and (rest := stops.flush()):
                        yield WrittenText(rest)
                    yield self._end(finished, stopped=stops.found)
                    return

    def _end(self, finished: ResponseFinished, *, stopped: bool) -> Ended:
        told = tuple(self._transcripts.values())
        match finished.reason:
            case FinishReason.ERROR:
                raise CompletionError(Refusal(500, "engine_failed", f"The answer failed: {(finished.error or 'no reason given')[:200]}"))
            case FinishReason.TOOL_CALLS:
                return Ended("tool_calls", finished.usage, told)
            case FinishReason.LENGTH:
                return Ended("length", finished.usage, told)
            case FinishReason.ABORTED if not stopped:
                return Ended("length", finished.usage, told)
            case _:
                return Ended("stop", finished.usage, told)
