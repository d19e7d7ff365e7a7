"""Sound as values: frames with their position, PCM16 and G.711 coding, resampling."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["AudioFrame", "Samples"]

Samples = npt.NDArray[np.float32]
"""Mono samples in -1.0 to 1.0, shape (n,)."""


@dataclass(frozen=True, slots=True, eq=False)
class AudioFrame:
    """Input sound at 16 kHz: `pcm` shape (n,), whose first sample stands at input position `at`. Frames of a session are
    contiguous: the next one's `at` is this one's `at + len(pcm)`."""

    pcm: Samples
    at: int
