"""Pronunciation: the symbols the voice wants, from a small lexicon of the tests' own and from gruut's."""

from collections.abc import Sequence

import pytest

from streaming.phonemes import EnglishPhonemes, narrow


@pytest.fixture(scope="module")
def english() -> EnglishPhonemes:
    return EnglishPhonemes.load()


class SmallLexicon:
    """Four words; one of them with two parts of speech."""

    def __init__(self) -> None:
        self.words = {"read": {"VB": "ɹ ˈi d", "VBD": "ɹ ˈɛ d"}, "the": {"": "ð ə"}, "apple": {"": "ˈæ p ə l"}, "i": {"": "ˈaɪ"}}

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def roles(self, word: str) -> dict[str, str]:
        return self.words.get(word, {})


class Counting:
    """A guess and a tagger that count how often they are asked."""

    def __init__(self) -> None:
        self.guessed: list[str] = []
        self.tagged = 0

    def guess(self, word: str) -> Sequence[str]:
        self.guessed.append(word)
        return ["b", "ˈɑ"]

    def tag(self, words: Sequence[str]) -> Sequence[str]:
        self.tagged += 1
        return ["VBD"] * len(words)


@pytest.mark.parametrize(
    ("lexicon", "voice"),
    [
        ("h ə l ˈoʊ", "həlˈoʊ"),
        ("w ˈɚ l d", "wˈɜːld"),
        ("w ˈɔ t ɚ", "wˈɔːɾɚ"),
        ("s ˈɪ t i", "sˈɪɾi"),
        ("t ˈi", "tˈiː"),
        ("b ˈʌ t ə n", "bˈʌtən"),
        ("ə b ˈaʊ t", "ɐbˈaʊt"),
        ("w ˈɔ n t ɪ d", "wˈɔːntᵻd"),
        ("ɹ ˈoʊ z ɪ z", "ɹˈoʊzᵻz"),
        ("t͡ʃ ˈɝ t͡ʃ", "tʃˈɝtʃ"),
        ("d͡ʒ ˈʌ d͡ʒ", "dʒˈʌdʒ"),
        ("", ""),
    ],
)
def test_lexicon_phonemes_become_the_voices_symbols(lexicon: str, voice: str) -> None:
    assert narrow(lexicon) == voice


def test_part_of_speech_chooses_and_is_asked_only_where_it_matters() -> None:
    counting = Counting()
    english = EnglishPhonemes(SmallLexicon(), counting.guess, counting.tag)
    assert english.pronounce(["the", "apple"]) == ["ðɪ", "ˈæpəl"]
    assert counting.tagged == 0
    assert english.pronounce(["i", "read"]) == ["aɪ", "ɹˈɛd"]
    assert counting.tagged == 1


def test_an_unknown_word_is_guessed_once() -> None:
    counting = Counting()
    english = EnglishPhonemes(SmallLexicon(), counting.guess, counting.tag)
    assert english.pronounce(["vivavoce", "vivavoce"]) == ["bˈɑː", "bˈɑː"]
    assert english.pronounce(["vivavoce"]) == ["bˈɑː"]
    assert counting.guessed == ["vivavoce"]


def test_function_words_are_weak_beside_others_and_full_alone(english: EnglishPhonemes) -> None:
    assert english.pronounce(["go", "to", "the", "end", "of", "a", "road"])[1:6] == ["tə", "ðɪ", "ˈɛnd", "ʌv", "ɐ"]
    assert english.pronounce(["to"]) == ["tˈuː"]
    assert english.pronounce(["what", "for"])[-1] == "fˈɔːɹ"
    assert english.pronounce(["look", "at", "me"])[-1] == "mˈiː"


def test_heteronyms(english: EnglishPhonemes) -> None:
    will_record = english.pronounce(["he", "will", "record", "a", "new", "record"])
    assert will_record[2] == "ɹɪkˈɔːɹd"
    assert will_record[5] == "ɹˈɛkɚd"


@pytest.mark.parametrize(
    ("word", "symbols"),
    [
        ("B", "bˈiː"),
        ("A", "ˈeɪ"),
        ("FBI", "ˈɛfbˈiːˈaɪ"),
        ("NASA", "nˈæsə"),
        ("US", "jˈuːˈɛs"),
        ("us", "ˈʌs"),
        ("CPUs", "sˈiːpˈiːjˈuːz"),
        ("OpenAI", "ˈoʊpənˈeɪˈaɪ"),
        ("Zoë's", "zˈoʊiz"),
        ("naïve", "nˌaɪˈiːv"),
        ("zxq", "zˈiːˈɛkskjˈuː"),
        ("tortoise's", "tˈɔːɹɾəsᵻz"),
        ("日本", ""),
        ("Привет", ""),
        ("'", ""),
    ],
)
def test_words_with_a_way_of_their_own(english: EnglishPhonemes, word: str, symbols: str) -> None:
    assert english.pronounce([word]) == [symbols]


def test_any_letters_can_be_asked_for(english: EnglishPhonemes) -> None:
    odd = ["a" * 300, "O'Toole's", "''s", "x'y'z", "McDonald's", "aB'Cd", "ß", "Ǆ", "ﬁ", "iPhone", "AbCdEfG", "ʼn", "'S"]
    assert len(english.pronounce(odd)) == len(odd)
    assert english.pronounce([]) == []
