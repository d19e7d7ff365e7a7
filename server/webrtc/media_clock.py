"""One gapless stream out of frames that carry their place in the sender's clock (design.md 6, "Two integers of time"). Pure.

What is missing becomes silence that begins with a short fade of what came before, so that a lost packet neither clicks nor moves what
follows. Where nothing comes at all (a sleeping page, a network that is gone) silence goes on at the pace of time, so that a turn can end;
what then comes late finds its place taken and is dropped, unless the sender's clock has stood still meanwhile.
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
_IDLE_SECONDS: Final = 0.5
"""Nothing for so long is no jitter: what a network holds up for less is heard whole, in its place."""
_PROOF_SECONDS: Final = 0.1
"""After a pause, frames that come late for so long, and no faster than time passes, are of a clock that stood still. What a network
has held up comes at once."""
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
        # Where sound ended that silence has been given for time since, in which nothing came: the sender may count that or not. Of the
        # first frame that was late since: its position and its time.
        self._idle_from: int | None = None
        self._late_from: tuple[int, float] | None = None
        # Samples filled for what was missing; frames dropped since they came too late, or too early.
        self.filled = 0
        self.late = 0
        self.early = 0

    def push(self, at: int, pcm: Pcm16, now: float) -> Pcm16:
        """A frame whose first sample stands at `at`: the stream's next samples, shape (n,); none where it is dropped."""
        if self._next is None:
            self._next, self._began = at, now
        self._came = now
        if self._is_another_clock(at) or self._stood_still(at, now):
            self._next = at
        gap = max(0, at - self._next)
        new = pcm[max(0, self._next - at) :]  # the beginning's place may be taken
        if not len(new):
            self.late += 1
            return new
        if self._given + gap + len(new) > (now - self._began + _MAX_LEAD_SECONDS) * self._rate:
            self.early += 1
            return np.zeros(0, np.int16)
        self._idle_from, self._late_from = None, None
        self._next = at + len(pcm)
        self.filled += gap
        self._given += gap + len(new)
        given = np.concatenate((self._fade_out(gap), new)) if gap else new
        self._last = new
        return given

    def idle(self, now: float) -> Pcm16:
        """Nothing has come: silence towards what time says, shape (n,); none where that is within jitter."""
        if self._next is None or now - self._came < _IDLE_SECONDS:
            return np.zeros(0, np.int16)
        missing = min(round((now - self._began - _IDLE_SECONDS) * self._rate) - self._given, round(_IDLE_STEP_SECONDS * self._rate))
        if missing <= 0:
            return np.zeros(0, np.int16)
        given = self._fade_out(missing)
        if self._idle_from is None:
            self._idle_from = self._next
        self._last = given
        self._next += missing
        self._given += missing
        self.filled += missing
        return given

    def _is_another_clock(self, at: int) -> bool:
        """Whether `at` is too far away to be of the same clock. What a network has held up since sound ended is not."""
        assert self._next is not None
        held_up = self._idle_from is not None and self._idle_from <= at < self._next
        return abs(at - self._next) > _MAX_GAP_SECONDS * self._rate and not held_up

    def _stood_still(self, at: int, now: float) -> bool:
        """Whether frames that come late after a pause go on to be late: no faster than time passes."""
        assert self._next is not None
        if self._idle_from is None or at >= self._next:
            return False
        if self._late_from is None:
            self._late_from = at, now
        first, since = self._late_from
        waited = now - since
        return waited >= _PROOF_SECONDS and (at - first) / self._rate < waited + _PROOF_SECONDS

    def _fade_out(self, count: int) -> Pcm16:
        """`count` samples for what is missing."""
        silence = np.zeros(count, np.int16)
        tail = self._last[: -1 - int(self._rate * _FADE_SECONDS) : -1][:count]
        silence[: len(tail)] = tail * np.linspace(1.0, 0.0, len(tail), dtype=np.float32)
        return silence
