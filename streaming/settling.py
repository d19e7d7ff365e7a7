"""Which words of a transcript that is still growing can be relied on. Text only: no sound, no model.

A transcript is handled as words with what separates them ("Hello,", " world."), so that joining them gives the text back. Where a script
puts no spaces between words (Chinese, Japanese), every character counts as one.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

__all__ = ["Settled", "Settler", "begun", "join_overlap", "split_words"]

_UNSPACED: Final = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, kana and Han."""

_WORD: Final = re.compile(rf"\s*[{_UNSPACED}][^\w\s]*|\s*[^\s{_UNSPACED}]+")

_EDGE: Final = re.compile(r"^[\W_]+|[\W_]+$")

_TRAILING: Final = re.compile(r"[\W_]+$")

_JOIN_WORDS: Final = 10
"""Words looked at on each side of a join: as many as are said in two seconds, and a few."""

_JOIN_LOSS: Final = 3
"""Words a join may drop for each that the two sides share: one "the" in common is no overlap."""

_ALIGNED_WORDS: Final = 100
"""Words at the end of the settled text that are looked for in a new hypothesis. What lies further back is not looked at again."""


def split_words(text: str) -> list[str]:
    """Words with the space before them; "".join gives the text back, but for spaces at its end."""
    return _WORD.findall(text)


def begun(words: Sequence[str]) -> list[str]:
    """The words of a text from its beginning, the first with the capital that its script gives the first word of a sentence: Whisper leaves
    it out now and then, and a small language model takes a question without one for the middle of something. A word that has one already,
    wherever, stays."""
    if not words or not words[0].islower():
        return list(words)
    at = next(at for at, letter in enumerate(words[0]) if letter.islower())
    return [words[0][:at] + words[0][at].title() + words[0][at + 1 :], *words[1:]]


def _key(word: str) -> str:
    """What a word is compared by: no case, no punctuation around it."""
    return _EDGE.sub("", word).casefold()


def _matching(before: Sequence[str], after: Sequence[str]) -> SequenceMatcher[str]:
    return SequenceMatcher(None, [_key(word) for word in before], [_key(word) for word in after], autojunk=False)


def join_overlap(before: Sequence[str], after: Sequence[str], repeats: bool = True) -> list[str]:
    """The words of two stretches of one recording. Where the second `repeats` the last words of the first, the longest run of words
    that both have is where they are joined: what a cut word became, at the first one's end and the second one's beginning, drops out."""
    if not repeats:
        return [*before, *(_spaced(after) if before else after)]
    skip = max(0, len(before) - _JOIN_WORDS)
    block = _matching(before[skip:], after[:_JOIN_WORDS]).find_longest_match()
    lost = len(before) - skip - block.a - block.size + block.b
    if not block.size or lost > _JOIN_LOSS * block.size:
        return [*before, *_spaced(after)]
    # The first shared word from the first stretch (in the second it may begin a sentence), the others from the second.
    return [*before[: skip + block.a + 1], *_spaced(after[block.b + 1 :])]


def _spaced(words: Sequence[str]) -> list[str]:
    """Words that follow others: the first gets its space back."""
    if not words or re.match(rf"[\s{_UNSPACED}]", words[0]):
        return list(words)
    return [" " + words[0], *words[1:]]


@dataclass(frozen=True, slots=True)
class Settled:
    """`text` is everything settled so far, `new` what the last hypothesis added to it, `provisional` what that hypothesis has beyond it."""

    text: str
    new: str
    provisional: str


class Settler:
    """Words settle when every hypothesis since one that is at least `patience` samples of sound old has them. What has settled is never
    taken back: text only grows. Punctuation behind the last word stays open."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        # The recent hypotheses, each with the sound it was made of: down to the first that is old enough.
        self._recent: deque[tuple[int, list[str]]] = deque()
        # What has settled, word for word as it was first told.
        self._words: list[str] = []
        self._text = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The settled words."""
        return tuple(self._words)

    def push(self, words: list[str], at: int, sure: bool = True) -> Settled:
        """Take the hypothesis made of the sound up to `at` samples; `at` never falls. One that is not `sure` settles nothing."""
        self._recent.append((at, words if sure else []))
        while len(self._recent) > 1 and self._recent[1][0] <= at - self._patience:
            self._recent.popleft()
        start = self._told_in(words)
        end = self._agreed(words) if self._recent[0][0] <= at - self._patience else 0
        new = self._settle(words, start, end) if end > start else ""
        return Settled(self._text, new, _tail(words, max(start, end) if new else start))

    def missing_from(self, words: Sequence[str]) -> int:
        """How many settled words the final text `words` does not have at their place."""
        return len(self._words) - sum(block.size for block in _matching(self._words, words).get_matching_blocks())

    def _agreed(self, words: Sequence[str]) -> int:
        """How many first words all recent hypotheses have in common with this one."""
        keys = [_key(word) for word in words]
        agreed = len(keys)
        for _, other in self._recent:
            agreed = next((n for n, (a, b) in enumerate(zip(keys, other, strict=False)) if a != _key(b)), min(agreed, len(other)))
        return agreed

    def _told_in(self, words: Sequence[str]) -> int:
        """Where in `words` the settled ones end: at their number, unless the hypothesis has more or fewer of them by now."""
        told = len(self._words)
        skip = max(0, told - _ALIGNED_WORDS)
        *blocks, _ = _matching(self._words[skip:], words[skip:]).get_matching_blocks()
        shift = blocks[-1].b - blocks[-1].a if blocks else 0
        return min(len(words), told + shift)

    def _settle(self, words: Sequence[str], start: int, end: int) -> str:
        """Words `start` to `end` become text that is not taken back; returns it."""
        new = _TRAILING.sub("", _tail(words, start, end))
        new = new if self._text else new.lstrip()
        self._words += words[start:end]
        self._text += new
        return new


def _tail(words: Sequence[str], start: int, end: int | None = None) -> str:
    """The text of words `start` to `end`, with the punctuation that closes the word before."""
    closing = _TRAILING.search(words[start - 1]) if start else None
    return (closing[0] if closing else "") + "".join(words[start:end])
