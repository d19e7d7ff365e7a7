"""Qwen2.5-Omni's thinker, tiny and random, from folders that the reference wrote: its logits, and blocks that are exactly those of the
whole."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import write_omni
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from streaming.audio import Samples
from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel
from streaming.events import ContextMessage
from streaming.features import LogMel
from streaming.hearing_models import load_hearing_model
from streaming.models.ctranslate2 import WeightsError

AUDIO_TOKEN = 287


def sound(samples: int, seed: int = 3) -> Samples:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


def features(pcm: Samples) -> Tensor:
    """[1, mels, frames that hold sound], ours: theirs take the loudest frame of the clip for their floor."""
    log_mel = LogMel(mels=128)
    mel = np.concatenate((log_mel.push(pcm), log_mel.tail()))[: -(-len(pcm) // 160)]
    return torch.from_numpy(mel).T[None]


def heard(path: AudioPath, pcm: Samples, cuts: list[int] = []) -> Sound:  # noqa: B006 (never changed)
    found = Sound(path.encoder.stream(), count(-1, -1), 1)
    for part in np.split(pcm, sorted(cuts)):
        found.push(part)
        completed(found.commit())
    completed(found.conclude())
    return found


def rows(found: Sound) -> Tensor:
    return torch.stack([found.rows[token] for token in found.tokens])


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> tuple[Qwen2_5OmniThinkerForConditionalGeneration, LlamaLanguageModel, AudioPath]:
    folder = tmp_path_factory.mktemp("omni")
    return write_omni(folder, taught=False), *load_hearing_model(folder, torch.float32)


@pytest.mark.parametrize("samples", [1_600, 4_960, 31_999, 32_000, 32_161, 70_077, 100_003])
@torch.inference_mode()
def test_a_prompt_with_sound_has_the_logits_of_the_reference(thinker, samples: int) -> None:
    reference, model, path = thinker
    pcm = sound(samples)
    found = heard(path, pcm)
    prompt = ChatTemplate(model, "Hear.", path=path).reply_prompt((ContextMessage("user", "i", None),), {}, 1_000, {"i": found})
    sequence = model.sequence()
    completed(model.sync(sequence, prompt))
    mel = features(pcm)
    tokens = torch.tensor([[token if token >= 0 else AUDIO_TOKEN for token in prompt.tokens]])
    expected = reference(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), input_features=mel,
        feature_attention_mask=torch.ones(1, mel.shape[2], dtype=torch.int64),
    ).logits[0, -1]  # fmt: skip
    assert sequence.logits is not None
    kept = sequence.logits.isfinite()
    assert kept.sum() > 250
    torch.testing.assert_close(sequence.logits[kept], expected[kept], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_blocks_of_two_seconds_are_final_and_those_of_the_whole(thinker) -> None:
    reference, _, path = thinker
    pcm = sound(100_003)
    found = heard(path, pcm, [1, 500, 33_000, 99_999])
    mel = features(pcm)
    mask = torch.ones(1, mel.shape[2], dtype=torch.int64)
    expected = reference.get_audio_features(mel, feature_attention_mask=mask).last_hidden_state
    torch.testing.assert_close(rows(found), expected, atol=1e-4, rtol=1e-4)
    assert len(found.committed) == 3 * 50  # of 6.25 s
    assert path.encoder.row_samples == 640


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 70_077), max_size=6))
def test_any_split_of_a_sound_is_the_same(thinker, cuts: list[int]) -> None:
    path = thinker[2]
    pcm = sound(70_077)
    whole, found = heard(path, pcm), heard(path, pcm, cuts)
    assert torch.equal(rows(found), rows(whole))
    assert len(found.committed) == len(whole.committed)


def published(folder: Path) -> None:
    """The thinker's folder becomes the published one: with a talker and a vocoder beside it."""
    state = {f"thinker.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    others = {"talker.model.norm.weight": torch.ones(3), "token2wav.code2wav_bigvgan_model.conv_pre.bias": torch.ones(2)}
    save_file({**state, **others}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": config, "talker_config": {}}))


def test_the_published_folder_is_read_without_what_speaks(thinker, tmp_path: Path) -> None:
    write_omni(tmp_path, taught=False)
    published(tmp_path)
    model, path = load_hearing_model(tmp_path, torch.float32)
    pcm = sound(40_000)
    assert torch.equal(rows(heard(path, pcm)), rows(heard(thinker[2], pcm)))
    assert model.encode("Hear.") == thinker[1].encode("Hear.")


def _changed(name: str, tensor: Tensor | None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        there = next((one for one in state if one.endswith(name)), name)
        state.pop(there, None)
        save_file(state if tensor is None else {**state, there: tensor}, folder / "model.safetensors")

    return damage


def _configured(**audio: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["audio_config"] |= audio
        (folder / "config.json").write_text(json.dumps(config))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_changed("audio_tower.proj.bias", None), r"multi_modal_projector\.linear\.bias is missing"),
        (_changed("audio_tower.ln_post.weight", None), r"has no audio_tower\.layer_norm\.weight"),
        (_changed("audio_tower.layers.0.fc1.weight", torch.zeros(3, 3)), r"audio_tower\.layers\.0\.fc1\.weight"),
        (_changed("layers.0.mlp.up_proj.weight", None), r"layers\.0\.mlp\.up_proj\.weight is missing"),
        (_changed("model.spare", torch.zeros(3)), r"spare"),
        (_configured(n_window="100"), "n_window is '100'"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "qwen2_5_omni", "thinker_config": 3}'), "thinker_config is 3"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    write_omni(tmp_path, taught=False)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=said):
        load_hearing_model(tmp_path)
