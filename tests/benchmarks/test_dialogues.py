"""The lists of the turn-taking benchmark share nobody and nothing that is said."""

import json
import tomllib
from pathlib import Path

import pytest

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
    for key in ("voices", "speakers", "rooms"):
        assert not set(tune[key]) & set(report[key]), key
        assert len(set(report[key])) == len(report[key])
    assert not sentences(tune) & sentences(report)
    assert set(tune["voices"]) | set(report["voices"]) <= set(VOICES)


def test_the_speakers_and_rooms_are_recordings_for_benchmarks(lists, shared_data) -> None:
    clips = [json.loads(line) for line in (shared_data / "manifest.jsonl").read_text().splitlines()]
    for listed in lists.values():
        for speaker in listed["speakers"]:
            assert {clip["part"] for clip in clips if clip.get("speaker") == speaker} == {"dev"}
        assert {clip["part"] for clip in clips if clip["path"] in listed["rooms"]} == {"dev"}
        assert len([clip for clip in clips if clip["path"] in listed["rooms"]]) == len(listed["rooms"])
