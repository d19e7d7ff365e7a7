"""Rows of a causal encoder (`streaming.models.causal_encoder`) over a stream: each 80 ms is final as soon as it has been heard.

Nothing is computed twice and nothing deviates from the whole. A row is committed when the last window of its mel frames is complete, 2.5 ms
behind it. Rows are computed one at a time (but for the first ones, where a model needs them together), so that any split of the same sound
commits the same rows, bit for bit; calls are batched over streams, not over time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.batching import Call, Work
from streaming.features import HOP, Features, LogMel, silence_of
from streaming.models.causal_encoder import BEFORE, FRAME_MEL, CausalEncoder, FrameCache, FrameStretch
from streaming.models.projectors import Projector
from streaming.transfer import sent

__all__ = ["CEILING", "CausalSound", "CausalStation", "CausalStream", "EncodeRows"]

CEILING: Final = 1.5
"""The decade taken for a clip's loudest one: fixed in this model, which hears no clips."""

_FRAMES_AT_ONCE: Final = 256
"""Frames of one batch on a CPU, as `streaming.encoder` has it."""

_DEVICE_FRAMES: Final = 6_000
"""The same on a GPU."""


@dataclass(slots=True, eq=False)
class EncodeRows:
    """A `Call`: a stretch to the rows found in `encoded`, [rows, width of a row]."""

    station: "CausalStation"
    stretch: FrameStretch
    encoded: Tensor | None = None

    @property
    def rows(self) -> int:
        """Audio frames."""
        return self.stretch.count


class CausalStation:
    """Encoder and projector as a `Station`."""

    def __init__(self, model: CausalEncoder, projector: Projector) -> None:
        self.model: Final = model
        self.projector: Final = projector
        self.row_mel: Final = FRAME_MEL * projector.stack
        self.row_samples: Final = HOP * self.row_mel

    @property
    def rows_at_once(self) -> int:
        """See `Station`."""
        return _FRAMES_AT_ONCE if self.model.device.type == "cpu" else _DEVICE_FRAMES

    @torch.inference_mode()
    def run(self, calls: Sequence[Call]) -> None:
        """See `Station`."""
        encodes = [call for call in calls if isinstance(call, EncodeRows)]
        frames = self.model.forward([call.stretch for call in encodes])
        counts = [len(part) // self.projector.stack for part in frames]
        for call, rows in zip(encodes, torch.split(self.projector(torch.cat(frames)), counts), strict=True):
            call.encoded = rows


class CausalStream:
    """An `AudioStream`. Its provisional rows are those whose sound is not complete, silence filling them up."""

    def __init__(self, station: CausalStation, first: int = 1, behind: int = 0) -> None:
        """The `first` rows are committed together; `behind` the sound so many rows of silence are provisional too."""
        self._station = station
        self._first = first
        self._behind = behind
        mels = station.model.shape.mels
        self._features = LogMel(CEILING, mels)
        # Mel frames from BEFORE before the first row that is not committed.
        self._mel: Features = np.zeros((BEFORE, mels), np.float32)
        # Made when there is something to encode.
        self._cache: FrameCache | None = None
        self._committed = 0
        # Samples pushed so far.
        self._samples = 0

    @property
    def committed(self) -> int:
        """See `AudioStream`."""
        return self._committed

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`. Costs the features only."""
        self._samples += len(pcm)
        self._mel = np.concatenate((self._mel, self._features.push(pcm)))

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: a row, [1, width]."""
        count = 1 if self._committed else self._first
        mel = self._mel[: BEFORE + count * self._station.row_mel]
        if len(mel) < BEFORE + count * self._station.row_mel:
            return None
        rows = yield from self._encode(mel)
        self._mel = self._mel[count * self._station.row_mel :]
        self._committed += count
        return rows

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`."""
        count = -(-self._samples // self._station.row_samples) - self._committed + self._behind
        if count < 1:
            return torch.zeros(0, self._station.projector.width, device=self._station.model.device)
        wanted = BEFORE + count * self._station.row_mel
        mel = np.concatenate((self._mel, self._features.tail()))[:wanted]
        quiet = np.full((wanted - len(mel), mel.shape[1]), silence_of(CEILING), np.float32)
        return (yield from self._encode(np.concatenate((mel, quiet))))

    def _encode(self, mel: Features) -> Work[Tensor]:
        """Rows from the first that is not committed on; their keys and values stand in the cache."""
        model = self._station.model
        cache = self._cache = self._cache or model.new_cache()
        start = self._committed * self._station.projector.stack
        call = EncodeRows(self._station, FrameStretch(sent(torch.from_numpy(mel), model.device), start, cache))
        yield call
        assert call.encoded is not None
        return call.encoded


class CausalSound:
    """An `AudioEncoder`."""

    def __init__(self, station: CausalStation) -> None:
        self._station = station

    @property
    def width(self) -> int:
        """See `AudioEncoder`."""
        return self._station.projector.width

    @property
    def row_samples(self) -> int:
        """See `AudioEncoder`."""
        return self._station.row_samples

    def stream(self) -> CausalStream:
        """See `AudioEncoder`."""
        return CausalStream(self._station)
