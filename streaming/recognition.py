"""What a recogniser of words is to those who use one: Whisper, a CTC model, or whatever comes next.

A turn is heard in windows (`streaming.transcriber`). A window takes sound as it comes and decodes what is there as often as it is asked;
what it found once may be anything else the next time, and what settles of it is not its business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from streaming.audio import Samples
from streaming.batching import Work
from streaming.events import SAMPLE_RATE

__all__ = ["LONGEST_WINDOW", "Decoding", "WordRecogniser", "WordWindow"]

LONGEST_WINDOW: Final = 28 * SAMPLE_RATE
"""Samples of a window at most: with the silence its encoder wants behind it, it just fits Whisper's 30 s."""

_DOUBT: Final = 0.1
_SILENT: Final = 0.68
"""Together: no speech at 0.68 for words that are certain, at 0.48 for words of a mean probability of 0.14 (e to the -2). Measured with
Whisper base on 76 sounds without speech and 246 short recordings with it: words are left on 9 (mostly babies, dogs and sneezes), and 4
single words are lost, misheard ones."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a decoder found: text `tokens`, the mean natural logarithm of their probability (the end included), the probability it gave
    to there being no speech, and how many decoder runs it took."""

    tokens: tuple[int, ...]
    log_probability: float
    no_speech: float
    runs: int

    @property
    def speech(self) -> bool:
        """Whether there was speech at all. Whisper writes words on noise too, but neither surely nor without a doubt that it is speech."""
        return self.no_speech - _DOUBT * self.log_probability < _SILENT


class WordWindow(Protocol):
    """A stretch of sound of at most LONGEST_WINDOW, heard from its beginning."""

    @property
    def samples(self) -> int:
        """How much was pushed."""

    def push(self, pcm: Samples) -> None:
        """Take the sound that follows, float32 (n,) at 16 kHz. Cheap: no model runs. Any split of the same sound is the same sound."""

    def decode(self, language: str) -> Work[tuple[Decoding, int]]:
        """Transcribe what is there, as if silence followed; with the number of samples that was, for more may be pushed meanwhile. Work
        that is dropped leaves the window as it was. Costs nothing where nothing was pushed since."""


class WordRecogniser(Protocol):
    """Holds nothing of a session: one serves all."""

    def language(self, hint: str | None) -> str:
        """The language to decode with, from a code that may name a region ("de-CH"); None is the recogniser's own choice. Raises
        ValueError for one it does not know."""

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens of a `Decoding` as text, without spaces around."""

    def window(self) -> WordWindow:
        """An empty one."""
