"""`server.eval`'s measures that run models, on tiny ones: they live beside these fixtures."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from server.eval.clips import read_clips
from server.eval.questions import ask_questions
from server.eval.recognition import transcribe_all
from server.eval.understanding import Heard, Understanding, divergence
from streaming.engine import Parts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings with their texts."""
    chance = np.random.default_rng(0)
    for name, text in (("a", "what is it"), ("b", "tell me more")):
        soundfile.write(tmp_path / f"{name}.wav", chance.standard_normal(24_000) * 0.1, 16_000)
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def test_the_ways_into_a_model(tiny_parts: Parts, hearing_parts: Parts) -> None:
    assert Understanding(tiny_parts).paths == ["text", "words"]
    models = Understanding(hearing_parts)
    assert models.paths == ["text", "words", "sound", "both"]
    heard = models.hear(np.random.default_rng(1).standard_normal(24_000).astype(np.float32) * 0.1)
    assert heard.sound is not None
    assert heard.sound.concluded
    text = models.answer("text", None, "what is it", most_tokens=4)
    words = models.answer("words", Heard("what is it", 1.0, None), "", most_tokens=4)
    assert words.text == text.text
    assert torch.equal(words.first, text.first)
    sound, both = (models.answer(path, heard, "", most_tokens=4) for path in ("sound", "both"))
    assert not torch.equal(sound.first, both.first)
    assert torch.equal(sound.first, models.answer("sound", heard, "", most_tokens=4).first)
    assert divergence(text.first, text.first) == 0
    assert divergence(text.first, sound.first) > 0


def test_questions_by_every_way(hearing_parts: Parts, folder: Path) -> None:
    done: list[int] = []
    asked = ask_questions(Understanding(hearing_parts), read_clips(folder), lambda: done.append(1), most_tokens=3)
    assert [(one.clip, one.path) for one in asked[:4]] == [("a.wav", path) for path in ("text", "words", "sound", "both")]
    assert len(asked) == 8
    assert all(one.same and one.f1 == 1 and one.same_first and not one.divergence for one in asked if one.path == "text")
    assert len(done) == 2


def test_transcripts_under_every_condition(tiny_parts: Parts, folder: Path) -> None:
    noise = np.random.default_rng(2).standard_normal(8_000).astype(np.float32)
    spoken = transcribe_all(
        tiny_parts.recogniser, lambda _: "what is", read_clips(folder), ["clean", "0 dB", "8 kHz"], [noise], lambda: None
    )
    assert [one.condition for one in spoken] == ["clean", "0 dB", "8 kHz"] * 2
    assert [one.reference for one in spoken] == [3] * 6
    assert [one.whole_errors for one in spoken] == [1, 1, 1, 3, 3, 3]
