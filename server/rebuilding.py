"""What rebuilds a session when the engine that served it has died (design.md sections 4 and 8.5). Pure: orders and frames in, what the
session is told and what the next engine is told out.

Kept of a session are its settings, its history, the last 30 s of its input, and what the engine owes it. A replacement is fed the input
from the beginning of what is owed, and told the same orders again at the same places of it; of what it says, the session hears nothing
twice. A turn is heard again, and told by its final transcript only. A reply of which no sound has been handed out is made again, after an
apology that needs no engine; of any other the rest is given up. Nothing is repeated twice: what killed two engines is not shown to a third.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from server.apology import FixedSpeech
from server.engine_link import Fact, FeedFrame, OpenSession, Request, TakeOrder
from server.heard_once import HeardOnce
from server.owed_replies import OwedReplies
from streaming.audio import AudioFrame, Samples
from streaming.doors import SessionEvent, SynthesisedAudio
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    Adopt,
    AudioReady,
    CommitTurn,
    ConfigureEar,
    DiscardTurn,
    Drop,
    EndOfTurnScore,
    EngineFailed,
    EngineLost,
    EngineOrder,
    Listened,
    OverlapScore,
    ReplyRestarted,
    Respond,
    ResponseFinished,
    Say,
    SessionSpec,
    SetHistory,
    SoundStarted,
    SoundStopped,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    TranscriptProvisional,
)
from streaming.input_ring import InputRing

__all__ = ["SessionRecord"]

_LEAD: Final = SAMPLE_RATE // 2
"""Input before what is owed, so that the VAD, which begins without a memory, is awake where it begins."""
_PIECE: Final = SAMPLE_RATE
"""Samples of kept input in one message."""


@dataclass(slots=True)
class _OwedTurn:
    """A turn that has begun or ended and whose transcript is due. `order` came when the input had reached `after`."""

    order: StartTurn | CommitTurn
    after: int
    repeats: int = 0


class SessionRecord:
    """One session, as far as engines are concerned. Call in the order things happen."""

    def __init__(self, session_id: str, spec: SessionSpec, *, dead: bool = False) -> None:
        """`dead` where there is no engine at the moment: `rebuild` will open it."""
        self._session_id = session_id
        self._spec = spec
        # Whether no engine knows it at the moment.
        self.dead = dead
        self._ear: ConfigureEar | None = None
        self._history = SetHistory(())
        # Final texts of audio items in the history, where the history itself does not say them.
        self._texts: dict[str, str] = {}
        self._ring = InputRing()
        # The input before this is committed or discarded.
        self._floor = 0
        # In the order of their orders: the turns awaiting their transcript, and the open one.
        self._turns: list[_OwedTurn] = []
        # Items that are heard again: their words have been told as far as they have, and are settled by the final text.
        self._heard_again: set[str] = set()
        self._evidence = HeardOnce()
        self._replies = OwedReplies(session_id)

    # ------------------------------------------------------------------------------------------------------- to the engine

    def feed(self, frame: AudioFrame) -> None:
        """Keep a frame."""
        self._ring.append(frame)

    def order(self, order: EngineOrder, apology: FixedSpeech | None) -> list[Fact]:
        """Note an order. Returns what the session is told at once, where there is no engine to do it."""
        match order:
            case ConfigureEar():
                self._ear = order
            case SetHistory(messages):
                self._history = order
                kept = {message.item_id for message in messages}
                self._texts = {item_id: text for item_id, text in self._texts.items() if item_id in kept}
            case StartTurn():
                self._close_turn()
                self._turns.append(_OwedTurn(order, self._ring.end))
            case CommitTurn(item_id, end=end, transcript=transcript):
                self._close_turn()
                self._forget(end)
                if transcript is None:
                    self._turns.append(_OwedTurn(order, self._ring.end))
                else:
                    self._texts[item_id] = transcript
            case DiscardTurn(end):
                self._close_turn()
                self._forget(end)
            case Respond() | Say() | Speculate() | Adopt() | Drop() | Abort():
                return self._replies.order(order, apology, dead=self.dead)
        return []

    def _close_turn(self) -> None:
        """There is no open turn any more. A commit says what its turn was without the start."""
        self._turns = [turn for turn in self._turns if isinstance(turn.order, CommitTurn)]

    def _forget(self, end: int) -> None:
        self._floor = max(self._floor, end)
        self._evidence.forget(end)

    # ----------------------------------------------------------------------------------------------------- from the engine

    def tell(self, output: SessionEvent | SynthesisedAudio) -> list[Fact]:
        """What the session is told of an engine's output."""
        fact = output.event if isinstance(output, SessionEvent) else output
        match fact:
            case SpeechStarted() | SpeechStopped() | EndOfTurnScore() | OverlapScore() | SoundStarted() | SoundStopped() | Listened():
                return [*self._evidence.tell(fact)]
            case TranscriptDelta(item_id) if item_id in self._heard_again:
                return []
            case TranscriptDone(item_id) | TranscriptFailed(item_id):
                self._turns = [turn for turn in self._turns if turn.order.item_id != item_id]
                self._heard_again.discard(item_id)
                if isinstance(fact, TranscriptDone):
                    self._texts[item_id] = fact.text
            case TextDelta() | AudioReady() | ToolArgumentsDelta() | ToolCallReady() | ResponseFinished() | SynthesisedAudio():
                return self._replies.tell(fact)
            case TranscriptDelta() | TranscriptProvisional() | ReplyRestarted() | EngineLost() | EngineFailed():
                pass
        return [fact]

    # ------------------------------------------------------------------------------------------------------------- dying

    def lose(self, error: str, apology: FixedSpeech | None) -> list[Fact]:
        """The engine has died. Returns what the session is told: what it will not get, apologies, and that it goes on. Nothing where this
        session had not been rebuilt yet."""
        if self.dead:
            return []
        self.dead = True
        facts = self._replies.lose(error, apology)
        for turn in self._turns:
            if turn.repeats and isinstance(turn.order, CommitTurn):
                facts.append(TranscriptFailed(turn.order.item_id, error))
        self._turns = [turn for turn in self._turns if not turn.repeats]
        return [*facts, EngineLost(error)]

    def rebuild(self) -> Iterator[Request]:
        """What the next engine is told of the session, before anything else."""
        self.dead = False
        yield OpenSession(self._session_id, self._spec)
        if self._ear is not None:
            yield self._take(self._ear)
        messages = self._history.messages
        filled = tuple(replace(one, text=self._texts.get(one.item_id)) if one.text is None else one for one in messages)
        yield self._take(SetHistory(filled))
        yield from self._hear_again()
        for order in self._replies.again():
            yield self._take(order)

    def _hear_again(self) -> Iterator[Request]:
        """The input since what is owed, and the orders about it where they came."""
        end = self._ring.end
        wanted = min([self._floor, *(turn.order.start for turn in self._turns)])
        held = end - len(self._ring.between(0, end))
        start = self._evidence.begin(max(0, wanted - _LEAD), held)
        pcm = self._ring.between(start, end)
        fed = 0
        self._heard_again = {turn.order.item_id for turn in self._turns}
        for turn in self._turns:
            turn.repeats += 1
            due = max(fed, min(len(pcm), turn.after - start))
            yield from self._feed(pcm[fed:due], start + fed)
            yield self._take(turn.order)
            fed = due
        yield from self._feed(pcm[fed:], start + fed)

    def _feed(self, pcm: Samples, at: int) -> Iterator[Request]:
        for offset in range(0, len(pcm), _PIECE):
            yield FeedFrame(self._session_id, AudioFrame(pcm[offset : offset + _PIECE], at + offset))

    def _take(self, order: EngineOrder) -> Request:
        return TakeOrder(self._session_id, order)
