"""The latency ledger: where the time of each turn went, from the caller's last sample to our first, in stages that add up exactly.

Fed with what passes through a session (audio arriving, facts, orders, sound leaving and heard); it decides nothing. All times are `now`:
1/16000 s. The whole is measured by itself, so that stages which do not add up to it would be seen.
A stage that did not happen, or happened before the one in front of it (a speculation's text precedes the decision), counts zero.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from streaming.events import (
    SAMPLE_RATE,
    Adopt,
    AudioReady,
    CommitTurn,
    Drop,
    EngineEvent,
    EngineOrder,
    FinishReason,
    Respond,
    ResponseFinished,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    TranscriptDone,
)

__all__ = ["STAGES", "Ledger", "TurnLedger", "speculation_json"]

STAGES: Final = ("silence", "decision", "transcript", "tools", "first_text", "first_clause", "first_audio", "first_sent")
"""Each stage ends with: the Ear's evidence of silence; the turn committed; its final transcript; the answer asked for, where the turn was
first answered by calls only; the answer's first text; the text of all whole words in its first audio (less than a word counts with the
first text); its first audio made; its first audio sent."""

_ARRIVALS: Final = 4_000
"""Appends remembered, to find when a sample arrived: 80 s of 20 ms frames, more than any wait at a turn's end."""
_OPEN_TURNS: Final = 8
"""Turns whose first audio is awaited; more would mean replies that never come."""


@dataclass(frozen=True, slots=True)
class TurnLedger:
    """One turn. `stages` are in the order of STAGES, in 1/16000 s; they add up to `total`, which was measured from the caller's last
    speech sample received to the reply's first sample sent."""

    item_id: str
    response_id: str
    stages: tuple[int, ...]
    total: int
    # Whether its reply had been prepared before the turn was over.
    speculated: bool = False
    # From the reply's first sample sent to its being heard, once it has been; whether the client has said so, or it is an estimate.
    played: int | None = None
    reported: bool = False

    def to_json(self) -> dict[str, object]:
        """The extension event `vivavoce.ledger`, in milliseconds; once the reply has been heard, `vivavoce.ledger.played`."""
        if self.played is not None:
            return {
                "type": "vivavoce.ledger.played",
                "item_id": self.item_id,
                "response_id": self.response_id,
                "played_ms": _ms(self.played),
                "total_ms": _ms(self.total + self.played),
                "reported": self.reported,
            }
        stages = {name: _ms(ticks) for name, ticks in zip(STAGES, self.stages, strict=True)}
        return {
            "type": "vivavoce.ledger",
            "item_id": self.item_id,
            "response_id": self.response_id,
            "stages_ms": stages,
            "total_ms": _ms(self.total),
            "speculated": self.speculated,
        }


def speculation_json(order: EngineOrder) -> dict[str, object] | None:
    """The extension event `vivavoce.speculation`: what became of an answer that is prepared in a pause. None for any other order."""
    match order:
        case Speculate(response_id):
            state = "begun"
        case Adopt(response_id):
            state = "adopted"
        case Drop(response_id):
            state = "dropped"
        case _:
            return None
    return {"type": "vivavoce.speculation", "response_id": response_id, "state": state}


def _ms(ticks: int) -> float:
    """Exact: a tick is 1/16 ms, which binary fractions hold."""
    return ticks * 1000 / SAMPLE_RATE


@dataclass(slots=True)
class _Turn:
    """Times of one turn so far; None where something has not happened."""

    item_id: str
    last_sample: int
    stopped: int | None
    decided: int
    response_id: str = ""
    speculated: bool = False
    transcript: int | None = None
    # Whether it has been answered by a call only, so that the next reply is its answer; and when that was asked for.
    calling: bool = False
    tools: int | None = None


@dataclass(slots=True)
class _Reply:
    """Times of one reply, which may be older than the turn's decision."""

    # When each text delta came, with the reply's length after it.
    texts: list[tuple[int, int]] = field(default_factory=list)
    first_text: int | None = None
    first_clause: int | None = None
    first_audio: int | None = None


