"""How a turn of the caller's was spoken, from when there was speech in it and from its words: pace, pauses, hesitation.

No model and no sound: the Ear's onsets and pauses, and the transcript. English hesitations; a recogniser leaves many of them out, so their
absence says little. Melody and emphasis are not here.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from streaming.events import SAMPLE_RATE

__all__ = ["Spoken", "SpokenWatch", "TurnStyle", "style_of"]

_PAUSE: Final = SAMPLE_RATE // 5
"""A shorter silence is no pause to anybody: 200 ms."""

_FEWEST: Final = 3
"""Words from which a turn has a pace."""

_HESITATION: Final = re.compile(r"\b(u+m+|u+h+|e+r+m*|h+m+|a+h+)\b|\b\w+-(?=[\s,.]|$)", re.IGNORECASE)
"""Um, uh, er, hmm, ah, and words that break off ("I wan- I want")."""

_MOST: Final = 256
"""Stretches of speech kept of a turn: of one that never ends, the newest."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Of a turn: how much of it is speech, how many pauses are in it, and the longest of them, in ms."""

    speech_ms: int = 0
    pauses: int = 0
    longest_pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class TurnStyle:
    """`words_per_second` of speech, pauses left out, None where there are too few words; `hesitations` as they are written."""

    words_per_second: float | None
    pauses: int
    longest_pause_ms: int
    hesitations: tuple[str, ...]


class SpokenWatch:
    """One session's speech, since the last turn that was taken."""

    def __init__(self) -> None:
        # Where each stretch of speech began and ended (None: it goes on), oldest first.
        self._stretches: list[tuple[int, int | None]] = []

    def started(self, at: int) -> None:
        """Speech began at `at`."""
        self._stretches = [*self._stretches, (at, None)][-_MOST:]

    def stopped(self, at: int) -> None:
        """A pause began at `at`."""
        if self._stretches and self._stretches[-1][1] is None:
            self._stretches[-1] = (self._stretches[-1][0], at)

    def take(self, start: int, end: int) -> Spoken:
        """A turn was the input from `start` to `end`; nothing of what was before its end is kept."""
        inside = [(max(start, begun), end if stopped is None else min(end, stopped)) for begun, stopped in self._stretches if begun < end]
        self._stretches = [(begun, stopped) for begun, stopped in self._stretches if begun >= end or stopped is None]
        inside = [(begun, stopped) for begun, stopped in inside if stopped > begun]
        gaps = [after - before for (_, before), (after, _) in pairwise(inside) if after - before >= _PAUSE]
        speech = sum(stopped - begun for begun, stopped in inside)
        return Spoken(_ms(speech), len(gaps), _ms(max(gaps, default=0)))


def style_of(spoken: Spoken, text: str) -> TurnStyle:
    """How the words `text` were spoken."""
    words = text.split()
    paced = len(words) >= _FEWEST and spoken.speech_ms > 0
    rate = round(1_000 * len(words) / spoken.speech_ms, 1) if paced else None
    hesitations = tuple(match[0].lower() for match in _HESITATION.finditer(text))
    return TurnStyle(rate, spoken.pauses, spoken.longest_pause_ms, hesitations)


def _ms(samples: int) -> int:
    return samples * 1_000 // SAMPLE_RATE
