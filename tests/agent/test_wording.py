"""The shape of words, and what a reply asks for."""

import pytest

from agent.wording import Asked, Shape, asked_for, shape_of


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("", Shape.UNKNOWN),
        ("...", Shape.UNKNOWN),
        ("I want a coffee.", Shape.CLOSED),
        ("I want a coffee", Shape.PLAIN),
        ("Can I have a coffee?", Shape.QUESTION),
        ("And then I", Shape.DANGLING),
        ("I would like to, um.", Shape.DANGLING),
        ("I would like...", Shape.DANGLING),
        ("I want a coffee,", Shape.DANGLING),
        ("Yes.", Shape.ANSWER),
        ("No, thank you.", Shape.ANSWER),
        ("My number is 415", Shape.COUNTING),
        ("My number is four one five.", Shape.COUNTING),
        ("My number is 415-555-0199.", Shape.CLOSED),
        ("I was born in 1971.", Shape.CLOSED),
    ],
)
def test_shapes(text: str, shape: Shape) -> None:
    assert shape_of(text) is shape


def test_a_number_that_was_asked_for_is_counted() -> None:
    assert shape_of("4, 1, 5.") is Shape.CLOSED
    assert shape_of("4, 1, 5.", Asked.NUMBER) is Shape.COUNTING
    assert shape_of("415 555 0199.", Asked.NUMBER) is Shape.CLOSED


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", Asked.NOTHING),
        ("It is sunny in Bern.", Asked.NOTHING),
        ("Here you are. Would you like anything else?", Asked.CHOICE),
        ("Tea or coffee?", Asked.CHOICE),
        ("What is your phone number?", Asked.NUMBER),
        ("Please spell your name.", Asked.NUMBER),
        ("Tell me about your day.", Asked.STORY),
        ("Where are you going?", Asked.OTHER),
        ("Is it cold? I will look.", Asked.NOTHING),
    ],
)
def test_what_is_asked_for(text: str, asked: Asked) -> None:
    assert asked_for(text) is asked
