"""Our voice on its way into a peer connection: a track that gives each frame, coded, as soon as the session's metronome has beaten it."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.webrtc.opus_coder import FRAME, OpusCoder

if TYPE_CHECKING:
    from av import AudioStream
    from av.packet import Packet

__all__ = ["SpeakerTrack"]

_BIT_RATE: Final = 48_000
"""Of one voice at full band; Opus's silence has 3 bytes a frame."""
_WAITING: Final = 2
"""Frames between metronome and network: one, and one that was caught up. What waits longer is too old to be heard."""


class SpeakerTrack(MediaStreamTrack):
    """Opus, mono. The library asks for frames; until it is connected it does not, and they are thrown away."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames: deque[bytes] = deque(maxlen=_WAITING)
        self._filled = asyncio.Event()
        # Made with the first frame: a call that is never connected needs none.
        self._coder: OpusCoder | None = None

    def play(self, pcm: bytes) -> None:
        """The next 20 ms: PCM16, filled up with silence."""
        self._frames.append(pcm.ljust(2 * FRAME, b"\0"))
        self._filled.set()

    def stop(self) -> None:
        """Also wakes whoever waits for a frame."""
        super().stop()
        self._filled.set()

    async def recv(self) -> "Packet[AudioStream]":
        """The next frame, when it is due. Raises MediaStreamError when the track has been stopped."""
        while not self._frames:
            if self.readyState != "live":
                raise MediaStreamError
            self._filled.clear()
            await self._filled.wait()
        self._coder = self._coder or OpusCoder(_BIT_RATE)
        return self._coder.code(self._frames.popleft())
