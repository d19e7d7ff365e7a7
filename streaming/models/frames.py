"""A network that is convolutional in time, run over stretches of its input: what of the input its output depends on, measured."""

import copy
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FrameNetwork", "Frames"]

Frames = npt.NDArray[np.float32]
"""Shape (1, channels, frames)."""

_MOST_REACH: Final = 64
"""Frames to each side: twice what any known voice's networks depend on. A network that depends on more is taken for one that may depend on
everything."""


class FrameNetwork:
    """`compute` makes of (1, channels, n) a result (1, others, n * ratio), zeros assumed around; `run` gives a part of its result from no
    more of the input than that takes.

    `reach` is how many frames to each side a frame's result depends on. Measured on en_US-joe-medium: 32 for the flow (4 couplings of 4
    layers, kernels of 5), 11 for the decoder (10.1 in truth)."""

    def __init__(self, compute: Callable[[Frames], Frames], ratio: int, example: Frames) -> None:
        """`example` is input of at least one frame. Raises ValueError where the result depends on more than 64 frames to a side."""
        self._compute = compute
        self._ratio = ratio
        self.reach = self._measure_reach(example)

    def computed_by(self, compute: Callable[[Frames], Frames]) -> "FrameNetwork":
        """The same network, computed elsewhere."""
        moved = copy.copy(self)
        moved._compute = compute
        return moved

    def run(self, frames: Frames, start: int, end: int) -> Frames:
        """The result for frames `start` to `end`, shape (1, others, (end - start) * ratio): what it is when all of `frames` is computed,
        provided that `frames` goes on for `reach` frames after `end`, or ends where the whole does."""
        # At the edges of the whole its own padding is right: there the network has nothing either.
        first = max(0, start - self.reach)
        result = self._compute(np.ascontiguousarray(frames[:, :, first : end + self.reach]))
        return result[:, :, (start - first) * self._ratio : (end - first) * self._ratio]

    def _measure_reach(self, example: Frames) -> int:
        """Frames beyond which a change of one frame leaves no trace."""
        count, middle = 2 * _MOST_REACH + 3, _MOST_REACH + 1
        # The example again and again.
        frames = np.ascontiguousarray(np.take(example, np.arange(count) % example.shape[2], axis=2))
        changed = frames.copy()
        changed[:, :, middle] += 1.0
        differs = (self._compute(frames) != self._compute(changed)).any(axis=(0, 1))
        traces = np.flatnonzero(differs) // self._ratio
        reach = max(middle - int(traces[0]), int(traces[-1]) - middle) if len(traces) else 0
        if reach > _MOST_REACH:
            raise ValueError(f"a network over frames may depend on {_MOST_REACH} of them to each side; this one depends on more")
        return reach
