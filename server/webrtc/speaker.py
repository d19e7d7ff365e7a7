"""Our voice on its way into a peer connection: a track that gives each frame, coded, as soon as the session's metronome has beaten it.

The library's own coder is stereo at 96 kbit/s and sits in a thread, for a third of a millisecond. One voice is mono, and coded where it is.
"""

import asyncio
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioCodecContext, AudioFrame, AudioStream, CodecContext

from server.pacing import FRAME_SECONDS

if TYPE_CHECKING:
    from av.packet import Packet

__all__ = ["RATE", "SpeakerTrack"]

RATE: Final = 48_000
"""Opus's own rate: nothing is resampled on the way."""
_SAMPLES: Final = round(RATE * FRAME_SECONDS)
_TIME_BASE: Final = Fraction(1, RATE)
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
        self._coder: AudioCodecContext | None = None
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

    async def recv(self) -> "Packet[AudioStream]":
        """The next frame, when it is due. Raises MediaStreamError when the track has been stopped."""
        while not self._frames:
            if self.readyState != "live":
                raise MediaStreamError
            self._filled.clear()
            await self._filled.wait()
        return self._code(self._frames.popleft())

    def _code(self, pcm: bytes) -> "Packet[AudioStream]":
        self._coder = self._coder or _new_coder()
        frame = AudioFrame(format="s16", layout="mono", samples=_SAMPLES)
        frame.planes[0].update(pcm)
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, _TIME_BASE
        (packet,) = self._coder.encode(frame)  # Opus codes a frame of 20 ms as soon as it has it
        packet.pts, packet.time_base = self._at, _TIME_BASE
        self._at += _SAMPLES
        return packet


def _new_coder() -> AudioCodecContext:
    coder = CodecContext.create("libopus", "w")
    assert isinstance(coder, AudioCodecContext)
    coder.bit_rate, coder.sample_rate, coder.time_base = _BIT_RATE, RATE, _TIME_BASE
    coder.format, coder.layout = "s16", "mono"
    coder.options = {"application": "voip"}
    return coder
