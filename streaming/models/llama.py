"""Llama-shaped decoders (Llama, Mistral, Qwen2-like without biases, SmolLM2) in plain torch, written for a preallocated KV cache.

Key and value projections, and gate and up, are fused into one product each: on a CPU a decode step is bound by the weights it reads and by
the number of kernels it starts. RoPE in the half-rotated form of the Hugging Face weights (Su et al. 2021); GGUF's interleaved rows are
put in that order by the loader. No sampling, no tokens, no threads.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from streaming.kv import KeyValueCache

__all__ = ["Llama", "LlamaShape"]


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
    context: int
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5
    tied: bool = True

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads can't share {self.kv_heads} key-value heads evenly")
        if self.head_width % 2:
            raise ValueError(f"head width {self.head_width} is odd: rotary embedding pairs its halves")


class Llama(nn.Module):
    """Tokens and a cache in, logits out."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape: Final = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = _RmsNorm(shape.width, shape.norm_epsilon)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        if shape.tied:
            self.head.weight = self.embedding.weight
        cosines, sines = _rotations(shape)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def new_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for `capacity` positions, in the dtype and on the device of the weights."""
        weight = self.embedding.weight
        return KeyValueCache(self.shape.layers, self.shape.kv_heads, self.shape.head_width, capacity, weight.dtype, weight.device)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, start: int, cache: KeyValueCache) -> Tensor:
        """Logits [vocabulary] after the last of `tokens` [n] (int64), which stand at positions `start` and on; their keys and values are
        written into `cache`, whose first `start` positions must hold what came before."""
        count = len(tokens)
        cosines, sines = self.cosines[start : start + count], self.sines[start : start + count]  # [n, head_width]
        # The first row of a prefill sees `start + 1` keys, the last all of them; one row needs no mask.
        mask = None if count == 1 else torch.ones(count, start + count, dtype=torch.bool, device=tokens.device).tril(start)
        hidden = self.embedding(tokens)  # [n, width]
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, cosines, sines, mask, index, start, cache)
        logits: Tensor = self.head(self.norm(hidden[-1]))
        return logits


class _RmsNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019), computed in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, (hidden.shape[-1],), self.weight, self._epsilon)


class _Layer(nn.Module):
    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self._heads, self._kv_heads, self._head_width = shape.heads, shape.kv_heads, shape.head_width
        self.attention_norm = _RmsNorm(shape.width, shape.norm_epsilon)
        self.qkv = nn.Linear(shape.width, (shape.heads + 2 * shape.kv_heads) * shape.head_width, bias=False)
        self.attention_out = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)
        self.feed_forward_norm = _RmsNorm(shape.width, shape.norm_epsilon)
        self.gate_up = nn.Linear(shape.width, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(
        self, hidden: Tensor, cosines: Tensor, sines: Tensor, mask: Tensor | None, layer: int, start: int, cache: KeyValueCache
    ) -> Tensor:
        hidden = hidden + self._attend(self.attention_norm(hidden), cosines, sines, mask, layer, start, cache)
        gate, up = self.gate_up(self.feed_forward_norm(hidden)).chunk(2, dim=-1)
        out: Tensor = hidden + self.down(functional.silu(gate) * up)
        return out

    def _attend(
        self, hidden: Tensor, cosines: Tensor, sines: Tensor, mask: Tensor | None, layer: int, start: int, cache: KeyValueCache
    ) -> Tensor:
        count = len(hidden)
        heads = self.qkv(hidden).view(count, -1, self._head_width).transpose(0, 1)  # [heads + 2 kv_heads, n, head_width]
        queries, keys, values = heads.split((self._heads, self._kv_heads, self._kv_heads))
        cache.write(layer, start, _rotate(keys, cosines, sines), values)
        keys, values = cache.read(layer, start + count)  # [kv_heads, start + n, head_width]
        queries = _rotate(queries, cosines, sines)
        mixed = functional.scaled_dot_product_attention(queries[None], keys[None], values[None], attn_mask=mask, enable_gqa=True)[0]
        out: Tensor = self.attention_out(mixed.transpose(0, 1).reshape(count, -1))
        return out


def _rotations(shape: LlamaShape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, [context, head_width] float32."""
    frequencies = shape.rope_base ** -(torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width)
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary embedding of [heads, n, head_width]."""
    first, second = heads.chunk(2, dim=-1)
    return (heads * cosines + torch.cat((-second, first), dim=-1) * sines).to(heads.dtype)
