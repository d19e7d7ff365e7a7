"""Our own projector: frames of Whisper's encoder to rows of a language model's embedding space, one for each word piece that is heard.

A small network makes of every 80 ms scores of the pieces it was trained on, and of none of them (CTC, Graves et al. 2006): the product of
its output with the language model's own embedding rows, each beside a few numbers of how the piece sounds. A run of strides whose likeliest
piece is the same is one piece, and gives one row: the embedding rows of what it may be, weighted by how likely each is. So the language
model finds rows of its own kind, few, and where two words sound alike something between them. What is lost is whatever is not words: tone,
pace, who speaks. Streaming: the network sees `ahead` strides to the right and `window` to the left, strides are computed `BLOCK` at a time,
at fixed positions, and a piece is final with the stride that ends it. So any split of the same frames gives the same rows, bit for bit.

Training (`training.pocket`) uses the same network over whole recordings.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from streaming.models.ctranslate2 import WeightsError

__all__ = ["BLANK", "BLOCK", "Pieces", "PocketProjection", "PocketProjector", "ProjectorNetwork", "ProjectorShape", "load_projector"]

BLOCK: Final = 4
"""Strides computed at once in a stream: 320 ms."""

BLANK: Final = 0
"""Column of the scores that stands for no piece."""

_KEPT: Final = 8
"""Pieces that a row is made of, at most."""

_TABLES: Final = ("tokens", "first", "behind_stop", "stops")


@dataclass(frozen=True, slots=True)
class ProjectorShape:
    """Sizes of the network. `stack` frames are a stride; `heads` divides `width`; the attention sees `window` strides, its own among them;
    the convolution reaches `ahead` strides to both sides. A piece is known by its embedding and `sound_width` numbers of its sound."""

    frame_width: int = 512
    stack: int = 4
    width: int = 320
    inner: int = 896
    layers: int = 3
    heads: int = 5
    window: int = 64
    ahead: int = 2
    embedding_width: int = 576
    sound_width: int = 128

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that do not fit together."""
        if min(asdict(self).values()) < 1 or self.width % self.heads:
            raise ValueError(f"{self}: sizes are at least 1 and heads divide the width")


class _Norm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019), in the type of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, rows: Tensor) -> Tensor:
        return functional.rms_norm(rows, self.weight.shape, self.weight.to(rows.dtype), 1e-6)


