import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from training.heard_speech import HeardSpeech, train_lines

SETTINGS: dict[str, Any] = tomllib.loads((Path(__file__).parents[2] / "training" / "streaming_encoder.toml").read_text())["data"]
RECORDINGS = Path(__file__).parents[3] / "shared" / "data"


def write(data: Path, lines: list[dict[str, object]]) -> None:
    (data / "train").mkdir(parents=True, exist_ok=True)
    for line in lines:
        soundfile.write(data / str(line["path"]), np.random.default_rng(1).standard_normal(8_000) * 0.1, 16_000)
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))


def line(name: str, part: str = "train", licence: str = "CC-BY-4.0", number: int = 0) -> dict[str, object]:
    return {"path": f"train/{name}{number}.flac", "set": name, "part": part, "licence": licence}


@pytest.fixture
def speech(tmp_path: Path) -> HeardSpeech:
    write(tmp_path, [line("read"), line("read", number=1), line("esc10", licence="CC0")])
    return HeardSpeech(tmp_path, SETTINGS | {"shares": {"read": 1.0}}, seed=5)


def test_an_example_is_a_function_of_seed_and_number(speech: HeardSpeech, tmp_path: Path) -> None:
    first, other = speech.example(3), speech.example(4)
    np.testing.assert_array_equal(speech.example(3), first)
    again = HeardSpeech(tmp_path, SETTINGS | {"shares": {"read": 1.0}}, seed=5)
    np.testing.assert_array_equal(again.example(3), first)
    assert len(other) != len(first)


def test_examples_are_as_long_as_the_configuration_says_and_never_clip(speech: HeardSpeech) -> None:
    shortest, longest = SETTINGS["seconds"][0], SETTINGS["long_seconds"][1]
    for number in range(20):
        pcm = speech.example(number)
        assert pcm.dtype == np.float32
        assert shortest * 16_000 - 1 <= len(pcm) <= longest * 16_000
        assert np.abs(pcm).max() <= 1.0


@pytest.mark.parametrize("damage", ["missing", "no sound"])
def test_a_recording_that_cannot_be_read_is_named(speech: HeardSpeech, tmp_path: Path, damage: str) -> None:
    for path in (tmp_path / "train").iterdir():
        path.unlink() if damage == "missing" else path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"train/\w+\.flac, which the manifest names, can't be read"):
        speech.example(3)


def test_empty_and_clipped_recordings_at_other_rates_are_taken_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, [line("read"), line("esc10")])
    soundfile.write(tmp_path / "train/read0.flac", np.zeros(0), 8_000, format="WAV")
    soundfile.write(tmp_path / "train/esc100.flac", np.ones(44_100), 44_100)
    speech = HeardSpeech(tmp_path, SETTINGS | {"shares": {"read": 1.0}, "noisy": 1.0}, seed=5)
    assert all(np.isfinite(speech.example(number)).all() for number in range(3))


def test_dev_and_share_alike_recordings_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, [line("a"), line("a", part="dev", number=1), line("a", licence="CC-BY-SA-4.0", number=2), line("b")])
    lines = train_lines(tmp_path, ["a"])
    assert [one["path"] for one in lines] == ["train/a0.flac"]


def test_noises_that_may_only_be_sampled_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, [line("esc10", licence="CC-Sampling+"), line("esc10", licence="CC0", number=1)])
    assert [one["licence"] for one in train_lines(tmp_path, ["esc10"])] == ["CC0"]


def test_a_set_without_recordings_is_named(tmp_path: Path) -> None:
    write(tmp_path, [line("a"), line("fsdd", licence="CC-BY-SA-4.0")])
    with pytest.raises(ValueError, match="has nothing of fsdd that may be trained on"):
        train_lines(tmp_path, ["a", "fsdd"])
    with pytest.raises(FileNotFoundError, match="--data names the folder"):
        train_lines(tmp_path / "nowhere", ["a"])


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not here")
def test_nobody_who_is_measured_was_trained_on() -> None:
    lines = train_lines(RECORDINGS, [*SETTINGS["shares"], "esc10"])
    assert {one["part"] for one in lines} == {"train"}
    manifest = [json.loads(text) for text in (RECORDINGS / "manifest.jsonl").read_text().splitlines()]
    dev = [one for one in manifest if one["part"] == "dev"]
    speakers = {(one["set"], one["speaker"]) for one in lines if one.get("speaker") and one["set"] != "esc10"}
    assert not speakers & {(one["set"], one.get("speaker")) for one in dev}
    assert not {one["path"] for one in lines} & {one["path"] for one in dev}
