"""The way of sound into a language model: rows of its embedding space that stand in the prompt where words would.

A row has a number below zero where a token has its id, its own in its session. So a prompt stays one list of numbers: the longest common
prefix, rewinding, a cut and an edited history are what they are for words. Committed rows keep their numbers for ever; those behind them
get new ones whenever more has been heard, for they are other rows then. What an encoder is, `streaming.audio_encoder` says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from streaming.audio import Samples
from streaming.audio_encoder import AudioEncoder, AudioStream
from streaming.batching import Work
from streaming.frame_rows import FrameRows
from streaming.transcriber import Transcriber

__all__ = ["AudioPath", "Sound"]


@dataclass(frozen=True, slots=True, eq=False)
class AudioPath:
    """How a language model hears. `encoder` gives rows of its embedding space: one of its own, or a projector of the frames that the
    transcript is made of. In a message of the caller `before` and `after` stand around an item's rows, markup of the model's own;
    "{number}" in them is which sound of the session it is, from 1. With `words` the transcript follows the sound, which then waits for it:
    content is best from text, tone only from sound."""

    encoder: AudioEncoder | FrameRows
    before: str = ""
    after: str = ""
    words: bool = False

    def stream(self, transcriber: Transcriber) -> AudioStream:
        """The sound of a turn that `transcriber` writes, empty like that."""
        return self.encoder.stream(transcriber) if isinstance(self.encoder, FrameRows) else self.encoder.stream()


class Sound:
    """The sound of one item. `commit` and `conclude` are not for two at once; dropped half way they leave it as it was."""

    def __init__(self, stream: AudioStream, numbers: Iterator[int], ordinal: int) -> None:
        """`numbers` of rows, each below zero and never given twice in a session. It is the session's sound number `ordinal`, from 1."""
        self.ordinal: Final = ordinal
        # Every row there is by its number.
        self.rows: Final[dict[int, Tensor]] = {}
        # Rows that are final, in order.
        self.committed: Final[list[int]] = []
        # The rows behind them, as if the sound ended here; None where that has not been computed.
        self._tail: list[int] | None = None
        # Until all of it is in rows: it holds what encoding takes.
        self._stream: AudioStream | None = stream
        self._numbers = numbers
        # Sound has been pushed since `commit` last looked.
        self._unheard = False
        # Nothing will be pushed any more.
        self._ended = False

    @property
    def due(self) -> bool:
        """Whether `commit` may find something."""
        return self._unheard

    @property
    def concluded(self) -> bool:
        """Whether everything that was pushed is in `tokens`."""
        return self._tail is not None

    @property
    def tokens(self) -> list[int]:
        """The numbers of all rows, in order; of the committed ones alone where it is not concluded."""
        return [*self.committed, *(self._tail or ())]

    def push(self, pcm: Samples) -> None:
        """Take the sound that follows, float32 (n,) at 16 kHz. Cheap: no model runs."""
        if len(pcm) and self._stream is not None:
            self._stream.push(pcm)
            self._unheard = True
            self._tail = None

    def end(self) -> None:
        """Nothing follows: once it is concluded, rows are all that is kept of it."""
        self._ended = True
        self._let_go()

    def give_up(self) -> None:
        """It can't be heard: keep nothing of it, and take nothing more."""
        self._stream = None

    def _let_go(self) -> None:
        if self._ended and self._tail is not None:
            self._stream = None

    def commit(self) -> Work[None]:
        """Compute the rows that can be committed by now."""
        while self._unheard and self._stream is not None:
            rows = yield from self._stream.commit()
            if rows is None:
                self._unheard = False
            else:
                self.committed.extend(self._numbered(rows))

    def conclude(self) -> Work[None]:
        """Compute all rows, as if the sound ended here. Costs nothing where that has been done."""
        while self._tail is None and self._stream is not None:
            yield from self.commit()
            rows = yield from self._stream.provisional()
            if not self._unheard:  # else more was pushed meanwhile
                # What stood behind the committed rows before is in nobody's prompt any more.
                kept = set(self.committed)
                for number in [number for number in self.rows if number not in kept]:
                    del self.rows[number]
                self._tail = self._numbered(rows)
        self._let_go()

    def _numbered(self, rows: Tensor) -> list[int]:
        """Gives each of `rows` [n, width] its number."""
        numbers = [next(self._numbers) for _ in range(len(rows))]
        self.rows.update(zip(numbers, rows.unbind(), strict=True))
        return numbers