class _Layer(nn.Module):
    """Attention to what came before and a gated feed-forward, each with a norm before it and the residual around it."""

    def __init__(self, shape: ProjectorShape) -> None:
        super().__init__()
        self.shape: Final = shape
        self.attention_norm = _Norm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        # What a head thinks of a stride by how long ago it was: 0 strides first.
        self.distances = nn.Parameter(torch.zeros(shape.heads, shape.window))
        self.attention_out = nn.Linear(shape.width, shape.width, bias=False)
        self.norm = _Norm(shape.width)
        self.gate_up = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, rows: Tensor, before: tuple[Tensor, Tensor] | None, dropout: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Rows (batch, n, width) behind the keys and values `before`, each (batch, heads, m, head width): rows, and what the next ones have
        before them."""
        shape = self.shape
        heads = self.qkv(self.attention_norm(rows)).unflatten(-1, (3, shape.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)
        if before is not None:
            keys, values = torch.cat((before[0], keys), 2), torch.cat((before[1], values), 2)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=self._seen(rows.shape[1], keys.shape[2]))
        rows = rows + functional.dropout(self.attention_out(mixed.transpose(1, 2).flatten(2)), dropout, self.training)
        gate, up = self.gate_up(self.norm(rows)).chunk(2, dim=-1)
        rows = rows + functional.dropout(self.down(functional.silu(gate) * up), dropout, self.training)
        kept = max(0, keys.shape[2] - shape.window + 1)
        return rows, (keys[:, :, kept:], values[:, :, kept:])

    def _seen(self, count: int, end: int) -> Tensor:
        """What is added to the scores of the last `count` of `end` strides, (heads, count, end)."""
        ages = torch.arange(end - count, end)[:, None] - torch.arange(end)
        ages = ages.to(self.distances.device)
        seen = (ages >= 0) & (ages < self.shape.window)
        weights = self.distances[:, ages.clamp(0, self.shape.window - 1)]
        return weights.masked_fill(~seen, float("-inf"))


class ProjectorNetwork(nn.Module):
    """Frames to points of the space that pieces are known in, one a stride, and to the score of there being no piece."""

    def __init__(self, shape: ProjectorShape) -> None:
        super().__init__()
        self.shape: Final = shape
        self.norm = _Norm(shape.stack * shape.frame_width)
        # Without a bias, so that what is not there is zero behind it too.
        self.stem = nn.Linear(shape.stack * shape.frame_width, shape.width, bias=False)
        self.convolution = nn.Conv1d(shape.width, shape.width, 2 * shape.ahead + 1)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.out_norm = _Norm(shape.width)
        self.out = nn.Linear(shape.width, shape.embedding_width + shape.sound_width)
        self.blank = nn.Linear(shape.width, 1)

    def strides(self, frames: Tensor) -> Tensor:
        """Frames (batch, n, frame width), n a multiple of `stack`, to the convolution's input (batch, n / stack, width)."""
        batch, count, width = frames.shape
        stacked: Tensor = self.stem(self.norm(frames.reshape(batch, count // self.shape.stack, self.shape.stack * width)))
        return stacked

    def rows(
        self, strides: Tensor, before: list[tuple[Tensor, Tensor]] | None = None, dropout: float = 0.0
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Strides (batch, ahead + n + ahead, width), zeros for what does not exist: what each layer makes of them, (batch, n, width), and
        what the next ones need of these as their `before`."""
        mixed = functional.gelu(self.convolution(strides.transpose(1, 2))).transpose(1, 2)
        rows = strides[:, self.shape.ahead : strides.shape[1] - self.shape.ahead] + functional.dropout(mixed, dropout, self.training)
        layers, after = [], []
        for index, layer in enumerate(self.layers):
            rows, kept = layer(rows, None if before is None else before[index], dropout)
            layers.append(rows)
            after.append(kept)
        return layers, after

    def points(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of what the last layer made (batch, n, width): points (batch, n, embedding and sound width), the blank's scores (batch, n, 1)."""
        normed = self.out_norm(rows)
        return self.out(normed), self.blank(normed)

    def forward(self, frames: Tensor, dropout: float = 0.0) -> list[Tensor]:
        """What each layer makes of whole recordings (batch, n, frame width), zeros behind their ends: (batch, strides, width)."""
        filled = functional.pad(frames, (0, 0, 0, -frames.shape[1] % self.shape.stack))
        ahead = self.shape.ahead
        layers, _ = self.rows(functional.pad(self.strides(filled), (0, 0, ahead, ahead)), None, dropout)
        return layers


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """The pieces that can be heard. `tokens` int64 (n,) are their numbers in the language model's vocabulary, as within a sentence; `first`
    and `behind_stop` (n,) are the numbers they have at the beginning of a text and of a later sentence (a capital, no space); `stops`
    (n,) bool, whether a piece ends a sentence. `places` (n, embedding and sound width): the embedding rows of `tokens`, each beside its
    sound."""

    tokens: Tensor
    first: Tensor
    behind_stop: Tensor
    stops: Tensor
    places: Tensor

    def scores(self, points: Tensor, blanks: Tensor) -> Tensor:
        """Logits (..., n + 1) of points (..., embedding and sound width) and blanks (..., 1), the blank first."""
        return torch.cat((blanks, points @ self.places.T), -1)


@dataclass(slots=True)
class _Run:
    """Strides whose likeliest piece is the same: `column` of the scores, and how likely all pieces were in them, added up (n + 1,)."""

    column: int
    weights: Tensor


@dataclass(slots=True)
class _State:
    """What the next stride depends on."""

    # Strides before the ones whose points come next, (1, m, width): `ahead` of them behind what is done, and those not done.
    strides: Tensor
    before: list[tuple[Tensor, Tensor]] | None
    run: _Run | None
    # The last piece given, as a column; None at the beginning.
    last: int | None


class PocketProjection:
    """One sequence of sound. Holds the frames of a stride that is not full, and some 100 kB."""

    def __init__(self, projector: "PocketProjector") -> None:
        self._projector = projector
        shape = projector.network.shape
        at = projector.network.out.weight
        # Frames behind the last whole stride, (m, frame width).
        self._frames = at.new_zeros(0, shape.frame_width)
        self._state = _State(at.new_zeros(1, shape.ahead, shape.width), None, None, None)
        # Numbers, in the language model's vocabulary, of the pieces that the committed rows stand for, and of the last provisional rows.
        self.tokens: Final[list[int]] = []
        self.tail_tokens: list[int] = []

    @torch.inference_mode()
    def commit(self, frames: Tensor) -> Tensor:
        """Take the frames (n, frame width) that follow: the rows (m, width) that are final with them, perhaps none."""
        shape = self._projector.network.shape
        self._frames = torch.cat((self._frames, frames.to(self._frames)))
        rows, tokens = [], []
        size = shape.stack * BLOCK
        while len(self._frames) >= size:
            self._state.strides = torch.cat((self._state.strides, self._projector.network.strides(self._frames[None, :size])), 1)
            self._frames = self._frames[size:]
            if self._state.strides.shape[1] >= 2 * shape.ahead + BLOCK:
                found = self._projector.advance(self._state, BLOCK)
                rows += [row for row, _ in found]
                tokens += [token for _, token in found]
        self.tokens.extend(tokens)
        return self._projector.stacked(rows)

    @torch.inference_mode()
    def provisional(self, frames: Tensor) -> Tensor:
        """The rows behind the committed ones as if the sound ended with these frames. Changes nothing that is committed."""
        shape, network, state = self._projector.network.shape, self._projector.network, self._state
        left = torch.cat((self._frames, frames.to(self._frames)))
        left = functional.pad(left, (0, 0, 0, -len(left) % shape.stack))
        strides = torch.cat((state.strides, network.strides(left[None])), 1)
        ended = _State(functional.pad(strides, (0, 0, 0, shape.ahead)), state.before, state.run, state.last)
        if ended.run is not None:
            ended.run = _Run(ended.run.column, ended.run.weights.clone())
        count = ended.strides.shape[1] - 2 * shape.ahead
        found = self._projector.advance(ended, count) if count > 0 else []
        found += self._projector.ended(ended)
        self.tail_tokens = [token for _, token in found]
        return self._projector.stacked([row for row, _ in found])


class PocketProjector:
    """Loaded once, used by all sequences."""

    def __init__(self, network: ProjectorNetwork, pieces: Pieces, embedding: Tensor) -> None:
        """`embedding` [vocabulary, width] is the language model's table: rows are made of it, in its type."""
        self.network: Final = network.eval()
        self.pieces: Final = pieces
        self._embedding = embedding

    @property
    def width(self) -> int:
        """Of a row."""
        return self.network.shape.embedding_width

    def stream(self) -> PocketProjection:
        """An empty sequence."""
        return PocketProjection(self)

    def stacked(self, rows: list[Tensor]) -> Tensor:
        """Rows as one tensor (n, width); of nothing, (0, width)."""
        return torch.stack(rows) if rows else self._embedding.new_zeros(0, self.width)

    def advance(self, state: _State, count: int) -> list[tuple[Tensor, int]]:
        """The pieces, row and token each, that end within the next `count` strides of a state, which moves on."""
        network, ahead = self.network, self.network.shape.ahead
        layers, state.before = network.rows(state.strides[:, : count + 2 * ahead], state.before)
        state.strides = state.strides[:, count:]
        points, blanks = network.points(layers[-1])
        likely = self.pieces.scores(points[0], blanks[0]).float().softmax(-1)
        found = []
        for column, weights in zip(likely.argmax(-1).tolist(), likely, strict=True):
            if state.run is not None and state.run.column != column:
                found += self.ended(state)
            if column == BLANK:
                continue
            if state.run is None:
                state.run = _Run(column, weights.clone())
            else:
                state.run.weights += weights
        return found

    def ended(self, state: _State) -> list[tuple[Tensor, int]]:
        """The piece that a state's run is, row and token; none where there is no run."""
        run, state.run = state.run, None
        if run is None:
            return []
        weights, columns = run.weights[1:].topk(min(_KEPT, len(run.weights) - 1))
        places = self.pieces.tokens
        if state.last is None:
            places = self.pieces.first
        elif self.pieces.stops[state.last - 1]:
            places = self.pieces.behind_stop
        state.last = run.column
        row = (weights / weights.sum()).to(self._embedding) @ self._embedding[places[columns]]
        return [(row, int(places[run.column - 1]))]


def load_projector(path: Path, embedding: Tensor, dtype: torch.dtype = torch.float32) -> PocketProjector:
    """The projector in a file that `training.pocket` wrote, for the language model with this table of embeddings [vocabulary, width], where
    that is; computed in `dtype`. Raises WeightsError, naming the file, for what is none or is for another table, and OSError where it can't
    be read."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors, or is cut short ({error})") from error
    try:
        shape = ProjectorShape(**json.loads(metadata["shape"]))
        if shape.embedding_width != embedding.shape[1]:
            raise ValueError(f"it makes rows of {shape.embedding_width}, the language model has rows of {embedding.shape[1]}")
        pieces = _pieces(tensors, shape, embedding, dtype)
        network = ProjectorNetwork(shape)
        names = {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")}
        network.load_state_dict(names)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is no projector of ours: {error}") from error
    return PocketProjector(network.to(embedding.device, dtype), pieces, embedding)


def _pieces(tensors: Mapping[str, Tensor], shape: ProjectorShape, embedding: Tensor, dtype: torch.dtype) -> Pieces:
    tokens, first, behind_stop, stops = (tensors[f"pieces.{name}"].to(embedding.device) for name in _TABLES)
    sounds = tensors["pieces.sounds"].to(embedding.device, dtype)
    if not len(tokens) == len(first) == len(behind_stop) == len(stops) == len(sounds) > 0 or sounds.shape[1] != shape.sound_width:
        raise ValueError("its tables of pieces differ in length")
    numbers = torch.cat((tokens, first, behind_stop))
    if int(numbers.min()) < 0 or int(numbers.max()) >= len(embedding):
        raise ValueError(f"it has pieces that a vocabulary of {len(embedding)} tokens does not have")
    places = torch.cat((embedding[tokens.long()].to(dtype), sounds), 1)
    return Pieces(tokens.long(), first.long(), behind_stop.long(), stops.bool(), places)
