"""Keys and values of one sequence. To rewind is to forget a length: whoever owns the cache keeps it, nothing is moved or cleared.

Memory grows by doubling up to a capacity, so that a short call does not pay for a long one; SmolLM2-135M in bf16 takes 23 kB a position,
12 MB for the first 512, 94 MB for 4,096.
"""

from typing import Final

import torch
from torch import Tensor

__all__ = ["KeyValueCache"]

_FIRST: Final = 512
"""Positions allocated at first: instructions and a few turns."""


class KeyValueCache:
    """Room for up to `capacity` positions of every layer. What lies beyond the owner's length is garbage to be overwritten."""

    def __init__(self, layers: int, heads: int, head_width: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        if capacity < 1:
            raise ValueError(f"a cache has at least one position, not {capacity}")
        self.capacity: Final = capacity
        room = min(_FIRST, capacity)
        # Per layer keys, then values: [2, heads, room, head_width].
        self._layers = [torch.zeros(2, heads, room, head_width, dtype=dtype, device=device) for _ in range(layers)]

    @property
    def bytes(self) -> int:
        """Memory held now."""
        return sum(layer.nbytes for layer in self._layers)

    def reserve(self, end: int) -> None:
        """Make room up to position `end`; what is held stays. Raises ValueError beyond `capacity`."""
        if end > self.capacity:
            raise ValueError(f"position {end} is beyond the {self.capacity} this sequence may have")
        room = self._layers[0].shape[2]
        if end <= room:
            return
        while room < end:
            room *= 2
        for index, old in enumerate(self._layers):
            new = old.new_zeros(2, old.shape[1], min(room, self.capacity), old.shape[3])
            new[:, :, : old.shape[2]] = old
            self._layers[index] = new

    def write(self, layer: int, start: int, pairs: Tensor) -> Tensor:
        """Put `pairs` [2, heads, n, head_width], keys and values, at positions `start` and on, for which `reserve` made room; gives what
        the layer then holds, [2, heads, start + n, head_width]."""
        held = self._layers[layer].narrow(2, 0, start + pairs.shape[2])
        held.narrow(2, start, pairs.shape[2]).copy_(pairs)
        return held
