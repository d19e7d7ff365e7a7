"""Keys and values of one sequence. To rewind is to forget a length: whoever owns the cache keeps it, nothing is moved or cleared.

Memory grows by doubling up to a capacity, so that a short call does not pay for a long one; SmolLM2-135M in bf16 takes 23 kB a position,
12 MB for the first 512, 94 MB for 4,096, nothing before the first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

__all__ = ["KeyValueCache", "SharedPrefixes"]

_FIRST: Final = 512
"""Positions allocated at first: instructions and a few turns."""


class KeyValueCache:
    """Room for up to `capacity` positions of every layer. What lies beyond the owner's length is garbage to be overwritten."""

    def __init__(self, layers: int, heads: int, head_width: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        if capacity < 1:
            raise ValueError(f"a cache has at least one position, not {capacity}")
        self.capacity: Final = capacity
        # Per layer keys, then values: [2, heads, room, head_width].
        self._layers = [torch.zeros(2, heads, 0, head_width, dtype=dtype, device=device) for _ in range(layers)]

    @property
    def bytes(self) -> int:
        """Memory of its own, which `release` gives back."""
        return sum(layer.nbytes for layer in self._layers)

    @torch.inference_mode()
    def reserve(self, end: int) -> None:
        """Make room up to position `end`; what is held stays. Raises ValueError beyond `capacity`."""
        if end > self.capacity:
            raise ValueError(f"position {end} is beyond the {self.capacity} this sequence may have")
        room = self._layers[0].shape[2]
        if end <= room:
            return
        room = max(room, min(_FIRST, self.capacity))
        while room < end:
            room *= 2
        grown = []
        for old in self._layers:
            new = old.new_zeros(2, old.shape[1], min(room, self.capacity), old.shape[3])
            new[:, :, : old.shape[2]] = old
            grown.append(new)
        self._layers = grown  # all or none: where memory runs out, what was held still is

    @torch.inference_mode()
    def release(self) -> None:
        """Give the memory back; nothing is held any more."""
        self._layers = [layer[:, :, :0].clone() for layer in self._layers]

    @torch.inference_mode()
    def snapshot(self, end: int) -> list[Tensor]:
        """A copy of the first `end` positions, for `restore`."""
        return [layer[:, :, :end].clone() for layer in self._layers]

    @torch.inference_mode()
    def restore(self, snapshot: list[Tensor]) -> None:
        """Begin with what another cache of the same sizes held."""
        end = snapshot[0].shape[2]
        self.reserve(end)
        for layer, held in zip(self._layers, snapshot, strict=True):
            layer[:, :, :end] = held

    @torch.inference_mode()
    def write(self, layer: int, start: int, pairs: Tensor) -> Tensor:
        """Put `pairs` [2, heads, n, head_width], keys and values, at positions `start` and on, for which `reserve` made room; gives what
        the layer then holds, [2, heads, start + n, head_width]."""
        held = self._layers[layer].narrow(2, 0, start + pairs.shape[2])
        held.narrow(2, start, pairs.shape[2]).copy_(pairs)
        return held


_SHARED_BYTES: Final = 64 << 20
"""Of all shared prefixes: about 2,800 positions of SmolLM2-135M, the instructions and tools of dozens of applications."""

_LEAST_SHARED: Final = 16
"""Tokens below which computing them again is as quick as looking."""


class SharedPrefixes:
    """What sessions begin with alike (instructions, tools): computed once, copied into each. The least recently used go first."""

    def __init__(self, most_bytes: int = _SHARED_BYTES) -> None:
        self._most = most_bytes
        self._held: OrderedDict[tuple[int, ...], list[Tensor]] = OrderedDict()
        self.bytes = 0

    def find(self, tokens: Sequence[int]) -> list[Tensor] | None:
        """What a cache holds after exactly these tokens, where another session has computed it."""
        key = tuple(tokens)
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def keep(self, tokens: Sequence[int], cache: KeyValueCache) -> None:
        """`cache` begins with these tokens."""
        key = tuple(tokens)
        if len(key) < _LEAST_SHARED or key in self._held:
            return
        snapshot = cache.snapshot(len(key))
        self._held[key] = snapshot
        self.bytes += _size(snapshot)
        while self.bytes > self._most:
            _, dropped = self._held.popitem(last=False)
            self.bytes -= _size(dropped)


def _size(snapshot: list[Tensor]) -> int:
    return sum(layer.nbytes for layer in snapshot)
