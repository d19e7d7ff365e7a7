"""Our voice on its way into a peer connection: a track that gives each frame as soon as the session's metronome has beaten it."""

import asyncio
from collections import deque
from fractions import Fraction
from typing import Final

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from server.pacing import FRAME_SECONDS

__all__ = ["RATE", "SpeakerTrack"]

RATE: Final = 48_000
"""Opus's own rate: nothing is resampled on the way."""
_SAMPLES: Final = round(RATE * FRAME_SECONDS)
_WAITING: Final = 2
"""Frames between metronome and encoder: one, and one that was caught up. What waits longer is too old to be heard."""


class SpeakerTrack(MediaStreamTrack):
    """Mono 48 kHz. The library asks for frames; until it is connected it does not, and they are thrown away."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames: deque[bytes] = deque(maxlen=_WAITING)
        self._filled = asyncio.Event()
        # Samples given.
        self._at = 0

    def play(self, pcm: bytes) -> None:
        """The next 20 ms: PCM16, filled up with silence."""
        self._frames.append(pcm.ljust(2 * _SAMPLES, b"\0"))
        self._filled.set()

    def stop(self) -> None:
        """Also wakes whoever waits for a frame."""
        super().stop()
        self._filled.set()

    async def recv(self) -> AudioFrame:
        """The next frame, when it is due. Raises MediaStreamError when the track has been stopped."""
        while not self._frames:
            if self.readyState != "live":
                raise MediaStreamError
            self._filled.clear()
            await self._filled.wait()
        frame = AudioFrame(format="s16", layout="mono", samples=_SAMPLES)
        frame.planes[0].update(self._frames.popleft())
        frame.sample_rate = RATE
        frame.pts = self._at
        frame.time_base = Fraction(1, RATE)
        self._at += _SAMPLES
        return frame
