"""A stream of an encoder that is not incremental: each block is encoded in a window of its own, with what came before and what comes next.

A block of rows is committed when `lookahead` rows behind it have been heard: the window of `context`, block and lookahead is encoded and
the block's rows are kept. Windows begin and end at fixed rows, so any split of the same sound commits the same rows, bit for bit. What
differs from encoding everything at once is that a row sees its window only: `python -m benchmarks.encoders` measures it. As long as nothing
has been committed, the provisional rows are exactly those of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from streaming.audio import Samples
from streaming.batching import Call, Work
from streaming.models.waveform import WaveformModel

__all__ = ["Stretch", "WindowPlan", "WindowStation", "WindowStream", "WindowedEncoder"]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Rows (20 ms) of a window: `block` is committed at a time, `lookahead` behind it and `context` before it are computed and thrown away.
    Raises ValueError where no block could ever be committed."""

    context: int = 400
    block: int = 50
    lookahead: int = 50

    def __post_init__(self) -> None:
        if self.block < 1 or self.lookahead < 0 or self.context < 0:
            raise ValueError(f"{self}: a block has at least one row, context and lookahead none or more")


_ROWS_AT_ONCE: Final = 500
"""Rows of one batch, a window: stretches differ in length and are normalised one by one, so more at once saves nothing."""


@dataclass(slots=True, eq=False)
class Stretch:
    """A `Call`: sound (n,) to the rows found in `encoded`, [rows, width]."""

    station: "WindowStation"
    pcm: Samples
    encoded: Tensor | None = None

    @property
    def rows(self) -> int:
        """Of the stretch."""
        return self.station.model.rows(len(self.pcm))


class WindowStation:
    """The model as a `Station`."""

    def __init__(self, model: WaveformModel) -> None:
        self.model: Final = model

    @property
    def rows_at_once(self) -> int:
        """See `Station`."""
        return _ROWS_AT_ONCE

    def run(self, calls: Sequence[Call]) -> None:
        """See `Station`."""
        stretches = [call for call in calls if isinstance(call, Stretch)]
        found = [self.model.run(stretch.pcm) for stretch in stretches]
        for stretch, rows in zip(stretches, found, strict=True):
            stretch.encoded = rows


class WindowStream:
    """An `AudioStream`. Holds the sound of a window and what was pushed since."""

    def __init__(self, station: WindowStation, plan: WindowPlan) -> None:
        self._station = station
        self._model = station.model
        self._plan = plan
        # Sound from row `_first` on.
        self._pcm: Samples = np.zeros(0, np.float32)
        self._first = 0
        self._committed = 0

    @property
    def committed(self) -> int:
        """See `AudioStream`."""
        return self._committed

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`."""
        self._pcm = np.concatenate((self._pcm, pcm.astype(np.float32, copy=False)))

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: a block, [block, width]."""
        plan, model = self._plan, self._model
        end = self._committed + plan.block + plan.lookahead
        needed = (end - 1 - self._first) * model.row_samples + model.reach
        if len(self._pcm) < needed:
            return None
        rows = yield from self._encode(self._pcm[:needed])
        start = self._committed - self._first
        self._committed += plan.block
        first = max(0, self._committed - plan.context)
        self._pcm = self._pcm[(first - self._first) * model.row_samples :]
        self._first = first
        return rows[start : start + plan.block]

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`."""
        rows = yield from self._encode(self._pcm)
        return rows[self._committed - self._first :]

    def _encode(self, pcm: Samples) -> Work[Tensor]:
        call = Stretch(self._station, pcm)
        yield call
        assert call.encoded is not None
        return call.encoded


class WindowedEncoder:
    """An `AudioEncoder`."""

    def __init__(self, model: WaveformModel, plan: WindowPlan | None = None) -> None:
        """`plan` None for the usual one."""
        self._station = WindowStation(model)
        self._plan = plan or WindowPlan()

    @property
    def width(self) -> int:
        """See `AudioEncoder`."""
        return self._station.model.width

    @property
    def row_samples(self) -> int:
        """See `AudioEncoder`."""
        return self._station.model.row_samples

    def stream(self) -> WindowStream:
        """See `AudioEncoder`."""
        return WindowStream(self._station, self._plan)
