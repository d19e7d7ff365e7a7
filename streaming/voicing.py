"""What the VAD made of the newest input of a session, addressed by position: where in a stretch it heard speech best, and how surely."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from streaming.events import SAMPLE_RATE
from streaming.vad import WINDOW

__all__ = ["Voiced", "Voicing"]

_RUN: Final = 5
"""Windows of speech in a row that speak for a word: 160 ms, the vowel of a short one. A click or a sneeze fills fewer."""

_KEPT: Final = 60 * SAMPLE_RATE // WINDOW
"""Windows kept: a minute, twice what the input ring holds; 15 kB."""

_UNJUDGED: Final = 4
"""Windows at the end of a stretch that may be missing: 128 ms, which the Ear hears while the last words are decoded."""


@dataclass(frozen=True, slots=True)
class Voiced:
    """The stretch was most like speech around position `at`, where the VAD's mean `probability` over 160 ms was this."""

    probability: float
    at: int


class Voicing:
    """One session's."""

    def __init__(self) -> None:
        # The end of each window and its probability, oldest first.
        self._windows: deque[tuple[int, float]] = deque(maxlen=_KEPT)

    def heard(self, end: int, probability: float) -> None:
        """The window that ends at `end` has this probability."""
        self._windows.append((end, probability))

    def best(self, start: int, end: int) -> Voiced | None:
        """The best of positions `start` to `end`, silence around them; None where the Ear has not heard all of it, so that speech may be in
        what is missing."""
        if not self._windows or self._windows[-1][0] < end - _UNJUDGED * WINDOW:
            return None
        inside = [window for window in self._windows if start < window[0] and window[0] - WINDOW < end]
        if not inside:
            return None
        padded = np.pad([probability for _, probability in inside], _RUN // 2)
        means = np.convolve(padded, np.full(_RUN, 1 / _RUN), "valid")  # (windows,)
        best = int(means.argmax())
        return Voiced(float(means[best]), inside[best][0] - WINDOW // 2)
