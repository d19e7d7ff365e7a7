"""Who has the floor: from the Ear's evidence to turns and interruptions. Positions are samples of the input; there is no clock.

While our own sound plays, speech is an overlap first, until `agent.interruption` has a verdict: what a backchannel or a cough would make a
client throw away can't be brought back. Nothing of it is lost: the turn starts at the true onset either way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from agent.commands import Command, InputSpeechStarted, InputSpeechStopped
from agent.endpointing import Endpointer
from agent.interruption import Overlap, Verdict
from agent.settings import ServerVad, TurnDetection
from agent.wording import Asked
from streaming.events import SAMPLE_RATE, Audible, DiscardTurn, OverlapKind, OverlapScore, StartTurn

__all__ = ["Floor", "Interrupted", "Outcome", "Scene", "TurnEnded", "TurnTaker", "milliseconds"]

_ECHOES: Final = 3
"""Overlaps that were nothing, one after another, after which sound alone does not hold our voice any more: if it is our voice that comes
back, it would stop and go on with us for ever."""

_BELIEVED: Final = SAMPLE_RATE
"""Our own voice for as long as this was our own voice; less may have been a mistake."""

_SUSPICION: Final = 3 * 512
"""How long a suspicion lasts: its own window and the two that decide."""

_PADDING_MS: Final = 300
"""Sound before the onset that belongs to a turn, where the client does not say (the default of server_vad)."""


class Floor(Enum):
    """Who speaks, as far as turns are concerned."""

    OPEN = "nobody"
    OVERLAP = "somebody speaks while we do; not yet known whether to us"
    CALLER = "the caller"


_MOVES: Final = {
    Floor.OPEN: {Floor.OVERLAP, Floor.CALLER},
    Floor.OVERLAP: {Floor.OPEN, Floor.CALLER},
    Floor.CALLER: {Floor.OPEN},
}


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The caller speaks over us, and means it."""


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The caller's turn was the input from `start` to `end`; `detected` is False where the client said so."""

    item_id: str
    start: int
    end: int
    detected: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """What is going on as speech begins. `over` is what of ours sounds, None for nothing; `interruptible`, whether speech may end that;
    `yields`, whether even a short word over it is meant for us (it has just begun, or ends in a question); `holdable`, whether it can be
    held while that is found out; `asked`, what our last words ask for."""

    over: Audible | None = None
    interruptible: bool = True
    yields: bool = False
    holdable: bool = False
    asked: Asked = Asked.NOTHING


Outcome = list[Command | Interrupted | TurnEnded]


