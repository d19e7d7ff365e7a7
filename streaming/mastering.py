"""What is done to a synthesised piece before it is played: silence at its edges to measure, level, clicks taken off.

Pure functions of float samples at the voice's own rate. Not here: resampling (`streaming.audio`).
"""

from typing import Final

import numpy as np

from streaming.audio import Samples

__all__ = ["fade", "level", "sounding"]

_WINDOW_SECONDS: Final = 0.005
"""Loudness is judged in windows this long."""

_EDGE_DB: Final = -48.0
"""Below the loudest window: where sound begins and ends. Breath and the onset of an "f" or "h" stay above it, the noise floor below."""

_TARGET_DBFS: Final = -20.0
"""RMS of what sounds: the usual level of telephone and conference speech, with room for peaks."""

_PEAK: Final = 0.89
"""-1 dBFS: resampling may overshoot a little."""

_GAIN_LIMITS: Final = (0.25, 4.0)
"""A whisper is not made a shout."""


def sounding(samples: Samples, rate: int) -> tuple[int, int]:
    """The first and the end sample of what is not silence, to a window; (0, 0) where all is silent."""
    window = max(1, int(rate * _WINDOW_SECONDS))
    loudness = _loudness(samples, window)
    if not len(loudness) or loudness.max() <= 0:
        return 0, 0
    loud = np.flatnonzero(loudness >= loudness.max() * 10 ** (_EDGE_DB / 20))
    return int(loud[0]) * window, min(len(samples), int(loud[-1] + 1) * window)


def level(samples: Samples, rate: int) -> Samples:
    """At the target loudness, so that clauses made apart sound like one speaker."""
    loudness = _loudness(samples, max(1, int(rate * _WINDOW_SECONDS)))
    if not len(loudness) or loudness.max() <= 0:
        return samples
    # Pauses inside do not count: windows within 25 dB of the loudest.
    heard = loudness[loudness >= loudness.max() * 10 ** (-25 / 20)]
    gain = np.clip(10 ** (_TARGET_DBFS / 20) / np.sqrt(np.mean(heard**2)), *_GAIN_LIMITS)
    levelled: Samples = samples * np.float32(min(float(gain), _PEAK / float(np.abs(samples).max())))
    return levelled


def fade(samples: Samples, fade_in: int, fade_out: int) -> Samples:
    """A copy that starts and ends at zero, over so many samples (fewer where it is shorter)."""
    faded = samples.copy()
    fade_in, fade_out = min(fade_in, len(faded)), min(fade_out, len(faded))
    faded[:fade_in] *= np.linspace(0, 1, fade_in, endpoint=False, dtype=np.float32)
    faded[len(faded) - fade_out :] *= np.linspace(1, 0, fade_out, dtype=np.float32)
    return faded


def _loudness(samples: Samples, window: int) -> Samples:
    """RMS of each window, shape (windows,); the last one is filled with silence."""
    windows = np.zeros((-(-len(samples) // window), window), np.float32)
    windows.reshape(-1)[: len(samples)] = samples
    rms: Samples = np.sqrt(np.mean(windows**2, axis=1))
    return rms
