"""What the caller's loudspeaker plays of ours, and when, as far as playout knows: the reference of the echo. Pure.

At 16 kHz on session time. What a client has ahead of time stands in the future, and is taken back where a reply is cut.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from streaming.audio import Pcm16, Samples, StreamResampler, to_samples
from streaming.events import SAMPLE_RATE

__all__ = ["Loudspeaker"]

_SNAP: Final = SAMPLE_RATE * 15 // 1_000
"""A frame that leaves so much sooner or later than the one before it ends is played right after it: a timer is late, a stream is not."""
_AFTER_CUT: Final = SAMPLE_RATE // 5
"""What a client that owns playback may still play of a reply that was cut, until it has been told and has stopped."""
_KEPT: Final = 2 * SAMPLE_RATE
"""Behind what was last asked for: an estimate of time may go back by as much."""
_MOST: Final = 32 * SAMPLE_RATE
"""Sound held at most, 2 MB: three times what any client is sent ahead of time."""


@dataclass(slots=True)
class _Piece:
    response_id: str
    at: int
    pcm: Samples

    @property
    def end(self) -> int:
        return self.at + len(self.pcm)


class Loudspeaker:
    """One session's. Times in 1/16000 s, so that a sample is a tick."""

    def __init__(self) -> None:
        self._pieces: deque[_Piece] = deque()
        self._held = 0
        # The stream that goes on: its rate, its resampler, where the resampler's next sample stands, and where the next sound does.
        self._rate = SAMPLE_RATE
        self._resampler = StreamResampler(SAMPLE_RATE, SAMPLE_RATE)
        self._at = 0
        self._due = -_MOST
        # Samples of the stream so far and where it began: a sum of rounded lengths would drift.
        self._began = 0
        self._taken = 0

    def play(self, response_id: str, at: int, pcm: Pcm16, rate: int) -> None:
        """`pcm`, of `rate` samples a second, begins to sound at `at`."""
        if rate != self._rate or abs(at - self._due) > _SNAP:
            self._rate, self._resampler = rate, StreamResampler(rate, SAMPLE_RATE)
            self._began = self._at = at
            self._taken = 0
        samples = self._resampler.push(to_samples(pcm))
        self._taken += len(pcm)
        self._due = self._began + self._taken * SAMPLE_RATE // rate
        if len(samples):
            self._pieces.append(_Piece(response_id, self._at, samples))
            self._at += len(samples)
            self._held += len(samples)
        while self._held > _MOST:
            self._held -= len(self._pieces.popleft().pcm)

    def cut(self, response_id: str, now: int) -> None:
        """The client drops what it has not played of a response."""
        end = now + _AFTER_CUT
        for piece in self._pieces:
            if piece.response_id == response_id and piece.end > end:
                piece.pcm = piece.pcm[: max(0, end - piece.at)]
        self._held = sum(len(piece.pcm) for piece in self._pieces)
        self._due = -_MOST  # what comes next is another sound

    def sounds(self, start: int, end: int) -> bool:
        """Whether anything of ours sounds between the two times."""
        last = next((piece for piece in reversed(self._pieces) if piece.at < end and len(piece.pcm)), None)
        return last is not None and start < last.end

    def between(self, start: int, count: int) -> Samples:
        """The `count` samples from `start` on, silence where there is nothing."""
        while self._pieces and self._pieces[0].end < start - _KEPT:
            self._held -= len(self._pieces.popleft().pcm)
        sound = np.zeros(count, np.float32)
        for piece in reversed(self._pieces):
            if piece.end < start - _AFTER_CUT:
                break  # older ones have ended: only what was cut overlaps with what came next
            first, last = max(start, piece.at), min(start + count, piece.end)
            if first < last:
                sound[first - start : last - start] += piece.pcm[first - piece.at : last - piece.at]
        return sound
