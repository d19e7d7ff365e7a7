"""What is learned from: nobody and nothing of the `dev` part, and nothing that can't be learned from."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.dialogues.sources import list_of
from streaming.events import SAMPLE_RATE
from training.pocket.clips import Clip, DataError, dev_texts, manifest, noises, read, recorded, spoken
from training.pocket.speech import JOE, Line, lines
from training.pocket.texts import plain

DATA = Path(__file__).parents[3] / "training" / "pocket" / "data.toml"


def line(**changed: object) -> dict[str, object]:
    return {
        "path": "a.wav",
        "part": "train",
        "set": "people",
        "text": "HELLO I AM MARY",
        "licence": "CC-BY-4.0",
        "speaker": "p1",
        **changed,
    }


def test_no_speaker_of_dev_is_learned_from(shared_data) -> None:
    clips = manifest(shared_data)
    sets = tomllib.loads(DATA.read_text())["recordings"]
    heard = recorded(shared_data, clips, sets["sets"], str)
    named = {clip["speaker"] for clip in clips if clip["part"] == "dev" and clip.get("speaker")}
    assert heard
    assert not {clip.speaker for clip in heard} & named
    assert not {clip.name for clip in heard} & {clip["path"] for clip in clips if clip["part"] == "dev"}


def test_no_text_of_dev_is_said_by_a_synthetic_caller(shared_data) -> None:
    forbidden = dev_texts(manifest(shared_data))
    questions = (shared_data / "questions.txt").read_text().split()
    asked = {plain(clip["text"]) for clip in manifest(shared_data) if clip["path"] in questions}
    assert len(asked) > 20
    assert asked <= forbidden
    settings = tomllib.loads(DATA.read_text())
    said = lines(settings, _Vocabulary(), sorted(forbidden)[:50], forbidden)
    assert len(said) > 1000
    assert not {plain(one.text) for one in said} & forbidden


def test_no_voice_of_a_benchmark_is_learned_from(shared_data) -> None:
    said = lines(tomllib.loads(DATA.read_text()), _Vocabulary(), [], frozenset())
    assert {one.voice for one in said} <= {JOE, *list_of("tune")["voices"]}


class _Vocabulary:
    words = ("cat", "water", "running", "blue") * 100
    names = ("Mary", "Paris") * 100


def test_what_may_not_be_shipped_is_not_learned_from(tmp_path) -> None:
    lines = [
        line(),
        line(path="b.wav", licence="CC-BY-SA-4.0"),
        line(path="c.wav", part="dev", speaker="p3"),
        line(path="d.wav", kind="noise", set="n"),
    ]
    lines.append(line(path="e.wav", kind="noise", set="n", licence="CC-Sampling+"))
    found = recorded(tmp_path, lines, ["people"], str)
    assert [clip.name for clip in found] == ["a.wav"]
    assert [
        clip.name
        for clip in recorded(
            tmp_path, [*lines, line(path="f.wav", part="dev", speaker="p2"), line(path="g.wav", speaker="p2")], ["people"], str
        )
    ] == ["a.wav"]
    assert len(noises(tmp_path, lines)) == 1
    with pytest.raises(DataError, match="nothing of strangers"):
        recorded(tmp_path, lines, ["strangers"], str)


def test_capitals_become_a_sentence(tmp_path) -> None:
    cased = {"i": "I", "mary": "Mary"}
    texts = ["HELLO I AM MARY", "IS IT MARY", "As it is, 2 times"]
    found = recorded(tmp_path, [line(text=text) for text in texts], ["people"], lambda word: cased.get(word, word))
    assert [clip.text for clip in found] == ["Hello I am Mary.", "Is it Mary?", "As it is, two times"]


def test_a_recording_without_a_text_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(DataError, match=r"a\.wav has no text"):
        recorded(tmp_path, [line(text=None)], ["people"], str)


def test_missing_data_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.jsonl is missing"):
        manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line()))
    (clip,) = recorded(tmp_path, manifest(tmp_path), ["people"], str)
    with pytest.raises(DataError, match=r"a\.wav is not there"):
        clip.words()


@pytest.mark.parametrize(
    ("pcm", "rate", "said"),
    [
        (np.zeros(100), SAMPLE_RATE, "is empty"),
        (np.zeros(0), SAMPLE_RATE, "is empty"),
        (np.sign(np.sin(np.arange(1000))), SAMPLE_RATE, "is clipped"),
        (np.full(100, 0.1), 12_345, "12345 samples a second"),
    ],
)
def test_recordings_that_nothing_is_learned_from_are_refused(tmp_path, pcm, rate, said) -> None:
    soundfile.write(tmp_path / "bad.wav", pcm, rate)
    with pytest.raises(DataError, match=f"bad.wav {said}" if "samples" not in said else said):
        read(tmp_path / "bad.wav")


def test_what_is_no_sound_file_is_refused(tmp_path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF but not for long")
    with pytest.raises(DataError, match=r"bad\.wav can't be read"):
        read(tmp_path / "bad.wav")


def test_recordings_come_at_our_rate(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([np.full(8_000, 0.2), np.full(8_000, 0.4)], 1), 8_000)
    pcm = read(tmp_path / "a.wav")
    assert len(pcm) == SAMPLE_RATE
    assert abs(float(np.median(pcm)) - 0.3) < 0.01


def test_synthetic_callers_say_their_lines() -> None:
    class Silent:
        def say(self, line: Line) -> np.ndarray:
            return np.full(3, line.speed, np.float32)

    first, second = spoken([Line("At 7.", JOE, 1.0), Line("Why?", "af_sky", 2.0)], Silent())
    assert isinstance(first, Clip)
    assert (first.text, first.speaker) == ("At seven.", JOE)
    assert (first.words()[0], second.words()[0]) == (1.0, 2.0)
