"""Recordings with their texts from a folder, and sound made worse."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from server.eval.clips import chosen, load_clip, read_clips, unseen
from server.eval.damage import on_the_telephone, with_noise
from server.eval.errors import EvalError


def write(folder: Path, name: str, rate: int = 8_000) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, np.full((rate // 10, 2), 0.25), rate)


def test_a_manifest(tmp_path: Path) -> None:
    write(tmp_path, "a/one.wav")
    line = {"path": "a/one.wav", "text": "one", "text_source": "pseudo(x)", "speaker": "s", "slots": {"size": "big"}}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    (clip,) = read_clips(tmp_path)
    assert (clip.text, clip.human, clip.field("speaker"), clip.field("age")) == ("one", False, "s", "")
    assert load_clip(clip).shape == (1_600,)


def test_tables_and_texts_beside(tmp_path: Path) -> None:
    write(tmp_path, "x.flac")
    (tmp_path / "metadata.csv").write_text("file_name,transcription\nx.flac,hello there\n")
    assert [(clip.name, clip.text) for clip in read_clips(tmp_path)] == [("x.flac", "hello there")]
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "x.txt").write_text("hi\n")
    assert [(clip.name, clip.text, clip.human) for clip in read_clips(tmp_path)] == [("x.flac", "hi", True)]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ('{"path": "gone.wav"}', "manifest.jsonl:1: the recording gone.wav is missing"),
        ("{}", "names no recording"),
        ("[]", "must be a JSON object"),
        ("{", "can't be read"),
    ],
)
def test_a_bad_manifest(tmp_path: Path, manifest: str, words: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(manifest)
    with pytest.raises(EvalError, match=words):
        read_clips(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="no such folder"):
        read_clips(tmp_path / "nowhere")
    with pytest.raises(EvalError, match="neither a manifest nor recordings"):
        read_clips(tmp_path)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    (clip,) = read_clips(tmp_path)
    with pytest.raises(EvalError, match="not a recording that can be read"):
        load_clip(clip)


def test_what_was_trained_on_is_left_out(tmp_path: Path) -> None:
    lines = [
        {"path": "a.wav", "part": "train", "speaker": "s1", "text": "I would like a coffee"},
        {"path": "b.wav", "part": "dev", "speaker": "s1", "text": "something quite different"},
        {"path": "c.wav", "part": "dev", "speaker": "s2", "text": "I would like a coffee!"},
        {"path": "d.wav", "part": "dev", "speaker": "s2", "text": "one"},
        {"path": "e.wav", "part": "train", "speaker": "s3", "text": "one"},
        {"path": "f.wav", "part": "dev", "text": ""},
    ]
    for line in lines:
        write(tmp_path, line["path"])
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [clip.name for clip in unseen(read_clips(tmp_path), "dev")] == ["d.wav", "f.wav"]
    assert [clip.name for clip in unseen(read_clips(tmp_path), "train")] == ["a.wav", "e.wav"]


def test_nothing_evaluated_was_trained_on(shared_data: Path) -> None:
    """Of the recordings that come with the project: no speaker and no sentence of the evaluation is in the part that is trained on."""
    clips = read_clips(shared_data)
    evaluated, trained = unseen(clips, "dev"), [clip for clip in clips if clip.field("part") == "train"]
    assert not {clip.field("speaker") for clip in evaluated} & {clip.field("speaker") for clip in trained} - {""}
    sentences = {clip.text.lower() for clip in trained if len(clip.text.split()) > 5}
    assert not {clip.text.lower() for clip in evaluated} & sentences
    kept = {name: sum(clip.field("set") == name for clip in evaluated) for name in ("speechocean762", "librispeech_train100", "barista")}
    assert kept == {"speechocean762": 260, "librispeech_train100": 60, "barista": 138}


def test_a_drawn_sample(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path, f"{number}.wav")
    clips = read_clips(tmp_path)
    assert chosen(clips, 4) == chosen(clips, 4)
    assert [clip.name for clip in chosen(clips, 4)] == sorted(clip.name for clip in chosen(clips, 4))
    assert chosen(clips, None) == chosen(clips, 20) == clips


@pytest.mark.parametrize("ratio", [20.0, 0.0])
def test_noise_at_a_ratio(ratio: float) -> None:
    chance = np.random.default_rng(0)
    speech, noise = (chance.standard_normal(n).astype(np.float32) * 0.05 for n in (16_000, 5_000))
    mixed = with_noise(speech, noise, ratio, 3)
    assert np.array_equal(mixed, with_noise(speech, noise, ratio, 3))
    added = mixed - speech
    assert 10 * np.log10(np.square(speech).mean() / np.square(added).mean()) == pytest.approx(ratio, abs=0.1)
    assert np.array_equal(with_noise(speech, np.zeros(10, np.float32), ratio, 0), speech)
    gappy = np.concatenate([np.zeros(200_000, np.float32), noise])
    assert all(np.isfinite(with_noise(speech, gappy, ratio, seed)).all() for seed in range(4))
    assert not any(np.array_equal(with_noise(speech, gappy, ratio, seed), speech) for seed in range(4))


def test_a_telephone_has_no_sound_above_4_khz() -> None:
    pcm = (np.sin(np.arange(16_000) * 2 * np.pi * 6_000 / 16_000) * 0.5).astype(np.float32)
    assert np.square(on_the_telephone(pcm)).mean() < 1e-3
    assert len(on_the_telephone(pcm)) == 16_000
