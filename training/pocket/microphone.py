"""What a microphone makes of speech: another pace and pitch, a room, a noise behind it, a telephone, lost packets, some level, and hiss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from streaming.audio import Samples, decode_ulaw, encode_ulaw, resample_clause
from streaming.events import SAMPLE_RATE

__all__ = ["Microphone"]

_MS: Final = SAMPLE_RATE // 1_000
_TELEPHONE: Final = 8_000
_PACKET: Final = 20 * _MS
_QUIET: Final = 1e-4
_LEVEL_DB: Final = (-32.0, -14.0)
_NOISE_DB: Final = (3.0, 30.0)
"""How far a noise lies below the speech."""
_HISS_DB: Final = (-80.0, -65.0)
_SPEEDS: Final = (0.82, 1.2)
_ROOM_SECONDS: Final = (0.15, 0.6)
"""In which the sound of a room falls by 60 dB."""
_DIRECT_DB: Final = (2.0, 15.0)
"""How far the room's sound lies below the direct one."""
_LOST: Final = (0.01, 0.06)
"""Shares of packets."""
_BEFORE_MS: Final = (50, 500)
_BEHIND_MS: Final = (50, 400)


class Microphone:
    """`shares` of recordings by what happens to them: speed, room, noise, telephone, loss. `noises` read one each."""

    def __init__(self, shares: Mapping[str, float], noises: Sequence[Callable[[], Samples]]) -> None:
        self._shares = dict(shares)
        self._noises = noises

    def hear(self, words: Samples, rng: np.random.Generator) -> Samples:
        """Speech (n,) as it comes in, float32 (m,) at 16 kHz, with some quiet around it."""
        if self._falls("speed", rng):
            words = resample_clause(words, round(SAMPLE_RATE * rng.uniform(*_SPEEDS)), SAMPLE_RATE)
        if self._falls("room", rng):
            words = _in_a_room(words, rng)
        level = _linear(rng.uniform(*_LEVEL_DB))
        before, behind = (int(rng.integers(*span)) * _MS for span in (_BEFORE_MS, _BEHIND_MS))
        pcm = np.pad(_scaled(words, level), (before, behind))
        if self._noises and self._falls("noise", rng):
            pcm = pcm + self._noise(len(pcm), level * _linear(-rng.uniform(*_NOISE_DB)), rng)
        return self._carried(pcm, rng)

    def nothing(self, seconds: float, rng: np.random.Generator) -> Samples:
        """A noise alone."""
        return self._carried(self._noise(int(seconds * SAMPLE_RATE), _linear(rng.uniform(*_LEVEL_DB)), rng), rng)

    def _carried(self, pcm: Samples, rng: np.random.Generator) -> Samples:
        if self._falls("telephone", rng):
            narrow = np.clip(resample_clause(pcm, SAMPLE_RATE, _TELEPHONE), -1, 1)
            coded = decode_ulaw(encode_ulaw(np.rint(narrow * 32_767).astype(np.int16)))
            pcm = resample_clause(coded.astype(np.float32) / np.float32(32_768), _TELEPHONE, SAMPLE_RATE)
        if self._falls("loss", rng):
            pcm = _with_losses(pcm, rng)
        hiss = rng.standard_normal(len(pcm)) * _linear(rng.uniform(*_HISS_DB))
        return np.clip(pcm + hiss, -1, 1).astype(np.float32)

    def _falls(self, what: str, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self._shares[what])

    def _noise(self, count: int, level: float, rng: np.random.Generator) -> Samples:
        noise = np.resize(self._noises[rng.integers(len(self._noises))](), count)
        return _scaled(np.roll(noise, int(rng.integers(count))), level)


def _in_a_room(words: Samples, rng: np.random.Generator) -> Samples:
    """With the tail of a room whose sound decays evenly: noise under an exponential (Moorer 1979)."""
    seconds = rng.uniform(*_ROOM_SECONDS)
    count = int(seconds * SAMPLE_RATE)
    tail = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    tail *= _linear(-rng.uniform(*_DIRECT_DB)) / np.sqrt(np.sum(tail**2))
    size = len(words) + count
    wet = np.fft.irfft(np.fft.rfft(words, size) * np.fft.rfft(tail, size), size)[: len(words)]
    return (words + wet).astype(np.float32)


def _with_losses(pcm: Samples, rng: np.random.Generator) -> Samples:
    """Packets of 20 ms that did not come, one to three in a row, are silence."""
    pcm = pcm.copy()
    packets = len(pcm) // _PACKET
    for start in np.flatnonzero(rng.random(packets) < rng.uniform(*_LOST) / 2):
        pcm[start * _PACKET : (start + int(rng.integers(1, 4))) * _PACKET] = 0
    return pcm


def _scaled(pcm: Samples, level: float) -> Samples:
    """At a root mean square of `level`; what is nearly silent stays so."""
    loud = float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))) if len(pcm) else 0.0
    return pcm * np.float32(level / loud) if loud > _QUIET else pcm


def _linear(decibels: float) -> float:
    return float(10 ** (decibels / 20))
