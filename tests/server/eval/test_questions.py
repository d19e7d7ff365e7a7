"""What counts as a right answer, and the figures made of answers."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from server.eval.clips import Clip
from server.eval.questions import Asked, as_json, holds, report_questions, summary
from server.eval.recognition import Spoken, group_of, report_words


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        ("There are 24 hours in a day.", ["twenty four"], True),
        ("twenty-four", ["24"], True),
        ("The capital is Paris!", ["paris"], True),
        ("Parisian food", ["Paris"], False),
        ("It is seventy.", ["seven"], False),
        ("a big whale", ["elephant", "whale"], True),
        ("", ["x"], False),
        ("anything", [""], False),
    ],
)
def test_right_answers(text: str, answers: list[str], right: bool) -> None:
    assert holds(text, answers) is right


def test_figures() -> None:
    text = Asked("a", "s", "text", "Paris", "", True, 1.0, True, 0.0, right=True)
    asked = [
        text,
        replace(text, clip="b", right=True),
        replace(text, path="sound", f1=0.5, same=False, divergence=2.0, right=True),
        replace(text, clip="b", path="sound", same_first=False, right=False, slots=True),
    ]
    figures = summary(asked)
    assert figures["text"]["accuracy"].startswith("100.0 %")
    assert figures["sound"]["accuracy"].startswith(" 50.0 %")
    assert figures["sound"]["of the text path's"].startswith("50.0 % (")
    assert figures["sound"]["F1"] == "0.750"
    assert figures["sound"]["KL, nats"] == "1.000 (median 1.000)"
    assert figures["sound"]["all slots repeated"].endswith("n=1")
    console = Console(record=True, width=200)
    report_questions(asked, console)
    assert "s: 2 recordings" in console.export_text()
    assert len(as_json(asked)["answers"]) == 4


def test_groups_and_their_table() -> None:
    child = Clip("x", Path("x"), fields={"set": "speechocean762", "accent": "Mandarin L1", "age": 6})
    assert group_of(child) == "speechocean762, Mandarin L1, children"
    assert group_of(Clip("x", Path("x"))) == "all"
    one = Spoken("a", "g", "clean", "one two", "one", 2, 0, 1, 1, 1)
    console = Console(record=True, width=200)
    report_words([one, replace(one, condition="0 dB", streaming_errors=2, whole=None)], console)
    printed = console.export_text()
    assert "0.0 %" in printed
    assert "50.0 %" in printed
    assert "100.0 %" in printed
