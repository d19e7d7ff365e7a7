"""The benches: what they count, what they draw, and what a person is told who can't be helped."""

import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from server.bench import latency, load
from server.bench.latency import Answer, write_answers
from server.bench.load import Asked, Level, write_levels
from server.bench.recordings import BenchError, choose_recordings
from server.caller_audio import CALLER_RATE
from server.cli import app

STAGES = {"silence": 100.0, "decision": 120.0}
ANSWERS = [
    Answer("semantic_vad", "a.wav", 400.0, STAGES, False, "A?", prepared=True),
    Answer("semantic_vad", "b.wav", 600.0, STAGES, True, "B?", prepared=False),
    Answer("semantic_vad", "c.wav", None, {}, False, "", error="no answer came"),
    Answer("server_vad 500 ms", "a.wav", 700.0, {}, False, "A?"),
]
REFUSED = "the server answered HTTP 503: The engine has no room for another call: 2 calls are held. Try again in 5 seconds."


def console() -> Console:
    return Console(width=200, record=True, file=io.StringIO())


def level(sessions: int, *times: float | None, refusals: tuple[str, ...] = (), lag: float = 1.0) -> Level:
    return Level(sessions, tuple(Asked(n, "a.wav", time) for n, time in enumerate(times)), refusals, lag)


def test_latency_is_reported_a_row_a_setting_with_what_failed() -> None:
    out = console()
    latency.report(ANSWERS, out)
    text = out.export_text()
    (row,) = [line for line in text.splitlines() if "semantic_vad" in line and "1 of 3" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["semantic_vad", "2", "420", "500", "590", "598", "600", "1 of 3", "1 of 2", "1"]
    assert "100 (100)" in text
    assert "no answer came" in text


def test_two_servers_are_compared_by_the_questions_that_both_answered_in_time() -> None:
    other = [replace(one, setting=f"{one.setting}, against", latency=one.latency and one.latency / 2) for one in ANSWERS]
    assert latency.ratios([*ANSWERS, *other], "semantic_vad") == [2.0]
    out = console()
    latency.report([*ANSWERS, *other], out)
    assert "semantic_vad: 2.00 times the other server's latency (middle half 2.00-2.00, n = 1)" in out.export_text()


def test_a_server_without_a_ledger_has_no_table_of_stages() -> None:
    out = console()
    latency.report([ANSWERS[-1]], out)
    assert "ledger" not in out.export_text()


def test_a_level_is_held_if_every_call_was_taken_and_answered_in_time() -> None:
    assert level(2, 400.0, 1_400.0).held(1_500.0)
    assert not level(2, 400.0, 1_600.0).held(1_500.0)
    assert not level(2, 400.0, None).held(1_500.0)
    assert not level(3, 400.0, 500.0, refusals=(REFUSED,)).held(1_500.0)
    assert not level(1, None).held(1_500.0)


def test_the_calls_held_end_at_the_first_level_that_is_not() -> None:
    out = console()
    load.report([level(1, 400.0), level(2, 2_000.0), level(3, 400.0)], 1_500.0, out)
    assert "calls held at p95 below 1.5 s: 1\n" in out.export_text()


def test_a_first_level_that_is_not_held_says_nothing_of_those_below() -> None:
    out = console()
    load.report([level(4, 2_000.0), level(5, 400.0)], 1_500.0, out)
    assert "calls held at p95 below 1.5 s: fewer than 4\n" in out.export_text()


def test_the_report_says_what_the_refused_were_told_and_when_the_callers_were_late() -> None:
    out = console()
    load.report([level(1, 400.0), level(3, 400.0, refusals=(REFUSED, REFUSED), lag=35.0)], 1_500.0, out)
    text = out.export_text()
    assert text.count("a refused caller was told") == 1
    assert "Try again in 5 seconds" in text
    assert "the callers' own process was late" in text


def test_runs_are_written_as_json_and_drawn(tmp_path: Path) -> None:
    write_answers(ANSWERS, 0.5, tmp_path / "new" / "latency.json", tmp_path / "latency.svg")
    write_levels([level(1, 400.0), level(2, None)], 1_500.0, 0.5, tmp_path / "load.json", tmp_path / "load.svg")
    answers = json.loads((tmp_path / "new" / "latency.json").read_text())
    assert [answer["latency"] for answer in answers["answers"]] == [400.0, 600.0, None, 700.0]
    assert json.loads((tmp_path / "load.json").read_text())["limit_ms"] == 1_500.0
    for name, words in (("latency", "semantic_vad"), ("load", "limit 1500 ms")):
        drawn = ET.parse(tmp_path / f"{name}.svg").getroot()
        assert words in [element.text for element in drawn.iter() if element.tag.endswith("text")]


def test_recordings_are_files_and_folders_of_them(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac", "notes.txt"):
        if name.endswith(".txt"):
            (tmp_path / name).write_text("no sound")
        else:
            soundfile.write(tmp_path / name, np.full(CALLER_RATE, 0.1), CALLER_RATE)
    assert [Path(one.name).name for one in choose_recordings([tmp_path], 9)] == ["a.flac", "b.wav"]
    (tmp_path / "list.txt").write_text("b.wav\n\na.flac\n")
    assert [Path(one.name).name for one in choose_recordings([tmp_path / "list.txt"], 9)] == ["b.wav", "a.flac"]
    assert len(choose_recordings([tmp_path], 1)) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="no recordings"):
        choose_recordings([tmp_path / "empty"], 9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latency", "tests/golden/seine.flac", "--setting", "telepathy"], "there is no setting 'telepathy': choose from semantic_vad"),
        (["load", "nowhere.wav"], "nowhere.wav"),
        (["load", "nowhere.txt"], "nowhere.txt: not a list"),
        (["load", "nowhere.wav", "--from", "10"], "give --sessions at least 10"),
        (["latency", "tests/golden/seine.flac", "--url", "ws://127.0.0.1:1/v1/realtime"], "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_run_ends_in_one_line(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 1
    assert words in result.output
    assert len(result.output.strip().splitlines()) <= 2
