"""A causal audio encoder (Voxtral Realtime's): mel frames to audio frames of 20 ms, none of which depends on what comes after it.

Two convolutions that reach back only, then layers as of a decoder (`streaming.models.llama`) whose frames see a window of those before
them. So a stretch that attends to the cached keys and values of what came before gives the frames of the whole; a cache holds the window
and some room, however long the sound. `tests/streaming/test_voxtral_realtime.py` holds it equal to `transformers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from streaming.models.llama import LlamaLayer, rotate
from streaming.models.rope import Rope
from streaming.transfer import sent

__all__ = ["BEFORE", "FRAME_MEL", "CausalEncoder", "CausalShape", "CausalWeights", "FrameCache", "FrameStretch"]

FRAME_MEL: Final = 2
"""Mel frames per audio frame."""

BEFORE: Final = 3
"""Mel frames that the convolutions reach to the left of an audio frame's first one."""

_ROOM: Final = 256
"""Frames of a cache beyond its window: what is behind it is moved down every 5 s."""


@dataclass(frozen=True, slots=True)
class CausalShape:
    """Sizes of an encoder. Raises ValueError where one is impossible. A frame sees `window` frames, its own among them."""

    mels: int
    width: int
    hidden: int
    heads: int
    head_width: int
    layers: int
    window: int
    rope: Rope
    rope_base: float
    norm_epsilon: float

    def __post_init__(self) -> None:
        if min(self.mels, self.width, self.hidden, self.heads, self.head_width, self.layers, self.window) < 1:
            raise ValueError(f"every size of an encoder is at least 1: {self}")


@dataclass(frozen=True, slots=True, eq=False)
class CausalWeights:
    """Everything learned. Convolutions are weight [width, inputs, 3] and bias [width]."""

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    layers: tuple[LlamaLayer, ...]
    norm: Tensor  # [width]


class FrameCache:
    """Keys and values of the newest frames of one sequence, in every layer. A stretch may be written again where it stood: what is
    provisional is overwritten by the next run. Published sizes in bfloat16: 262 kB a frame, 264 MB when it is full, after 20 s."""

    def __init__(self, shape: CausalShape, like: Tensor) -> None:
        self._window = shape.window
        # Keys, then values: [layers, 2, heads, room, head_width]. Position `_first` is the first that is held.
        self._held = torch.zeros(shape.layers, 2, shape.heads, 0, shape.head_width, dtype=like.dtype, device=like.device)
        self._first = 0

    def make_room(self, start: int, count: int) -> None:
        """For `count` frames from `start` on. What the frame at `start` can't see is dropped where that is needed."""
        room = self._held.shape[3]
        if start + count - self._first <= room:
            return
        first = self.seen_from(start)
        kept, needed = start - first, start + count - first
        held = self._held
        if needed > room:
            most = max(needed, self._window + _ROOM)
            self._held = held.new_zeros(*held.shape[:3], min(most, max(needed, 2 * room, _ROOM)), held.shape[4])
        self._held[:, :, :, :kept] = held[:, :, :, first - self._first : start - self._first].clone()
        self._first = first

    def seen_from(self, start: int) -> int:
        """The first position that the frame at `start` sees."""
        return max(0, start - self._window + 1)

    def write(self, layer: int, start: int, pairs: Tensor) -> Tensor:
        """Put keys and values `pairs` [2, heads, n, head_width] at `start`; gives those of all positions that one of these frames sees."""
        at, end = start - self._first, start - self._first + pairs.shape[2]
        self._held[layer, :, :, at:end] = pairs
        return self._held[layer, :, :, self.seen_from(start) - self._first : end]


@dataclass(frozen=True, slots=True, eq=False)
class FrameStretch:
    """Mel frames (BEFORE + FRAME_MEL * n, mels) of one sequence, whose n audio frames stand at `start`. What precedes a sound is 0."""

    mel: Tensor
    start: int
    cache: FrameCache

    @property
    def count(self) -> int:
        """Audio frames."""
        return (len(self.mel) - BEFORE) // FRAME_MEL


