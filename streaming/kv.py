"""Keys and values of one sequence, in memory that is allocated by doubling and never moved back: to rewind is to forget a length."""

from typing import Final

import torch
from torch import Tensor

__all__ = ["KeyValueCache"]

_FIRST: Final = 512
"""Positions allocated at first: a short call never needs more."""


class KeyValueCache:
    """Room for up to `capacity` positions of every layer. Who writes keeps the length; what lies beyond it is garbage to be overwritten."""

    def __init__(self, layers: int, heads: int, head_width: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.capacity: Final = capacity
        room = min(_FIRST, capacity)
        self._keys = torch.zeros(layers, heads, room, head_width, dtype=dtype, device=device)
        self._values = torch.zeros_like(self._keys)

    @property
    def bytes(self) -> int:
        """Memory held now."""
        return self._keys.nbytes + self._values.nbytes

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [heads, n, head_width] of a layer at positions `start` and on. Raises ValueError beyond `capacity`."""
        end = start + keys.shape[1]
        if end > self.capacity:
            raise ValueError(f"position {end} is beyond the {self.capacity} this sequence may have")
        if end > self._keys.shape[2]:
            self._grow(end)
        self._keys[layer, :, start:end] = keys
        self._values[layer, :, start:end] = values

    def read(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer up to `end`, each [heads, end, head_width]."""
        return self._keys[layer, :, :end], self._values[layer, :, :end]

    def _grow(self, wanted: int) -> None:
        room = self._keys.shape[2]
        while room < wanted:
            room *= 2
        room = min(room, self.capacity)
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = old.new_zeros(old.shape[0], old.shape[1], room, old.shape[3])
            new[:, :, : old.shape[2]] = old
            setattr(self, name, new)
