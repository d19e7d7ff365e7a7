"""The encoder that sees the whole clip teaches itself, with low-rank changes, to make the same of it in blocks."""

import copy
import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from streaming.encoder import hear_silence, silent_mel
from streaming.models.whisper import Silence, Span, Whisper, WhisperEncoder, replace_linears
from training.block_mask import Block, masked_frames, view_of

__all__ = ["Distillation", "LossWeights", "LowRank", "adapted"]

_SPREAD: Final = 1e-3
"""Added to a variance that may be nothing."""


class LowRank(nn.Module):
    """A linear layer, frozen, and what is added to it: `up` @ `down`, which begins as nothing."""

    def __init__(self, layer: nn.Linear, rank: int, chance: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        bound = 1 / math.sqrt(layer.in_features)
        down = torch.empty(rank, layer.in_features).uniform_(-bound, bound, generator=chance)
        self.down = nn.Parameter(down.to(layer.weight.device))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.weight.device))

    def forward(self, rows: Tensor) -> Tensor:
        """(n, inputs) to (n, outputs)."""
        added = functional.linear(functional.linear(rows, self.down.to(rows.dtype)), self.up.to(rows.dtype))
        return functional.linear(rows, self.weight, self.bias) + added


def adapted(encoder: WhisperEncoder, rank: int, seed: int) -> tuple[WhisperEncoder, dict[str, LowRank]]:
    """The encoder with every linear layer `LowRank`, and these layers by name. The frozen weights are the same tensors."""
    student = copy.deepcopy(encoder, {id(weight): weight for weight in encoder.parameters()})
    chance = torch.Generator().manual_seed(seed)
    layers: dict[str, LowRank] = {}

    def replaced(name: str, layer: nn.Linear) -> LowRank:
        layers[name] = LowRank(layer, rank, chance)
        return layers[name]

    replace_linears(student, replaced)
    return student, layers


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Of the frames, each dimension in units of its own spread, and of what the decoder's attention reads of them."""

    frames: float
    read: float


class Distillation:
    """Teacher, student, and how far they are apart. `refresh` before the first example, and now and then: the student's silence follows
    its changes, without a gradient."""

    def __init__(self, model: Whisper, student: WhisperEncoder, thin: int, weights: LossWeights) -> None:
        self._teacher = model.encoder
        self._student = student
        self._decoder = model.decoder
        self._thin = thin
        self._weights = weights
        cache, frames = hear_silence(model.encoder)
        self._silent_frames = frames.float()
        self._silent_stem = model.encoder.stem(silent_mel(model.encoder), 0)
        self._teacher_silence = Silence(cache, thin)
        self._student_silence = self._teacher_silence

    def refresh(self) -> None:
        """Let the student hear silence as it is now."""
        self._student_silence = Silence(hear_silence(self._student)[0], self._thin)

    def loss(self, mel: Tensor, blocks: list[Block]) -> Tensor:
        """Of `mel` (2n + 3, mels), n frames from the first on, in these blocks."""
        with torch.no_grad():
            stem = self._teacher.stem(mel.to(self._silent_stem.device), 0)
            target = self._teacher(stem, [Span(len(stem), 0, self._teacher.new_cache(), self._teacher_silence)])
        view = view_of(blocks, self._teacher.shape.audio_positions, self._thin, stem)
        frames = masked_frames(self._student, stem, view, self._student_silence)
        return self._apart(frames, target)

    def silence_loss(self) -> Tensor:
        """Of silence over all positions, which must stay what it is: it follows every sound."""
        positions = self._teacher.shape.audio_positions
        view = view_of([Block(positions, 0)], positions, self._thin, self._silent_stem)
        frames = masked_frames(self._student, self._silent_stem, view, self._student_silence).float()
        return (frames - self._silent_frames).square().mean() / self._silent_frames.square().mean()

    def _apart(self, frames: Tensor, target: Tensor) -> Tensor:
        frames, target = frames.float(), target.float()
        spread = target.var(dim=0) + _SPREAD
        loss = self._weights.frames * ((frames - target).square().mean(dim=0) / spread).mean()
        if self._weights.read:
            loss = loss + self._weights.read * self._read_apart(frames, target)
        return loss

    def _read_apart(self, frames: Tensor, target: Tensor) -> Tensor:
        """The share of the variance of the decoder's cross-attention keys and values that is not the teacher's, mean over its layers."""
        parts = []
        for layer in self._decoder.layers:
            weight = layer.attention.key_value.weight
            difference = functional.linear((frames - target).to(weight.dtype), weight).float()  # (n, 2 * width)
            with torch.no_grad():
                held = functional.linear(target.to(weight.dtype), weight).float()
                spread = (held - held.mean(dim=0)).square().view(len(held), 2, -1).mean(dim=(0, 2)) + _SPREAD
            parts.append((difference.square().view(len(difference), 2, -1).mean(dim=(0, 2)) / spread).mean())
        return torch.stack(parts).mean()
