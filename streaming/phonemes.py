"""How English words sound, in the phoneme symbols that Piper's American voices were trained on.

Pronunciations come from gruut's lexicon (CMUdict by way of AmEPD), read into memory once because its table has no index, and from gruut's
grapheme-to-phoneme model for words that are not in it. They are General American in IPA, a vowel with its stress a symbol; the voice wants
narrower IPA: long vowels marked, "er" split by stress, flaps, weak forms of function words. Nothing here comes from espeak-ng.
"""

import re
import sqlite3
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

__all__ = ["EnglishPhonemes", "GruutLexicon", "Guess", "Lexicon", "Tagger", "narrow"]

Guess = Callable[[str], Sequence[str]]
"""A lower-case word to its phonemes, as gruut writes them; empty where it can't say."""

Tagger = Callable[[Sequence[str]], Sequence[str]]
"""The words of a sentence to their Penn Treebank tags, one each."""

_REMEMBERED: Final = 4096
"""Unknown words whose guess is kept: about a megabyte, and more names than a day of talk brings."""

_LONGEST_WORD: Final = 64
"""Letters. A longer string is no word; the normaliser does not send one, and the guess costs with length."""


class Lexicon(Protocol):
    """A pronunciation dictionary, lower case."""

    def __contains__(self, word: str) -> bool: ...

    def roles(self, word: str) -> Mapping[str, str]:
        """Part of speech ("VB", "NN", "" for any) to phonemes separated by spaces, the most usual first; empty for an unknown word."""


class GruutLexicon:
    """gruut's lexicon in memory: about 125,000 words, 30 MB, 0.2 s to load."""

    def __init__(self, path: Path) -> None:
        """`path` is a gruut `lexicon.db`. Raises sqlite3.Error where it is none."""
        # Word to phonemes; to a mapping of roles where its part of speech matters.
        self._words: dict[str, str | dict[str, str]] = {}
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            rows = connection.execute("SELECT word, role, phonemes FROM word_phonemes ORDER BY id")
            for word, role, phonemes in rows:
                self._add(word, role.removeprefix("gruut:"), phonemes)
        finally:
            connection.close()

    def _add(self, word: str, role: str, phonemes: str) -> None:
        known = self._words.get(word)
        if known is None:
            self._words[word] = {role: phonemes} if role else phonemes
        elif isinstance(known, dict):
            known.setdefault(role, phonemes)

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def roles(self, word: str) -> Mapping[str, str]:
        """See `Lexicon`."""
        known = self._words.get(word, {})
        return known if isinstance(known, dict) else {"": known}


