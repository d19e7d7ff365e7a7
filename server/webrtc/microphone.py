"""The caller's voice out of a peer connection: its packets put in order, decoded, what is lost mended, all of it in its place by the media
clock, and kept for the session.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.webrtc.media_clock import MediaClock
from server.webrtc.opus import RATE
from server.webrtc.opus_stream import Decoder, OpusStream
from server.webrtc.reorder import ReorderBuffer
from streaming.audio import Pcm16, encode_pcm16

__all__ = ["Microphone", "Tally"]

_MAX_WAITING: Final = 2 * RATE
"""Samples that wait for the session: what is said while the call is still being set up, and a slow machine's hiccup."""
_LOOK_AGAIN: Final = 0.1
"""Seconds after which a stream from which nothing comes is looked at. What waits behind a gap then waits for nothing."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Packets of one stream. `lost`: not there in time; of those `late` came afterwards, and `recovered` and `concealed` were heard
    nevertheless, from a copy or as the decoder's guess. `repeated` came twice; `dropped` were no Opus, too early, or found no room."""

    received: int
    lost: int
    late: int
    repeated: int
    recovered: int
    concealed: int
    dropped: int


class Microphone:
    """`take` each packet as it comes, `hear` in the session's task. `clock` gives seconds, monotonic; `on_wait` is told the seconds that
    each packet waited for those before it."""

    def __init__(
        self, clock: Callable[[], float], on_wait: Callable[[float], None] = lambda _: None, decoder: Decoder | None = None
    ) -> None:
        self._clock = clock
        self._on_wait = on_wait
        self.packets: ReorderBuffer[tuple[int, int, bytes]] = ReorderBuffer()
        self.sound = OpusStream(decoder)
        self.stream = MediaClock(RATE)
        self._waiting: deque[Pcm16] = deque()
        self._samples = 0
        self._came = 0.0
        self._ended = False
        self._changed = asyncio.Event()
        # Packets taken, and those that found no room.
        self.taken = 0
        self.dropped = 0

    def take(self, number: int, timestamp: int, payload: bytes) -> None:
        """A packet of RTP, decoded where it is: that is sooner done than handed to a thread."""
        self.taken += 1
        self._came = self._clock()
        self._use(self.packets.push(number, (number, timestamp, payload), self._came))

    def tally(self) -> Tally:
        """Since the beginning."""
        packets, sound, stream = self.packets, self.sound, self.stream
        dropped = self.dropped + sound.damaged + stream.late + stream.early
        return Tally(self.taken, packets.lost, packets.late, packets.repeated, sound.recovered, sound.concealed, dropped)

    async def until_end(self, track: MediaStreamTrack) -> None:
        """Returns when the library's track ends: the client says goodbye, or the connection has gone. No sound comes out of it."""
        try:
            while True:
                await track.recv()
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
            begun = self._clock()
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._changed.wait()
            except TimeoutError:
                if self._clock() - begun < 2 * _LOOK_AGAIN:  # else it was we who did not come to read
                    self.look()
        return encode_pcm16(self.drain())

    def drain(self) -> Pcm16:
        """What waits, shape (n,)."""
        heard = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.int16)
        self._waiting.clear()
        self._samples = 0
        return heard

    def look(self) -> None:
        """Nothing has been heard for a while: what waits behind a gap is used, and silence goes on."""
        now = self._clock()
        if now - self._came >= _LOOK_AGAIN:
            self._use(self.packets.flush(now))
        self._keep(self.stream.idle(now))

    def _use(self, packets: list[tuple[int, int, bytes]]) -> None:
        for wait in self.packets.waits:
            self._on_wait(wait)
        for number, timestamp, payload in packets:
            if self._samples >= _MAX_WAITING:
                self.dropped += 1  # the media clock will find it missing
                continue
            for at, pcm in self.sound.push(number, timestamp, payload):
                self._keep(self.stream.push(at, pcm, self._clock()))

    def _keep(self, pcm: Pcm16) -> None:
        if len(pcm):
            self._waiting.append(pcm)
            self._samples += len(pcm)
            self._changed.set()