class TurnTaker:
    """One session's turns. `detection` None is manual: turns are started, so that they are transcribed as they are spoken, but never ended
    here, and the client is told nothing. `announced` False (transcription sessions) keeps the speech events from the client. Otherwise
    every `speech_started` has its one `speech_stopped`, whatever ends the turn."""

    def __init__(self, detection: TurnDetection | None, make_id: Callable[[str], str]) -> None:
        self.floor = Floor.OPEN
        # The input up to here has been committed or cleared; what the Ear says of it is late.
        self.committed = 0
        # The Ear has heard this far.
        self.listened = 0
        self.announced = True
        self._detection = detection
        self._make_id = make_id
        self._endpointer = None if detection is None else Endpointer(detection)
        self._item_id = ""
        self._start = 0
        # Where the present pause began; None while there is speech.
        self._paused_at: int | None = None
        # Whether the client has been told that the open turn began, and so knows its item.
        self.told = False
        # The least speech that may interrupt us, in milliseconds.
        self.least_ms = 0
        # The overlap that is being judged; None where there is none, or where it can't interrupt.
        self._overlap: Overlap | None = None
        self._over: Audible | None = None
        # Overlaps in a row that were nothing; where one was our own voice, enough for all of the call.
        self._echoes = 0
        # Where something began that may be speech; None where nothing has.
        self._suspected_at: int | None = None

    @property
    def open_item_id(self) -> str | None:
        """The item of the turn, or the overlap, that is being spoken."""
        return None if self.floor is Floor.OPEN else self._item_id

    @property
    def paused_at(self) -> int | None:
        """Where the present pause of the caller's turn began; None while they speak, or have no turn."""
        return self._paused_at if self.floor is Floor.CALLER else None

    def configure(self, detection: TurnDetection | None) -> Outcome:
        """Take turns like this from now on."""
        self._detection = detection
        if detection is None:
            self._endpointer = None
            return self._tell_stopped(self.listened)  # the turn stays open, but its end is the client's to say
        if self._endpointer is not None:
            self._endpointer.configure(detection)
            return []
        self._endpointer = Endpointer(detection)
        if self._paused_at is not None:
            self._endpointer.speech_stopped(self._paused_at)
        return self._tell_started() if self.floor is Floor.CALLER else []

    @property
    def lowers(self) -> bool:
        """Whether what sounds of ours is better lowered: somebody speaks, perhaps to us."""
        suspected = self._suspected_at is not None and self.floor is Floor.OPEN and self._interrupts and self._echoes < _ECHOES
        return suspected or (self._overlap is not None and self._overlap.lowers)

    @property
    def holds(self) -> bool:
        """Whether what sounds of ours is better held."""
        return self._overlap is not None and self._overlap.holds(self.listened)

    def suspected(self, at: int) -> Outcome:
        """Speech may have begun at `at`."""
        self._suspected_at = at
        return []

    def speech_started(self, at: int, scene: Scene) -> Outcome:
        """Speech began at `at`."""
        if at < self.committed:
            return []
        self._paused_at = self._suspected_at = None
        if self._endpointer is not None:
            self._endpointer.speech_started(at)
        if self.floor is not Floor.OPEN:  # the turn, or the overlap, goes on
            if self._overlap is not None:
                self._overlap.started()
            return []
        if self._endpointer is not None:
            self._endpointer.asked = scene.asked
        self._item_id = self._make_id("item")
        self._start = self._padded(at)
        if scene.over is None or not self._interrupts:
            return [StartTurn(self._item_id, self._start), *self._take_floor()]
        self._move(Floor.OVERLAP)
        self._over = scene.over
        echoes = self._echoes >= _ECHOES
        if scene.interruptible:
            self._overlap = Overlap(at, least_ms=self.least_ms, yields=scene.yields, echoes=echoes, patient=scene.holdable)
        return [StartTurn(self._item_id, self._start, self._over if scene.interruptible else None)]

    def _padded(self, at: int) -> int:
        """Where a turn with its onset at `at` begins."""
        padding = self._detection.prefix_padding_ms if isinstance(self._detection, ServerVad) else _PADDING_MS
        return max(self.committed, at - padding * SAMPLE_RATE // 1_000)

    def speech_stopped(self, at: int) -> Outcome:
        """A pause began at `at`."""
        if at < self.committed:
            return []
        self._paused_at = at
        if self._endpointer is not None:
            self._endpointer.speech_stopped(at)
        if self._overlap is None:
            return []
        self._overlap.stopped(at)
        return self._judge()

    def overlap_scored(self, score: OverlapScore) -> Outcome:
        """What the overlap is believed to be, which may end it."""
        if self._overlap is None or self._over is None or score.at < self._overlap.onset:
            return []  # late: that overlap is over
        onset = self._overlap.onset
        if score.kind is OverlapKind.ECHO and score.probability >= 0.5:
            self._echoes = _ECHOES
        self._overlap.scored(score)
        # What was an echo for a moment may have been somebody all the time: none of their words is given away for that.
        if self._overlap.onset == onset or score.at - self._over.at < _BELIEVED:
            return self._judge()
        # It was our own voice so far, and is not any more: what follows is heard by itself.
        self._over = replace(
            self._over, at=score.at, sample=self._over.sample + (score.at - self._over.at) * self._over.rate // SAMPLE_RATE
        )
        self._start = self._padded(score.at)
        return [StartTurn(self._item_id, self._start, self._over)]

    def _judge(self) -> Outcome:
        """What follows from what is known of the overlap."""
        assert self._overlap is not None
        match self._overlap.verdict(self.listened):
            case Verdict.SPEECH:
                self._echoes = 0 if self._echoes < _ECHOES else self._echoes
                return self._take_floor()
            case Verdict.NOTHING:  # as if it had not been
                self._echoes += 1
                return self.clear(self.listened if self._paused_at is None else self._paused_at)
            case Verdict.OPEN:
                return []

    def scored(self, at: int, probability: float) -> Outcome:
        """The end-of-turn model's belief, which may end the turn."""
        if self._endpointer is not None:
            self._endpointer.scored(at, probability)
        return self._decide()

    def worded(self, at: int, text: str) -> None:
        """What the turn says if it ends in the pause that began at `at`: counts from the next evidence on."""
        if self._endpointer is not None and at == self._paused_at:
            self._endpointer.worded(text, self.listened)

    def listened_to(self, at: int, *, audible: bool) -> Outcome:
        """The Ear has heard everything up to `at`."""
        self.listened = max(self.listened, at)
        if self._suspected_at is not None and at - self._suspected_at >= _SUSPICION:
            self._suspected_at = None
        outcome: Outcome = []
        if self.floor is Floor.OVERLAP and (not audible or not self._interrupts):
            outcome += self._take_floor()
        elif self._overlap is not None:
            outcome += self._judge()
        return outcome + self._decide()

    def _decide(self) -> Outcome:
        """Whether what is known ends the turn."""
        end = self._endpointer.decide(self.listened) if self.floor is Floor.CALLER and self._endpointer is not None else None
        return [] if end is None else self._end_turn(end, detected=True)

    def commit(self, at: int) -> Outcome:
        """The client ends the turn itself, at `at`: everything since the last commit."""
        if self.floor is Floor.OPEN:
            self._item_id, self._start = self._make_id("item"), self.committed
        return self._end_turn(at, detected=False)

    def clear(self, at: int) -> Outcome:
        """The input up to `at` is forgotten, an open turn with it."""
        stopped = self._tell_stopped(at)
        self._give_up_floor(at)
        return [*stopped, DiscardTurn(at)]

    @property
    def _interrupts(self) -> bool:
        """Whether speech of the caller ends a reply of ours."""
        return self._detection is not None and self._detection.interrupt_response

    def _take_floor(self) -> Outcome:
        self._overlap = self._over = None
        self._move(Floor.CALLER)
        started = self._tell_started()
        return [*started, Interrupted()] if self._interrupts else started

    def _tell_started(self) -> Outcome:
        self.told = self._endpointer is not None and self.announced
        return [InputSpeechStarted(milliseconds(self._start), self._item_id)] if self.told else []

    def _end_turn(self, end: int, *, detected: bool) -> Outcome:
        stopped = self._tell_stopped(end)
        turn = TurnEnded(self._item_id, min(self._start, end), end, detected)
        self._give_up_floor(end)
        return [*stopped, turn]

    def _tell_stopped(self, at: int) -> Outcome:
        told, self.told = self.told, False
        return [InputSpeechStopped(milliseconds(at), self._item_id)] if told else []

    def _give_up_floor(self, at: int) -> None:
        self.committed = max(self.committed, at)
        self._paused_at = self._overlap = self._over = None
        if self._endpointer is not None:
            self._endpointer.reset()
        if self.floor is not Floor.OPEN:
            self._move(Floor.OPEN)

    def _move(self, floor: Floor) -> None:
        assert floor in _MOVES[self.floor], f"from {self.floor} to {floor}"
        self.floor = floor


def milliseconds(samples: int) -> int:
    """An input position in milliseconds."""
    return samples * 1_000 // SAMPLE_RATE
