"""What synthetic callers say in training is not what they say in the benchmark."""

import random
import tomllib
from itertools import islice
from pathlib import Path

from training.sentences import sentences

LISTS = Path(__file__).parents[2] / "benchmarks" / "dialogues"


def test_finished_and_broken_off_come_by_turns_and_the_same_each_time():
    said = list(sentences(400, random.Random(7)))
    assert said == list(sentences(400, random.Random(7)))
    assert [sentence.finished for sentence in islice(said, 4)] == [False, True, False, True]
    assert all(text.endswith((".", "?")) and not text.endswith("...") for text, finished in said if finished)
    assert len({text for text, _ in said}) > 250


def test_none_is_in_the_list_that_is_reported():
    report = tomllib.loads((LISTS / "report.toml").read_text())
    listed = {*report["turns"], *report["interruptions"], *(part for pair in report["hesitations"] for part in pair)}
    bare = {text.lower().rstrip(".,") for text in listed}
    assert not {text.lower().rstrip(".,") for text, _ in sentences(5_000, random.Random(7))} & bare
