"""The caller's voice out of a peer connection: read without pause, put in its place by the media clock, and kept for the session."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from server.webrtc.media_clock import MediaClock
from server.webrtc.speaker import RATE
from streaming.audio import Pcm16, encode_pcm16

__all__ = ["Microphone"]

_MAX_WAITING: Final = 2 * RATE
"""Samples that wait for the session: what is said while the call is still being set up, and a slow machine's hiccup."""
_LOOK_AGAIN: Final = 0.1
"""Seconds after which a stream from which nothing comes is looked at."""


class Microphone:
    """`read` in a task of its own, `hear` in the session's. `clock` gives seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.stream = MediaClock(RATE)
        self._waiting: deque[Pcm16] = deque()
        self._samples = 0
        self._ended = False
        self._changed = asyncio.Event()
        # Frames that found no room.
        self.dropped = 0

    async def read(self, track: MediaStreamTrack) -> None:
        """Until the track ends. The library keeps what nobody reads, without bound."""
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, AudioFrame):
                    self._take(frame)
        except MediaStreamError:
            self.end()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._changed.set()

    async def hear(self) -> bytes | None:
        """The next sound, PCM16 at 48 kHz, without gaps; None when the stream has ended."""
        while not self._waiting:
            if self._ended:
                return None
            self._changed.clear()
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._changed.wait()
            except TimeoutError:
                self._keep(self.stream.idle(self._clock()))
        heard = np.concatenate(self._waiting)
        self._waiting.clear()
        self._samples = 0
        return encode_pcm16(heard)

    def _take(self, frame: AudioFrame) -> None:
        if self._samples >= _MAX_WAITING or frame.pts is None:
            self.dropped += 1  # the media clock will find it missing
            return
        interleaved = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
        mono: Pcm16 = interleaved.mean(axis=1).astype(np.int16)
        self._keep(self.stream.push(frame.pts, mono, self._clock()))

    def _keep(self, pcm: Pcm16) -> None:
        if len(pcm):
            self._waiting.append(pcm)
            self._samples += len(pcm)
            self._changed.set()
