"""One gapless stream out of frames that carry their place in the sender's clock (design.md 6, "Two integers of time"). Pure.

What is missing becomes silence that begins with a short fade of what came before, so that a lost packet neither clicks nor moves what
follows. Where nothing comes at all (a sleeping page, a network that is gone) silence goes on at the pace of time, so that a turn can end.
"""

from typing import Final

import numpy as np

from streaming.audio import Pcm16

__all__ = ["MediaClock"]

_FADE_SECONDS: Final = 0.01
"""Of what came last, played backwards into a gap and faded out: no step at its beginning."""
_MAX_GAP_SECONDS: Final = 10.0
"""A longer jump of the sender's clock is a new clock."""
_MAX_LEAD_SECONDS: Final = 1.0
"""Sound further ahead of real time than this is dropped: a microphone is not."""
_IDLE_SECONDS: Final = 0.2
"""Nothing for so long is no jitter."""
_IDLE_STEP_SECONDS: Final = 0.1
"""Silence given at once: after a stall of our own the packets that came meanwhile are still unread, and nothing was silent."""


class MediaClock:
    """One caller's sound, mono. Positions in samples of `rate`, times in seconds of one monotonic clock."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        # The position of the next sample in the sender's clock.
        self._next: int | None = None
        # Samples given, and the time of the first and of the last frame.
        self._given = 0
        self._began = 0.0
        self._came = 0.0
        self._last: Pcm16 = np.zeros(0, np.int16)
        # Whether silence has been given for time in which nothing came: the sender may count it or not.
        self._idled = False
        # Samples filled for what was missing; frames dropped since they came too late, or too early.
        self.filled = 0
        self.late = 0
        self.early = 0

    def push(self, at: int, pcm: Pcm16, now: float) -> Pcm16:
        """A frame whose first sample stands at `at`: the stream's next samples, shape (n,); none where it is dropped."""
        if self._next is None:
            self._next, self._began = at, now
        gap = at - self._next
        if (gap < 0 and self._idled) or abs(gap) > _MAX_GAP_SECONDS * self._rate:
            gap = 0  # the sender's clock stood still, or is another
        self._idled = False
        self._came = now
        if gap < 0:
            self.late += 1
            return np.zeros(0, np.int16)
        if self._given + gap + len(pcm) > (now - self._began + _MAX_LEAD_SECONDS) * self._rate:
            self.early += 1
            return np.zeros(0, np.int16)
        self._next = at + len(pcm)
        self.filled += gap
        self._given += gap + len(pcm)
        given = np.concatenate((self._fade_out(gap), pcm)) if gap else pcm
        self._last = pcm
        return given

    def idle(self, now: float) -> Pcm16:
        """Nothing has come: silence towards what time says, shape (n,); none where that is within jitter."""
        if self._next is None or now - self._came < _IDLE_SECONDS:
            return np.zeros(0, np.int16)
        missing = min(round((now - self._began - _IDLE_SECONDS) * self._rate) - self._given, round(_IDLE_STEP_SECONDS * self._rate))
        if missing <= 0:
            return np.zeros(0, np.int16)
        given = self._fade_out(missing)
        self._idled = True
        self._last = given
        self._next += missing
        self._given += missing
        self.filled += missing
        return given

    def _fade_out(self, count: int) -> Pcm16:
        """`count` samples for what is missing."""
        silence = np.zeros(count, np.int16)
        tail = self._last[: -1 - int(self._rate * _FADE_SECONDS) : -1][:count]
        silence[: len(tail)] = tail * np.linspace(1.0, 0.0, len(tail), dtype=np.float32)
        return silence
