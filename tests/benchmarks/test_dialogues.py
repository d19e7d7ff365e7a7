"""The lists of the turn-taking benchmark share nobody and nothing that is said or heard."""

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks.dialogues.sources import Sources
from benchmarks.kokoro import VOICES

LISTS = Path(__file__).parents[2] / "benchmarks" / "dialogues"


@pytest.fixture
def lists() -> dict[str, dict[str, list]]:
    return {name: tomllib.loads((LISTS / f"{name}.toml").read_text()) for name in ("tune", "report")}


def sentences(listed: dict[str, list]) -> set[str]:
    parts = [part for pair in listed["hesitations"] for part in pair]
    return {text.lower() for key in ("turns", "backchannels", "interruptions", "replies") for text in listed[key]} | {
        p.lower() for p in parts
    }


def test_no_voice_speaker_room_or_sentence_is_in_both(lists) -> None:
    tune, report = lists["tune"], lists["report"]
    for key in ("voices", "speakers", "readers", "clips", "rooms", "ambiences"):
        assert not set(tune[key]) & set(report[key]), key
        assert len(set(report[key])) == len(report[key])
    assert not sentences(tune) & sentences(report)
    assert set(tune["voices"]) | set(report["voices"]) <= set(VOICES)


@pytest.mark.parametrize("kind", ["turns", "readings", "pairs", "noises"])
def test_no_recording_is_in_both(kind, shared_data) -> None:
    tune, report = (getattr(Sources(name, shared_data), kind) for name in ("tune", "report"))
    assert tune
    assert report
    assert not {clip["path"] for clip in tune} & {clip["path"] for clip in report}


@pytest.mark.parametrize("kind", ["turns", "readings", "pairs"])
def test_no_recorded_sentence_is_in_both(kind, shared_data) -> None:
    tune, report = (getattr(Sources(name, shared_data), kind) for name in ("tune", "report"))
    assert not {clip["text"].lower().rstrip(".?!") for clip in tune} & {clip["text"].lower().rstrip(".?!") for clip in report}


def test_takes_of_one_noise_are_in_one_list(shared_data) -> None:
    typing = [[clip for clip in Sources(name, shared_data).noises if "typing" in clip["path"]] for name in ("tune", "report")]
    assert sorted(map(len, typing)) == [0, 2]


def test_everything_is_a_recording_for_benchmarks(lists, shared_data) -> None:
    clips = [json.loads(line) for line in (shared_data / "manifest.jsonl").read_text().splitlines()]
    for listed in lists.values():
        for speaker in (*listed["speakers"], *listed["readers"]):
            assert {clip["part"] for clip in clips if clip.get("speaker") == speaker} == {"dev"}
        named = {*listed["rooms"], *listed["ambiences"], *listed["clips"]}
        assert {clip["path"] for clip in clips if clip["path"] in named and clip["part"] == "dev"} == named
