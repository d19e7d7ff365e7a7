"""A window of a turn over an encoder's stream, whose last pass is remembered: what CTC models and Voxtral Realtime decode in."""

from abc import ABC, abstractmethod
from typing import Final

from streaming.audio import Samples
from streaming.audio_encoder import AudioStream
from streaming.batching import Work
from streaming.recognition import Decoding

__all__ = ["StreamWindow"]


class StreamWindow(ABC):
    """A `WordWindow` of a recogniser that is not told the language."""

    def __init__(self, stream: AudioStream) -> None:
        self._stream: Final = stream
        self._samples = 0
        # What the last pass found, and how much it heard.
        self._found: tuple[Decoding, int] | None = None

    @property
    def samples(self) -> int:
        """See `WordWindow`."""
        return self._samples

    def push(self, pcm: Samples) -> None:
        """See `WordWindow`."""
        self._samples += len(pcm)
        self._stream.push(pcm)

    def decode(self, language: str) -> Work[tuple[Decoding, int]]:
        """See `WordWindow`."""
        del language  # it knows one, or hears which
        if self._found is None or self._found[1] != self._samples:
            self._found = yield from self._pass()
        return self._found

    @abstractmethod
    def _pass(self) -> Work[tuple[Decoding, int]]:
        """`decode`, where something was pushed since the last time."""
