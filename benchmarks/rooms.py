"""The way from a loudspeaker to a microphone in the same room, in virtual time: a real room's response, a delay, a level."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE

__all__ = ["EchoPath", "Speaker", "room_response"]

_LONGEST: Final = 4 * SAMPLE_RATE // 10
"""Of a room's response, what is kept: 400 ms."""
_MS: Final = SAMPLE_RATE // 1_000


def room_response(room: Samples) -> Samples:
    """A response (n,) from its direct sound on, 400 ms at most, of unit energy."""
    direct = room[int(np.argmax(np.abs(room))) :][:_LONGEST]
    return (direct / np.sqrt(np.sum(np.square(direct, dtype=np.float64)))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class EchoPath:
    """`level_db` is the echo's level against what is played; `delay_ms` is what buffers, network and air take. `jump_ms` is added to it
    halfway through the call. `drift_ppm`: the microphone's clock runs faster than ours by so much. `drive` above 0: the loudspeaker is
    driven until it clips, the more the greater."""

    level_db: float
    delay_ms: int
    jump_ms: int = 0
    drift_ppm: float = 0.0
    drive: float = 0.0


class Speaker:
    """What is played, and what of it is heard. Positions in samples of 16 kHz of the call, which lasts `seconds` at most."""

    def __init__(self, path: EchoPath, room: Samples, seconds: float) -> None:
        self._path = path
        self._room = room
        self._jumps_at = int(seconds / 2 * SAMPLE_RATE)
        self._played: Samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
        self._gain = np.float32(10 ** (path.level_db / 20))
        self._size = 0
        self._spectrum = np.zeros(0, np.complex128)

    def play(self, at: int, pcm: Samples) -> None:
        """`pcm` sounds from `at` on, full scale 1.0."""
        end = min(len(self._played), at + len(pcm))
        if at < end:
            self._played[at:end] = pcm[: end - at]

    def stop(self, at: int) -> None:
        """Nothing sounds from `at` on."""
        self._played[at:] = 0.0

    def echo(self, at: int, count: int) -> Samples:
        """What the microphone hears of it in the `count` samples from `at` on."""
        delay = (self._path.delay_ms + (self._path.jump_ms if at >= self._jumps_at else 0)) * _MS
        length = len(self._room) - 1 + count
        source = self._source(at - delay - (len(self._room) - 1), length)
        if not source.any():
            return np.zeros(count, np.float32)
        if length != self._size:
            self._size, self._spectrum = length, np.fft.rfft(self._room, _fast(2 * length))
        heard = np.fft.irfft(np.fft.rfft(source, _fast(2 * length)) * self._spectrum, _fast(2 * length))
        return heard[len(self._room) - 1 : length].astype(np.float32) * self._gain

    def _source(self, start: int, count: int) -> Samples:
        """What was played from `start` on, as the loudspeaker gives it and the microphone's clock counts it."""
        drifted = start + start * self._path.drift_ppm * 1e-6
        first = int(np.floor(drifted))
        taken = np.zeros(count + 1, np.float32)
        low, high = max(0, first), min(len(self._played), first + count + 1)
        if low < high:
            taken[low - first : high - first] = self._played[low:high]
        part = np.float32(drifted - first)
        sound: Samples = taken[:-1] * (1 - part) + taken[1:] * part
        drive = self._path.drive
        return np.tanh(sound * np.float32(drive)) / np.float32(np.tanh(drive)) if drive else sound


def _fast(length: int) -> int:
    return 1 << (length - 1).bit_length()
