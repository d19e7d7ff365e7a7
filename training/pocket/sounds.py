"""How pieces sound: phonemes of the pronunciation lexicon, from which the network computes the scores of pieces it has rarely heard or
never, and phonemes of whole texts, which its first layer learns to hear."""

import re
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from streaming.normalise import normalise
from streaming.phonemes import EnglishPhonemes

__all__ = ["LONGEST", "Sounds"]

LONGEST: Final = 14
"""Phonemes of a piece; what is longer is cut."""

_STRESS: Final = "ˈˌː‿|‖"


class Sounds:
    """Phonemes as numbers from 1, in the order they are met; 0 is none. They are letters of IPA, and "." "?" and "," for the stops."""

    def __init__(self, phonemes: EnglishPhonemes) -> None:
        self._phonemes = phonemes
        self._known: dict[str, tuple[str, ...]] = {}
        self._number: dict[str, int] = {}

    @property
    def symbols(self) -> list[str]:
        """By their numbers, from 1."""
        return list(self._number)

    def text(self, text: str) -> list[int]:
        """The phonemes of a text as it is said."""
        words = [word for token in normalise(text) for word in token.words]
        return [number for word in words for number in self._numbers(self._spoken(word))]

    def pieces(self, written: Sequence[str]) -> Tensor:
        """Phonemes of pieces (n, LONGEST), zeros behind them. A piece that does not begin a word has "+" before them, so that "ing" is not
        "Ġing"."""
        rows = torch.zeros(len(written), LONGEST, dtype=torch.long)
        for row, piece in zip(rows, written, strict=True):
            word = piece.removeprefix("Ġ")
            if re.fullmatch(r"[A-Za-z']+", word) and re.search("[A-Za-z]", word):
                sounds = self._spoken(word)
            else:
                sounds = (word,) if word in (".", "?", ",") else ()
            marked = sounds if piece.startswith("Ġ") else ("+", *sounds)
            numbers = self._numbers(marked)[:LONGEST]
            row[: len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return rows

    def _spoken(self, word: str) -> tuple[str, ...]:
        if word not in self._known:
            (symbols,) = self._phonemes.pronounce([word]) or ("",)
            self._known[word] = tuple(symbol for symbol in symbols if symbol not in _STRESS and not symbol.isspace())
        return self._known[word]

    def _numbers(self, symbols: Sequence[str]) -> list[int]:
        for symbol in symbols:
            self._number.setdefault(symbol, len(self._number) + 1)
        return [self._number[symbol] for symbol in symbols]
