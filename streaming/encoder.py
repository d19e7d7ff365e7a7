"""Whisper's encoder over a stream: blocks of audio frames are committed once, the rest is provisional and computed when asked for.

Whisper was trained with every frame attending to the whole clip. Here a block attends to the cached keys and values of what was
committed before it, to itself, and to a lookahead that is computed with it and thrown away (computed again, as a block, when its own
lookahead has come). Blocks are cut at fixed positions, so any split of the same sound commits the same frames. What follows the last
block, with some silence behind it, is the provisional tail: near the end of what has been said the encoder sees what a full one sees.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from streaming.features import SILENCE, Features
from streaming.models.whisper import WhisperEncoder

__all__ = ["FRAME_MEL", "FRAME_SAMPLES", "BlockPlan", "EncoderStream"]

FRAME_MEL: Final = 2
"""Mel frames per audio frame."""

FRAME_SAMPLES: Final = 320
"""Samples per audio frame: 20 ms."""

_BEFORE: Final = 2
"""Mel frames the convolutions reach to the left of an audio frame's first one."""

_AFTER: Final = 1
"""And to the right of its last one."""


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Where blocks are cut, in audio frames of 20 ms. Raises ValueError where a block could never be committed.

    `first` is longer than `block`: the first seconds are the least certain, and most turns end before they are committed at all, and are then
    encoded exactly as in full. `silence` is what Whisper needs behind the end of speech, or its decoder loops. Chosen by
    `benchmarks.transcript`.
    """

    first: int = 224
    block: int = 96
    lookahead: int = 64
    silence: int = 50

    def __post_init__(self) -> None:
        if self.first < 1 or self.block < 1 or self.lookahead < 0 or self.silence < 1:
            raise ValueError(f"{self}: blocks and silence have at least one frame, lookahead none or more")


class EncoderStream:
    """One sequence of at most the model's positions (1,500: 30 s), lookahead and silence included."""

    def __init__(self, model: WhisperEncoder, plan: BlockPlan | None = None) -> None:
        self._model = model
        self._plan = plan or BlockPlan()
        self._cache = model.new_cache()
        # Mel frames from `_BEFORE` before the first that is not committed: at most a block, its lookahead and what was pushed since.
        self._mel: Features = np.zeros((_BEFORE, model.shape.mels), np.float32)
        self._committed = 0

    @property
    def committed(self) -> int:
        """Audio frames committed so far."""
        return self._committed

    def push(self, mel: Features) -> None:
        """Take mel frames (n, mels). Cheap: call `commit` until it gives None before the next push, or when there is time."""
        self._mel = np.concatenate((self._mel, mel))

    @torch.inference_mode()
    def commit(self) -> Tensor | None:
        """The next block's frames (n, width), final; None where its lookahead has not been heard."""
        block = self._plan.block if self._committed else self._plan.first
        stretch = block + self._plan.lookahead
        if len(self._mel) < _BEFORE + FRAME_MEL * stretch + _AFTER:
            return None
        frames = self._run(torch.from_numpy(self._mel[: _BEFORE + FRAME_MEL * stretch + _AFTER]))[:block]
        self._mel = self._mel[FRAME_MEL * block :]
        self._committed += block
        return frames

    @torch.inference_mode()
    def provisional(self, tail: Features) -> Tensor:
        """The frames after the last block, (n, width), as if what was pushed were followed by `tail` (`LogMel.tail`) and silence.
        Changes nothing that is committed."""
        heard = len(self._mel) - _BEFORE + len(tail)
        frames = -(-heard // FRAME_MEL) + self._plan.silence
        quiet = np.full((FRAME_MEL * frames + _AFTER - heard, self._mel.shape[1]), SILENCE, np.float32)
        return self._run(torch.from_numpy(np.concatenate((self._mel, tail, quiet))))

    def _run(self, mel: Tensor) -> Tensor:
        """Audio frames (n, width) from the first that is not committed on; their keys and values stand in the cache."""
        output: Tensor = self._model(self._model.stem(mel.to(self._model.positions.device), self._committed), self._committed, self._cache)
        return output
