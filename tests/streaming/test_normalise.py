"""Text as it is said: every written form with its words, its place in the text, and its pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.normalise import normalise


def said(text: str) -> str:
    return " ".join(word for token in normalise(text) for word in token.words)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("$3.50", "three dollars and fifty cents"),
        ("$1", "one dollar"),
        ("$0.05", "five cents"),
        ("$1,250", "one thousand two hundred fifty dollars"),
        ("$1.5 million", "one point five million dollars"),
        ("$2bn", "two billion dollars"),
        ("£2.01", "two pounds and one penny"),
        ("10:30", "ten thirty"),
        ("10:05", "ten oh five"),
        ("10:00", "ten o'clock"),
        ("10:30am", "ten thirty A M"),
        ("7 p.m.", "seven P M"),
        ("Dr. Smith", "doctor smith"),
        ("St. Louis is near Main St. now", "saint louis is near main street now"),
        ("Mr. and Mrs. Brown vs. Ms. Gray", "mister and mrs brown versus ms gray"),
        ("No. 5", "number five"),
        ("No. Five", "no five"),
        ("e.g. this", "for example this"),
        ("the U.S. army", "the U S army"),
        ("bob@example.com", "bob at example dot com"),
        ("j_doe.2@mail.co.uk", "j underscore doe dot two at mail dot C O dot U K"),
        ("https://www.example.org/help", "example dot org slash help"),
        ("example.com.", "example dot com"),
        ("NASA", "NASA"),
        ("25%", "twenty five percent"),
        ("3-4", "three to four"),
        ("$5-$10", "five dollars to ten dollars"),
        ("1980s–1990s", "nineteen eighties to nineteen nineties"),
        ("well-known", "well known"),
        ("-5", "minus five"),
        ("−5°C", "minus five degrees celsius"),
        ("1 km, 2 km", "one kilometer two kilometers"),
        ("60 km/h", "sixty kilometers an hour"),
        ("128GB", "one hundred twenty eight gigabytes"),
        ("1,234.56", "one thousand two hundred thirty four point five six"),
        ("1984", "nineteen eighty four"),
        ("in 2005", "in two thousand five"),
        ("007", "zero zero seven"),
        ("12345678901234567", "one two three four five six seven eight nine zero one two three four five six seven"),
        ("3.11.2", "three point eleven point two"),
        ("the 21st", "the twenty first"),
        ("1/2 and 3/4 and 5/8", "one half and three quarters and five eighths"),
        ("24/7", "twenty four seven"),
        ("2024-03-05", "march fifth twenty twenty four"),
        ("3/5/24", "march fifth twenty twenty four"),
        ("31/12/1999", "december thirty first nineteen ninety nine"),
        ("99/99/9999", "ninety nine ninety nine nine thousand nine hundred ninety nine"),
        ("March 3rd, 2024", "march third twenty twenty four"),
        ("Jan. 5", "january fifth"),
        ("(415) 555-0199", "four one five five five five zero one nine nine"),
        ("2 + 2 = 4", "two plus two equals four"),
        ("4 x 5 & 6*7", "four by five and six times seven"),
        ("#1", "number one"),
        ("GPT4", "GPT four"),
        ("A dog and vitamin A.", "a dog and vitamin A"),
        ("I'm here; I am", "i'm here i am"),
        ("It’s", "it's"),
        ("STOP IT NOW", "stop it now"),
        ("the **bold** `code`", "the bold code"),
    ],
)
def test_written_forms_are_said(written: str, spoken: str) -> None:
    assert said(written) == spoken


@pytest.mark.parametrize("text", ["", " ", "...", "😀 🎉", "-", "*", "()", "\n\n", "\u200b", "?!"])
def test_nothing_to_say(text: str) -> None:
    assert normalise(text) == []


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("Yes, no; well: go. Why? Stop!", [",", ";", ":", ".", "?", "!"]),
        ("Wait — what (really) is it", [",", ",", ",", "", ""]),
        ("one\n- two\n\nthree", [".", ".", ""]),
        ("so… yes", [".", ""]),
        ("What?! No", ["?", ""]),
        ("at 7 p.m.", ["", "."]),
        ("Dr. Smith", ["", ""]),
        ("Call 415-555-0199 now", ["", ",", ",", "", ""]),
        ('He said "no".', ["", "", "."]),
    ],
)
def test_punctuation_becomes_pauses(text: str, stops: list[str]) -> None:
    assert [token.stop for token in normalise(text)] == stops


def test_tokens_stand_where_they_are_written() -> None:
    text = "It costs $3.50, Dr. Smith."
    assert [text[token.start : token.end] for token in normalise(text)] == ["It", "costs", "$3.50", "Dr.", "Smith"]


@given(st.text(max_size=200) | st.text(alphabet="aA1.,:-/$%@#'’ \n?x°", max_size=200))
def test_any_text_gives_ordered_tokens_with_words(text: str) -> None:
    end = 0
    for token in normalise(text):
        assert end <= token.start < token.end <= len(text)
        assert token.words
        assert all(word and " " not in word for word in token.words)
        assert token.stop in ("", ".", "?", "!", ",", ";", ":")
        end = token.end
