"""`python -m benchmarks.gpu` at tiny sizes on a CPU: everything is measured, as often as it says. What it took is nobody's business."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import main
from benchmarks.gpu_models import PUBLISHED, Published, decoder, hearing, language_model, tiny, weight_bytes
from streaming.audio_path import Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate

CPU = torch.device("cpu")
PARTS = Counter({"first token, incremental": 2, "first token, whole": 2, "listening, a second of sound": 2, "decode step": 2})


def run(tmp_path: Path, *arguments: str) -> dict[str, object]:
    main(["--tiny", "--json", str(tmp_path / "gpu.json"), *arguments])
    found: dict[str, object] = json.loads((tmp_path / "gpu.json").read_text())
    return found


def test_the_parts_of_every_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, "--no-turns")
    figures = found["figures"]
    assert isinstance(figures, list)
    assert Counter((figure["model"], figure["what"]) for figure in figures) == Counter(
        {(model.name, what): times for model in PUBLISHED for what, times in PARTS.items()}
    )
    assert {(figure["what"], len(figure["ms"])) for figure in figures} == {(what, 5 if what == "decode step" else 1) for what in PARTS}
    assert all((figure["roofline"] is not None) == (figure["what"] == "decode step") for figure in figures)
    printed = capsys.readouterr().out
    assert all(model.name in printed for model in PUBLISHED)
    assert "the figures say nothing about the models" in printed


@pytest.mark.models
@pytest.mark.timeout(300)
def test_a_whole_turn_through_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, "--models", "ultravox-8b")
    assert isinstance(found["turns"], dict)
    (level,) = found["turns"]["ultravox-8b"]
    assert (level["sessions"], level["refusals"]) == (1, [])
    (asked,) = level["asked"]
    assert (asked["error"], asked["latency"] is None) == ("", False)
    assert "calls held at p95 below 500 ms" in capsys.readouterr().out


def test_the_shapes_are_those_that_were_published() -> None:
    # Billions of weights that a decode step reads: SmolLM2-135M, Voxtral Realtime's, Qwen2-Audio's and Ultravox's language models.
    assert [round(weight_bytes(model.decoder) / 2e9, 2) for model in PUBLISHED] == [0.13, 3.43, 7.12, 7.5]


@pytest.fixture(params=PUBLISHED, ids=lambda model: model.name)
def small(request: pytest.FixtureRequest) -> Published:
    return tiny(request.param)


@torch.inference_mode()
def test_a_turn_longer_than_the_encoder_has_all_its_rows(small: Published) -> None:
    path = hearing(small, CPU)
    pcm = np.random.default_rng(1).standard_normal(60 * 16_000).astype(np.float32)

    def heard(pieces: list[np.ndarray], numbers: Iterator[int]) -> Sound:
        sound = Sound(path.encoder.stream(), numbers, 1)
        for piece in pieces:
            sound.push(piece)
            completed(sound.commit())
        completed(sound.conclude())
        return sound

    whole, split = heard([pcm], count(-1, -1)), heard(np.array_split(pcm, 31), count(-1, -1))
    # The encoder hears half a second of silence behind the end.
    assert len(whole.tokens) == len(split.tokens) == -(-(60 * 50 + 25) // small.stack)
    assert len(whole.committed) == len(split.committed)
    for ours, theirs in zip(whole.committed, split.committed, strict=True):
        torch.testing.assert_close(whole.rows[ours], split.rows[theirs])


def test_every_reply_is_the_same_sentence(small: Published) -> None:
    language = language_model(decoder(small, CPU, slots=2))
    sequence, said = language.sequence(), list[int]()
    completed(language.sync(sequence, ChatTemplate(language).reply_prompt((), {}, 1_000)))
    while True:
        assert sequence.logits is not None
        token = int(sequence.logits.argmax())
        if token in language.end_tokens:
            break
        said.append(token)
        completed(language.append(sequence, token))
    assert language.decode(said) == "Yes, of course. It is a fine day, and there is time for a walk."
