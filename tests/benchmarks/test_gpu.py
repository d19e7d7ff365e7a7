"""`python -m benchmarks.gpu` at tiny sizes on a CPU: everything is measured, as often as it says. What it took is nobody's business."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import PUBLISHED, main
from benchmarks.gpu_models import HEARING, Language, Published, decoder, hearing, language_model, tiny, tiny_language, weight_bytes
from benchmarks.gpu_realtime import REALTIME, Reader, recogniser, row_bytes, tiny_realtime, together
from streaming.audio_path import Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate

CPU = torch.device("cpu")
PARTS = ["first token, incremental", "first token, whole", "listening, a second of sound", "decode step"]
WRITING = ["last word, incremental", "last word, whole", "listening, a second of sound", "row and step, 80 ms of sound", "decode step"]
STEPS = ("decode step", "row and step, 80 ms of sound")


def run(tmp_path: Path, *arguments: str) -> dict[str, object]:
    main(["--tiny", "--json", str(tmp_path / "gpu.json"), *arguments])
    found: dict[str, object] = json.loads((tmp_path / "gpu.json").read_text())
    return found


@pytest.mark.timeout(300)
def test_the_parts_of_every_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, "--no-turns")
    figures = found["figures"]
    assert isinstance(figures, list)
    assert Counter((figure["model"], figure["what"]) for figure in figures) == Counter(
        {(model.name, what): 2 for model in PUBLISHED for what in (PARTS if isinstance(model, Published) else WRITING)}
    )
    assert {(figure["what"], len(figure["ms"])) for figure in figures} == {(what, 5 if what in STEPS else 1) for what in PARTS + WRITING}
    assert all((figure["roofline"] is not None) == (figure["what"] in STEPS) for figure in figures)
    printed = capsys.readouterr().out
    assert all(model.name in printed for model in PUBLISHED)
    assert "the figures say nothing about the models" in printed


@pytest.mark.models
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["ultravox-8b", "voxtral-realtime-4b"])
def test_a_whole_turn_through_the_server(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, "--models", name)
    assert isinstance(found["turns"], dict)
    (level,) = found["turns"][name]
    assert (level["sessions"], level["refusals"]) == (1, [])
    (asked,) = level["asked"]
    assert (asked["error"], asked["latency"] is None) == ("", False)
    assert isinstance(found["figures"], list)
    assert [(figure["what"], figure["size"]) for figure in found["figures"][:2]] == [("first chunk", "CPU"), ("a clause", "CPU")]
    assert "calls held at p95 below 500 ms" in capsys.readouterr().out


def test_the_shapes_are_those_that_were_published() -> None:
    # Billions of weights that a decode step reads: SmolLM2-135M, Qwen2-Audio's and Ultravox's language models.
    assert [round(weight_bytes(model.language.shape) / 2e9, 2) for model in HEARING] == [0.13, 7.12, 7.5]
    # The one that writes, with its encoder and without, and the one that answers.
    sizes = row_bytes(REALTIME), weight_bytes(REALTIME.writes.shape), weight_bytes(REALTIME.answers.shape)
    assert [round(size / 2e9, 2) for size in sizes] == [4.42, 3.43, 4.02]


def test_only_qwen2_has_biases() -> None:
    biased = [model.name for model in HEARING if decoder(tiny(model).language, CPU).weights.layers[0].qkv.bias is not None]
    assert biased == ["qwen2-audio-7b"]


@pytest.fixture(params=HEARING, ids=lambda model: model.name)
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


def test_a_word_is_written_at_every_fourth_step_whatever_was_heard_how() -> None:
    reads = recogniser(tiny_realtime(REALTIME), CPU)
    pcm = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    whole, split = reads.window(), reads.window()
    whole.push(pcm)
    for piece in np.split(pcm, 10):
        split.push(piece)
        completed(split.decode("en"))
    decoding, heard = completed(whole.decode("en"))
    assert heard == len(pcm)
    assert (decoding.tokens, decoding.log_probability) == (completed(split.decode("en"))[0].tokens, 0.0)
    # From the prompt's last step, 38, to the last over silence, 32 of the lead, 13 of sound and 16 behind.
    words = len(range(40, 32 + 13 + 16, 4))
    assert reads.text(decoding.tokens) == " ".join(["Yes."] * words)


def test_readers_are_heard_together() -> None:
    reads = recogniser(tiny_realtime(REALTIME), CPU)
    readers = [Reader(reads) for _ in range(3)]
    for number, reader in enumerate(readers):
        reader.push(np.zeros(16_000 + 1_280 * number, np.float32))
    together(reader.read() for reader in readers)
    assert [reader.steps for reader in readers] == [44, 45, 46]


@pytest.mark.parametrize("model", [*(model.language for model in HEARING), REALTIME.answers])
def test_every_reply_is_the_same_sentence(model: Language) -> None:
    language = language_model(decoder(tiny_language(model), CPU, slots=2))
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
