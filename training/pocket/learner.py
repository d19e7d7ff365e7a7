"""The projector as it learns: two CTC losses, of word pieces and, of what its first layer makes, of phonemes.

A piece is scored by its row of the language model's frozen embedding table and by numbers that a small network makes of its phonemes. So a
word that was never heard is scored by what it sounds like, and what is learned of one word serves those that sound like it. Scores are made
for the pieces of the batch and for some others, drawn anew each time (`others`), which stand for all that are not there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from streaming.models.pocket_projector import ProjectorNetwork, ProjectorShape

__all__ = ["Batch", "Learner", "SoundNetwork"]

_SYMBOLS: Final = 64
"""Phonemes there is room for, none among them."""

_HALVES: Final = 2
"""Phonemes a stride can have: they come up to 15 a second, strides are 12.5."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Clips as tensors: frames (batch, n, frame width), zeros behind their ends, and strides of each; pieces, as places in the table from
    0, and phonemes of all clips one after another, and how many each has."""

    frames: Tensor
    strides: Tensor
    pieces: Tensor
    piece_counts: Tensor
    phonemes: Tensor
    phoneme_counts: Tensor


class SoundNetwork(nn.Module):
    """Phonemes of pieces (n, longest) to numbers (n, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.phonemes = nn.Embedding(_SYMBOLS, 48, padding_idx=0)
        self.convolution = nn.Conv1d(48, 192, 3, padding=1)
        self.out = nn.Linear(3 * 192, width)

    def forward(self, phonemes: Tensor) -> Tensor:
        there = (phonemes > 0)[:, None]
        found = functional.gelu(self.convolution(self.phonemes(phonemes).transpose(1, 2)))
        # Which sounds there are, how often, and which the last is.
        last = there.sum(-1).clamp(min=1) - 1
        ending = found.gather(2, last[:, :, None].expand(-1, found.shape[1], 1))[:, :, 0]
        # Zeros behind the end: a piece without phonemes sounds like nothing.
        parts = ((found * there).amax(-1), (found * there).sum(-1) / 4, ending * there.any(-1))
        sounds: Tensor = self.out(torch.cat(parts, 1))
        return sounds


class Learner(nn.Module):
    """`embedding` [n, width] and `phonemes` [n, longest] are those of the pieces."""

    def __init__(self, shape: ProjectorShape, embedding: Tensor, phonemes: Tensor, others: int, dropout: float) -> None:
        super().__init__()
        self.network = ProjectorNetwork(shape)
        self.sounds = SoundNetwork(shape.sound_width)
        self.phoneme_head = nn.Linear(shape.width, _HALVES * _SYMBOLS)
        self._embedding = embedding
        self._phonemes = phonemes
        self._others = others
        self._dropout = dropout

    def places(self, columns: Tensor | None = None) -> Tensor:
        """What pieces are scored by (n, embedding and sound width): all, or those of `columns`."""
        embedding, phonemes = self._embedding, self._phonemes
        if columns is not None:
            embedding, phonemes = embedding[columns], phonemes[columns]
        return torch.cat((embedding, self.sounds(phonemes)), 1)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The two losses, each of a piece or phoneme."""
        layers = self.network(batch.frames, self._dropout)
        points, blanks = self.network.points(layers[-1])
        there = batch.pieces.unique()
        total = len(self._embedding)
        count = min(self._others, total)
        drawn = torch.randperm(total, generator=generator)[:count].to(there.device)
        drawn = drawn[~torch.isin(drawn, there)]
        places = self.places(torch.cat((there, drawn)))
        scores = torch.cat((blanks, points @ places.T), -1).float()
        if len(drawn):
            # Each of those drawn stands for as many as were not.
            scores[..., 1 + len(there) :] += math.log(max(1.0, (total - len(there)) / len(drawn)))
        targets = torch.searchsorted(there, batch.pieces) + 1
        pieces = _ctc(scores, targets, batch.strides, batch.piece_counts)
        heard = self.phoneme_head(layers[0]).float().unflatten(-1, (_HALVES, _SYMBOLS)).flatten(1, 2)
        return pieces, _ctc(heard, batch.phonemes, batch.strides * _HALVES, batch.phoneme_counts)


def _ctc(scores: Tensor, targets: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """Loss of a target; clips that are too short for what is said in them count nothing."""
    logs = scores.log_softmax(-1).transpose(0, 1)
    loss = functional.ctc_loss(logs, targets, lengths, counts, reduction="sum", zero_infinity=True)
    return loss / counts.sum().clamp(min=1)


def batch_of(clips: Sequence[tuple[Tensor, Sequence[int], Sequence[int]]], stack: int) -> Batch:
    """A batch of clips: frames (n, frame width), pieces and phonemes of each."""
    frames = nn.utils.rnn.pad_sequence([frames for frames, _, _ in clips], batch_first=True)
    frames = functional.pad(frames, (0, 0, 0, -frames.shape[1] % stack))
    return Batch(
        frames,
        torch.tensor([-(-len(frames) // stack) for frames, _, _ in clips]),
        torch.tensor([piece for _, pieces, _ in clips for piece in pieces], dtype=torch.long),
        torch.tensor([len(pieces) for _, pieces, _ in clips]),
        torch.tensor([phoneme for _, _, phonemes in clips for phoneme in phonemes], dtype=torch.long),
        torch.tensor([len(phonemes) for _, _, phonemes in clips]),
    )
