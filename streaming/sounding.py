"""The sounds of one session on their way into the language model, and which of them is worked on next."""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from streaming.audio_path import AudioPath, Sound
from streaming.batching import Work
from streaming.scheduler import Job, Urgency
from streaming.transcriber import Transcriber

__all__ = ["Sounds", "Wanted"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose sounds are wanted whole, in order: `awaited` by replies, `speculated` by speculations, `told` by the next prompt. Of the `open`
    item, the turn being spoken, what can be committed is."""

    awaited: Sequence[str] = ()
    speculated: Sequence[str] = ()
    open: str | None = None
    told: Sequence[str] = ()


class Sounds:
    """Empty where the language model only reads. One job at a time, for the work of one sound must not be done twice at once."""

    def __init__(self, path: AudioPath | None) -> None:
        # By item.
        self.held: Final[dict[str, Sound]] = {}
        self._path = path
        # Items with rows that `grew` has not told of.
        self._grown: set[str] = set()
        self._numbers = count(-1, -1)
        self._ordinals = count(1)
        self._job: Job | None = None

    @property
    def idle(self) -> bool:
        """Whether there is no sound to work on, as always where the language model only reads."""
        return not self.held and self._job is None

    def begin(self, item_id: str, transcriber: Transcriber) -> Sound | None:
        """An empty sound for an item, whose words `transcriber` writes; None where the language model only reads."""
        if self._path is None:
            return None
        sound = self.held[item_id] = Sound(self._path.stream(transcriber), self._numbers, next(self._ordinals))
        return sound

    def keep(self, wanted: Collection[str], most_rows: int) -> None:
        """Forget the items that are not `wanted`, and of those the oldest that bring more rows than a prompt may have: they are told in
        words from now on."""
        left = most_rows
        for item_id in reversed(list(self.held)):
            left -= len(self.held[item_id].rows)
            if item_id not in wanted or left < 0:
                del self.held[item_id]

    def forget(self, item_id: str) -> None:
        """There is no such item."""
        self.held.pop(item_id, None)

    def open_turn(self, item_id: str, words: str) -> Sound | str:
        """What is known of the turn being spoken: its sound, and where there is none its words so far."""
        return self.held.get(item_id, words)

    def grew(self, item_id: str) -> bool:
        """Whether the item has other rows than when this was last asked of any item."""
        grown = item_id in self._grown
        self._grown.clear()
        return grown

    def concluded(self, items: Iterable[str]) -> bool:
        """Whether the sounds of all `items` that have one are there whole."""
        return not self.held or all(self.held[item_id].concluded for item_id in items if item_id in self.held)

    def job(self, wanted: Wanted, now: float, patience: float) -> Job | None:
        """What is to be computed next, if anything; what a caller does not wait for may wait `patience` seconds."""
        choices = (
            (Urgency.AWAITED, self._first(wanted.awaited)),
            (Urgency.SPECULATION, self._first(wanted.speculated)),
            (Urgency.LISTENING, wanted.open if wanted.open in self.held and self.held[wanted.open].due else None),
            (Urgency.PREFILL, self._first(wanted.told)),
        )
        urgency, item_id = next(((urgency, item_id) for urgency, item_id in choices if item_id is not None), (Urgency.PREFILL, None))
        if self._job is None and item_id is not None:
            sound = self.held[item_id]
            work = sound.commit() if urgency is Urgency.LISTENING else sound.conclude()
            self._job = Job(self._run(item_id, sound, work), urgency, now if urgency < Urgency.LISTENING else now + patience)
        if self._job is not None:
            self._job.urgency = urgency  # whatever is under way goes before what is wanted now
        return self._job

    def close(self) -> None:
        """The session is over."""
        if self._job is not None:
            self._job.work.close()
        self.held.clear()

    def _first(self, items: Sequence[str]) -> str | None:
        return next((item_id for item_id in items if item_id in self.held and not self.held[item_id].concluded), None)

    def _run(self, item_id: str, sound: Sound, work: Work[None]) -> Work[None]:
        before = len(sound.committed)
        try:
            yield from work
            if len(sound.committed) > before:
                self._grown.add(item_id)
        except Exception:
            log.exception("the sound of %s can't be heard: it is told in words", item_id)
            sound.give_up()
            if self.held.get(item_id) is sound:
                self.forget(item_id)
                self._grown.add(item_id)
        finally:
            self._job = None
