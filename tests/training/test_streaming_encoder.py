"""The training script on a tiny Whisper: it goes on where it was stopped, and says what is wrong."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

from streaming.models.low_rank import fingerprint, read_adaptation
from streaming.models.whisper_weights import load_whisper
from training import streaming_encoder
from training.distillation import Distillation
from training.streaming_encoder import Places, train

SETTINGS = Path(streaming_encoder.__file__).with_suffix(".toml")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    torch.manual_seed(3)
    config = WhisperConfig(
        vocab_size=51_865, num_mel_bins=80, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=200, max_target_positions=64,
        pad_token_id=50_257, bos_token_id=50_257, eos_token_id=50_257, decoder_start_token_id=50_258,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path / "whisper")
    write_recordings(tmp_path / "data")
    return Places(tmp_path / "data", tmp_path / "whisper", tmp_path / "work", tmp_path / "out.safetensors")


def write_recordings(data: Path) -> None:
    (data / "train").mkdir(parents=True)
    chance = np.random.default_rng(1)
    lines = []
    for name in ("read", "esc10"):
        path = f"train/{name}.flac"
        soundfile.write(data / path, chance.standard_normal(16_000) * 0.1, 16_000)
        lines.append({"path": path, "part": "train", "set": name, "licence": "CC0", "kind": "read", "speaker": "one"})
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))


def configuration(**fit: object) -> dict[str, Any]:
    settings = tomllib.loads(SETTINGS.read_text())
    settings["data"] |= {"shares": {"read": 1.0}, "seconds": [0.5, 1.0], "long_seconds": [1.0, 1.5]}
    settings["fit"] |= {"rank": 2, "steps": 4, "warm_up": 1, "silence_every": 2} | fit
    return settings


def factors(path: Path) -> Mapping[str, torch.Tensor]:
    return load_file(path)


@pytest.fixture(autouse=True)
def kept_every_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_encoder, "_KEPT_EVERY", 2)


def train_until(step: int, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and be stopped as by Ctrl-C in the middle of a step."""
    loss, seen = Distillation.loss, []

    def stopping(self: Distillation, *arguments: Any) -> torch.Tensor:
        seen.append(arguments)
        if len(seen) > step:
            raise KeyboardInterrupt
        return loss(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(configuration(), places)


def test_a_run_that_was_stopped_ends_where_one_that_was_not_does(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    train(configuration(), places)
    whole = factors(places.out)
    again = replace(places, work=places.work / "again", out=places.out.with_name("again.safetensors"))
    train_until(3, again, monkeypatch)
    assert not again.out.exists()
    train(configuration(), again)
    for name, factor in factors(again.out).items():
        assert torch.equal(factor, whole[name]), name


def test_what_it_writes_is_for_the_weights_it_was_made_of_and_the_blocks_of_its_configuration(places: Places) -> None:
    train(configuration(), places)
    adaptation = read_adaptation(places.out)
    published = load_whisper(places.whisper, torch.float32)
    assert adaptation.base == fingerprint(published.encoder.state_dict())
    assert adaptation.plan == configuration()["export"]["plan"]
    changed = load_whisper(places.whisper, torch.float32, adaptation=places.out)
    assert changed.adaptation is not None
    name = "layers.0.self_attention.qkv.weight"
    assert not torch.equal(changed.encoder.state_dict()[name], published.encoder.state_dict()[name])


def test_less_of_the_changes_may_be_written_and_of_the_same_state(places: Places) -> None:
    settings = configuration()
    settings["export"]["strength"] = 1.0
    train(settings, places)
    whole = factors(places.out)
    settings["export"]["strength"] = 0.5
    train(settings, places)
    for name, factor in factors(places.out).items():
        assert torch.equal(factor, whole[name] / 2 if name.endswith(".up") else whole[name])


def test_what_was_learned_so_far_is_written_without_training(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    train_until(3, places, monkeypatch)
    train(configuration(), places, so_far=True)
    assert read_adaptation(places.out).recipe.startswith(f"{streaming_encoder._digest(configuration())}, step 2,")


def test_a_state_of_another_configuration_is_not_gone_on_with(places: Places) -> None:
    train(configuration(), places)
    (mine,) = places.work.iterdir()
    other = configuration(rank=3)
    mine.rename(places.work / f"streaming-encoder-{streaming_encoder._digest(other)}.safetensors")
    with pytest.raises(ValueError, match=r"is of another configuration"):
        train(other, places)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_state_is_refused_by_name(places: Places, damage: str) -> None:
    train(configuration(), places)
    (state,) = places.work.iterdir()
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:-100])
    else:
        recipe = streaming_encoder._digest(configuration())
        save_file({"nothing": torch.zeros(1)}, state, {"recipe": recipe, "step": "4"})
    with pytest.raises(ValueError, match=rf"{state.name}.* delete it to begin anew"):
        train(configuration(), places)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_state(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def loss(self: Distillation, *arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return torch.tensor(math.nan if len(calls) == 4 else 1.0, requires_grad=True)

    monkeypatch.setattr(Distillation, "loss", loss)
    with pytest.raises(ValueError, match="step 3: the loss is not a number: lower learning_rate"):
        train(configuration(), places)
    assert not places.out.exists()
    (state,) = places.work.iterdir()
    assert all(torch.isfinite(tensor).all() for tensor in load_file(state).values())


def test_a_full_disk_leaves_no_half_written_file(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    train(configuration(), places)
    (state,) = places.work.iterdir()
    before = state.read_bytes(), places.out.read_bytes()

    def full(tensors: object, path: Path, *rest: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(streaming_encoder, "save_file", full)
    monkeypatch.setattr("streaming.models.low_rank.save_file", full)
    with pytest.raises(OSError, match="No space"):
        train(configuration(), places)
    with pytest.raises(OSError, match="No space"):
        train(configuration(), replace(places, work=places.work / "new"))
    assert (state.read_bytes(), places.out.read_bytes()) == before
    assert not list(places.out.parent.rglob("*.part"))


def test_missing_recordings_are_named(places: Places) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/manifest\.jsonl is missing"):
        train(configuration(), replace(places, data=Path("nowhere")))
