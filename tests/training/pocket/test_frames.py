"""What was heard is kept, whole or not at all."""

import numpy as np
import pytest
import torch

from streaming.encoder import BlockPlan, EncoderStation, hear_silence
from streaming.models.whisper import Silence, Whisper, WhisperShape
from training.pocket import frames
from training.pocket.clips import Clip, DataError
from training.pocket.frames import encoded, hear, recipe, stored
from training.pocket.microphone import Microphone

SHAPE = WhisperShape(80, 8, 2, 1, 1, 20, 600, 8)


@pytest.fixture(scope="module")
def station() -> EncoderStation:
    torch.manual_seed(0)
    model = Whisper(SHAPE).encoder
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return EncoderStation(model, Silence(hear_silence(model)[0]))


@pytest.fixture
def microphone() -> Microphone:
    noise = np.random.default_rng(0).standard_normal(4_000).astype(np.float32)
    return Microphone(dict.fromkeys(("speed", "room", "noise", "telephone", "loss"), 0.5), [lambda: noise])


def clip(name: str, seconds: float = 0.5, text: str = "hello") -> Clip:
    return Clip(name, "people", "p1", text, lambda: np.full(int(seconds * 16_000), 0.1, np.float32))


def heard(tmp_path, station, microphone, clips):
    hear(tmp_path, 0, clips, station, [BlockPlan(16, 16, 16)], microphone, 1)
    return list(stored(tmp_path))


def test_clips_are_kept_with_what_was_said(tmp_path, station, microphone) -> None:
    def silent() -> np.ndarray:
        raise AssertionError

    noise = Clip("n", "noise", "noise", "", silent)
    first, second, noise = heard(tmp_path, station, microphone, [clip("a"), clip("b", 3.0), noise])
    assert (first.text, first.source, first.speaker, noise.text) == ("hello", "people", "p1", "")
    assert first.frames.dtype == np.float16
    assert first.frames.shape[1] == 8
    assert len(first.frames) < len(second.frames)


def test_what_is_there_is_not_made_again(tmp_path, station, microphone, monkeypatch) -> None:
    monkeypatch.setattr(frames, "CHUNK", 2)
    clips = [clip(str(number)) for number in range(5)]
    plan = [BlockPlan(16, 16, 16)]
    hear(tmp_path, 0, clips, station, plan, microphone, 1)  # and then it was stopped
    before = next(iter(stored(tmp_path))).frames

    def refuse() -> np.ndarray:
        raise AssertionError

    again = [Clip(one.name, "people", "p1", "hello", refuse) for one in clips[:2]]
    for start in range(0, 5, 2):
        hear(tmp_path, start, [*again, *clips[2:]], station, plan, microphone, 1)
    kept = list(stored(tmp_path))
    assert len(kept) == 5
    assert np.array_equal(kept[0].frames, before)


def test_a_clip_too_long_is_left_out(tmp_path, station, microphone, monkeypatch) -> None:
    monkeypatch.setattr(frames, "_LONGEST", 20_000)
    assert len(heard(tmp_path, station, microphone, [clip("a"), clip("long", 3.0)])) == 1


def test_a_damaged_file_is_named(tmp_path, station, microphone) -> None:
    heard(tmp_path, station, microphone, [clip("a")])
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"000000\.npz can't be read"):
        list(stored(tmp_path))


def test_a_full_disk_leaves_nothing_half_written(tmp_path, station, microphone, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match="No space left on device"):
        heard(tmp_path, station, microphone, [clip("a")])
    assert not list(tmp_path.iterdir())


def test_blocks_and_the_whole_are_as_long(station) -> None:
    pcm = np.random.default_rng(0).standard_normal(24_000).astype(np.float32) * 0.1
    assert encoded(station, BlockPlan(8, 8, 4), pcm).shape == encoded(station, BlockPlan(150), pcm).shape


def test_other_settings_have_another_name() -> None:
    assert recipe({"a": 1}, 2) == recipe({"a": 1}, 2) != recipe({"a": 2}, 2)
