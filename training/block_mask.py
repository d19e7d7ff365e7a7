"""The streaming encoder's view of a clip as one run: every block with its lookahead as rows of their own, and a mask of who sees whom.

`streaming.encoder.EncoderStream` runs a block after the other: a block attends to what was committed before it, to itself, to a lookahead
that is thrown away, and to silence behind that. Here the rows of all blocks and of all lookaheads stand side by side. A row attends to the
committed rows of earlier blocks, to all rows of its own block and lookahead, and to silence from the lookahead's end on. So one run gives
what the stream gives, and has a gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from streaming.encoder import FRAME_MEL, BlockPlan
from streaming.models.whisper import Silence, WhisperEncoder

__all__ = ["Block", "Stretch", "View", "masked_frames", "planned", "view_of"]


_STRETCH: Final = 200
"""Rows whose attention is computed at once."""


@dataclass(frozen=True, slots=True)
class Block:
    """Audio frames that are encoded together: `frames` of them are kept, and `lookahead` more are heard with them."""

    frames: int
    lookahead: int


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """`positions` int64 (rows,): the audio frame each row is a copy of; `kept` int64 (frames,): the rows that are kept, in order."""

    positions: Tensor
    kept: Tensor
    stretches: tuple["Stretch", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Rows `start` to `end`, whose attention is computed at once. `seen` int64 (n,): what any of them sees, of the thinned positions of
    silence and then of the rows; `bias` (rows of the stretch, n): what is added to their scores."""

    start: int
    end: int
    seen: Tensor
    bias: Tensor


def planned(plan: BlockPlan, mel: int, tail: int) -> list[Block]:
    """The blocks of a stream into which `mel` mel frames were pushed and whose provisional frames were then computed with `tail` more: the
    last block is the provisional one, silence included."""
    blocks: list[Block] = []
    committed = 0
    while True:
        block = plan.block if blocks else plan.first
        # The convolutions reach one mel frame to the right.
        if mel - FRAME_MEL * committed < FRAME_MEL * (block + plan.lookahead) + 1:
            break
        blocks.append(Block(block, plan.lookahead))
        committed += block
    heard = -(-(mel + tail) // FRAME_MEL)
    return [*blocks, Block(heard - committed + plan.silence, 0)]


def view_of(blocks: Sequence[Block], positions: int, every: int, like: Tensor) -> View:
    """Of blocks that follow each other from frame 0 on, in a model of `positions` whose silence is thinned to one in `every`; for rows of
    the type of `like`, and where they are."""
    counts = torch.tensor([block.frames + block.lookahead for block in blocks])
    frames = torch.tensor([block.frames for block in blocks])
    starts = frames.cumsum(0) - frames
    group = torch.repeat_interleave(torch.arange(len(blocks)), counts)  # (rows,)
    within = torch.arange(len(group)) - (counts.cumsum(0) - counts)[group]
    kept = within < frames[group]
    seen = (group[:, None] == group) | (kept & (group[:, None] > group))  # (rows, rows)
    quiet = torch.arange(len(range(every // 2, positions, every))) * every >= (starts + counts)[group][:, None]  # (rows, silences)
    bias = torch.where(torch.cat((quiet, seen), dim=1), 0.0, -torch.inf)
    bias[:, : quiet.shape[1]] += math.log(every)
    return View((starts[group] + within).to(like.device), kept.nonzero()[:, 0].to(like.device), _stretches(bias, like))


def _stretches(bias: Tensor, like: Tensor) -> tuple[Stretch, ...]:
    """Of what is added to the scores of everything, (rows, silences + rows)."""
    found = []
    for part in torch.arange(len(bias)).tensor_split(-(-len(bias) // _STRETCH)):
        start, end = int(part[0]), int(part[-1]) + 1
        seen = torch.isfinite(bias[start:end]).any(dim=0).nonzero()[:, 0]
        found.append(Stretch(start, end, seen.to(like.device), bias[start:end, seen].to(like)))
    return tuple(found)


def masked_frames(encoder: WhisperEncoder, stem: Tensor, view: View, silence: Silence) -> Tensor:
    """What the encoder makes of `stem` (frames, width; `WhisperEncoder.stem` from frame 0 on) in the `view`: (kept frames, width)."""
    hidden = stem[view.positions]
    heads = encoder.shape.heads
    for index, layer in enumerate(encoder.layers):
        attention, inner = layer.self_attention, layer.feed_forward
        assert isinstance(attention, nn.Module)
        assert isinstance(inner, nn.Module)
        query, key, value = (_split(part, heads) for part in attention.qkv(attention.norm(hidden)).chunk(3, dim=-1))
        mixed = _attend(query, key, value, silence.behind(index, 0), view)
        hidden = hidden + attention.out(mixed)
        hidden = hidden + inner.down(functional.gelu(inner.up(inner.norm(hidden))))
    normed: Tensor = encoder.norm(hidden[view.kept])
    return normed


def _attend(query: Tensor, key: Tensor, value: Tensor, quiet: tuple[Tensor, Tensor], view: View) -> Tensor:
    """(n, width). Written out and stretch by stretch, for most rows see few others: on a CPU a third of the time of the fused one with a
    mask."""
    query = query / math.sqrt(query.shape[3])
    keys, values = torch.cat((quiet[0], key), dim=2), torch.cat((quiet[1], value), dim=2)
    parts = []
    for stretch in view.stretches:
        scores = query[:, :, stretch.start : stretch.end] @ keys[:, :, stretch.seen].transpose(2, 3) + stretch.bias
        parts.append(scores.softmax(dim=-1) @ values[:, :, stretch.seen])
    return torch.cat(parts, dim=2)[0].transpose(0, 1).flatten(1)


def _split(states: Tensor, heads: int) -> Tensor:
    """(n, width) to (1, heads, n, width / heads)."""
    return states.view(len(states), heads, -1).transpose(0, 1)[None]
