"""The encoder of an audio language model: Whisper's frames in blocks (`streaming.encoder`), projected to rows of its embedding space.

Whisper hears 30 s at once. A sound that goes on is heard in windows of 30 s, one after the other, as the references cut it: the rows of a
window that is full are final.
"""

from typing import Final

import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.batching import Work
from streaming.encoder import FRAME_SAMPLES, BlockPlan, EncoderStation, Ending, SoundStream
from streaming.models.projectors import Projector

__all__ = ["ProjectedEncoder", "ProjectedStream", "ProjectingEncoder"]


class ProjectingEncoder:
    """What the `AudioEncoder`s of Whisper's frames have in common: rows are made by a projector."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector

    @property
    def width(self) -> int:
        """See `AudioEncoder`."""
        return self._projector.width

    @property
    def row_samples(self) -> int:
        """See `AudioEncoder`."""
        return FRAME_SAMPLES * self._projector.stack

    @torch.inference_mode()
    def project(self, frames: Tensor) -> Tensor:
        """The rows of frames (n, width of the encoder) that begin a row."""
        return self._projector(frames)


class ProjectedStream:
    """An `AudioStream`. Holds the sound that was pushed beyond a window which has not been computed to its end."""

    def __init__(self, encoder: "ProjectedEncoder") -> None:
        self._encoder = encoder
        self._window = encoder.window()
        # Samples that the window still takes.
        self._room = encoder.window_samples
        self._beyond: list[Samples] = []
        self._committed = 0

    @property
    def committed(self) -> int:
        """See `AudioStream`."""
        return self._committed

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`."""
        taken, rest = pcm[: self._room], pcm[self._room :]
        self._window.push(taken)
        self._room -= len(taken)
        if len(rest):
            self._beyond.append(rest)

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: a block of a window, or the end of one that sound follows."""
        frames = yield from self._window.commit()
        if frames is None and self._beyond:
            # Only what the other window is given is changed behind the work, so that it may be dropped before.
            frames = yield from self._window.provisional()
            beyond, self._beyond = self._beyond, []
            self._window, self._room = self._encoder.window(), self._encoder.window_samples
            for pcm in beyond:
                self.push(pcm)
        if frames is None:
            return None
        rows = self._encoder.project(frames)
        self._committed += len(rows)
        return rows

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`."""
        return self._encoder.project((yield from self._window.provisional()))


class ProjectedEncoder(ProjectingEncoder):
    """An `AudioEncoder`."""

    def __init__(self, station: EncoderStation, projector: Projector, ending: Ending, plan: BlockPlan | None = None) -> None:
        """Raises ValueError where a block would end within a row."""
        plan = plan or BlockPlan()
        if plan.first % projector.stack or plan.block % projector.stack:
            raise ValueError(f"{plan}: blocks are not whole rows of {projector.stack} frames")
        # Of 30 s, in the published sizes.
        self.window_samples: Final = FRAME_SAMPLES * station.model.shape.audio_positions
        super().__init__(projector)
        self._station = station
        self._ending = ending
        self._plan = plan

    def stream(self) -> ProjectedStream:
        """See `AudioEncoder`."""
        return ProjectedStream(self)

    def window(self) -> SoundStream:
        """The frames of a window."""
        return SoundStream(self._station, self._plan, self._ending)
