"""Reply text on its way to the voice: clauses as it is decoded, the first one short, and what of a text is spoken at all.

Every clause knows which characters of the reply it is, and every spoken character which one of the clause it came from, so that what
has been heard maps back to the reply's text to the character. How numbers and abbreviations are said is the voice's affair
(`streaming.normalise`).
"""

import codecs
import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Clause", "ClauseCutter", "TextDecoder", "speakable"]

_FIRST_WORDS: Final = 7
"""Words after which the first clause is cut where it can be: the caller hears it while the rest is decoded."""

_FIRST_SOFT_WORDS: Final = 4
"""Words after which the first clause is cut before a word that begins a phrase."""

_FIRST_MOST_WORDS: Final = 10
"""Words after which the first clause is cut even behind a word that leans on the next."""

_FIRST_COMMA_WORDS: Final = 2
_COMMA_WORDS: Final = 6
"""Words a clause needs before a comma ends it, the first and later ones: shorter pieces sound chopped."""

_LONGEST_WORDS: Final = 28
_LONGEST_CHARACTERS: Final = 240
"""Where any clause is cut: what synthesis takes at once, and what an interruption throws away, stay bounded."""

_PHRASE_WORD: Final = re.compile(
    "about|after|and|at|because|before|but|by|for|from|if|in|into|like|on|or|since|so|that|then|through|until|when|where|which|while|"
    "who|with|without"
)
_LEANING_WORD: Final = re.compile(
    "[^ ]+['’]s|a|an|and|are|as|at|be|been|by|can|for|from|has|have|i|in|into|is|it|its|my|of|on|or|our|that|the|their|this|to|was|we|"
    "were|will|with|would|you|your"
)
"""A clause that ends in one of these sounds broken off."""

_WIDE: Final = "。！？；，、"
_WORD: Final = re.compile(rf"\s*[^\s{_WIDE}]*[{_WIDE}]+[\"'”’」』）)\]]*|\s*[^\s{_WIDE}]+|\s*\S")
_CLOSING: Final = r"[\"'”’)\]*_」』）]*$"
_SENTENCE_END: Final = re.compile(rf"[.!?…。！？]+{_CLOSING}")
_CLAUSE_END: Final = re.compile(rf"[,;:—–，、；]{_CLOSING}")
_TITLE: Final = re.compile(r"(?:^|\W)(?:Mr|Mrs|Ms|Dr|Prof|St|Gen|Capt|Lt|Rev|Mt|vs|e\.g|i\.e|approx|[A-Z])\.$")
"""Full stops that never end a sentence."""
_SHORTENED: Final = re.compile(r"(?:^|\W)(?:Sr|Jr|Inc|Ltd|Co|Corp|etc|a\.m|p\.m|[A-Z]\.[A-Z])\.$")
"""Full stops that end a sentence only before a capital."""
_NUMERO: Final = re.compile(r"(?:^|\W)(?:No|Nos|Vol|Fig|pp|p)\.$")
"""Full stops that end a sentence unless a number follows."""
_LIST_NUMBER: Final = re.compile(r"^\s*\d+[.)]$")

