"""Who has the floor: from the Ear's evidence to turns and interruptions. Positions are samples of the input; there is no clock.

While our own sound plays, speech is an overlap first: only when it has lasted 250 ms does it count, for what a backchannel or a cough would
make a client throw away can't be brought back. Nothing of it is lost: the turn starts at the true onset either way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.commands import Command, InputSpeechStarted, InputSpeechStopped
from agent.endpointing import Endpointer
from agent.settings import ServerVad, TurnDetection
from streaming.events import SAMPLE_RATE, DiscardTurn, StartTurn

__all__ = ["Floor", "Interrupted", "Outcome", "TurnEnded", "TurnTaker", "milliseconds"]

_OVERLAP: Final = SAMPLE_RATE // 4
"""Speech over our own that lasts this long is meant for us (design.md section 6, "Barge-in")."""

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
        self._onset = 0
        # Where the present pause began; None while there is speech.
        self._paused_at: int | None = None
        # Whether the client has been told that the open turn began, and so knows its item.
        self.told = False

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

    def speech_started(self, at: int, *, audible: bool) -> Outcome:
        """Speech began at `at`; `audible` says whether sound of ours is playing."""
        if at < self.committed:
            return []
        self._paused_at = None
        if self._endpointer is not None:
            self._endpointer.speech_started(at)
        if self.floor is not Floor.OPEN:
            return []  # the turn, or the overlap, goes on
        padding = self._detection.prefix_padding_ms if isinstance(self._detection, ServerVad) else _PADDING_MS
        self._item_id = self._make_id("item")
        self._onset = at
        self._start = max(self.committed, at - padding * SAMPLE_RATE // 1_000)
        start = StartTurn(self._item_id, self._start)
        if audible and self._interrupts:
            self._move(Floor.OVERLAP)
            return [start]
        return [start, *self._take_floor()]

    def speech_stopped(self, at: int) -> Outcome:
        """A pause began at `at`."""
        if at < self.committed:
            return []
        self._paused_at = at
        if self._endpointer is not None:
            self._endpointer.speech_stopped(at)
        if self.floor is not Floor.OVERLAP:
            return []
        return self.clear(at)  # it was a backchannel or a noise: as if it had not been

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
        outcome: Outcome = []
        if self.floor is Floor.OVERLAP and (not audible or not self._interrupts or at - self._onset >= _OVERLAP):
            outcome += self._take_floor()
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
        self._paused_at = None
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
