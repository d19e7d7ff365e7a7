"""Our own voice taken out of what a microphone hears, with WebRTC's echo canceller (AEC3) as the `livekit` package brings it.

The filter only: what was playing, and when, is told with each frame. AEC3 finds the delay of the echo by itself, up to half a second, and
follows a room that changes.
"""

import importlib.util
from typing import Final, Protocol

import numpy as np

from streaming.audio import Samples, to_pcm16, to_samples
from streaming.events import SAMPLE_RATE

__all__ = ["FRAME", "EchoCanceller", "WebRtcEchoCanceller", "available", "load"]

FRAME: Final = SAMPLE_RATE // 100
"""Samples that are taken at a time: WebRTC's 10 ms."""


class EchoCanceller(Protocol):
    """One stream's filter."""

    @property
    def delay(self) -> int:
        """Samples by which what it gives is behind what it took."""

    def push(self, heard: Samples, played: Samples) -> Samples:
        """Take FRAME samples of the microphone and the FRAME that were played meanwhile; gives FRAME samples, `delay` late. Raises
        RuntimeError where the library fails."""


def available() -> bool:
    """Whether the library is installed (extra `echo`)."""
    try:
        return importlib.util.find_spec("livekit.rtc") is not None
    except ModuleNotFoundError:  # not even the parent, which its other packages share
        return False


def load() -> None:
    """Load the library, which takes half a second and 30 MB, so that no call waits for it."""
    WebRtcEchoCanceller()


class WebRtcEchoCanceller:
    """AEC3, without WebRTC's noise suppression, gain control and high-pass filter: the recogniser hears better without."""

    delay: Final = 128
    """Two of AEC3's blocks of 64 samples: one to fill, one for the overlap of its windows (measured; `tests/streaming` holds it)."""

    def __init__(self) -> None:
        from livekit import rtc  # an extra

        self._frame = rtc.AudioFrame
        self._module = rtc.AudioProcessingModule(echo_cancellation=True)
        self._module.set_stream_delay_ms(0)  # a hint that AEC3 does not need, but WebRTC's module does

    def push(self, heard: Samples, played: Samples) -> Samples:
        """See EchoCanceller."""
        self._module.process_reverse_stream(self._frame(to_pcm16(played).tobytes(), SAMPLE_RATE, 1, FRAME))
        frame = self._frame(to_pcm16(heard).tobytes(), SAMPLE_RATE, 1, FRAME)
        self._module.process_stream(frame)
        return to_samples(np.frombuffer(frame.data, np.int16))
