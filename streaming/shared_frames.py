"""The frames of one sequence of sound, each computed once for all who read them: Whisper's decoder, and the projector of an audio path.

Whoever asks first begins the work, and whoever asks meanwhile carries it on. It belongs to none of them: one that is dropped half way
leaves it to the others, and two of them may wait for the same call, which is made once (`streaming.encoder.EncoderStation`). Where nobody
is left the work is dropped too, so that who asks next is not made to wait for frames of less sound than there is by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from streaming.audio import Samples
from streaming.batching import Call, Work
from streaming.encoder import SoundStream

__all__ = ["SharedFrames", "Tail"]


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """The `frames` (n, width) behind the blocks, standing at `start`, as if the sound ended at sample `samples`."""

    frames: Tensor
    start: int
    samples: int


class SharedFrames:
    """Holds all frames of its sequence: at most 30 s, 1.5 MB for Whisper base in bfloat16."""

    def __init__(self, stream: SoundStream) -> None:
        """`stream` is empty, and nobody else's."""
        # Samples pushed.
        self.samples = 0
        self._stream: Final = stream
        self._blocks: list[Tensor] = []
        # The newest there is.
        self._tail: Tail | None = None
        # What is being computed, and the call it waits for; None where nothing is.
        self._work: Work[None] | None = None
        self._call: Call | None = None
        # How many wait for that call.
        self._waiting = 0

    @property
    def blocks(self) -> Sequence[Tensor]:
        """What is committed so far, each (n, width)."""
        return self._blocks

    def push(self, pcm: Samples) -> None:
        """Take the sound that follows, float32 (n,) at 16 kHz. Cheap: no model runs."""
        self.samples += len(pcm)
        self._stream.push(pcm)

    def block(self, index: int) -> Work[Tensor | None]:
        """The committed block with this number; None until there is sound for it."""
        while index >= len(self._blocks):
            if self._call is None:
                self._begin(self._commit())
                if self._call is None:
                    return None
            yield from self._carry_on()
        return self._blocks[index]

    def tail(self) -> Work[Tail]:
        """What follows the blocks, of all sound that has been pushed by now or later. It begins where all blocks that could be committed
        then end."""
        wanted = self.samples
        while self._tail is None or self._tail.samples < wanted:
            if self._call is None:
                self._begin(self._conclude())
            yield from self._carry_on()
        return self._tail

    def _commit(self) -> Work[None]:
        frames = yield from self._stream.commit()
        if frames is not None:
            self._blocks.append(frames)

    def _conclude(self) -> Work[None]:
        while (frames := (yield from self._stream.commit())) is not None:
            self._blocks.append(frames)
        # More may be pushed while this is under way.
        samples, start = self.samples, self._stream.committed
        self._tail = Tail((yield from self._stream.provisional()), start, samples)

    def _begin(self, work: Work[None]) -> None:
        self._work = work
        self._go_on()

    def _carry_on(self) -> Work[None]:
        """What is under way, to its end."""
        while (call := self._call) is not None:
            self._waiting += 1
            try:
                yield call
            except GeneratorExit:
                if self._waiting == 1:
                    self._work = self._call = None
                raise
            finally:
                self._waiting -= 1
            if call is self._call:  # nobody else has gone on from here
                self._go_on()

    def _go_on(self) -> None:
        assert self._work is not None
        self._call, call = None, next(self._work, None)
        self._call = call
