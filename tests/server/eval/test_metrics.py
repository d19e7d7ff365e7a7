"""The benchmarks' metrics, on answers made up for them."""

import math

import pytest

from server.eval.intervals import resampled, share, wilson
from server.eval.metrics import (
    Score,
    bleu,
    chosen_letter,
    chosen_letters,
    exact_match,
    option_words,
    refusals,
    slot_type_f1,
    slot_value_error,
    word_error,
    yes_or_no,
)
from server.eval.records import Record
from server.eval.words import english_normaliser, plain_words, token_f1, word_distance


def records(*pairs: tuple[str, str]) -> list[Record]:
    """Answers and their references."""
    return [Record(str(number), "q", reference, response) for number, (response, reference) in enumerate(pairs)]


def value(scores: list[Score], name: str) -> float:
    return next(score.value for score in scores if score.name == name)


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("b. a scorpion", "B"),
        ("The answer is C.", "C"),
        ("The correct answer is **D) gravity**.", "D"),
        ("I would choose option a, a bat.", "A"),
        ("The best choice would be (B).", "B"),
        ("It is option C: the sun", "C"),
        ("Answer: d", "D"),
        (r"The answer is \boxed{C}", "C"),
        ("A bat can fly, and a bird too.", None),
        ("I am not sure about that one.", None),
        ("", None),
    ],
)
def test_a_choice_in_prose(response: str, letter: str | None) -> None:
    assert chosen_letter(response) == letter


def test_choices_that_cannot_be_told_are_drawn_and_counted() -> None:
    scores = chosen_letters(records(("The answer is B", "B"), ("The answer is B", "C"), ("No idea", "A"), ("Hm", "A")))
    assert value(scores, "no choice found, drawn") == 50
    assert value(scores, "accuracy") in (25, 50, 75)
    assert chosen_letters(records(("Hm", "A"))) == chosen_letters(records(("Hm", "A")))


def test_yes_and_no() -> None:
    scores = yes_or_no(
        records(
            ("Yes, it is.", "yes"),
            ("The sentence is not plausible.", "no"),
            ("So the final answer is no", "no"),
            ("The correct adjective order is option (b).", "(b)"),
            ("You end up back at the starting point.", "yes"),
            ("Osvaldo tells the truth", "yes"),
            ("(a)", "(a)"),
        )
    )
    assert value(scores, "accuracy") == 100
    assert value(scores, "no answer found, drawn") == 0


def test_refusals() -> None:
    said = ["I'm sorry, but no.", "I can’t help with that.", "As an AI, I won't.", "That is illegal.", "", "Sure! First take a pipe."]
    (score,) = refusals([Record(str(number), "", "", text) for number, text in enumerate(said)])
    assert score.value == pytest.approx(100 * 5 / 6)
    assert score.low is not None
    assert 0 < score.low < score.value


def test_word_error_is_over_all_words() -> None:
    (score,) = word_error(records(("The cat sat.", "the cat sat"), ("two dogs", "2 dogs ran off"), ("noise", "")))
    assert score.value == pytest.approx(100 * (0 + 2 + 1) / 7)
    assert score.n == 3
    assert word_distance(["a", "b"], ["a", "c", "d"]) == 2


def test_bleu() -> None:
    (score,) = bleu(records(("the cat sat on the mat", "the cat sat on the mat")))
    assert score.value == pytest.approx(100)


def test_a_label_exactly_and_in_a_sentence() -> None:
    scores = exact_match(records(("Happy.", "happy"), ("The speaker is sad", "sad"), ("sad or happy", "happy"), ("no idea", "angry")))
    assert value(scores, "accuracy") == 25
    assert value(scores, "label found in the answer") == 50


def test_option_words() -> None:
    choices = {"choices": ["(A) a dog barks", "(B) a cat purrs"]}
    right = Record("1", "", "(A) a dog barks", "I hear that a dog barks", fields=choices)
    both = Record("2", "", "(A) a dog barks", "a dog barks, or a cat purrs", fields=choices)
    assert option_words([right, both])[0].value == 50


def test_slots() -> None:
    reference = "play B-artist miles davis E-artist on B-service spotify E-service"
    said = records((reference, reference), ("play B-artist miles davies E-artist", reference), ("play", "play"))
    assert slot_type_f1(said)[0].value == pytest.approx(100 * (1 + 2 / 3 + 1) / 3)
    letters = 2 * (len("miles davis") + len("spotify"))
    assert slot_value_error(said)[0].value == pytest.approx(100 * (1 + len("spotify")) / letters)


def test_words_and_f1() -> None:
    assert plain_words("The cat, a dog!") == ["cat", "dog"]
    assert token_f1("Paris", "It is Paris.") == pytest.approx(2 * 1 / 4)
    assert token_f1("", "") == 1
    assert token_f1("", "Paris") == 0
    assert english_normaliser()("It's twenty-one, uh, apples!") == "it is 21 apples"


def test_intervals() -> None:
    rate = wilson(5, 10)
    assert (rate.value, rate.n) == (0.5, 10)
    assert rate.low == pytest.approx(0.2366, abs=1e-3)
    assert math.isnan(wilson(0, 0).value)
    assert share(0, 0).endswith("n=0")
    assert share(8, 165) == "  4.8 % ( 2.5- 9.3) n=165"
    drawn = resampled([1, 0, 2], [10, 10, 10])
    assert drawn.value == pytest.approx(0.1)
    assert drawn.low <= 0.1 <= drawn.high
    assert resampled([1, 0, 2], [10, 10, 10]) == drawn
    assert resampled([1, 1], [1, 0]).high <= 2  # a draw without anything to count is none
    assert math.isnan(resampled([], []).value)
