"""The newest input of a session, kept so that it can be heard again: by a turn that begins late, by an engine that replaces a dead one."""

from collections import deque
from typing import Final

import numpy as np

from streaming.audio import AudioFrame, Samples
from streaming.events import SAMPLE_RATE

__all__ = ["InputRing"]

_RING_SECONDS: Final = 30
"""Input kept per session: the longest manual commit that can be transcribed without a started turn, and what rebuilds a session."""


class InputRing:
    """The last 30 s of a session's input, addressed by position."""

    def __init__(self, seconds: int = _RING_SECONDS) -> None:
        self._limit = seconds * SAMPLE_RATE
        self._frames: deque[AudioFrame] = deque()
        self._held = 0

    @property
    def end(self) -> int:
        """The position after the last sample; 0 before the first frame."""
        return self._frames[-1].at + len(self._frames[-1].pcm) if self._frames else 0

    def append(self, frame: AudioFrame) -> None:
        """Keep a frame; the oldest fall out beyond the limit."""
        self._frames.append(frame)
        self._held += len(frame.pcm)
        while self._held - len(self._frames[0].pcm) >= self._limit:
            self._held -= len(self._frames.popleft().pcm)

    def between(self, start: int, end: int) -> Samples:
        """Samples `start` to `end`, shape (n,); shorter where the ring no longer, or not yet, holds them."""
        parts = [f.pcm[max(0, start - f.at) : max(0, end - f.at)] for f in self._frames if f.at < end and f.at + len(f.pcm) > start]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
