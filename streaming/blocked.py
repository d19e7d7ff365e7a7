"""An encoder whose blocks see nothing but themselves: Qwen2.5-Omni's (Xu et al. 2025), Whisper's layers over 2 s at a time.

Positions, convolutions and attention begin anew with each block, so a block is final as soon as it is full, and all blocks together are
exactly what the reference makes of the whole.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.batching import Work
from streaming.encoder import FRAME_MEL, Encode, EncoderStation
from streaming.features import HOP, Features, LogMel
from streaming.models.projectors import Projector
from streaming.projected import ProjectingEncoder
from streaming.transfer import sent

__all__ = ["BlockedEncoder", "BlockedStream"]


class BlockedStream:
    """An `AudioStream`. Holds the features of a block that is not full."""

    def __init__(self, encoder: "BlockedEncoder") -> None:
        self._encoder = encoder
        self._features = LogMel(mels=encoder.station.model.shape.mels)
        # Mel frames behind the last committed block.
        self._mel: Features = np.zeros((0, encoder.station.model.shape.mels), np.float32)
        # Samples pushed, and mel frames committed.
        self._samples = 0
        self._taken = 0
        self._committed = 0

    @property
    def committed(self) -> int:
        """See `AudioStream`."""
        return self._committed

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`. Costs the features only."""
        self._samples += len(pcm)
        self._mel = np.concatenate((self._mel, self._features.push(pcm)))

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: a block."""
        size = self._encoder.block_mel
        if len(self._mel) < size:
            return None
        rows = yield from self._encode(self._mel[:size])
        self._mel = self._mel[size:]
        self._taken += size
        self._committed += len(rows)
        return rows

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`: up to the mel frame of the last sample."""
        end = -(-self._samples // HOP) - self._taken
        mel = np.concatenate((self._mel, self._features.tail()))[: max(0, end)]
        size = self._encoder.block_mel
        rows = self._encoder.nothing
        for start in range(0, len(mel), size):
            rows = torch.cat((rows, (yield from self._encode(mel[start : start + size]))))
        return rows

    def _encode(self, mel: Features) -> Work[Tensor]:
        """The rows of a block, (n, mels) of at most `block_mel`."""
        station = self._encoder.station
        model = station.model
        # What the convolutions reach to the left and to the right; an odd last frame is made whole.
        padded = np.pad(mel, ((2, 1 + len(mel) % FRAME_MEL), (0, 0)))
        call = Encode(station, sent(torch.from_numpy(padded), model.positions.device), 0, model.new_cache(), ends=len(mel))
        yield call
        assert call.frames is not None
        return self._encoder.project(call.frames)


class BlockedEncoder(ProjectingEncoder):
    """An `AudioEncoder`. A block is as long as the encoder's positions."""

    def __init__(self, station: EncoderStation, projector: Projector) -> None:
        super().__init__(projector)
        self.station: Final = station
        self.block_mel: Final = FRAME_MEL * station.model.shape.audio_positions

    @property
    def nothing(self) -> Tensor:
        """No rows."""
        at = self.station.model.positions
        return torch.zeros(0, self.width, dtype=at.dtype, device=at.device)

    def stream(self) -> BlockedStream:
        """See `AudioEncoder`."""
        return BlockedStream(self)
