"""What an encoder of sound is to those who use one: `(state, chunk) -> (committed, provisional, state)`, the state being a stream.

Whisper's blocks (`streaming.encoder`), windows of wav2vec 2.0 and HuBERT (`streaming.windowed`) and Mimi's codes (`streaming.audio_codes`)
are such. Committed rows are final and stand at fixed positions of the sound, so any split of the same sound commits the same rows. What
follows them is provisional: computed when asked for, and anything else the next time.
"""

from typing import Protocol

from torch import Tensor

from streaming.audio import Samples
from streaming.batching import Work

__all__ = ["AudioEncoder", "AudioStream"]


class AudioStream(Protocol):
    """One sequence of sound, from its first sample on."""

    @property
    def committed(self) -> int:
        """Rows committed so far."""

    def push(self, pcm: Samples) -> None:
        """Take the sound that follows, float32 (n,) at 16 kHz. Cheap: no model runs."""

    def commit(self) -> Work[Tensor | None]:
        """The next committed rows; None until there is sound for more. Call until None."""

    def provisional(self) -> Work[Tensor]:
        """The rows behind the committed ones, as if the sound ended here; perhaps none. Changes nothing that is committed."""


class AudioEncoder(Protocol):
    """A model that encodes the sound of many streams. Rows are [n, width], one every `row_samples`."""

    @property
    def width(self) -> int:
        """Of a row."""

    @property
    def row_samples(self) -> int:
        """Samples at 16 kHz between rows."""

    def stream(self) -> AudioStream:
        """An empty one."""
