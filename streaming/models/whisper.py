"""Whisper's encoder and decoder (Radford et al. 2022) with explicit caches, stretches of several sequences at a time.

The encoder may be run on a stretch of frames that attends to cached keys and values of what came before; the decoder on a stretch of
tokens, likewise. Every product is made once for the rows of all stretches, attention stretch by stretch (`Span`). The same arithmetic as
the reference where the stretch is everything: `tests/streaming/test_whisper.py` holds it equal to `transformers`, and to CTranslate2
running the same file. Neither features nor tokens nor decoding strategy are here; `whisper_weights` loads it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from streaming.models.linear import OUTPUTS, Dense, Linear, packed_eight

if TYPE_CHECKING:
    from streaming.models.low_rank import Adaptation

__all__ = [
    "AttentionCache",
    "Silence",
    "Span",
    "Whisper",
    "WhisperDecoder",
    "WhisperEncoder",
    "WhisperShape",
    "replace_linears",
]


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """Sizes of a Whisper model. `width` is the model's dimension, `heads` divides it; the inner layers are four times as wide."""

    mels: int
    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    vocabulary: int
    audio_positions: int
    text_positions: int


class AttentionCache:
    """Keys and values of every layer for the positions of one sequence, each (layers, 1, heads, capacity, width / heads).

    A stretch is written where it stands and may be written again: what is provisional is simply overwritten by the next run. Memory is
    taken from the system only as positions are first written.
    """

    def __init__(self, layers: int, heads: int, capacity: int, head_width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.keys = torch.empty(layers, 1, heads, capacity, head_width, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.keys.shape[3]

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Put (1, heads, n, width / heads) at positions `start` to `start + n` of a layer. Raises ValueError beyond the capacity."""
        end = start + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"positions {start} to {end} do not fit a cache of {self.capacity}")
        self.keys[layer, :, :, start:end] = keys
        self.values[layer, :, :, start:end] = values

    def read(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of positions 0 to `end`, each (1, heads, end, width / heads), without a copy."""
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Silence:
    """Keys and values of silence at every position of a sequence that holds nothing else, thinned: one position stands for `every`, with
    the logarithm of that added to its score, so that it weighs as much as those it stands for. Shared by all sequences."""

    def __init__(self, cache: AttentionCache, every: int = 1) -> None:
        self.every: Final = every
        self._keys = cache.keys[:, :, :, every // 2 :: every].clone()
        self._values = cache.values[:, :, :, every // 2 :: every].clone()

    def behind(self, layer: int, start: int) -> tuple[Tensor, Tensor]:
        """Of the positions from `start` on, each (1, heads, n, width / heads)."""
        first = -(-start // self.every)
        return self._keys[layer, :, :, first:], self._values[layer, :, :, first:]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Rows of a batch that belong to one sequence: `count` of them, standing at `start`, with the sequence's cache. `silence` follows what
    the cache holds. In the decoder `audio` is what the rows hear: its cache, and how many frames of it are heard before the silence."""

    count: int
    start: int
    cache: AttentionCache
    silence: Silence | None = None
    audio: tuple[AttentionCache, int] | None = None


class WhisperEncoder(nn.Module):
    """Mel frames to audio frames, one every two mel frames (20 ms)."""

    def __init__(self, shape: WhisperShape) -> None:
        super().__init__()
        self.shape: Final = shape
        # Padding is the caller's: `stem` is given the frames around.
        self.conv1 = nn.Conv1d(shape.mels, shape.width, 3)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2)
        self.positions = nn.Parameter(torch.empty(shape.audio_positions, shape.width))
        self.layers = nn.ModuleList(_EncoderLayer(shape.width, shape.heads) for _ in range(shape.encoder_layers))
        # Nothing where another model pools before it (Qwen2-Audio).
        self.norm: nn.Module = nn.LayerNorm(shape.width)

    def new_cache(self) -> AttentionCache:
        """Room for one sequence of the model's greatest length (30 s)."""
        shape, at = self.shape, self.positions
        return AttentionCache(shape.encoder_layers, shape.heads, shape.audio_positions, shape.width // shape.heads, at.dtype, at.device)

    def stem(self, mel: Tensor, start: int, ends: int | None = None) -> Tensor:
        """Convolutions and positions for the audio frames from `start` on: `mel` holds mel frames 2 * start - 2 to 2 * end inclusive,
        (2 * n + 3, mels), zeros for those that do not exist; returns (n, width). Where `ends` is given nothing stands behind so many mel
        frames. Raises ValueError beyond the model's positions."""
        end = start + (len(mel) - 3) // 2
        if end > len(self.positions):
            raise ValueError(f"audio frames {start} to {end} do not fit a model of {len(self.positions)}")
        hidden = functional.gelu(self.conv1(mel.to(self.positions.dtype).T[None]))  # (1, width, 2n + 1)
        if start == 0:
            # The reference pads what goes into the second convolution too: nothing stands before the first frame.
            hidden[:, :, 0] = 0
        if ends is not None:
            hidden[:, :, ends + 1 :] = 0
        frames = functional.gelu(self.conv2(hidden))[0].T  # (n, width)
        return frames + self.positions[start:end]

    def forward(self, frames: Tensor, spans: Sequence[Span]) -> Tensor:
        """Run stem frames (n, width), the rows of all spans one after another: their keys and values are written, and they attend to what
        their cache holds up to their own end, and to the span's silence from there on. Returns (n, width)."""
        for index, layer in enumerate(self.layers):
            frames = layer(frames, index, spans)
        normed: Tensor = self.norm(frames)
        return normed


class WhisperDecoder(nn.Module):
    """Tokens and audio frames to scores of the next token."""

    def __init__(self, shape: WhisperShape) -> None:
        super().__init__()
        self.shape: Final = shape
        self.embeddings = nn.Parameter(torch.empty(shape.vocabulary, shape.width))
        self.positions = nn.Parameter(torch.empty(shape.text_positions, shape.width))
        self.layers = nn.ModuleList(_DecoderLayer(shape.width, shape.heads) for _ in range(shape.decoder_layers))
        # The product with `embeddings`, where it is packed.
        self._head: Linear | None = None
        self.norm = nn.LayerNorm(shape.width)

    def new_cache(self) -> AttentionCache:
        """Room for the tokens of one sequence."""
        shape, at = self.shape, self.positions
        return AttentionCache(shape.decoder_layers, shape.heads, shape.text_positions, shape.width // shape.heads, at.dtype, at.device)

    def new_audio_cache(self) -> AttentionCache:
        """Room for the audio frames of one sequence, as the decoder sees them."""
        shape, at = self.shape, self.positions
        return AttentionCache(shape.decoder_layers, shape.heads, shape.audio_positions, shape.width // shape.heads, at.dtype, at.device)

    def listen(self, frames: Tensor, start: int, audio: AttentionCache) -> None:
        """Write the cross-attention keys and values of encoder output (n, width) standing at `start`."""
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, _DecoderLayer)
            layer.attention.listen(frames, index, start, audio)

    def forward(self, tokens: Tensor, spans: Sequence[Span]) -> Tensor:
        """Run token ids (n,), the rows of all spans one after another, each behind what its cache holds and against its span's audio.
        Returns hidden states (n, width): see `scores`."""
        at = torch.cat([self.positions[span.start : span.start + span.count] for span in spans])
        hidden = self.embeddings[tokens] + at
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, index, spans)
        normed: Tensor = self.norm(hidden)
        return normed

    def pack(self) -> None:
        """Keep a second copy of the weights in 8 bits for runs of a few tokens, where that is possible: such a run is as long as reading
        the weights takes. Once, after loading."""
        replace_linears(self, lambda _, child: packed_eight(Dense(child.weight, child.bias)))
        # Rows of nothing fill the vocabulary up to what the kernel takes; one tensor, so that the weights are not there twice.
        padded = functional.pad(self.embeddings, (0, 0, 0, -len(self.embeddings) % OUTPUTS))
        self.embeddings = nn.Parameter(padded[: self.shape.vocabulary], requires_grad=False)
        self._head = packed_eight(Dense(padded), shared=True)

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits of the token that follows each hidden state: (n, width) to float32 (n, vocabulary)."""
        head = self._head or Dense(self.embeddings)
        return head(hidden)[:, : self.shape.vocabulary].float()


class Whisper(nn.Module):
    """Both halves."""

    def __init__(self, shape: WhisperShape) -> None:
        super().__init__()
        self.shape: Final = shape
        self.encoder = WhisperEncoder(shape)
        self.decoder = WhisperDecoder(shape)
        # What was added to the encoder's weights; None where they are as published.
        self.adaptation: Adaptation | None = None


def replace_linears(model: nn.Module, product: Callable[[str, nn.Linear], Linear]) -> None:
    """Put `product(path, layer)` in the place of every linear layer; `path` is its name in the model."""
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, _Product(product(path, module)))


class _Product(nn.Module):
    """A product of another kind in the place of a linear layer."""

    def __init__(self, product: Linear) -> None:
        super().__init__()
        self._product = product

    def forward(self, rows: Tensor) -> Tensor:
        return self._product(rows)


class _SelfAttention(nn.Module):
    """Attention of a stretch to itself and to the cached positions before it, with the norm in front and the residual around."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self._heads = heads
        self._causal = causal

    def forward(self, hidden: Tensor, layer: int, spans: Sequence[Span]) -> Tensor:
        parts = torch.split(self.qkv(self.norm(hidden)), [span.count for span in spans])
        added: Tensor = hidden + self.out(_together([self._mix(part, layer, span) for part, span in zip(parts, spans, strict=True)]))
        return added

    def _mix(self, part: Tensor, layer: int, span: Span) -> Tensor:
        """One span's attention: its fused projections (n, 3 * width) to (n, width)."""
        query, key, value = (_split(projection, self._heads) for projection in part.chunk(3, dim=-1))
        span.cache.write(layer, span.start, key, value)
        end = span.start + span.count
        keys, values = span.cache.read(layer, end)
        if not self._causal:
            return _join(_attend(query, keys, values, layer, end, span.silence))
        mask = torch.ones(span.count, end, dtype=torch.bool, device=part.device).tril(span.start) if span.count > 1 else None
        return _join(functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask))


class _CrossAttention(nn.Module):
    """Attention of text to audio, with the norm in front and the residual around."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self._heads = heads

    def listen(self, frames: Tensor, layer: int, start: int, audio: AttentionCache) -> None:
        key, value = self.key_value(frames).chunk(2, dim=-1)
        audio.write(layer, start, _split(key, self._heads), _split(value, self._heads))

    def forward(self, hidden: Tensor, layer: int, spans: Sequence[Span]) -> Tensor:
        parts = torch.split(self.query(self.norm(hidden)), [span.count for span in spans])
        added: Tensor = hidden + self.out(_together([self._mix(part, layer, span) for part, span in zip(parts, spans, strict=True)]))
        return added

    def _mix(self, part: Tensor, layer: int, span: Span) -> Tensor:
        assert span.audio is not None
        audio, heard = span.audio
        keys, values = audio.read(layer, heard)
        return _join(_attend(_split(part, self._heads), keys, values, layer, heard, span.silence))


class _FeedForward(nn.Module):
    """The two inner layers, with the norm in front and the residual around."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        added: Tensor = hidden + self.down(functional.gelu(self.up(self.norm(hidden))))
        return added


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attention = _SelfAttention(width, heads, causal=False)
        self.feed_forward = _FeedForward(width)

    def forward(self, frames: Tensor, layer: int, spans: Sequence[Span]) -> Tensor:
        mixed: Tensor = self.feed_forward(self.self_attention(frames, layer, spans))
        return mixed


class _DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attention = _SelfAttention(width, heads, causal=True)
        self.attention = _CrossAttention(width, heads)
        self.feed_forward = _FeedForward(width)

    def forward(self, hidden: Tensor, layer: int, spans: Sequence[Span]) -> Tensor:
        hidden = self.self_attention(hidden, layer, spans)
        mixed: Tensor = self.feed_forward(self.attention(hidden, layer, spans))
        return mixed


def _attend(query: Tensor, keys: Tensor, values: Tensor, layer: int, end: int, silence: Silence | None) -> Tensor:
    """Attention of (1, heads, n, width / heads) to what is held up to `end`, and to silence behind it."""
    if silence is None:
        return functional.scaled_dot_product_attention(query, keys, values)
    quiet_keys, quiet_values = silence.behind(layer, end)
    held = keys.shape[2]
    keys, values = torch.cat((keys, quiet_keys), dim=2), torch.cat((values, quiet_values), dim=2)
    weight = query.new_zeros(1, 1, 1, keys.shape[2])
    weight[..., held:] = math.log(silence.every)
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=weight.expand(1, 1, query.shape[2], -1))


def _together(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _split(states: Tensor, heads: int) -> Tensor:
    """(n, width) to (1, heads, n, width / heads)."""
    return states.view(len(states), heads, -1).transpose(0, 1)[None]


def _join(states: Tensor) -> Tensor:
    """(1, heads, n, width / heads) to (n, width)."""
    return states[0].transpose(0, 1).flatten(1)
