"""What the projector hears, as words: its pieces written out, and how many of them are wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.transcript import distance
from streaming.models.pocket_projector import PocketProjector

__all__ = ["Errors", "transcribed", "word_errors"]


@dataclass(frozen=True, slots=True)
class Errors:
    """`wrong` of `words`, in `clips`."""

    clips: int
    words: int
    wrong: int

    @property
    def rate(self) -> float:
        """Wrong words of each word said."""
        return self.wrong / max(1, self.words)


def transcribed(projector: PocketProjector, tokenizer: Tokenizer, frames: Tensor) -> str:
    """The words in the frames (n, frame width) of a whole sound."""
    stream = projector.stream()
    stream.provisional(frames)
    text: str = tokenizer.decode(stream.tail_tokens)
    return text.strip()


def word_errors(texts: Sequence[tuple[str, str]], normalise: Callable[[str], str]) -> Errors:
    """Of pairs of what was heard and what was said."""
    pairs = [(normalise(heard).split(), normalise(said).split()) for heard, said in texts]
    return Errors(len(pairs), sum(len(said) for _, said in pairs), sum(distance(heard, said) for heard, said in pairs))
