"""Qwen-Audio, the first, tiny and random, from folders in its published layout: its logits beside the reference said in `transformers`'
parts, any split of a sound, several calls at once, its vocabulary, and what is wrong with a folder."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import regex
import torch
from by_rank import by_rank
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_qwen_audio import QwenAudio, sounded, write_qwen_audio, write_qwen_tiktoken
from tokenizers import Tokenizer
from torch import Tensor

from streaming.audio import Samples
from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel, Prompt
from streaming.engine import Parts
from streaming.events import ContextMessage
from streaming.features import LogMel
from streaming.hearing_models import load_hearing_model
from streaming.models.ctranslate2 import WeightsError
from streaming.models.qwen_tokenizer import qwen_audio_control, qwen_tokenizer
from streaming.replying import Writer

POSITIONS = 240
"""Frames that the tiny encoder hears at once: 4.8 s. Its first block is committed after 4.48 s."""

Loaded = tuple[QwenAudio, LlamaLanguageModel, AudioPath]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("qwen-audio")
    reference = write_qwen_audio(folder, random=True, layers=2, positions=POSITIONS)
    return reference, *load_hearing_model(folder, torch.float32)


def sound(samples: int, seed: int = 3) -> Samples:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


def heard(path: AudioPath, pcm: Samples, cuts: list[int] = []) -> Sound:  # noqa: B006 (never changed)
    found = Sound(path.encoder.stream(), count(-1, -1), 1)
    for part in np.split(pcm, sorted(cuts)):
        found.push(part)
        completed(found.commit())
    completed(found.conclude())
    return found


def asked(model: LlamaLanguageModel, path: AudioPath, found: Sound) -> Prompt:
    return ChatTemplate(model, "Hear.", path=path).reply_prompt((ContextMessage("user", "i", None),), {}, 1_000, {"i": found})


def rows(found: Sound) -> Tensor:
    return torch.stack([found.rows[token] for token in found.tokens])


@pytest.mark.parametrize("samples", [800, 1_677, 4_960, 16_000, 32_161, 70_077])
@torch.inference_mode()
def test_a_prompt_with_sound_has_the_logits_of_the_reference(loaded: Loaded, samples: int) -> None:
    reference, model, path = loaded
    pcm = sound(samples)
    prompt = asked(model, path, heard(path, pcm))
    sequence = model.sequence()
    completed(model.sync(sequence, prompt))
    log_mel = LogMel()
    mel = np.concatenate((log_mel.push(pcm), log_mel.tail()))
    expected = reference.logits(prompt.tokens, sounded(mel, samples))
    assert sequence.logits is not None
    kept = sequence.logits.isfinite()  # control tokens are never said
    assert kept.sum() > 250
    torch.testing.assert_close(sequence.logits[kept], expected[kept], atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 160_077), max_size=6))
def test_any_split_of_a_sound_is_the_same(loaded: Loaded, cuts: list[int]) -> None:
    path = loaded[2]
    pcm = sound(160_077)
    whole, found = heard(path, pcm), heard(path, pcm, cuts)
    assert torch.equal(rows(found), rows(whole))
    assert len(found.committed) == len(whole.committed) == 2 * POSITIONS // 2  # two windows of 4.8 s are full


def test_less_than_a_row_is_no_row(loaded: Loaded) -> None:
    assert heard(loaded[2], sound(300)).tokens == []
    assert len(heard(loaded[2], sound(480)).tokens) == 1  # three frames, made four


def test_heard_together_it_is_what_it_is_alone(loaded: Loaded, talk, tiny_parts: Parts) -> None:
    _, model, path = loaded
    talk.check_together_as_alone(replace(tiny_parts, writer=Writer(model, ChatTemplate(model, path=path), tiny_parts.writer.sampling)))


def test_a_message_is_marked_as_its_own_code_does(loaded: Loaded) -> None:
    _, model, path = loaded
    prompt = asked(model, path, heard(path, sound(16_000)))
    names = {model.control(name): name for name in ("<|im_start|>", "<|im_end|>", "<audio>", "</audio>")}
    said = "".join(names.get(token) or ("." if token < 0 else model.decode([token])) for token in prompt.tokens)
    turn = "<|im_start|>user\nAudio 1:<audio>" + "." * 25 + "</audio>\n<|im_end|>\n<|im_start|>assistant\n"
    assert said == "<|im_start|>system\nHear.<|im_end|>\n" + turn


def test_no_session_is_longer_than_its_training(loaded: Loaded) -> None:
    assert loaded[1].context == 2_048


# ------------------------------------------------------------------------------------------------------------ vocabulary

PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PIECES = [*(bytes([byte]) for byte in range(256)), b"in", b"th", b"he", b" th", b"the", b" the", b"ing", b"12", "\u00e4".encode()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "qwen.tiktoken"
    write_qwen_tiktoken(path, PIECES)
    return qwen_tokenizer(path, 4_000)


@given(text=st.text(alphabet="thein g12\u00e4\u0308a.'S!\r\n", max_size=40))
def test_text_is_split_as_tiktoken_does(tokenizer: Tokenizer, text: str) -> None:
    normal = unicodedata.normalize("NFC", text)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == by_rank(regex.findall(PATTERN, normal), PIECES)
    assert tokenizer.decode(ids) == normal


def test_control_tokens_stand_where_the_published_config_has_them() -> None:
    names = qwen_audio_control()
    assert len(names) == len(set(names))
    published = 151_643  # tokens of the file
    assert published + names.index("<|im_start|>") == 151_644
    assert published + names.index("<audio>") == 155_163
    assert published + len(names) <= 155_947


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "of its 0 lines none has a token of rank 0"),
        ("AA== 0\nAQ== 2\n", "none has a token of rank 1"),
        ("AA== 0\n??? 1\n", "its line 2 is no token"),
        ("AA==\n", "its line 1 is no token"),
        ("AA== 0\n" * 400, "of its 400 lines none has a token of rank 1"),
    ],
)  # fmt: skip
def test_what_is_no_vocabulary_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "qwen.tiktoken").write_text(content)
    with pytest.raises(WeightsError, match=said) as caught:
        qwen_tokenizer(tmp_path / "qwen.tiktoken", 4_000)
    assert "qwen.tiktoken" in str(caught.value)


# ------------------------------------------------------------------------------------------------------- bad checkpoints

Damage = Callable[[Path], None]


def _tensor(name: str, tensor: Tensor | None) -> Damage:
    def damage(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        state.pop(name, None)
        save_file(state if tensor is None else {**state, name: tensor}, folder / "model.safetensors")

    return damage


def _config(**values: object) -> Damage:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        audio = values.get("audio")
        config |= {**values, "audio": {**config["audio"], **audio} if isinstance(audio, dict) else values.get("audio", config["audio"])}
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def _vocabulary(pieces: list[bytes]) -> Damage:
    return lambda folder: write_qwen_tiktoken(folder / "qwen.tiktoken", pieces)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_tensor("transformer.h.0.mlp.w1.weight", None), r"transformer\.h\.0\.mlp\.w1\.weight is missing"),
        (_tensor("transformer.audio.proj.bias", None), r"transformer\.audio\.proj\.bias is missing"),
        (_tensor("transformer.audio.audio_bos_eos_token.weight", None), r"audio_bos_eos_token\.weight is missing"),
        (_tensor("transformer.visual.proj", torch.zeros(3)), r"should not have transformer\.visual\.proj \(1 tensors\)"),
        (_tensor("transformer.h.1.ln_1.weight", torch.zeros(64)), r"should not have transformer\.h\.1\.ln_1\.weight"),
        (_tensor("transformer.audio.audio_bos_eos_token.weight", torch.zeros(2, 3)), r"audio_bos_eos_token\.weight is \(2, 3\)"),
        (_tensor("transformer.h.0.attn.c_attn.weight", torch.zeros(191, 64)), r"layers\.0\.self_attn\.v_proj\.weight is \(63, 64\)"),
        (_tensor("transformer.audio.blocks.0.mlp.0.bias", torch.zeros(3)), r"layers\.0\.fc1\.bias is .*\(3,\)"),
        (_config(audio=None), "its audio is None"),
        (_config(audio={"avg_pool": False}), "avg_pool is False; published is True"),
        (_config(audio={"audio_start_id": 7}), r"<audio> is token \d+ of qwen\.tiktoken, and of config\.json 7"),
        (_config(no_bias=False), "no_bias is False"),
        (_config(rotary_pct=0.5), "rotary_pct is 0.5"),
        (_config(seq_length="2048"), "seq_length is '2048', not a number"),
        (_vocabulary([bytes([n]) for n in range(255)]), r"<audio> is token"),
        (_vocabulary([bytes([n // 256, n % 256]) for n in range(900)]), r"has 4422 tokens with those of control, the model 3800"),
        (lambda folder: (folder / "qwen.tiktoken").unlink(), "qwen.tiktoken"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, damage: Damage, said: str) -> None:
    write_qwen_audio(tmp_path)
    damage(tmp_path)
    with pytest.raises((WeightsError, FileNotFoundError), match=said) as caught:
        load_hearing_model(tmp_path, torch.float32)
    assert str(tmp_path) in str(caught.value)