_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_UNREAD: Final = re.compile(
    r"</?[A-Za-z][^<>]*>"  # tags
    r"|^\s*(?:#{1,6}|>|[-*+•])(?=\s)"  # headings, quotes, bullets
    r"|^\s*(?:[-*_]\s*){3,}$"  # rules
    r"|\*(?=\S)|(?<=\S)\*"  # emphasis; a free asterisk is multiplication
    r"|(?<!\w)_|_(?!\w)|(?<!\w)#(?!\w)"  # first_name, C# and #7 keep theirs
    r"|[`~|\[\]{}\\^]",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Clause:
    """Characters `start` to `end` of the reply. `spoken` is what the voice says of them; `origins` has, for every character of `spoken`,
    its index in the reply. Example: `Clause(10, 16, " *Yes*"...)` of a reply has `spoken` " Yes" and `origins` (10, 12, 13, 14)."""

    start: int
    end: int
    spoken: str
    origins: tuple[int, ...]

    def reply_position(self, spoken_end: int) -> int:
        """How many characters of the reply have been said when the first `spoken_end` characters of `spoken` have. What is not spoken
        goes with the word before it."""
        return self.origins[spoken_end] if spoken_end < len(self.origins) else self.end


def speakable(text: str, start: int = 0) -> Clause:
    """The clause `text`, which begins at character `start` of the reply, without what nobody reads aloud: markup, the addresses of links,
    emoji, control characters. Any white space becomes a space."""
    unread = {index for match in _UNREAD.finditer(text) for index in range(*match.span())}
    for link in _LINK.finditer(text):
        unread.update(range(link.start(), link.start(1)), range(link.end(1), link.end()))
    kept = [index for index, char in enumerate(text) if index not in unread and (char.isspace() or _is_read(char))]
    spoken = "".join(" " if text[index].isspace() else text[index] for index in kept)
    return Clause(start, start + len(text), spoken, tuple(start + index for index in kept))


def _is_read(char: str) -> bool:
    """Whether a character can be part of speech. Pictures begin at U+2190 (°, ©, ℃ and № lie below), and skin tones and variation selectors
    go with them; accents that stand alone belong to the letter before."""
    if "\ufe00" <= char <= "\ufe0f" or "\U0001f3fb" <= char <= "\U0001f3ff" or char == "\u20e3":
        return False
    category = unicodedata.category(char)
    return not (category == "So" and char >= "\u2190") and category not in ("Cc", "Cf", "Cs", "Co", "Cn")


class ClauseCutter:
    """`push` text as it is decoded, `flush` at the end; each gives the clauses that are complete. Together they are the text, character for
    character. Cuts are between words only, unless a single one is longer than 240 characters: never in a number, an address, an e-mail."""

    def __init__(self) -> None:
        # Characters of the reply already given as clauses.
        self._given = 0
        # Characters that wait: at most a clause, as it is cut at 240.
        self._waiting = ""

    def push(self, text: str) -> list[Clause]:
        """Take more text."""
        # A long text, as `say` brings it, is taken in bites: each cut looks at what waits.
        bites = (text[at : at + _LONGEST_CHARACTERS] for at in range(0, len(text), _LONGEST_CHARACTERS))
        return [clause for bite in bites for clause in self._push(bite)]

    def flush(self) -> list[Clause]:
        """What is left is the last clause."""
        return [self._take(len(self._waiting))] if self._waiting else []

    def reset(self) -> None:
        """Forget the reply; the next push begins another."""
        self._given, self._waiting = 0, ""

    def _push(self, text: str) -> list[Clause]:
        self._waiting += text
        clauses = []
        while length := self._cut():
            clauses.append(self._take(length))
        return clauses

    def _take(self, length: int) -> Clause:
        clause = speakable(self._waiting[:length], self._given)
        self._given += length
        self._waiting = self._waiting[length:]
        return clause

    def _cut(self) -> int:
        """How long the first clause of what waits is; 0 while it may go on. A word is complete when something follows it."""
        words = [(match.group(), match.end()) for match in _WORD.finditer(self._waiting)]
        ends = _first_clause if self._given == 0 else _later_clause
        for count, ((_, end), (following, _)) in enumerate(itertools.pairwise(words), 1):
            said = self._waiting[:end]
            if _ends_sentence(said, following.strip()) or "\n" in following.rstrip():
                return end
            # The last word may still be growing: "in" of "indeed".
            growing = count + 1 == len(words) and not self._waiting[-1].isspace()
            if ends(count, said, "" if growing else following.strip()) or end >= _LONGEST_CHARACTERS:
                return end
        return _LONGEST_CHARACTERS if len(self._waiting) > 2 * _LONGEST_CHARACTERS else 0


def _ends_sentence(said: str, following: str) -> bool:
    if not _SENTENCE_END.search(said) or _TITLE.search(said) or _LIST_NUMBER.match(said):
        return False
    if _SHORTENED.search(said):
        return following[:1].isupper()
    return not (_NUMERO.search(said) and following[:1].isdigit())


def _first_clause(count: int, said: str, following: str) -> bool:
    """Whether the first clause may end after `count` words; `following` is the next one, "" where it is not known yet."""
    if _CLAUSE_END.search(said):
        return count >= _FIRST_COMMA_WORDS
    if count >= _FIRST_MOST_WORDS:
        return True
    if _LEANING_WORD.fullmatch(_bare(said.split()[-1:])):
        return False
    return count >= _FIRST_WORDS or (count >= _FIRST_SOFT_WORDS and _PHRASE_WORD.fullmatch(_bare([following])) is not None)


def _later_clause(count: int, said: str, following: str) -> bool:  # noqa: ARG001 (the same questions as of the first)
    return count >= _LONGEST_WORDS or (count >= _COMMA_WORDS and _CLAUSE_END.search(said) is not None)


def _bare(words: Sequence[str]) -> str:
    """The word as it is looked up."""
    return "".join(words).lower().strip(".,;:!?\"'”’()[]*_")


class TextDecoder:
    """Tokens become text without ever splitting a character: the bytes of one that is not complete wait, at most three. Bytes that are no
    UTF-8 are dropped."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        """`texts` are the bytes of every token, by id."""
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        return self._decoder.decode(self._texts[token])

    def reset(self) -> None:
        """Forget an incomplete character."""
        self._decoder.reset()
