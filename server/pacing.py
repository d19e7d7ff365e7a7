"""Frames out at a steady pace, for transports whose playback the server owns: WebRTC, later AudioSocket (design.md section 6, "Who owns
playback").

`FrameClock` is the arithmetic; time is an argument. `Metronome` is the same beside an event loop. Deadlines are absolute, so that lateness
does not add up, and after a stall the pace is taken up again rather than the past made good: a receiver has played silence for what it did
not get, and what came in one lump would only fill its buffer.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

__all__ = ["FRAME_SECONDS", "FrameClock", "Metronome"]

FRAME_SECONDS: Final = 0.02
"""One RTP packet of speech."""

_GRAIN: Final = 0.001
"""Timers of an event loop count milliseconds: a frame due within one is due, or the loop would spin until it is."""


class FrameClock:
    """When each frame is due: `start`, and every `period` seconds after."""

    def __init__(self, start: float, period: float = FRAME_SECONDS) -> None:
        self._period = period
        # The deadline of a frame, and how many came after it: a sum would drift.
        self._origin = start
        self._count = 0
        # Frames that were never sent because their time had passed.
        self.skipped = 0

    @property
    def deadline(self) -> float:
        """When the next frame is due."""
        return self._origin + self._count * self._period

    def due(self, now: float) -> int:
        """How many frames to send now: none, the one that is due, or with it one that was missed."""
        if now < self.deadline - _GRAIN:
            return 0
        missed = int(max(0.0, now - self.deadline) / self._period)
        if missed <= 1:
            self._count += 1 + missed
            return 1 + missed
        self.skipped += missed - 1
        self._origin, self._count = now, 1
        return 2


class Metronome:
    """Waits for the frames of one stream. `clock` gives seconds; an event loop's own may be coarser than a millisecond."""

    def __init__(self, period: float = FRAME_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.frames = FrameClock(clock(), period)

    async def beat(self) -> int:
        """Return when a frame is due, with how many to send: one, or two to catch up."""
        while not (count := self.frames.due(self._clock())):  # noqa: ASYNC110 - what is awaited is a time
            await asyncio.sleep(self.frames.deadline - self._clock())
        return count
