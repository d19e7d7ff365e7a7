"""Clauses, what of them is spoken, and text out of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.text import Clause, ClauseCutter, TextDecoder, speakable


def _cut(text: str, size: int = 4) -> list[str]:
    """The clauses of a text that comes in pieces of `size` characters."""
    cutter = ClauseCutter()
    clauses = [clause for at in range(0, len(text), size) for clause in cutter.push(text[at : at + size])] + cutter.flush()
    assert [clause.start for clause in clauses] == [0, *(clause.end for clause in clauses[:-1])][: len(clauses)]
    return [text[clause.start : clause.end] for clause in clauses]


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        # The first clause is short: at a comma, before a phrase, after seven words.
        ("Sure, I can help. What do you need?", ["Sure, I can help.", " What do you need?"]),
        ("Well done, that is right.", ["Well done,", " that is right."]),
        ("The sky appears blue because sunlight is scattered.", ["The sky appears blue", " because sunlight is scattered."]),
        (
            "Dogs sleep about twelve hours every single day of their lives",
            ["Dogs sleep about twelve hours every single", " day of their lives"],
        ),
        ("It will be the largest of the really big ones", ["It will be the largest of the really", " big ones"]),
        ("Blue is the colour of the Earth's own sky", ["Blue is the colour of the Earth's own", " sky"]),
        ("Paris.", ["Paris."]),
        # Later ones end with the sentence, or at a comma once they are long enough.
        (
            "Yes. If you like, we can go there tomorrow, or the day after.",
            ["Yes.", " If you like, we can go there tomorrow,", " or the day after."],
        ),
        ("Yes! Do you? I do.", ["Yes!", " Do you?", " I do."]),
        ("One line\nAnother line", ["One line", "\nAnother line"]),
        ('He said "stop." Then he left.', ['He said "stop."', " Then he left."]),
        # Full stops that are none.
        ("Dr. J. Smith is in.", ["Dr. J. Smith is in."]),
        ("Pi is 3.14159, no more.", ["Pi is 3.14159,", " no more."]),
        ("It costs $1,234.50 today.", ["It costs $1,234.50 today."]),
        ("Mail jo.smith@example.com today.", ["Mail jo.smith@example.com today."]),
        ("See No. 5. No. I won't.", ["See No. 5.", " No.", " I won't."]),
        ("At 5 p.m. it rains.", ["At 5 p.m. it rains."]),
        ("It is 5 p.m. We go.", ["It is 5 p.m.", " We go."]),
        ("The U.S. is big.", ["The U.S. is big."]),
        ("Yes. e.g. this one.", ["Yes.", " e.g. this one."]),
        ("Here: 1. Eat. 2. Sleep.", ["Here: 1.", " Eat.", " 2. Sleep."]),
        ("Hm... Well.", ["Hm...", " Well."]),
        # No spaces between words.
        ("你好。今天天气很好，我们去公园。", ["你好。", "今天天气很好，我们去公园。"]),
    ],
)
def test_clauses(text: str, clauses: list[str]) -> None:
    for size in (1, 3, 7, 1_000):
        assert _cut(text, size) == clauses


def test_a_clause_is_given_as_soon_as_the_next_word_begins() -> None:
    cutter = ClauseCutter()
    assert cutter.push("Yes.") == []
    assert [clause.spoken for clause in cutter.push(" W")] == ["Yes."]
    assert cutter.push("hy not") == []
    assert [clause.spoken for clause in cutter.flush()] == [" Why not"]
    assert cutter.flush() == []
    cutter.reset()
    assert cutter.push("So.") == []
    assert cutter.flush() == [Clause(0, 3, "So.", (0, 1, 2))]


def test_a_phrase_word_must_be_whole_before_it_cuts() -> None:
    cutter = ClauseCutter()
    assert cutter.push("The sky looks blue in") == []
    assert cutter.push("deed") == []
    assert [clause.spoken for clause in cutter.push(" today from here")] == ["The sky looks blue indeed today"]


@given(st.text(alphabet="ab .,!?\n*`[]()12é。😀", max_size=600), st.integers(1, 50))
def test_clauses_are_the_text_however_it_comes(text: str, size: int) -> None:
    assert "".join(_cut(text, size)) == text


@given(st.text(alphabet="ab .,!?\n12", max_size=600), st.integers(1, 50))
def test_any_split_gives_the_same_clauses(text: str, size: int) -> None:
    assert _cut(text, size) == _cut(text, 1)


def test_clauses_are_bounded() -> None:
    words = _cut("word " * 1_000, 5)
    assert max(len(clause.split()) for clause in words) <= 28
    unbroken = _cut("x" * 5_000, 1_000)
    assert max(map(len, unbroken)) <= 480
    spoken_at_once = ClauseCutter().push("A sentence of six words. " * 3_000)
    assert len(spoken_at_once) == 2_999


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("**Bold** and *soft* and _under_ and `code`", "Bold and soft and under and code"),
        ("# Title\n- one\n* two\n> said", " Title  one  two  said"),
        ("See [the page](https://x.org/a) or ![a cat](c.png).", "See the page or a cat."),
        ("Great 👍🏽! ❤️ 1️⃣ 🇫🇷 👩‍🚀", "Great !  1  "),
        ("It is 25 °C © №", "It is 25 °C © №"),
        ("first_name@x.com, C#, #7, 3 * 4 and 5 < 6", "first_name@x.com, C#, #7, 3 * 4 and 5 < 6"),
        ("a <b>b</b> ~~c~~ | d", "a b c  d"),
        ("cafe\u0301 na\u00efve", "cafe\u0301 na\u00efve"),
        ("tab\tand\u00a0wide\u200b", "tab and wide"),
        ("---\nAfter", " After"),
    ],
)
def test_what_is_spoken(text: str, spoken: str) -> None:
    assert speakable(text).spoken == spoken


@given(st.text(alphabet="ab *_`[](x)#!😀\n\u200d", max_size=60), st.integers(0, 100))
def test_every_spoken_character_knows_where_it_came_from(text: str, start: int) -> None:
    clause = speakable(text, start)
    assert (clause.start, clause.end) == (start, start + len(text))
    assert len(clause.origins) == len(clause.spoken)
    assert list(clause.origins) == sorted(set(clause.origins))
    for char, origin in zip(clause.spoken, clause.origins, strict=True):
        original = text[origin - start]
        assert char == (" " if original.isspace() else original)


def test_positions_heard_are_positions_of_the_reply() -> None:
    clause = speakable(" **Yes**, my *dear*.", 10)
    assert clause.spoken == " Yes, my dear."
    # Nothing, " Yes, ", " Yes, my " and all of it.
    assert [clause.reply_position(n) for n in (0, 6, 9, 14)] == [10, 20, 24, 30]


def test_characters_wait_for_their_last_byte() -> None:
    decoder = TextDecoder([b"a", "é".encode()[:1], "é".encode()[1:], "😀".encode()[:3], "😀".encode()[3:], b"\xff", b""])
    assert [decoder.push(token) for token in (0, 1, 2, 3, 4, 6)] == ["a", "", "é", "", "😀", ""]
    # What is no UTF-8 disappears, and takes nothing with it.
    assert [decoder.push(token) for token in (5, 0, 3, 0, 1, 0)] == ["", "a", "", "a", "", "a"]
    decoder.push(1)
    decoder.reset()
    assert decoder.push(0) == "a"


@given(st.text(max_size=40), st.integers(1, 4))
def test_any_split_of_the_bytes_gives_the_text(text: str, size: int) -> None:
    data = text.encode()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    decoder = TextDecoder(pieces)
    assert "".join(decoder.push(token) for token in range(len(pieces))) == text