class EnglishPhonemes:
    """Words of a sentence to symbols of the voice. One instance serves every session; not to be called by two threads at a time."""

    def __init__(self, lexicon: Lexicon, guess: Guess, tag: Tagger) -> None:
        self.lexicon: Final = lexicon
        self._tag = tag
        self._guess = lru_cache(maxsize=_REMEMBERED)(lambda word: " ".join(guess(word)))

    @classmethod
    def load(cls) -> "EnglishPhonemes":
        """With gruut's English files, from its wheel. About 0.7 s, most of it gruut's own imports."""
        # Imported here: the rest of the project need not pay for it.
        import gruut_lang_en
        from gruut.g2p import GraphemesToPhonemes
        from gruut.pos import PartOfSpeechTagger

        folder = Path(gruut_lang_en.get_lang_dir())
        return cls(
            GruutLexicon(folder / "lexicon.db"),
            GraphemesToPhonemes(folder / "g2p" / "model.crf"),
            PartOfSpeechTagger(folder / "pos" / "model.crf"),
        )

    def pronounce(self, words: Sequence[str]) -> list[str]:
        """The sound of each word as one string of symbols; "" for what can't be said (another script). A word is lower case, or has
        capitals that tell how to say it, or is one capital: a letter's name."""
        spoken = [self._phonemes(word, roles) for word, roles in zip(words, self._tags(words), strict=True)]
        symbols = [narrow(phonemes) for phonemes in spoken]
        following = [*symbols[1:], ""][: len(symbols)]
        return [_function_word(word, after) or symbol for word, symbol, after in zip(words, symbols, following, strict=True)]

    def _tags(self, words: Sequence[str]) -> Sequence[str]:
        """Parts of speech, found only where a word needs them; the tagger is most of the cost of a sentence."""
        if any(len(self.lexicon.roles(word.lower())) > 1 and word not in _WEAK for word in words):
            return self._tag(words)
        return [""] * len(words)

    def _phonemes(self, word: str, tag: str) -> str:
        """As the lexicon writes them, separated by spaces."""
        if found := self._known(word, tag):
            return found
        plain = _latin(word)
        if not plain.strip("'"):
            return ""
        if "'" in plain:
            return self._apostrophe(plain, tag)
        if len(plain) == 1:
            return _LETTER_A if plain == "A" else self._known(plain.lower(), "")
        lower = plain.lower()
        if plain.isupper() and not (lower in self.lexicon and (len(plain) > 3 or lower in _SAID_AS_WORDS)):
            return self._spell(plain)
        if found := self._known(lower, tag):
            return found
        # "OpenAI" by its parts, "CPUs" as letters with an ending.
        parts = re.findall(r"[A-Z]{2,}(?=s$|[A-Z][a-z]|$)|s$|[A-Z]?[a-z]+|[A-Z]", plain)
        if len(parts) == 2 and parts[1] == "s" and parts[0].isupper():
            return _with_s(self._spell(parts[0]))
        if len(parts) > 1:
            return " ".join(filter(None, (self._phonemes(part, "") for part in parts)))
        return self._guess(lower) if re.search("[aeiouy]", lower) else self._spell(plain)

    def _apostrophe(self, word: str, tag: str) -> str:
        """A word with an ending that the lexicon does not have, as "Kubernetes'" or "Vivavoce's"; a name, as "O'Toole"."""
        stem, _, ending = word.rpartition("'")
        ending = ending.lower()
        said = self._phonemes(stem, tag) if stem else ""
        if not said or not ending:
            return said or self._phonemes(ending, tag)
        if ending == "s":
            return _with_s(said)
        return f"{said} {_ENDINGS[ending]}" if ending in _ENDINGS else self._phonemes(word.replace("'", "").lower(), tag)

    def _spell(self, letters: str) -> str:
        return " ".join(_LETTER_A if letter in "aA" else self._known(letter.lower(), "") for letter in letters)

    def _known(self, word: str, tag: str) -> str:
        roles = self.lexicon.roles(word)
        for role in _ROLES.get(tag, (tag,)):
            if role in roles:
                return roles[role]
        return next(iter(roles.values()), "")


# Penn Treebank tags to the lexicon's roles, best first.
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "VBD": ("VBD", "VB"),
    "VBN": ("VBD", "VB"),
    "VBP": ("VB",),
    "VBZ": ("VB",),
    "VBG": ("VB",),
    "MD": ("VB",),
    "NNS": ("NN",),
    "NNP": ("NN",),
    "NNPS": ("NN",),
    "JJR": ("JJ",),
    "JJS": ("JJ",),
}

_LETTER_A: Final = "ˈeɪ"

# Acronyms of two or three letters that are said as words.
_SAID_AS_WORDS: Final = ("ok", "pin", "ram", "sim", "zip")

_ENDINGS: Final[Mapping[str, str]] = {"ll": "ə l", "ve": "ə v", "d": "d", "re": "ɚ", "m": "m"}

_SIBILANTS: Final = ("s", "z", "ʃ", "ʒ", "t͡ʃ", "d͡ʒ")

# Latin letters that do not fall apart into one of a to z and a mark.
_LIGATURES: Final = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "þ": "th", "ð": "th", "ı": "i"})


def _latin(word: str) -> str:
    """Its letters a to z (either case) and apostrophes, without marks; "" for another script."""
    decomposed = unicodedata.normalize("NFKD", word.translate(_LIGATURES))
    return "".join(c for c in decomposed if c.isascii() and (c.isalpha() or c == "'"))[:_LONGEST_WORD]


def _with_s(phonemes: str) -> str:
    """With the ending of a plural or a genitive."""
    last = phonemes.split()[-1]
    ending = "ɪ z" if last in _SIBILANTS else "s" if last in ("p", "t", "k", "f", "θ") else "z"
    return f"{phonemes} {ending}"


# ------------------------------------------------------------------------------------------------ the voice's symbols

