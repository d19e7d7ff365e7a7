"""Sounds that are not speech, as the conversation keeps them: which there were in a turn of the caller, or since the one before.

What is told late (a sound is named up to a second after it began) counts for the turn that is open, or the next.
"""

from collections.abc import Iterable
from typing import Final

from streaming.events import SoundKind, SoundStarted, SoundStopped

__all__ = ["SoundDiary", "note_of"]

_MOST: Final = 8
"""Kinds that are told of one turn: more is a din."""


class SoundDiary:
    """One session's."""

    def __init__(self) -> None:
        # What sounds now, and what has been heard since the last turn, in the order of the first time: as many as there are kinds.
        self._sounding: set[SoundKind] = set()
        self._heard: dict[SoundKind, None] = {}

    def started(self, event: SoundStarted) -> bool:
        """A sound began; whether that is news (an engine that replaces another hears it again)."""
        news = event.kind not in self._sounding
        self._sounding.add(event.kind)
        self._heard[event.kind] = None
        return news

    def stopped(self, event: SoundStopped) -> bool:
        """A sound is over; whether that is news."""
        news = event.kind in self._sounding
        self._sounding.discard(event.kind)
        return news

    def take(self) -> tuple[SoundKind, ...]:
        """A turn of the caller has ended: what was heard in it, and since the one before."""
        heard = self.heard
        self._heard = {kind: None for kind in self._heard if kind in self._sounding}
        return heard

    @property
    def heard(self) -> tuple[SoundKind, ...]:
        """What `take` would give."""
        return tuple(self._heard)[:_MOST]


_WORDS: Final = {
    SoundKind.MUSIC: "music in the background",
    SoundKind.LAUGHTER: "laughter",
    SoundKind.CRYING: "crying",
    SoundKind.COUGH: "a cough",
    SoundKind.SNEEZE: "a sneeze",
    SoundKind.APPLAUSE: "applause",
    SoundKind.CROWD: "many voices in the background",
    SoundKind.DOG: "a dog barking",
    SoundKind.CAT: "a cat",
    SoundKind.BIRD: "a bird",
    SoundKind.ALARM: "an alarm",
    SoundKind.TELEPHONE: "a telephone ringing",
    SoundKind.DOOR: "somebody at the door",
    SoundKind.TYPING: "typing",
    SoundKind.CLOCK: "a clock ticking",
    SoundKind.HORN: "a horn",
    SoundKind.TRAFFIC: "traffic",
    SoundKind.TOOLS: "a machine running",
    SoundKind.WATER: "water",
    SoundKind.WIND: "wind",
    SoundKind.FIRE: "a crackling fire",
    SoundKind.GLASS: "breaking glass",
}


def note_of(sounds: Iterable[SoundKind]) -> str:
    """What a language model is told of sounds, behind the words: " (a dog barking, traffic)", "" for none."""
    words = ", ".join(_WORDS[kind] for kind in sounds)
    return f" ({words})" if words else ""
