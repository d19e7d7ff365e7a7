"""Sounds that are not speech, as events with a beginning and an end: from the probabilities of AudioSet's classes to a small, stable set.

A patch of about a second is judged every 480 ms, at fixed positions of the input. A sound begins with the patches that name it surely and
ends when none has for a while, so that one ring of a telephone is one event and a flickering probability is not ten.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE, SoundKind, SoundStarted, SoundStopped

__all__ = ["HOP", "PATCH", "SoundClassifier", "SoundGate", "speech_in"]

PATCH: Final = 15_600
"""Samples judged at once: 0.975 s, what YAMNet hears."""

HOP: Final = 48 * SAMPLE_RATE // 100
"""From one patch to the next: 480 ms, half of it, as the published model is used."""

_SPEECH: Final = frozenset(
    (
        "Speech",
        "Child speech, kid speaking",
        "Conversation",
        "Narration, monologue",
        "Babbling",
        "Speech synthesizer",
        "Shout",
        "Whispering",
    )
)
"""AudioSet's classes that are somebody speaking."""

_CLASSES: Final[Mapping[SoundKind, Sequence[str]]] = MappingProxyType(
    {
        SoundKind.MUSIC: ("Music", "Musical instrument", "Singing", "Song"),
        SoundKind.LAUGHTER: ("Laughter", "Giggle", "Chuckle, chortle"),
        SoundKind.CRYING: ("Crying, sobbing", "Baby cry, infant cry", "Whimper"),
        SoundKind.COUGH: ("Cough", "Throat clearing"),
        SoundKind.SNEEZE: ("Sneeze",),
        SoundKind.APPLAUSE: ("Applause", "Clapping", "Cheering"),
        SoundKind.CROWD: ("Crowd", "Hubbub, speech noise, speech babble", "Chatter"),
        SoundKind.DOG: ("Dog", "Bark", "Howl"),
        SoundKind.CAT: ("Cat", "Meow", "Purr"),
        SoundKind.BIRD: ("Bird", "Fowl", "Chicken, rooster", "Chirp, tweet"),
        SoundKind.ALARM: ("Alarm", "Siren", "Smoke detector, smoke alarm", "Fire alarm", "Alarm clock", "Civil defense siren"),
        SoundKind.TELEPHONE: ("Telephone bell ringing", "Telephone", "Ringtone"),
        SoundKind.DOOR: ("Doorbell", "Ding-dong", "Knock", "Slam", "Door"),
        SoundKind.TYPING: ("Typing", "Computer keyboard"),
        SoundKind.CLOCK: ("Clock", "Tick-tock", "Tick"),
        SoundKind.HORN: ("Vehicle horn, car horn, honking", "Air horn, truck horn", "Train horn"),
        SoundKind.TRAFFIC: ("Vehicle", "Motor vehicle (road)", "Engine", "Aircraft", "Train", "Traffic noise, roadway noise"),
        SoundKind.TOOLS: ("Chainsaw", "Power tool", "Drill", "Tools", "Vacuum cleaner", "Hair dryer", "Lawn mower"),
        SoundKind.WATER: ("Water", "Rain", "Ocean", "Stream", "Water tap, faucet"),
        SoundKind.WIND: ("Wind", "Wind noise (microphone)"),
        SoundKind.FIRE: ("Fire", "Crackle"),
        SoundKind.GLASS: ("Shatter", "Breaking"),
    }
)
"""AudioSet's classes that are one kind for us, the most telling first; the rest of the 521 is told as nothing."""

_BEGINS: Final = 0.5
_BEGINS_AT: Final[Mapping[SoundKind, float]] = MappingProxyType(
    {SoundKind.FIRE: 0.2, SoundKind.CLOCK: 0.2, SoundKind.SNEEZE: 0.3, SoundKind.WATER: 0.3, SoundKind.TOOLS: 0.3}
)
"""Probability of a kind in a patch from which it has begun: 0.5, and less where the model is seldom surer on ESC-10's part `train`, and of
nothing else there as sure."""

_GOES_ON: Final = 0.4
"""Share of that probability down to which it goes on."""

_HIDDEN_BY: Final[Mapping[SoundKind, Sequence[SoundKind]]] = MappingProxyType({SoundKind.TRAFFIC: (SoundKind.TOOLS, SoundKind.WATER)})
"""Kinds that do not begin while others sound, which the model calls them too: a chainsaw is an engine, surf is a vehicle to it."""

_OVER: Final = 3
"""Patches without it after which it is over: 1.4 s, the pause between two rings of a telephone or two barks."""


class SoundClassifier(Protocol):
    """Names what sounds in a patch."""

    @property
    def classes(self) -> tuple[str, ...]:
        """AudioSet's display names."""

    def hear(self, patch: Samples) -> npt.NDArray[np.float32]:
        """The probability of each class in `patch`, (PATCH,) to (classes,)."""


def speech_in(classifier: SoundClassifier, patch: Samples) -> float:
    """How likely `patch`, (PATCH,), is to hold speech."""
    probabilities = zip(classifier.classes, classifier.hear(patch), strict=True)
    return max((float(probability) for name, probability in probabilities if name in _SPEECH), default=0.0)


@dataclass(slots=True)
class _Sounding:
    """A sound that has begun and is not over: where it was last heard, and the patches without it since."""

    last: int
    missed: int = 0


class SoundGate:
    """From patches to `SoundStarted` and `SoundStopped`: one stream's."""

    def __init__(self, classes: Sequence[str]) -> None:
        """`classes` are the classifier's; a kind of which it knows none is never told."""
        places = {name: place for place, name in enumerate(classes)}
        known = {kind: [places[name] for name in names if name in places] for kind, names in _CLASSES.items()}
        self._places = {kind: found for kind, found in known.items() if found}
        self._sounding: dict[SoundKind, _Sounding] = {}

    def push(self, probabilities: npt.NDArray[np.float32], start: int) -> list[SoundStarted | SoundStopped]:
        """The patch that begins at position `start`: (classes,) to what began and what is over. Patches come in order."""
        likely = {kind: float(probabilities[places].max()) for kind, places in self._places.items()}
        for kind, others in _HIDDEN_BY.items():
            if kind not in self._sounding and any(likely.get(other, 0.0) >= _begins(other) or other in self._sounding for other in others):
                likely.pop(kind, None)
        return [event for kind, probability in likely.items() for event in self._kind(kind, probability, start)]

    def _kind(self, kind: SoundKind, probability: float, start: int) -> Iterator[SoundStarted | SoundStopped]:
        sounding = self._sounding.get(kind)
        if sounding is None:
            if probability >= _begins(kind):
                self._sounding[kind] = _Sounding(start + PATCH)
                yield SoundStarted(start, kind, round(probability, 3))
        elif probability >= _GOES_ON * _begins(kind):
            sounding.last, sounding.missed = start + PATCH, 0
        else:
            sounding.missed += 1
            if sounding.missed == _OVER:
                del self._sounding[kind]
                yield SoundStopped(sounding.last, kind)


def _begins(kind: SoundKind) -> float:
    return _BEGINS_AT.get(kind, _BEGINS)
