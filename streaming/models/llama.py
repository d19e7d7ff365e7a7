"""Llama-shaped decoders (Llama, Mistral, Qwen2, SmolLM2) in plain torch, written for a preallocated KV cache.

Query, key and value projections are one product, and so are gate and up: on a CPU a decode step is bound by the weights it reads and by the
number of kernels it starts. RoPE in the half-rotated form of the Hugging Face weights (Su et al. 2021). No sampling, no tokenizer, no state
but the weights: what a sequence holds is in its `KeyValueCache`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from streaming.kv import KeyValueCache
from streaming.models.linear import Linear

__all__ = ["Llama", "LlamaLayer", "LlamaShape", "LlamaWeights"]


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Sizes of a Llama-shaped decoder; raises ValueError where they do not fit together."""

    vocabulary: int
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    # Positions the model was trained for.
    context: int
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if min(self.vocabulary, self.layers, self.width, self.hidden, self.heads, self.kv_heads, self.head_width, self.context) < 1:
            raise ValueError(f"every size of a decoder is at least 1: {self}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads can't share {self.kv_heads} key-value heads evenly")
        if self.head_width % 2:
            raise ValueError(f"head width {self.head_width} is odd: rotary embedding pairs its halves")


@dataclass(frozen=True, slots=True, eq=False)
class LlamaLayer:
    """One layer. `qkv`: width to (heads + 2 kv_heads) * head_width, queries first; `gate_up`: width to 2 * hidden, gate first."""

    attention_norm: Tensor  # [width]
    qkv: Linear
    attention_out: Linear
    feed_forward_norm: Tensor  # [width]
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True, eq=False)
class LlamaWeights:
    """Everything learned. A tied head is a product with `embedding`."""

    embedding: Tensor  # [vocabulary, width]
    layers: tuple[LlamaLayer, ...]
    norm: Tensor  # [width]
    head: Linear


class Llama:
    """Tokens and a cache in, logits out."""

    def __init__(self, shape: LlamaShape, weights: LlamaWeights) -> None:
        if len(weights.layers) != shape.layers or weights.embedding.shape != (shape.vocabulary, shape.width):
            raise ValueError(f"the weights are not of the shape {shape}")
        self.shape: Final = shape
        self._weights = weights
        cosines, sines = _rotations(shape)
        self._cosines = cosines.to(weights.embedding)  # [context, 1, head_width]
        self._sines = sines.to(weights.embedding)  # [context, 1, head_width], the first half negated

    def new_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for `capacity` positions, in the dtype and on the device of the weights."""
        shape, embedding = self.shape, self._weights.embedding
        return KeyValueCache(shape.layers, shape.kv_heads, shape.head_width, capacity, embedding.dtype, embedding.device)

    @torch.inference_mode()
    def logits(self, tokens: list[int], start: int, cache: KeyValueCache) -> Tensor:
        """Logits float32 [vocabulary] after the last of `tokens`, which stand at positions `start` and on; their keys and values are
        written into `cache`, whose first `start` positions must hold what came before. Raises ValueError beyond the cache's capacity or
        for no tokens."""
        hidden = self._hidden(tokens, start, cache)[-1:]
        last = _normalise(hidden, self._weights.norm, self.shape.norm_epsilon)
        return self._weights.head(last)[0].float()

    @torch.inference_mode()
    def extend(self, tokens: list[int], start: int, cache: KeyValueCache) -> None:
        """The same without the logits, which cost a fifth of a step: for pieces of a prefill but the last."""
        self._hidden(tokens, start, cache)

    def _hidden(self, tokens: list[int], start: int, cache: KeyValueCache) -> Tensor:
        """What the last layer makes of the tokens, [n, width]."""
        end = start + len(tokens)
        if not tokens or end > self.shape.context:
            raise ValueError(f"{len(tokens)} tokens at position {start} of {self.shape.context}")
        cache.reserve(end)
        embedding = self._weights.embedding
        hidden = embedding[torch.tensor(tokens, device=embedding.device)]
        rotation = self._rotation(start, end)
        mask = self._mask(len(tokens), end, embedding)
        for index, layer in enumerate(self._weights.layers):
            normed = _normalise(hidden, layer.attention_norm, self.shape.norm_epsilon)
            hidden = hidden + self._attend(layer, normed, rotation, mask, partial(cache.write, index, start))
            normed = _normalise(hidden, layer.feed_forward_norm, self.shape.norm_epsilon)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(functional.silu(gate) * up)
        return hidden

    def _mask(self, count: int, end: int, like: Tensor) -> Tensor | None:
        """What is added to the scores [n * group, end]: row i of the n sees the positions up to its own. One row sees all."""
        if count == 1:
            return None
        closed = torch.full((count, end), float("-inf"), dtype=like.dtype, device=like.device).triu(end - count + 1)
        return closed.repeat_interleave(self.shape.heads // self.shape.kv_heads, dim=0)

    def _rotation(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for every head of the fused product at these positions, each [n, heads + 2 kv_heads, head_width]. Values
        get 1 and 0: turned by nothing they go through the same operation as queries and keys, which is cheaper than taking them apart."""
        shape = self.shape
        still, turned = shape.kv_heads, shape.heads + shape.kv_heads
        ones = self._cosines.new_ones(end - start, still, shape.head_width)
        cosines = torch.cat((self._cosines[start:end].expand(-1, turned, -1), ones), dim=1)
        return cosines, torch.cat((self._sines[start:end].expand(-1, turned, -1), torch.zeros_like(ones)), dim=1)

    def _attend(
        self, layer: LlamaLayer, hidden: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, keep: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Attention of `hidden` [n, width]; `keep` puts new keys and values [2, kv_heads, n, head_width] behind those held, and gives
        all."""
        shape, count = self.shape, len(hidden)
        heads = _rotate(layer.qkv(hidden).view(count, -1, shape.head_width), *rotation)
        pairs = heads[:, shape.heads :].view(count, 2, shape.kv_heads, shape.head_width)
        keys, values = keep(pairs.permute(1, 2, 0, 3)).unsqueeze(1).unbind(0)  # [1, kv_heads, start + n, head_width]
        # The query heads that share a key-value head become rows of it: nothing is repeated, and one decode row needs no mask.
        group = shape.heads // shape.kv_heads
        queries = heads[:, : shape.heads].view(count, shape.kv_heads, group, shape.head_width).transpose(0, 1)
        queries = queries.reshape(1, shape.kv_heads, count * group, shape.head_width)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        mixed = mixed.view(shape.kv_heads, count, -1).transpose(0, 1).reshape(count, -1)
        return layer.attention_out(mixed)


def _normalise(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square normalisation (Zhang and Sennrich 2019)."""
    return functional.rms_norm(hidden, weight.shape, weight, epsilon)


def _rotations(shape: LlamaShape) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of every position, each float32 [context, 1, head_width]."""
    frequencies = shape.rope_base ** -(torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width)
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float32), frequencies)[:, None]
    return torch.cat((angles.cos(), angles.cos()), dim=-1), torch.cat((-angles.sin(), angles.sin()), dim=-1)


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary embedding of [n, heads, head_width]: the halves of a head are the coordinates that are turned."""
    swapped = heads.roll(heads.shape[-1] // 2, dims=-1)
    return torch.addcmul(heads * cosines, swapped, sines)
