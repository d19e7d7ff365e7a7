"""The word pieces that the projector hears: those of the language model's tokenizer that its texts have, and the commonest besides.

A text is written for it as a sentence goes on: no capital where only the beginning asks for one, a space before each word. When it is read
to the language model, the beginning gets its capital back (`twins`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tokenizers import Tokenizer

__all__ = ["PieceTable", "Speller"]

_STOPS: Final = (".", "?", "!")
_SPACE: Final = "Ġ"


@dataclass(frozen=True, slots=True)
class PieceTable:
    """As `streaming.models.pocket_projector.Pieces` has them, and each piece as it is written, with "Ġ" for a space."""

    tokens: tuple[int, ...]
    first: tuple[int, ...]
    behind_stop: tuple[int, ...]
    stops: tuple[bool, ...]
    written: tuple[str, ...]


class Speller:
    """Texts to pieces of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._numbers: Mapping[str, int] = tokenizer.get_vocab()
        self._written = {number: token for token, number in self._numbers.items()}

    def cased(self, word: str) -> str:
        """A lower-case word as a sentence has it: a name, or "I", with its capital."""
        if re.fullmatch(r"i('\w+)?", word):
            return word.capitalize()
        alone, capital = f"{_SPACE}{word}", f"{_SPACE}{word.capitalize()}"
        return word.capitalize() if alone not in self._numbers and capital in self._numbers else word

    def tokens(self, text: str) -> list[int]:
        """The pieces of `text`, written as if it went on."""
        sentences = re.split(r"(?<=[.?!])\s+", text.strip())
        lowered = " ".join(self._lowered(sentence) for sentence in sentences if sentence)
        return list(self._tokenizer.encode(f" {lowered}").ids) if lowered else []

    def table(self, texts: Sequence[Sequence[int]], commonest: int) -> PieceTable:
        """Of all pieces of `texts`, and of the `commonest` words of the vocabulary."""
        common = [number for token, number in sorted(self._numbers.items(), key=lambda item: item[1]) if re.fullmatch("Ġ[a-z]{2,}", token)]
        tokens = sorted({token for text in texts for token in text} | set(common[:commonest]))
        return PieceTable(
            tuple(tokens),
            tuple(self._twin(token, space=False) for token in tokens),
            tuple(self._twin(token, space=True) for token in tokens),
            tuple(self._written[token] in _STOPS for token in tokens),
            tuple(self._written[token] for token in tokens),
        )

    def _lowered(self, sentence: str) -> str:
        """A sentence without the capital that it has for beginning."""
        first = re.match(r"[A-Za-z']+", sentence)
        if not first or not first.group()[0].isupper() or re.fullmatch(r"I('\w+)?|[A-Z]{2,}", first.group()):
            return sentence
        word = first.group()
        # A name keeps its capital: the tokenizer has it more often so.
        own, lower = (self._numbers.get(f"{_SPACE}{form}", len(self._numbers)) for form in (word, word.lower()))
        return sentence if own < lower else word.lower() + sentence[len(word) :]

    def _twin(self, token: int, *, space: bool) -> int:
        """The piece as it begins a sentence, behind a space or not; itself where the vocabulary has no such piece."""
        written = self._written[token]
        if not written.startswith(_SPACE) or len(written) < 2:
            return token
        word = written[1].upper() + written[2:]
        return self._numbers.get(f"{_SPACE if space else ''}{word}", self._numbers.get(word, token) if not space else token)
