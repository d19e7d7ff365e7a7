"""Words compared: Whisper's own English normaliser, and how many words differ."""

import re
import string
from collections.abc import Callable, Sequence

from server.eval.errors import optional

__all__ = ["Normaliser", "english_normaliser", "plain_words", "token_f1", "word_distance", "words_in_common"]

Normaliser = Callable[[str], str]
"""Text to text in which only what counts differs."""


def english_normaliser() -> Normaliser:
    """Whisper's (Radford et al. 2022, appendix C): case, punctuation, numbers, contractions, fillers; no table of spellings. Raises
    EvalError without `transformers`."""
    normaliser: Normaliser = optional("transformers.models.whisper.english_normalizer").EnglishTextNormalizer({})
    return normaliser


def word_distance(words: Sequence[str], reference: Sequence[str]) -> int:
    """Levenshtein's, in words: insertions, deletions and substitutions. Raises EvalError without `rapidfuzz`."""
    distance: int = optional("rapidfuzz.distance").Levenshtein.distance(words, reference)
    return distance


def plain_words(text: str) -> list[str]:
    """Lower case without punctuation and articles, as SQuAD's evaluation normalises answers (Rajpurkar et al. 2016)."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def words_in_common(words: Sequence[str], others: Sequence[str]) -> int:
    """Counted as often as both have them."""
    left = list(others)
    common = 0
    for word in words:
        if word in left:
            left.remove(word)
            common += 1
    return common


def token_f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall of the answer's words, as SQuAD's; 1 where both are empty."""
    words, wanted = plain_words(answer), plain_words(reference)
    if not words or not wanted:
        return float(words == wanted)
    common = words_in_common(words, wanted)
    return 2 * common / (len(words) + len(wanted))
