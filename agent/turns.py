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
    """The caller's turn was the input from `start` to `end`."""

    item_id: str
    start: int
    end: int


Outcome = list[Command | Interrupted | TurnEnded]


class TurnTaker:
    """One session's turns. `detection` None is manual: turns are started, so that they are transcribed as they are spoken, but never ended
    here, and the client is told nothing. `announced` False (transcription sessions) keeps the speech events from the client."""

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

    def configure(self, detection: TurnDetection | None) -> None:
        """Take turns like this from now on."""
        if detection is None:
            self._endpointer = None
        elif self._endpointer is None:
            self._endpointer = Endpointer(detection)
        else:
            self._endpointer.configure(detection)
        self._detection = detection

    def speech_started(self, at: int, *, audible: bool) -> Outcome:
        """Speech began at `at`; `audible` says whether it may interrupt sound of ours."""
        if at < self.committed:
            return []
        if self._endpointer is not None:
            self._endpointer.speech_started(at)
        if self.floor is not Floor.OPEN:
            return []  # the turn, or the overlap, goes on
        padding = self._detection.prefix_padding_ms if isinstance(self._detection, ServerVad) else _PADDING_MS
        self._item_id = self._make_id("item")
        self._onset = at
        self._start = max(self.committed, at - padding * SAMPLE_RATE // 1_000)
        start = StartTurn(self._item_id, self._start)
        if audible and self._endpointer is not None:
            self._move(Floor.OVERLAP)
            return [start]
        return [*self._take_floor(), start]

    def speech_stopped(self, at: int) -> Outcome:
        """A pause began at `at`."""
        if at < self.committed:
            return []
        if self._endpointer is not None:
            self._endpointer.speech_stopped(at)
        if self.floor is not Floor.OVERLAP:
            return []
        return self._drop_overlap(at)

    def scored(self, at: int, probability: float) -> None:
        """The end-of-turn model's belief."""
        if self._endpointer is not None:
            self._endpointer.scored(at, probability)

    def listened_to(self, at: int, *, audible: bool) -> Outcome:
        """The Ear has heard everything up to `at`."""
        self.listened = max(self.listened, at)
        outcome: Outcome = []
        if self.floor is Floor.OVERLAP and (not audible or at - self._onset >= _OVERLAP):
            outcome += self._take_floor()
            if audible:
                outcome.append(Interrupted())
        if self.floor is Floor.CALLER and self._endpointer is not None:
            end = self._endpointer.decide(at)
            if end is not None:
                outcome += self._end_turn(end)
        return outcome

    def commit(self, at: int) -> TurnEnded:
        """The client ends the turn itself, at `at`: everything since the last commit."""
        item_id = self._item_id if self.floor is not Floor.OPEN else self._make_id("item")
        start = self._start if self.floor is not Floor.OPEN else self.committed
        self._give_up_floor(at)
        return TurnEnded(item_id, start, at)

    def clear(self, at: int) -> Outcome:
        """The client forgets its input up to `at`."""
        self._give_up_floor(at)
        return [DiscardTurn(at)]

    def _take_floor(self) -> Outcome:
        self._move(Floor.CALLER)
        if self._endpointer is None or not self.announced:
            return []
        return [InputSpeechStarted(milliseconds(self._start), self._item_id)]

    def _end_turn(self, end: int) -> Outcome:
        item_id, start = self._item_id, self._start
        self._give_up_floor(end)
        stopped: Outcome = [InputSpeechStopped(milliseconds(end), item_id)] if self.announced else []
        return [*stopped, TurnEnded(item_id, start, end)]

    def _drop_overlap(self, at: int) -> Outcome:
        """It was a backchannel or a noise: as if it had not been."""
        self._give_up_floor(at)
        return [DiscardTurn(at)]

    def _give_up_floor(self, at: int) -> None:
        self.committed = max(self.committed, at)
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
