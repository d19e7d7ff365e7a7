"""Whisper's encoder over a stream: blocks of audio frames are committed once, the rest is provisional and computed when asked for.

Whisper was trained with every frame attending to a whole clip of 30 s, most of it silence. Here a block attends to the cached keys and
values of what was committed before it, to itself, to a lookahead that is computed with it and thrown away (computed again, as a block, when
its own lookahead has come), and from there on to silence, whose keys and values are computed once for all streams (`hear_silence`). So
the model sees its 30 s at the price of the frames that hold sound; without the silence its decoder does not know where the end is and
repeats itself. Blocks are cut at fixed positions, so any split of the same sound commits the same frames. What follows the last block is
the provisional tail: there the encoder sees what a full one sees, but for the blocks being as they were when committed.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from streaming.features import SILENCE, Features
from streaming.models.whisper import AttentionCache, WhisperEncoder

__all__ = ["FRAME_MEL", "FRAME_SAMPLES", "BlockPlan", "EncoderStream", "hear_silence"]

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

    `first` is longer than `block`: the first seconds are the least certain, and most turns end before they are committed, and are then
    encoded as in full. `silence` is computed behind the tail, where silence still differs from silence that follows silence.
    """

    first: int = 160
    block: int = 96
    lookahead: int = 64
    silence: int = 25

    def __post_init__(self) -> None:
        if self.first < 1 or self.block < 1 or self.lookahead < 0 or self.silence < 1:
            raise ValueError(f"{self}: blocks and silence have at least one frame, lookahead none or more")


@torch.inference_mode()
def hear_silence(model: WhisperEncoder) -> tuple[AttentionCache, Tensor]:
    """What the model makes of silence at each of its positions: keys and values, and output (positions, width)."""
    cache = model.new_cache()
    count = cache.capacity
    mel = torch.full((_BEFORE + FRAME_MEL * count + _AFTER, model.shape.mels), SILENCE, device=model.positions.device)
    mel[:_BEFORE] = 0
    mel[-_AFTER:] = 0
    output: Tensor = model(model.stem(mel, 0), 0, cache, count)
    return cache, output


class EncoderStream:
    """One sequence of at most the model's positions (1,500: 30 s), the silence behind it included. Holds keys and values for all of them:
    18 MB for Whisper base in bfloat16."""

    def __init__(self, model: WhisperEncoder, silence: AttentionCache, plan: BlockPlan | None = None) -> None:
        """`silence` is `hear_silence(model)[0]`; it is not written to."""
        self._model = model
        self._plan = plan or BlockPlan()
        self._silence = silence
        # Sound up to `_written`, then silence. A copy is made when there is something to encode: a stream that waits costs little.
        self._cache: AttentionCache | None = None
        self._written = 0
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
        needed = _BEFORE + FRAME_MEL * (block + self._plan.lookahead) + _AFTER
        if len(self._mel) < needed:
            return None
        frames = self._run(self._mel[:needed])[:block]
        self._mel = self._mel[FRAME_MEL * block :]
        self._committed += block
        return frames

    @torch.inference_mode()
    def provisional(self, tail: Features) -> Tensor:
        """The frames after the last block, (n, width), as if what was pushed were followed by `tail` (`LogMel.tail`) and silence.
        Changes nothing that is committed. Raises ValueError where the sequence is longer than the model's positions."""
        heard = len(self._mel) - _BEFORE + len(tail)
        frames = -(-heard // FRAME_MEL) + self._plan.silence
        quiet = np.full((FRAME_MEL * frames + _AFTER - heard, self._mel.shape[1]), SILENCE, np.float32)
        return self._run(np.concatenate((self._mel, tail, quiet)))

    def _run(self, mel: Features) -> Tensor:
        """Audio frames (n, width) from the first that is not committed on; their keys and values stand in the cache."""
        start = self._committed
        cache = self._cache = self._cache or self._silence.copy()
        frames = self._model.stem(torch.from_numpy(mel).to(self._model.positions.device), start)
        end = start + len(frames)
        if self._written > end:
            # An earlier tail reached further than this block: it must not hear it.
            cache.copy_from(self._silence, end, self._written)
        self._written = end
        output: Tensor = self._model(frames, start, cache, cache.capacity)
        return output
