"""Naming sounds: what a model of them is to those who use one."""

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from streaming.audio import Samples

__all__ = ["PATCH", "SoundClassifier", "speech_in"]

PATCH: Final = 15_600
"""Samples judged at once: 0.975 s, what YAMNet hears."""

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


class SoundClassifier(Protocol):
    """Names what sounds in a patch."""

    @property
    def classes(self) -> tuple[str, ...]:
        """AudioSet's display names ("Dog", "Speech"), in the order of what `hear` gives."""

    def hear(self, patch: Samples) -> npt.NDArray[np.float32]:
        """The probability of each class in `patch`, (PATCH,) to (classes,). They need not sum to 1: several things may sound at once."""


def speech_in(classifier: SoundClassifier, patch: Samples) -> float:
    """How likely `patch`, (PATCH,), is to hold speech."""
    probabilities = zip(classifier.classes, classifier.hear(patch), strict=True)
    return max((float(probability) for name, probability in probabilities if name in _SPEECH), default=0.0)
