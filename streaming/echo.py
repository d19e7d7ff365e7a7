"""Whether what the microphone hears is our own voice, come back by way of the caller's loudspeaker.

Not an echo canceller: browsers and telephones have one, and this is about what it leaves. It compares how the energy of both moves, in
bands, over the last two seconds: an echo follows what we play at one delay, and is explained by it; a person over it is not. Choices of
bands and bounds are from recordings mixed with real room responses (`benchmarks/turn_taking.py`, kind echo).
"""

from functools import cache
from typing import Final

import numpy as np

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE
from streaming.features import HOP, mel_filters
from streaming.features import WINDOW as FRAME

__all__ = ["ECHO_SPAN", "LATEST", "echo_probability"]

ECHO_SPAN: Final = 2 * SAMPLE_RATE
"""How much of the microphone is compared: enough for the ups and downs of a sentence."""

LATEST: Final = 6 * SAMPLE_RATE // 10
"""The longest way from where we believe playback to be to the microphone: 600 ms of buffers, network and air. As much again is allowed for
in the other direction where the estimate is late, and costs nothing."""

_BANDS: Final = 20
_FLOOR: Final = 1e-7
"""Power below which a band holds nothing: 16-bit rounding noise."""

_ALIKE: Final = 0.5
_ALIKE_BY_CHANCE: Final = 5.0
_ALIKE_BEFORE: Final = 0.3
"""Correlation of the band energies at the best delay that makes an echo: the first over two seconds, where 9 of 10 echoes 10 to 30 dB
down are above and 95 of 100 other voices below 0.33. Over fewer frames more is owed to chance, the second over the root of their number.
An echo was there before the overlap too: there the third is asked for, at the same delay, where half a second of ours can tell."""

_LEAST_FRAMES: Final = 30
"""Less than 300 ms of us can't be told from chance."""

_TELLING_FRAMES: Final = 50
"""Frames before the overlap in which an echo would show."""

_LOUD_FRAMES: Final = 10
"""Frames of ours before the overlap from which a level can be told."""

_UNEXPLAINED_DB: Final = 7.0
"""What the echo does not account for, in the median frame of the overlap: 95 of 100 echoes are below, a person at the microphone is 12 dB
and more above."""


def echo_probability(microphone: Samples, played: Samples, overlap: int) -> float:
    """How far the last `overlap` samples of `microphone` are an echo, 0 to 1. `microphone` (n,) is up to ECHO_SPAN of input ending now and
    begins no sooner than we began to speak. `played` (n + 2 LATEST,) is what we believe was being played from LATEST before its first
    sample to LATEST after its last, zeros where nothing was; both 16 kHz. 0 where there is too little to compare; some 3 ms."""
    heard, ours = _bands(microphone), _bands(played)  # (frames, bands)
    frames, recent = len(heard), min(len(heard), overlap // HOP)
    if frames < _LEAST_FRAMES or not recent or ours.max(initial=-np.inf) <= np.log10(_FLOOR) + 1:
        return 0.0
    alike, delay = _best_delay(heard, ours)
    if alike < max(_ALIKE, _ALIKE_BY_CHANCE / np.sqrt(frames)):
        return 0.0
    before, source = heard[:-recent], ours[delay : delay + frames - recent]
    if len(before) >= _TELLING_FRAMES and np.sum(_unit(before) * _unit(source)) < _ALIKE_BEFORE:
        return 0.0
    unexplained = _unexplained_db(heard, ours[delay : delay + frames], recent)
    # Linear between the bounds: a figure to compare with 0.5, not a measured frequency.
    return float(np.clip(0.5 + (_UNEXPLAINED_DB - unexplained) / (2 * _UNEXPLAINED_DB), 0.0, 1.0))


def _best_delay(heard: np.ndarray, ours: np.ndarray) -> tuple[float, int]:
    """The greatest correlation over all delays, and its delay in frames from the start of `ours`."""
    frames, unit = len(heard), _unit(heard)
    return max((float(np.sum(unit * _unit(ours[delay : delay + frames]))), delay) for delay in range(len(ours) - frames + 1))


def _unit(bands: np.ndarray) -> np.ndarray:
    """Band energies, each band about its own mean, as one vector of length 1: the sum of the products of two is their correlation."""
    centred: np.ndarray = bands - bands.mean(axis=0)
    centred /= np.sqrt(np.sum(centred**2)) + 1e-9
    return centred


def _unexplained_db(heard: np.ndarray, ours: np.ndarray, recent: int) -> float:
    """By how much the last `recent` frames are louder than the echo that the frames before let expect, in dB; their median."""
    before, source = heard[:-recent], ours[:-recent]
    loud = source > np.percentile(ours, 60)
    counts = loud.sum(axis=0)
    if counts.max(initial=0) < _LOUD_FRAMES:  # we have just begun to speak: an echo is fainter than we are
        return 10 * float(np.median(np.log10(np.sum(10 ** heard[-recent:], axis=1)) - np.log10(np.sum(10 ** ours[-recent:], axis=1))))
    gain = np.where(loud, before - source, 0.0).sum(axis=0) / np.maximum(counts, 1)
    gain = np.where(counts > 5, gain, np.median(gain[counts > 0]))
    floor = np.percentile(heard, 10, axis=0)
    expected = np.log10(10 ** (ours[-recent:] + gain) + 10**floor)
    excess = np.log10(np.sum(10 ** heard[-recent:], axis=1)) - np.log10(np.sum(10**expected, axis=1))
    return 10 * float(np.median(excess))


def _bands(pcm: Samples) -> np.ndarray:
    """Logarithm of the power in mel bands, one frame a 10 ms, shape (frames, 20)."""
    if len(pcm) < FRAME:
        return np.zeros((0, _BANDS))
    window, filters = _tables()
    framed = np.lib.stride_tricks.sliding_window_view(pcm, FRAME)[::HOP] * window  # (frames, 400)
    power = np.abs(np.fft.rfft(framed)) ** 2 @ filters  # (frames, bands)
    logs: np.ndarray = np.log10(power + _FLOOR)
    return logs


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """The Hann window, (400,), and the mel filters joined four by four, (201, 20)."""
    filters = mel_filters()
    return np.hanning(FRAME + 1)[:-1], filters.reshape(len(filters), _BANDS, -1).sum(axis=2)
