import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.settling import Settler, begun, join_overlap, split_words

PATIENCE = 9_600
STEP = 10_240


def words(text: str) -> list[str]:
    return split_words(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello, world.", ["Hello,", " world."]),
        ("", []),
        ("今日は、いい", ["今", "日", "は、", "い", "い"]),
        ("I like 寿司 a lot", ["I", " like", " 寿", "司", " a", " lot"]),
        ("a  - b", ["a", "  -", " b"]),
    ],
)
def test_words_with_what_separates_them(text: str, parts: list[str]) -> None:
    assert words(text) == parts


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("which animal barks?", "Which animal barks?"),
        (" «quelle heure est-il ?»", " «Quelle heure est-il ?»"),
        ("What is it? the time.", "What is it? the time."),
        ("iPhone, please", "iPhone, please"),
        ("12 eggs", "12 eggs"),
        ("რა დროა", "რა დროა"),
        ("今日は", "今日は"),
        ("", ""),
    ],
)
def test_a_text_begins_with_a_capital_where_its_script_has_one(text: str, written: str) -> None:
    assert "".join(begun(words(text))) == written


@given(st.text())
def test_words_give_the_text_back(text: str) -> None:
    assert "".join(words(text)) == text.rstrip() or not text.strip()


def test_a_word_settles_when_two_passes_600_ms_apart_have_it() -> None:
    settler = Settler(PATIENCE)
    first = settler.push(words("What is a"), STEP)
    assert (first.text, first.new, first.provisional) == ("", "", "What is a")
    second = settler.push(words("What is a tort"), 2 * STEP)
    assert (second.text, second.new, second.provisional) == ("What is a", "What is a", " tort")
    third = settler.push(words("What is a tortoise?"), 3 * STEP)
    assert (third.text, third.new, third.provisional) == ("What is a", "", " tortoise?")
    fourth = settler.push(words("What is a tortoise?"), 4 * STEP)
    assert (fourth.text, fourth.new, fourth.provisional) == ("What is a tortoise", " tortoise", "?")


def test_passes_close_together_settle_nothing_by_themselves() -> None:
    settler = Settler(PATIENCE)
    for at in range(10_000, 10_000 + PATIENCE, 1_600):
        assert settler.push(words("Good morning"), at).text == ""
    assert settler.push(words("Good morning"), 10_000 + PATIENCE).text == "Good morning"


def test_every_hypothesis_in_between_must_agree() -> None:
    settler = Settler(PATIENCE)
    settler.push(words("Good morning"), 10_000)
    settler.push(words("Could mourning"), 15_000)
    assert settler.push(words("Good morning"), 20_000).text == ""
    assert settler.push(words("Good morning"), 24_000).text == ""
    assert settler.push(words("Good morning"), 29_600).text == "Good morning"


def test_case_and_punctuation_do_not_matter_and_the_end_stays_open() -> None:
    settler = Settler(PATIENCE)
    settler.push(words("hello there."), STEP)
    assert settler.push(words("Hello, there!"), 2 * STEP).new == "Hello, there"
    settler.push(words("Hello, there, my friend"), 3 * STEP)
    step = settler.push(words("Hello there; my friend."), 4 * STEP)
    assert (step.text, step.new, step.provisional) == ("Hello, there; my friend", "; my friend", ".")


def test_what_settled_is_not_taken_back_and_what_follows_is_found() -> None:
    settler = Settler(PATIENCE)
    settler.push(words("I can not do"), STEP)
    settler.push(words("I can not do"), 2 * STEP)
    settler.push(words("I cannot do this"), 3 * STEP)
    step = settler.push(words("I cannot do this now"), 4 * STEP)
    assert (step.text, step.new, step.provisional) == ("I can not do this", " this", " now")
    assert settler.missing_from(words("I cannot do this now.")) == 2
    assert settler.missing_from(words("I can not do this now.")) == 0


def test_unsure_words_settle_nothing() -> None:
    settler = Settler(PATIENCE)
    settler.push(words("you"), STEP, sure=False)
    assert settler.push(words("you"), 2 * STEP).text == ""
    assert settler.push(words("you"), 3 * STEP).text == "you"


@given(st.lists(st.lists(st.sampled_from(["a", " b", " c.", " d,"]), max_size=6), max_size=12))
def test_settled_text_only_grows(hypotheses: list[list[str]]) -> None:
    settler, before = Settler(PATIENCE), ""
    for n, hypothesis in enumerate(hypotheses):
        step = settler.push(hypothesis, n * STEP)
        assert step.text == before + step.new
        before = step.text
    assert len(settler._recent) <= 3


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        ("one two three four five six", "five six seven eight", "one two three four five six seven eight"),
        ("one two three four five si", "e five six seven eight", "one two three four five six seven eight"),
        ("They went to the", "The sea was calm", "They went to the sea was calm"),
        ("ends here.", "Nothing in common", "ends here. Nothing in common"),
        (
            "the cat sat on a mat by the fire",
            "snow fell over all of the town",
            "the cat sat on a mat by the fire snow fell over all of the town",
        ),
        ("", "begin", " begin"),
        ("only this", "", "only this"),
        ("そこで私は", "私は行った", "そこで私は行った"),
    ],
)
def test_joining_windows_that_overlap(before: str, after: str, joined: str) -> None:
    assert "".join(join_overlap(words(before), words(after), repeats=True)).strip() == joined.strip()


def test_joining_windows_that_do_not_overlap() -> None:
    assert "".join(join_overlap(words("the end"), words("the end again"), repeats=False)) == "the end the end again"
