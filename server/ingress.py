"""A client's audio on its way to the Ear: decoded, counted, and never far ahead of what the engine has heard.

Audio sent faster than real time is not refused and not dropped: beyond the bound the caller of `append` waits, so the socket is not
read (design.md 6, "Two integers of time").
"""

import asyncio
from collections.abc import Callable
from typing import Final

from agent.settings import AudioEncoding, AudioFormat
from streaming.audio import AudioFrame, Encoding, WireDecoder
from streaming.events import SAMPLE_RATE

__all__ = ["Ingress"]

_SLICE_SECONDS: Final = 0.5
"""Decoded in one go: a few milliseconds of the event loop, however long the append."""
_ENCODINGS: Final[dict[AudioEncoding, Encoding]] = {
    AudioEncoding.PCM16: "pcm16",
    AudioEncoding.PCMU: "pcmu",
    AudioEncoding.PCMA: "pcma",
}


class Ingress:
    """One session's input. `feed` gets each frame, contiguous, with the time (1/16000 s) it was decoded."""

    def __init__(self, wire: AudioFormat, max_lead_seconds: float, feed: Callable[[AudioFrame, int], None]) -> None:
        self._feed = feed
        self._max_lead = int(max_lead_seconds * SAMPLE_RATE)
        self._wire = wire
        self._decoder = WireDecoder(_ENCODINGS[wire.encoding], wire.rate)
        # Input position the engine has heard.
        self._heard = 0
        self._progressed = asyncio.Event()

    @property
    def at(self) -> int:
        """The input position reached, in 16 kHz samples."""
        return self._decoder.at

    def heard(self, at: int) -> None:
        """The Ear has heard everything up to `at`."""
        self._heard = at
        self._progressed.set()

    async def append(self, data: bytes, now: Callable[[], int]) -> None:
        """Decode and feed; returns when the session may read on. Bytes may be cut anywhere."""
        bytes_per_sample = 2 if self._wire.encoding is AudioEncoding.PCM16 else 1
        size = int(self._wire.rate * _SLICE_SECONDS) * bytes_per_sample
        for start in range(0, len(data), size):
            self._pass(self._decoder.push(data[start : start + size]), now())
            await asyncio.sleep(0)
            await self._wait_for_room(now)

    def flush(self, now: int) -> None:
        """The client has stopped for the moment: what waits for look-ahead belongs to what it has sent."""
        self._pass(self._decoder.flush(), now)

    def change_format(self, wire: AudioFormat, now: int) -> None:
        """From here on the client sends `wire`."""
        if wire != self._wire:
            self.flush(now)
            self._decoder = WireDecoder(_ENCODINGS[wire.encoding], wire.rate, self._decoder.at)
            self._wire = wire

    def _pass(self, frame: AudioFrame | None, now: int) -> None:
        if frame is not None:
            self._feed(frame, now)

    async def _wait_for_room(self, now: Callable[[], int]) -> None:
        """While the input is further ahead than allowed, both of the engine and of real time: a caller at microphone pace never waits,
        not even for an engine that has died."""
        while (excess := self.at - max(self._heard, now()) - self._max_lead) > 0:
            self._progressed.clear()
            try:
                async with asyncio.timeout(excess / SAMPLE_RATE):
                    await self._progressed.wait()
            except TimeoutError:
                pass
