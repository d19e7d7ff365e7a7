"""Reply text on its way to the voice: clauses as it is decoded, the first one short, and what of a text is spoken at all.

Every clause knows which characters of the reply it is, and every spoken character which one of the clause it came from, so that what
has been heard maps back to the reply's text to the character.
"""

import itertools
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = ["Clause", "ClauseCutter", "TextDecoder", "speakable"]

_FIRST_WORDS: Final = 8
"""Words after which the first clause is cut in any case: the caller hears it while the rest is decoded."""

_FIRST_SOFT_WORDS: Final = 4
"""Words after which the first clause is cut before a word that begins a phrase."""

_COMMA_WORDS: Final = 6
"""Words a later clause needs before a comma ends it: shorter pieces sound chopped."""

_LONGEST_WORDS: Final = 28
"""Words after which any clause is cut: what synthesis takes at once, and what an interruption throws away, stay bounded."""

_SENTENCE_END: Final = re.compile(r"[.!?…]+[\"'”’)\]]*$")
_CLAUSE_END: Final = re.compile(r"[,;:—–][\"'”’)\]]*$")
_ABBREVIATION: Final = re.compile(r"(?:^|[\s(\"'])(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|a\.m|p\.m|U\.S|No|[A-Z])\.$")
_LIST_NUMBER: Final = re.compile(r"^\s*\d+[.)]$")
_WORD: Final = re.compile(r"\s*\S+")
_PHRASE_WORDS: Final = frozenset(
    [
        "and",
        "but",
        "or",
        "so",
        "because",
        "which",
        "who",
        "that",
        "when",
        "while",
        "if",
        "then",
        "to",
        "with",
        "for",
        "from",
        "in",
        "on",
        "at",
        "of",
        "as",
        "by",
        "about",
        "than",
        "into",
    ]
)
_MARKUP: Final = frozenset("*_`#~|<>[]{}\\^")
_INNER: Final = {"_": 2, "#": 1}
"""Markup that is a character of a word where this many of its neighbours are letters or digits: `first_name@x.com`, `#7`, `C#`."""
_READ_SYMBOLS: Final = frozenset("°©®™")
_SILENT: Final = frozenset(("So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn", "Mn"))
"""Unicode categories nobody reads aloud: emoji and other pictures, controls, loose accents."""


@dataclass(frozen=True, slots=True)
class Clause:
    """Characters `start` to `end` of the reply. `spoken` is what the voice says of them; `origins` has, for every character of `spoken`,
    its index in the reply."""

    start: int
    end: int
    spoken: str
    origins: tuple[int, ...]

    def reply_position(self, spoken_end: int) -> int:
        """How many characters of the reply have been said when the first `spoken_end` characters of `spoken` have."""
        return self.origins[spoken_end] if spoken_end < len(self.origins) else self.end


def speakable(text: str, start: int = 0) -> Clause:
    """The clause `text`, which begins at character `start` of the reply, without what nobody reads aloud: markup, emoji, controls."""
    kept = [(n, " " if char.isspace() else char) for n, char in enumerate(text) if _is_spoken(text, n)]
    return Clause(start, start + len(text), "".join(char for _, char in kept), tuple(start + n for n, _ in kept))


def _is_spoken(text: str, index: int) -> bool:
    char = text[index]
    if char in _INNER and text[index - 1 : index].isalnum() + text[index + 1 : index + 2].isalnum() >= _INNER[char]:
        return True
    return char.isspace() or char in _READ_SYMBOLS or (char not in _MARKUP and unicodedata.category(char) not in _SILENT)


class ClauseCutter:
    """`push` text as it is decoded, `flush` at the end; each gives the clauses that are complete."""

    def __init__(self) -> None:
        # Characters of the reply already given as clauses, and those that wait.
        self._given = 0
        self._waiting = ""

    def push(self, text: str) -> list[Clause]:
        """Take more text."""
        self._waiting += text
        clauses = []
        while (length := self._cut()) is not None:
            clauses.append(self._take(length))
        return clauses

    def flush(self) -> list[Clause]:
        """What is left is the last clause."""
        return [self._take(len(self._waiting))] if self._waiting else []

    def _take(self, length: int) -> Clause:
        clause = speakable(self._waiting[:length], self._given)
        self._given += length
        self._waiting = self._waiting[length:]
        return clause

    def _cut(self) -> int | None:
        """Where the first clause of what waits ends, if it is complete. A word is complete when something follows it."""
        first = self._given == 0
        words = list(_WORD.finditer(self._waiting))
        for count, (word, following) in enumerate(itertools.pairwise(words), 1):
            said, next_word = self._waiting[: word.end()], following.group().strip().lower().strip(",.;:!?")
            ends_sentence = _SENTENCE_END.search(said) and not _ABBREVIATION.search(said) and not _LIST_NUMBER.match(said)
            ends_clause = _CLAUSE_END.search(said) and count >= (2 if first else _COMMA_WORDS)
            long_enough = first and (count >= _FIRST_WORDS or (count >= _FIRST_SOFT_WORDS and next_word in _PHRASE_WORDS))
            if ends_sentence or ends_clause or long_enough or count >= _LONGEST_WORDS or "\n" in following.group():
                # A phrase word may still be growing ("to" of "today"): wait until it is complete too.
                return None if long_enough and following is words[-1] and not self._waiting[-1].isspace() else word.end()
        return None


class TextDecoder:
    """Tokens become text without ever splitting a character: bytes wait until it is complete."""

    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts
        self._waiting = b""

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        self._waiting += self._texts[token]
        text = self._waiting.decode("utf-8", errors="ignore")
        rest = len(self._waiting) - len(text.encode())
        # Up to three bytes can be the beginning of a character; more are not UTF-8 and are dropped.
        self._waiting = self._waiting[-rest:] if 0 < rest <= 3 else b""
        return text
