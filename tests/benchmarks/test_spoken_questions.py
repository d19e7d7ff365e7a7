"""The questions of the evaluation: checkable, and asked by nobody in training."""

import re
import tomllib
from pathlib import Path

import pytest

from benchmarks.dialogues.sources import list_of
from benchmarks.spoken_questions import questions
from server.eval.questions import holds

PHRASES = Path(__file__).parents[2] / "training" / "pocket" / "phrases.toml"


def test_every_question_has_answers_that_could_be_found() -> None:
    asked = questions()
    assert len(asked) == len({text for text, _ in asked}) > 80
    assert all(answers and all(holds(f"It is {answer}.", [answer]) for answer in answers) for _, answers in asked)


def test_their_voices_are_not_those_of_training() -> None:
    assert not set(list_of("report")["voices"]) & set(list_of("tune")["voices"])


@pytest.mark.skipif(not PHRASES.is_file(), reason="no training of the pocket model here")
def test_no_template_of_training_says_them() -> None:
    phrases = tomllib.loads(PHRASES.read_text())
    # Words and names come from a vocabulary.
    slots = {name: "|".join(map(re.escape, values.lower().split("|"))) for name, values in phrases["slots"].items()}
    patterns = [
        re.compile(re.sub(r"\\\{(\w+)\\\}", lambda slot: f"(?:{slots.get(slot[1], '[^ ]+')})", re.escape(text.lower().rstrip("?.!"))))
        for text in phrases["sentences"]
    ]
    found = {text for text, _ in questions() for pattern in patterns if pattern.fullmatch(text.lower().rstrip("?.!"))}
    assert found == set()
