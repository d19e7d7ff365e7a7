"""The caller's turn inside the engine: input kept for a while, and one transcript per turn.

What is pushed into a transcriber follows the Ear's events, not the arrival of frames, so that any split of the same audio gives the
same passes at the same positions: audio up to each `Listened` while there is speech, nothing in a pause, everything when it goes on.
"""

from collections import deque
from collections.abc import Generator
from typing import Final

import numpy as np

from streaming.audio import AudioFrame, Samples
from streaming.events import SAMPLE_RATE
from streaming.transcriber import Hypothesis, Transcriber, Transcript

__all__ = ["InputRing", "Turn"]

_RING_SECONDS: Final = 30
"""Input kept per session: the longest manual commit that can be transcribed without a started turn, and what rebuilds a session."""


class InputRing:
    """The last 30 s of a session's input, addressed by position."""

    def __init__(self, seconds: int = _RING_SECONDS) -> None:
        self._limit = seconds * SAMPLE_RATE
        self._frames: deque[AudioFrame] = deque()
        self._held = 0

    def append(self, frame: AudioFrame) -> None:
        """Keep a frame; the oldest fall out beyond the limit."""
        self._frames.append(frame)
        self._held += len(frame.pcm)
        while self._held - len(self._frames[0].pcm) >= self._limit:
            self._held -= len(self._frames.popleft().pcm)

    def between(self, start: int, end: int) -> Samples:
        """Samples `start` to `end`, shape (n,); shorter where the ring no longer, or not yet, holds them."""
        parts = [f.pcm[max(0, start - f.at) : max(0, end - f.at)] for f in self._frames if f.at < end and f.at + len(f.pcm) > start]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class Turn:
    """One turn of the caller on its way from sound to words."""

    def __init__(self, item_id: str, start: int, transcriber: Transcriber) -> None:
        self.item_id = item_id
        self.start = start
        # Settled text, which only grows: what may be prefilled while the caller goes on.
        self.settled = ""
        # The pass under way, if there is one: a transcriber makes one at a time.
        self.work: Generator[None, None, None] | None = None
        self._transcriber = transcriber
        # Input up to here has been pushed into the transcriber.
        self._fed = start
        # In a pause nothing is pushed: what was said so far is transcribed as if it were all.
        self._paused = False
        # Sound has been pushed that no pass has heard.
        self._unheard = False
        self._committed = False

    @property
    def due(self) -> bool:
        """Whether a pass is worth making: at enough new sound while the caller speaks, at any in a pause."""
        return self._unheard and (self._paused or self._transcriber.due())

    @property
    def language(self) -> str:
        """The language it is transcribed in."""
        return self._transcriber.language

    @property
    def paused(self) -> bool:
        """Whether the caller has paused: the turn may end here."""
        return self._paused

    def listen(self, ring: InputRing, until: int) -> None:
        """The Ear has heard `until`: take that much of the ring, unless this is a pause."""
        if not self._paused and not self._committed:
            self._push(ring, until)

    def pause(self, at: int) -> None:
        """Speech stopped at position `at`."""
        self._paused = True
        self._transcriber.mark_pause(max(0, at - self.start))

    def resume(self, ring: InputRing, until: int) -> None:
        """Speech goes on: what the pause held back is sound of the turn after all."""
        self._paused = False
        self._push(ring, until)

    def commit(self, ring: InputRing, end: int) -> None:
        """The turn ends at `end`; only `conclude` is left."""
        if not self._paused:
            self._push(ring, end)
        self._committed = True

    def hear(self) -> Generator[None, None, Hypothesis]:
        """One pass over the turn so far, in pieces of some tens of milliseconds."""
        self._unheard = False
        hypothesis = yield from self._transcriber.hypothesise()
        self.settled = hypothesis.settled
        return hypothesis

    def conclude(self) -> Generator[None, None, Transcript]:
        """The final pass, in pieces; costs nothing where the last one heard everything."""
        return (yield from self._transcriber.finish())

    def _push(self, ring: InputRing, until: int) -> None:
        pcm = ring.between(self._fed, until)
        self._fed = max(self._fed, until)
        if len(pcm):
            self._transcriber.push(pcm)
            self._unheard = True
