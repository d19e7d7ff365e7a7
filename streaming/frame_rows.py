"""Rows of a language model from the frames that the transcript needs anyway: Whisper's encoder runs once for the words and for the rows.

The caller's turn is heard in the recogniser's windows (`streaming.transcriber`), whose frames (`streaming.shared_frames`) go through a
projector, one window behind the other. Where a window was cut by force the next one repeats its last two seconds: the rows change over in
the middle of that, so that no frame is far from either end. So what could still be repeated is not committed before the window is closed.
"""

from itertools import count
from typing import Final, Protocol

import torch
from torch import Tensor

from streaming.batching import Work
from streaming.encoder import FRAME_SAMPLES
from streaming.recogniser import WhisperWindow
from streaming.recognition import LONGEST_WINDOW
from streaming.shared_frames import SharedFrames, Tail
from streaming.transcriber import OVERLAP, Transcriber

__all__ = ["FrameProjection", "FrameProjector", "FrameRows", "FrameRowsStream"]

_JOIN: Final = OVERLAP // 2 // FRAME_SAMPLES
"""Frames that are not taken of the end of a window that was cut by force, nor of the beginning of the next: half of what both have."""

_REPEATED_FROM: Final = LONGEST_WINDOW // FRAME_SAMPLES - _JOIN
"""Where what the next window may have too begins."""


class FrameProjection(Protocol):
    """The projection of one sequence of frames."""

    def commit(self, frames: Tensor) -> Tensor:
        """Take the frames (n, width of the encoder) that follow: the rows that are final with them, perhaps none. Any split of the same
        frames gives the same rows."""

    def provisional(self, frames: Tensor) -> Tensor:
        """The rows behind the committed ones as if the sound ended with these frames. Changes nothing that is committed."""


class FrameProjector(Protocol):
    """Holds nothing of a sequence: one serves all."""

    @property
    def width(self) -> int:
        """Of a row."""

    def stream(self) -> FrameProjection:
        """An empty sequence."""


class FrameRows:
    """How a language model hears by a projector behind the recogniser's encoder."""

    def __init__(self, projector: FrameProjector) -> None:
        self._projector = projector

    @property
    def width(self) -> int:
        """Of a row."""
        return self._projector.width

    def stream(self, transcriber: Transcriber) -> "FrameRowsStream":
        """The rows of the turn that `transcriber` writes; nothing has been pushed into it."""
        return FrameRowsStream(self._projector.stream(), transcriber)


class FrameRowsStream:
    """An `AudioStream`. Its sound is what is pushed into the transcriber, which hears it first."""

    def __init__(self, projection: FrameProjection, transcriber: Transcriber) -> None:
        # From the one that is read on; a window is closed when there is another behind it.
        self._windows = transcriber.follow()
        self._projection = projection
        self._committed = 0
        # Blocks of the window that have been read, and where its frames behind them stand.
        self._read = 0
        self._at = 0
        # Frames that have been read and may be repeated by the next window: before `_at`.
        self._held: list[Tensor] = []

    @property
    def committed(self) -> int:
        """See `AudioStream`."""
        return self._committed

    def push(self, pcm: object) -> None:
        """See `AudioStream`. The transcriber has it."""

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: of a block of the window, or of the end of one that sound follows."""
        frames = self._frames
        block = yield from frames.block(self._read)
        if block is not None:
            return self._projected(self._final(block))
        if len(self._windows) < 2:
            return None
        tail = yield from frames.tail()
        # Only what follows is changed behind the work, so that it may be dropped before.
        forced = self._windows[1].repeats
        rest = self._fresh(tail.frames, tail.start)[: max(0, _REPEATED_FROM - self._given(tail.start))] if forced else self._behind(tail)
        self._windows.popleft()
        self._read, self._at, self._held = 0, 0, []
        return self._projected(rest)

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`."""
        tail = yield from self._frames.tail()
        return self._projection.provisional(self._behind(tail))

    @property
    def _frames(self) -> SharedFrames:
        window = self._windows[0].heard
        assert isinstance(window, WhisperWindow), "rows are made of Whisper's frames"
        return window.frames

    def _projected(self, frames: Tensor) -> Tensor:
        rows = self._projection.commit(frames)
        self._committed += len(rows)
        return rows

    def _final(self, block: Tensor) -> Tensor:
        """What of the block that has just been read is final; what may be repeated is held."""
        fresh, at = self._fresh(block, self._at), self._given(self._at)
        final = max(0, _REPEATED_FROM - at)
        self._held.append(fresh[final:])
        self._read += 1
        self._at += len(block)
        return fresh[:final]

    def _behind(self, tail: Tail) -> Tensor:
        """All frames behind those that are final: meanwhile others may have had more blocks committed than were read here."""
        pieces, at = [*self._held], self._at
        for index in count(self._read):
            if at >= tail.start:
                break
            block = self._frames.blocks[index]
            pieces.append(self._fresh(block, at))
            at += len(block)
        return torch.cat([*pieces, self._fresh(tail.frames, tail.start)])

    def _fresh(self, frames: Tensor, at: int) -> Tensor:
        """What of frames that stand at position `at` the window before has not given."""
        return frames[self._given(at) - at :]

    def _given(self, at: int) -> int:
        """The first position from `at` on that the window before has not given."""
        return max(at, _JOIN) if self._windows[0].repeats else at