_VOWELS: Final = "aeiouæɐɑɔəɚɛɜɪʊʌᵻ"

# Full vowels; the long ones are marked long.
_NARROW: Final[Mapping[str, str]] = {"ɑ": "ɑː", "ɔ": "ɔː", "u": "uː", "t͡ʃ": "tʃ", "d͡ʒ": "dʒ"}

# Function words, unstressed beside others. "the", "a", "to" depend on what follows.
_WEAK: Final[Mapping[str, str]] = {
    "the": "ðə",
    "a": "ɐ",
    "an": "ɐn",
    "to": "tə",
    "of": "ʌv",
    "and": "ænd",
    "or": "ɔːɹ",
    "for": "fɔːɹ",
    "from": "fɹʌm",
    "in": "ɪn",
    "on": "ɔn",
    "at": "æt",
    "as": "æz",
    "by": "baɪ",
    "with": "wɪð",
    "is": "ɪz",
    "are": "ɑːɹ",
    "was": "wʌz",
    "were": "wɜː",
    "be": "biː",
    "been": "bɪn",
    "can": "kæn",
    "could": "kʊd",
    "will": "wɪl",
    "would": "wʊd",
    "should": "ʃʊd",
    "have": "hæv",
    "has": "hɐz",
    "had": "hæd",
    "do": "duː",
    "i": "aɪ",
    "you": "juː",
    "he": "hiː",
    "she": "ʃiː",
    "it": "ɪt",
    "we": "wiː",
    "they": "ðeɪ",
    "me": "miː",
    "him": "hɪm",
    "us": "ʌs",
    "them": "ðɛm",
    "my": "maɪ",
    "your": "jʊɹ",
    "his": "hɪz",
    "its": "ɪts",
    "their": "ðɛɹ",
    "that": "ðæt",
    "this": "ðɪs",
    "but": "bʌt",
    "if": "ɪf",
    "than": "ðɐn",
}

_BEFORE_VOWEL: Final[Mapping[str, str]] = {"the": "ðɪ", "to": "tʊ"}

# Where nothing follows ("waiting for", "Of"): only the words whose first entry in the lexicon is a weak form.
_FULL: Final[Mapping[str, str]] = {"to": "tˈuː", "for": "fˈɔːɹ", "of": "ˈʌv", "was": "wˈʌz", "can": "kˈæn", "and": "ˈænd"}


def _function_word(word: str, following: str) -> str:
    """The form of a function word before `following` (symbols), "" for any other word and where the lexicon's own form will do."""
    if not following:
        return _FULL.get(word, "")
    if word not in _WEAK:
        return ""
    begins_with_vowel = following.lstrip("ˈˌ")[:1] in _VOWELS
    return _BEFORE_VOWEL.get(word, _WEAK[word]) if begins_with_vowel else _WEAK[word]


def narrow(phonemes: str) -> str:
    """gruut's phonemes, separated by spaces, as one string of the voice's symbols: `narrow("w ˈɔ t ɚ")` is "wˈɔːɾɚ"."""
    units = phonemes.split()
    return "".join(_narrow_unit(units, index) for index in range(len(units)))


def _narrow_unit(units: Sequence[str], index: int) -> str:
    unit = units[index]
    stress, vowel = (unit[0], unit[1:]) if unit[0] in "ˈˌ" else ("", unit)
    before = units[index - 1] if index else ""
    after = units[index + 1] if index + 1 < len(units) else ""
    if vowel == "ɚ":
        return f"{stress}ɜː" if stress else "ɚ"
    if vowel == "i":
        return f"{stress}iː" if stress else "i"
    if vowel == "ə" and not index:
        return "ɐ"
    if unit == "ɪ" and index == len(units) - 2 and ((after == "d" and before in ("t", "d")) or (after == "z" and before in _SIBILANTS)):
        return "ᵻ"
    if unit == "t" and _flaps(before, after):
        # "button" has no flap.
        return "t" if units[index + 1 : index + 3] == ["ə", "n"] else "ɾ"
    return stress + _NARROW.get(vowel, vowel)


def _flaps(before: str, after: str) -> bool:
    """Whether an American "t" is a flap: after a vowel or "r", before a vowel without stress."""
    return bool(before and after) and (before[-1] in _VOWELS or before == "ɹ") and after[0] in _VOWELS
