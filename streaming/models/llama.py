"""Llama-shaped decoders (Llama, Mistral, Qwen2, Qwen3, SmolLM2, SmolLM3, Phi-3) in plain torch, written for a preallocated KV cache.

Query, key and value projections are one product, and so are gate and up: on a CPU a decode step is bound by the weights it reads and by the
number of kernels it starts. RoPE in the half-rotated form of the Hugging Face weights (Su et al. 2021). No sampling, no tokenizer, no state
but the weights: what a sequence holds is in its `KeyValueCache`. A layer with a sliding window keeps what has left it, so that a sequence
can be rewound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from streaming.kv import KeyValueCache
from streaming.models.linear import Linear
from streaming.models.rope import Rope
from streaming.transfer import fetched, sent

__all__ = ["Llama", "LlamaLayer", "LlamaShape", "LlamaWeights", "Stretch", "rotate"]


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
    # How positions turn a head; None turns all of it, each frequency as `rope_base` says.
    rope: Rope | None = None
    # Positions that each layer sees, its own among them; None sees all. Empty: all layers see all.
    windows: tuple[int | None, ...] = ()
    # Layers that positions do not turn (NoPE).
    still: frozenset[int] = frozenset()
    # Each query and key head is normalised by itself (Qwen3).
    head_norm: bool = False

    def __post_init__(self) -> None:
        if min(self.vocabulary, self.layers, self.width, self.hidden, self.heads, self.kv_heads, self.head_width, self.context) < 1:
            raise ValueError(f"every size of a decoder is at least 1: {self}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads can't share {self.kv_heads} key-value heads evenly")
        if self.head_width % 2:
            raise ValueError(f"head width {self.head_width} is odd: rotary embedding pairs its halves")
        if self.rope is not None and self.rope.width > self.head_width:
            raise ValueError(f"{self.rope.width} numbers are turned of a head of {self.head_width}")
        if self.windows and (len(self.windows) != self.layers or any(window is not None and window < 1 for window in self.windows)):
            raise ValueError(f"{self.layers} layers have the windows {self.windows}")

    def window(self, layer: int) -> int | None:
        """The positions that `layer` sees, its own among them; None for all."""
        return self.windows[layer] if self.windows else None


@dataclass(frozen=True, slots=True, eq=False)
class LlamaLayer:
    """One layer. `qkv`: width to (heads + 2 kv_heads) * head_width, queries first; `gate_up`: width to 2 * hidden, gate first."""

    attention_norm: Tensor  # [width]
    qkv: Linear
    attention_out: Linear
    feed_forward_norm: Tensor  # [width]
    gate_up: Linear
    down: Linear
    # Norms of query heads, then of key heads, [heads + kv_heads, head_width]; None where there are none.
    head_norm: Tensor | None = None


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
        self.weights: Final = weights
        self._rope: Final = shape.rope or Rope(shape.head_width)
        cosines, sines = self._rope.rotations(shape.rope_base, shape.context, shape.head_width)
        self._cosines = cosines.to(weights.embedding)  # [context, 1, head_width]
        self._sines = sines.to(weights.embedding)  # [context, 1, head_width], the first half negated

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.embedding.device

    @property
    def context(self) -> int:
        """Positions it was trained for, or loaded for."""
        return self.shape.context

    @property
    def vocabulary(self) -> int:
        """Tokens it has rows for."""
        return self.shape.vocabulary

    @property
    def embedding(self) -> Tensor:
        """What stands for each token, [vocabulary, width]."""
        return self.weights.embedding

    def new_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for `capacity` positions, in the dtype and on the device of the weights."""
        shape, embedding = self.shape, self.weights.embedding
        return KeyValueCache(shape.layers, shape.kv_heads, shape.head_width, capacity, embedding.dtype, embedding.device)

    def logits(self, tokens: Sequence[int], start: int, cache: KeyValueCache) -> Tensor:
        """`forward` of one sequence alone: logits float32 [vocabulary] after the last of `tokens`."""
        (logits,) = self.forward([Stretch(tokens, start, cache)])
        assert logits is not None
        return logits

    @torch.inference_mode()
    def forward(self, stretches: Sequence["Stretch"]) -> list[Tensor | None]:
        """Run stretches of different sequences as one batch: every product is made once for all rows, attention sequence by sequence. Keys
        and values are written into each cache, whose first `start` positions must hold what came before. Gives the logits float32
        [vocabulary], on the CPU, after the last token of each stretch that is `scored` (they cost a fifth of a step), None for the others.
        Raises ValueError beyond a cache's capacity or the model's context, or for no tokens; nothing has been written then."""
        self._reserve(stretches)
        return self._compute(stretches)

    @torch.inference_mode()
    def all_logits(self, stretches: Sequence["Stretch"]) -> Tensor:
        """`forward` with the logits after every token, of one stretch behind the other: float32 [tokens, vocabulary], where the weights
        are."""
        self._reserve(stretches)
        return self._scores(self._hidden(stretches))

    def _reserve(self, stretches: Sequence["Stretch"]) -> None:
        for stretch in stretches:
            if not stretch.tokens or stretch.end > self.shape.context:
                raise ValueError(f"{len(stretch.tokens)} tokens at position {stretch.start} of {self.shape.context}")
            stretch.cache.reserve(stretch.end)

    def _compute(self, stretches: Sequence["Stretch"]) -> list[Tensor | None]:
        """`forward`, for stretches that are known to fit."""
        logits = iter(fetched(self._scored(stretches)))
        return [next(logits) if stretch.scored else None for stretch in stretches]

    def _scored(self, stretches: Sequence["Stretch"]) -> Tensor:
        """The logits of the stretches that are scored, float32 [scored, vocabulary], where the weights are. Waits for nothing."""
        hidden = self._hidden(stretches)
        ends = list(accumulate(len(stretch.tokens) for stretch in stretches))
        scored = [end - 1 for stretch, end in zip(stretches, ends, strict=True) if stretch.scored]
        if not scored:
            return hidden.new_empty(0, self.shape.vocabulary, dtype=torch.float32)
        return self._scores(hidden.index_select(0, sent(torch.tensor(scored), self.device)))

    def _hidden(self, stretches: Sequence["Stretch"]) -> Tensor:
        """What the last layer makes of all tokens, [n, width]."""
        embedding = self.weights.embedding
        counts = [len(stretch.tokens) for stretch in stretches]
        windows = {self.shape.window(index) for index in range(self.shape.layers)}
        masks = {window: [self._mask(len(stretch.tokens), stretch.end, window, embedding) for stretch in stretches] for window in windows}

        def mix(index: int, heads: Tensor) -> Tensor:
            parts = zip(torch.split(heads, counts), stretches, masks[self.shape.window(index)], strict=True)
            mixed = [self._mix(index, part, stretch, mask) for part, stretch, mask in parts]
            return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

        places = [slice(stretch.start, stretch.end) for stretch in stretches]
        cosines, sines = (torch.cat([turns[place] for place in places]) for turns in (self._cosines, self._sines))
        return self._layers(self._embed(stretches), cosines, sines, mix)

    def _embed(self, stretches: Sequence["Stretch"]) -> Tensor:
        """What all tokens are to the first layer, [n, width]."""
        tokens = [token for stretch in stretches for token in stretch.tokens]
        hidden = self.weights.embedding[sent(torch.tensor(tokens).clamp(min=0), self.device)]
        embedded = [stretch.embedded.to(hidden) for stretch in stretches if stretch.embedded is not None]
        if embedded:
            # By their numbers: a mask would have to be read before the rows behind it could be placed.
            places = [place for place, token in enumerate(tokens) if token < 0]
            hidden.index_copy_(0, sent(torch.tensor(places), self.device), torch.cat(embedded))
        return hidden

    def _layers(self, hidden: Tensor, cosines: Tensor, sines: Tensor, mix: Callable[[int, Tensor], Tensor]) -> Tensor:
        """All layers: [n, width] to [n, width]. `cosines` and `sines` [n, 1, head_width] are of the rows' positions; `mix` is the attention
        of a layer: its index and heads [n, heads + 2 kv_heads, head_width], turned, to [n, heads * head_width]."""
        rotation = self._rotation(cosines, sines)
        for index, layer in enumerate(self.weights.layers):
            normed = _normalise(hidden, layer.attention_norm, self.shape.norm_epsilon)
            heads = layer.qkv(normed).view(len(normed), -1, self.shape.head_width)
            if layer.head_norm is not None:
                heads = self._normalise_heads(heads, layer.head_norm)
            if index not in self.shape.still:
                heads = rotate(heads, *rotation, self._rope.width)
            hidden = hidden + layer.attention_out(mix(index, heads))
            normed = _normalise(hidden, layer.feed_forward_norm, self.shape.norm_epsilon)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(functional.silu(gate) * up)
        return hidden

    def _scores(self, hidden: Tensor) -> Tensor:
        """Logits, [n, width] to float32 [n, vocabulary]."""
        return self.weights.head(_normalise(hidden, self.weights.norm, self.shape.norm_epsilon)).float()

    def _normalise_heads(self, heads: Tensor, weight: Tensor) -> Tensor:
        """Query and key heads of [n, heads + 2 kv_heads, head_width], each normalised by itself; the values as they are."""
        turned = heads[:, : len(weight)]
        normed = functional.rms_norm(turned, turned.shape[-1:], None, self.shape.norm_epsilon) * weight
        return torch.cat((normed, heads[:, len(weight) :]), dim=1)

    def _mask(self, count: int, end: int, window: int | None, like: Tensor) -> Tensor | None:
        """What is added to the scores [n * group, end]: row i of the n sees the positions up to its own, the last `window` of them. None
        where one row sees all."""
        if count == 1 and (window is None or end <= window):
            return None
        closed = torch.full((count, end), float("-inf"), dtype=like.dtype, device=like.device)
        mask = closed.triu(end - count + 1)
        if window is not None:
            mask += closed.tril(end - count - window)
        return mask.repeat_interleave(self.shape.heads // self.shape.kv_heads, dim=0)

    def _rotation(self, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for every head of the fused product, each [n, heads + 2 kv_heads, head_width], from those of the rows'
        positions. Values get 1 and 0: turned by nothing they go through the same operation as queries and keys, which is cheaper than
        taking them apart."""
        shape = self.shape
        still, turned = shape.kv_heads, shape.heads + shape.kv_heads
        ones = cosines.new_ones(len(cosines), still, shape.head_width)
        return (
            torch.cat((cosines.expand(-1, turned, -1), ones), dim=1),
            torch.cat((sines.expand(-1, turned, -1), torch.zeros_like(ones)), dim=1),
        )

    def _mix(self, index: int, heads: Tensor, stretch: "Stretch", mask: Tensor | None) -> Tensor:
        """One stretch's attention in layer `index`: its heads [n, heads + 2 kv_heads, head_width] to [n, heads * head_width]."""
        shape, count = self.shape, len(heads)
        pairs = heads[:, shape.heads :].view(count, 2, shape.kv_heads, shape.head_width)
        # [1, kv_heads, end, head_width]
        keys, values = stretch.cache.write(index, stretch.start, pairs.permute(1, 2, 0, 3)).unsqueeze(1).unbind(0)
        # The query heads that share a key-value head become rows of it: nothing is repeated, and one decode row needs no mask.
        group = shape.heads // shape.kv_heads
        queries = heads[:, : shape.heads].view(count, shape.kv_heads, group, shape.head_width).transpose(0, 1)
        queries = queries.reshape(1, shape.kv_heads, count * group, shape.head_width)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return mixed.view(shape.kv_heads, count, -1).transpose(0, 1).reshape(count, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Tokens of one sequence that stand at positions `start` and on. `scored`: the logits after the last are wanted. Where a token is below
    zero the next of the rows `embedded` [n, width] stands instead of an embedding."""

    tokens: Sequence[int]
    start: int
    cache: KeyValueCache
    scored: bool = True
    embedded: Tensor | None = None

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + len(self.tokens)


def _normalise(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square normalisation (Zhang and Sennrich 2019)."""
    return functional.rms_norm(hidden, weight.shape, weight, epsilon)


def rotate(heads: Tensor, cosines: Tensor, sines: Tensor, width: int) -> Tensor:
    """Rotary embedding of [n, heads, head_width]: the halves of a head's first `width` numbers are the coordinates that are turned."""
    if width == heads.shape[-1]:
        swapped = heads.roll(width // 2, dims=-1)
    else:
        swapped = torch.cat((heads[..., :width].roll(width // 2, dims=-1), heads[..., width:]), dim=-1)
    return torch.addcmul(heads * cosines, swapped, sines)