class Ledger:
    """Watches one session."""

    def __init__(self) -> None:
        # (input position reached, when): ascending in both.
        self._arrivals: deque[tuple[int, int]] = deque(maxlen=_ARRIVALS)
        # The last silence the Ear reported: its last speech sample, and when we were told.
        self._stopped: tuple[int, int] | None = None
        # Where the client last ended its turn itself.
        self._asked: int | None = None
        # Turns answered and not yet heard, with when their first audio left, the oldest first.
        self._sent: dict[str, tuple[TurnLedger, int]] = {}
        # Turns committed and not yet answered, the oldest first.
        self._turns: dict[str, _Turn] = {}
        self._replies: dict[str, _Reply] = {}

    def arrived(self, until: int, now: int) -> None:
        """Input up to position `until` has been received."""
        self._arrivals.append((until, now))

    def commit_asked(self, at: int) -> None:
        """The client ends the turn at `at` itself: it counts from there, whatever of it was speech."""
        self._asked = at

    def fact(self, event: EngineEvent, now: int) -> None:
        """A fact of the Ear or the engine."""
        match event:
            case SpeechStarted():
                self._stopped = None  # the caller goes on: that was no end
            case SpeechStopped(at):
                self._stopped = (at, now)
            case TranscriptDone(item_id):
                if (turn := self._turns.get(item_id)) is not None:
                    turn.transcript = now
            case TextDelta(response_id, text):
                self._text(self._reply(response_id), len(text), now)
            case AudioReady(response_id):
                self._audio(self._reply(response_id), event.text_end, now)
            case ResponseFinished(response_id, FinishReason.TOOL_CALLS):
                for turn in self._turns.values():
                    turn.calling |= turn.response_id == response_id

    def ordered(self, order: EngineOrder, now: int) -> None:
        """An order of the conversation."""
        match order:
            case CommitTurn():
                self._commit(order, now)
            case Respond(response_id) | Adopt(response_id):
                waiting = [turn for turn in self._turns.values() if turn.calling or not turn.response_id]
                if waiting:
                    self._answer(waiting[-1], response_id, speculated=isinstance(order, Adopt), now=now)
            case Drop(response_id):
                self._replies.pop(response_id, None)

    def sent(self, response_id: str, now: int) -> TurnLedger | None:
        """The first audio of a response has left; its turn's ledger, if a turn asked for it."""
        turn = next((turn for turn in self._turns.values() if turn.response_id == response_id), None)
        reply = self._replies.pop(response_id, None)
        if turn is None or reply is None:
            return None
        del self._turns[turn.item_id]
        asked = (turn.stopped, turn.decided, turn.transcript, turn.tools)
        marks = (*asked, reply.first_text, reply.first_clause, reply.first_audio, now)
        stages, reached = [], turn.last_sample
        for mark in marks:
            stage = 0 if mark is None else max(0, mark - reached)
            stages.append(stage)
            reached += stage
        ledger = TurnLedger(turn.item_id, response_id, tuple(stages), now - turn.last_sample, turn.speculated)
        self._sent[response_id] = (ledger, now)
        while len(self._sent) > _OPEN_TURNS:
            del self._sent[next(iter(self._sent))]
        return ledger

    def heard(self, response_id: str, at: int, *, reported: bool) -> TurnLedger | None:
        """The first sample of a response was heard at `at`, as the client has `reported` or is believed; its turn's ledger with that."""
        ledger, sent = self._sent.pop(response_id, (None, 0))
        return None if ledger is None else replace(ledger, played=max(0, at - sent), reported=reported)

    def _answer(self, turn: _Turn, response_id: str, *, speculated: bool, now: int) -> None:
        """This reply is to that turn: its first, or after it was answered by a call only, the one that says what came of it."""
        if turn.calling:
            self._replies.pop(turn.response_id, None)
            turn.calling, turn.tools = False, now
        turn.response_id = response_id
        turn.speculated |= speculated
        self._reply(response_id)

    def _commit(self, turn: CommitTurn, now: int) -> None:
        """Where the Ear has heard the caller stop in it, its last speech sample counts; where the client ended it, its last sample."""
        last, stopped = turn.end, None
        if self._stopped is not None and turn.start < self._stopped[0] <= turn.end and turn.end != self._asked:
            last, stopped = self._stopped
        self._stopped = None
        for called in [item_id for item_id, before in self._turns.items() if before.calling]:
            del self._turns[called]  # the caller has spoken again: what is said next is the answer to that
        self._turns[turn.item_id] = _Turn(turn.item_id, min(self._arrival(last, now), now), stopped, now)
        while len(self._turns) > _OPEN_TURNS:
            del self._turns[next(iter(self._turns))]

    def _arrival(self, position: int, now: int) -> int:
        """When the input reached `position`."""
        index = bisect_left(self._arrivals, position, key=lambda arrival: arrival[0])
        return self._arrivals[index][1] if index < len(self._arrivals) else now

    def _reply(self, response_id: str) -> _Reply:
        reply = self._replies.setdefault(response_id, _Reply())
        while len(self._replies) > 2 * _OPEN_TURNS:
            del self._replies[next(iter(self._replies))]
        return reply

    def _text(self, reply: _Reply, length: int, now: int) -> None:
        if reply.first_audio is None:
            reply.first_text = now if reply.first_text is None else reply.first_text
            reply.texts.append(((reply.texts[-1][0] if reply.texts else 0) + length, now))

    def _audio(self, reply: _Reply, text_end: int, now: int) -> None:
        if reply.first_audio is None:
            reply.first_audio = now
            reply.first_clause = next((when for length, when in reply.texts if length >= text_end), None)
            reply.texts.clear()