class CausalEncoder:
    """Stretches of mel frames and their caches in, audio frames out."""

    def __init__(self, shape: CausalShape, weights: CausalWeights) -> None:
        self.shape: Final = shape
        self.weights: Final = weights

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.norm.device

    def new_cache(self) -> FrameCache:
        """An empty one."""
        return FrameCache(self.shape, self.weights.norm)

    @torch.inference_mode()
    def forward(self, stretches: Sequence[FrameStretch]) -> list[Tensor]:
        """The audio frames (n, width) of stretches of different sequences: every product is made once for all."""
        shape, norm = self.shape, self.weights.norm
        counts = [stretch.count for stretch in stretches]
        for stretch in stretches:
            stretch.cache.make_room(stretch.start, stretch.count)
        turns = [shape.rope.rotations(shape.rope_base, stretch.count, shape.head_width, stretch.start) for stretch in stretches]
        cosines, sines = (sent(torch.cat(parts), self.device).to(norm.dtype) for parts in zip(*turns, strict=True))
        masks = [self._mask(stretch) for stretch in stretches]
        hidden = torch.cat([self._stem(stretch) for stretch in stretches])
        for index, layer in enumerate(self.weights.layers):
            heads = layer.qkv(self._normalise(hidden, layer.attention_norm)).view(len(hidden), 3, shape.heads, shape.head_width)
            turned = rotate(heads[:, :2].flatten(1, 2), cosines, sines, shape.rope.width).view(len(hidden), 2, shape.heads, -1)
            queries, pairs = turned[:, 0], torch.stack((turned[:, 1], heads[:, 2]))  # [n, heads, ..], [2, n, heads, ..]
            parts = zip(torch.split(queries, counts), torch.split(pairs, counts, dim=1), stretches, masks, strict=True)
            hidden = hidden + layer.attention_out(torch.cat([_mix(index, *part) for part in parts]))
            gate, up = layer.gate_up(self._normalise(hidden, layer.feed_forward_norm)).chunk(2, dim=-1)
            hidden = hidden + layer.down(functional.silu(gate) * up)
        return list(torch.split(self._normalise(hidden, norm), counts))

    def _stem(self, stretch: FrameStretch) -> Tensor:
        """The convolutions: (n, width)."""
        found = functional.gelu(functional.conv1d(stretch.mel.to(self.weights.norm.dtype).T[None], *self.weights.first))
        if stretch.start == 0:
            found[:, :, 0] = 0  # before the sound the second one finds nothing, not what the first makes of nothing
        return functional.gelu(functional.conv1d(found, *self.weights.second, stride=FRAME_MEL))[0].T

    def _mask(self, stretch: FrameStretch) -> Tensor:
        """Which of the positions that one of the frames sees each of them sees, [n, seen]."""
        end = stretch.start + stretch.count
        ages = torch.arange(stretch.start, end)[:, None] - torch.arange(stretch.cache.seen_from(stretch.start), end)
        return sent((ages >= 0) & (ages < self.shape.window), self.device)

    def _normalise(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(hidden, weight.shape, weight, self.shape.norm_epsilon)


def _mix(layer: int, queries: Tensor, pairs: Tensor, stretch: FrameStretch, mask: Tensor) -> Tensor:
    """One stretch's attention in a layer: queries [n, heads, head_width], keys and values [2, n, heads, head_width] to
    [n, heads * head_width]."""
    keys, values = stretch.cache.write(layer, stretch.start, pairs.transpose(1, 2)).unsqueeze(1).unbind()
    mixed = functional.scaled_dot_product_attention(queries.transpose(0, 1)[None], keys, values, attn_mask=mask)
    return mixed[0].transpose(0, 1).flatten(1)
