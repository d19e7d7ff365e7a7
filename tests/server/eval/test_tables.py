"""Rows of data sets on disk."""

import json
from pathlib import Path

import pytest
import soundfile
from published_sets import sound

from server.eval.errors import EvalError
from server.eval.tables import read_rows, sound_of, subsets_in


@pytest.mark.parametrize("arrow", [False, True])
def test_rows_of_tables(write_set, arrow: bool) -> None:
    rows = [{"audio": sound(), "label": number % 2, "text": f"row {number}"} for number in range(20)]
    folder = write_set("set/ks", rows, arrow=arrow, label=("yes", "no"))
    read = list(read_rows(folder, "ks"))
    assert [row["label"] for row in read[:3]] == ["yes", "no", "yes"]
    assert [row["text"] for row in read] == [f"row {number}" for number in range(20)]
    assert len(sound_of(read[0], "audio", folder)) == 8_000
    assert subsets_in(folder) == ["ks"]


def test_json_lines_name_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [0.1] * 800, 8_000)
    (tmp_path / "test.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "hi"}) + "\n")
    (row,) = read_rows(tmp_path)
    assert len(sound_of(row, "audio", tmp_path)) == 1_600


def test_splits(write_set) -> None:
    folder = write_set("set/sd-qa", [{"text": "a"}], "usa")
    write_set("set/sd-qa", [{"text": "b"}], "aus")
    assert [row["text"] for row in read_rows(folder, "sd-qa", "usa")] == ["a"]
    assert len(list(read_rows(folder, "sd-qa", ""))) == 2
    write_set("other/asr", [{"text": "c"}], "train")
    with pytest.raises(EvalError, match="no split 'test'"):
        list(read_rows(folder.parent / "other", "asr", "test"))


def test_what_is_not_there(write_set, tmp_path: Path) -> None:
    folder = write_set("set/asr", [{"text": "a"}])
    with pytest.raises(EvalError, match="no such folder"):
        list(read_rows(tmp_path / "nowhere"))
    with pytest.raises(EvalError, match="it holds asr"):
        list(read_rows(folder, "ks"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvalError, match="holds no table"):
        list(read_rows(tmp_path / "empty"))
    (folder / "asr" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(EvalError, match="can't be read"):
        list(read_rows(folder, "asr"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "holds no sound"),
        ({"audio": {"bytes": b"nothing", "path": "x.wav"}}, "can't be read"),
        ({"audio": {"bytes": sound(0.0)["bytes"], "path": None}}, "is empty"),
        ({"audio": "missing.wav"}, "can't be read"),
    ],
)
def test_sound_that_is_none(row: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=words):
        sound_of(row, "audio", tmp_path)
