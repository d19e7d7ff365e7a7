"""Language models that hear, tiny and random, from folders that the reference code wrote: what they make of a sound, beside the reference;
any split of the sound; and what is wrong with a folder, said."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel, Prompt
from streaming.engine import Parts
from streaming.events import ContextMessage
from streaming.features import SILENCE, LogMel
from streaming.hearing_models import load_hearing_model
from streaming.models.ctranslate2 import WeightsError
from streaming.replying import Writer

POSITIONS = 240
"""Frames that the tiny encoders hear at once: 4.8 s. Their first block is committed after 4.48 s."""

VOCABULARY, AUDIO_TOKEN, WIDTH = 288, 287, 32

CONTROL = {
    "qwen2-audio": ["<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>"],
    "voxtral": ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[BEGIN_AUDIO]"],
    "ultravox": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}
CONTROL["ultravox-0.4"] = CONTROL["ultravox-apart"] = CONTROL["ultravox"]
KINDS = list(CONTROL)

TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1_024, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
TOWER = {
    "num_mel_bins": 128, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
    "max_source_positions": POSITIONS,
}  # fmt: skip


def sound(seconds: float, seed: int = 3) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(seconds * 16_000) + 77) * 0.1).astype(np.float32)


def features(pcm: np.ndarray) -> Tensor:
    """Of a sound and the silence behind it, [1, mels, all positions]: ours, for theirs are those of a clip that is over (`features`)."""
    log_mel = LogMel(mels=128)
    mel = np.concatenate((log_mel.push(pcm), log_mel.tail()))[: 2 * POSITIONS]
    return torch.from_numpy(np.pad(mel, ((0, 2 * POSITIONS - len(mel)), (0, 0)), constant_values=SILENCE)).T[None]


def randomised(model: nn.Module, scale: float = 0.15) -> nn.Module:
    for parameter in model.parameters():
        parameter.data.normal_(0.0, scale)  # its own initialisation is so small that a missing layer would hardly show
    return model.eval()


class Ultravox(nn.Module):
    """What Ultravox does, said again in transformers' parts: the reference is code on the hub, which transformers has not."""

    def __init__(self, middle: bool) -> None:
        super().__init__()
        self.audio_tower = WhisperEncoder(WhisperConfig(**TOWER))
        self.multi_modal_projector = nn.ModuleDict(
            {"ln_pre": nn.RMSNorm(128, 1e-6), "linear_1": nn.Linear(128, 40, bias=False), "linear_2": nn.Linear(20, WIDTH, bias=False)}
        )
        self.multi_modal_projector["ln_mid" if middle else "ln_post"] = nn.RMSNorm(20 if middle else WIDTH, 1e-6)
        self.language_model = LlamaForCausalLM(LlamaConfig(**TEXT))
        self.middle = middle

    def rows(self, mel: Tensor, frames: int) -> Tensor:
        tower, projector = self.audio_tower, self.multi_modal_projector
        hidden = functional.gelu(tower.conv2(functional.gelu(tower.conv1(mel)))).transpose(1, 2) + tower.embed_positions.weight
        hidden = hidden[:, :frames]  # frames without sound are masked
        for layer in tower.layers:
            found = layer(hidden, None)
            hidden = found[0] if isinstance(found, tuple) else found
        stacked = functional.pad(tower.layer_norm(hidden)[0], (0, 0, 0, -frames % 8)).reshape(-1, 128)
        values, gates = projector["linear_1"](projector["ln_pre"](stacked)).chunk(2, dim=-1)
        rows = functional.silu(gates) * values
        return projector["linear_2"](projector["ln_mid"](rows)) if self.middle else projector["ln_post"](projector["linear_2"](rows))


def write(kind: str, folder: Path) -> nn.Module:
    """A folder as it is published, and the reference."""
    torch.manual_seed(5)
    if kind == "qwen2-audio":
        config = Qwen2AudioConfig(
            audio_config={"model_type": "qwen2_audio_encoder", **TOWER}, text_config={"model_type": "qwen2", **TEXT},
            audio_token_index=AUDIO_TOKEN,
        )  # fmt: skip
        model = randomised(Qwen2AudioForConditionalGeneration(config))
        model.save_pretrained(folder)
    elif kind == "voxtral":
        tower = {"num_mel_bins": 128, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = VoxtralConfig(
            audio_config={"model_type": "voxtral_encoder", **tower, "max_source_positions": POSITIONS},
            text_config={"model_type": "llama", **TEXT, "head_dim": 16}, audio_token_id=AUDIO_TOKEN,
        )  # fmt: skip
        model = randomised(VoxtralForConditionalGeneration(config))
        model.save_pretrained(folder)
    else:
        model = randomised(Ultravox(middle=kind != "ultravox-0.4"))
        write_ultravox(model, kind, folder)
    write_tokenizer(kind, folder / "language_model" if kind == "ultravox-apart" else folder)
    return model


def write_ultravox(model: Ultravox, kind: str, folder: Path) -> None:
    """With its decoder, as it is saved once merged; or `apart`, without, as it is published."""
    folder.mkdir(exist_ok=True)
    config = {"model_type": "ultravox", "stack_factor": 8, "hidden_size": 40, "projector_act": "swiglu", "projector_ln_mid": model.middle}
    config["audio_config"] = {"model_type": "whisper", **TOWER}
    state = dict(model.state_dict())
    if kind == "ultravox-apart":
        config["text_model_id"] = "meta-llama/Llama-3.1-8B-Instruct"
        model.language_model.save_pretrained(folder / "language_model")
        state = {name: tensor for name, tensor in state.items() if not name.startswith("language_model.")}
    else:
        config["text_config"] = {"model_type": "llama", **TEXT}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors")


def write_tokenizer(kind: str, folder: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(CONTROL[kind])
    tokenizer.save(str(folder / "tokenizer.json"))


def expected(model: nn.Module, pcm: np.ndarray, prompt: Prompt) -> Tensor:
    """The reference's logits after the prompt, with a placeholder for each row."""
    tokens = torch.tensor([[token if token >= 0 else AUDIO_TOKEN for token in prompt.tokens]])
    mel = features(pcm)
    with torch.inference_mode():
        if isinstance(model, Ultravox):
            embedded = model.language_model.get_input_embeddings()(tokens)
            rows = model.rows(mel, -(-len(pcm) // 320))
            embedded[tokens == AUDIO_TOKEN] = rows
            return model.language_model(inputs_embeds=embedded).logits[0, -1]
        assert isinstance(model, PreTrainedModel)
        if isinstance(model, VoxtralForConditionalGeneration):
            return model(input_ids=tokens, input_features=mel).logits[0, -1]
        heard = (torch.arange(2 * POSITIONS) < -(-len(pcm) // 160)).long()[None]
        found = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), input_features=mel, feature_attention_mask=heard)
        return found.logits[0, -1]


def heard(path: AudioPath, pcm: np.ndarray, sizes: tuple[int, ...] = ()) -> Sound:
    """A sound that came in pieces of these sizes, and in one after them."""
    found = Sound(path.encoder.stream(), count(-1, -1), 1)
    at = 0
    for size in (*sizes, len(pcm)):
        found.push(pcm[at : at + size])
        at += size
        completed(found.commit())
    completed(found.conclude())
    return found


def asked(model: LlamaLanguageModel, path: AudioPath, found: Sound) -> Prompt:
    return ChatTemplate(model, "Hear.", path=path).reply_prompt((ContextMessage("user", "i", None),), {}, 1_000, {"i": found})


def logits(model: LlamaLanguageModel, prompt: Prompt) -> Tensor:
    sequence = model.sequence()
    completed(model.sync(sequence, prompt))
    assert sequence.logits is not None
    return sequence.logits


def rows(found: Sound) -> Tensor:
    return torch.stack([found.rows[token] for token in found.tokens])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [0.31, 3.3, 4.4])
def test_a_prompt_with_sound_has_the_logits_of_the_reference(tmp_path: Path, kind: str, seconds: float) -> None:
    reference = write(kind, tmp_path)
    model, path = load_hearing_model(tmp_path, torch.float32)
    pcm = sound(seconds)
    prompt = asked(model, path, heard(path, pcm))
    found = logits(model, prompt)
    kept = found.isfinite()  # control tokens are never said
    assert kept.sum() > 250
    assert (found - expected(reference, pcm, prompt))[kept].abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_any_split_of_a_sound_of_several_windows_is_the_same(tmp_path: Path, kind: str) -> None:
    write(kind, tmp_path)
    _, path = load_hearing_model(tmp_path, torch.float32)
    pcm = sound(11.0)
    whole = heard(path, pcm)
    for sizes in ((1, 319, 76_478, 2, 5), tuple([5_000] * 30), (76_800, 76_800)):
        found = heard(path, pcm, sizes)
        assert torch.equal(rows(found), rows(whole))
        assert len(found.committed) == len(whole.committed)
    # Two windows of 4.8 s are full and final, each as if it stood alone.
    per_window = -(-POSITIONS * 320 // path.encoder.row_samples)
    assert len(whole.committed) == 2 * per_window
    assert path.encoder.width == rows(whole).shape[1] == WIDTH


@pytest.mark.parametrize("kind", KINDS)
def test_heard_together_it_is_what_it_is_alone(tmp_path: Path, kind: str, talk, tiny_parts: Parts) -> None:
    write(kind, tmp_path)
    model, path = load_hearing_model(tmp_path, torch.float32)
    talk.check_together_as_alone(replace(tiny_parts, writer=Writer(model, ChatTemplate(model, path=path), tiny_parts.writer.sampling)))


def test_a_message_is_marked_as_the_family_has_it(tmp_path: Path) -> None:
    found = {}
    for kind in ("qwen2-audio", "voxtral", "ultravox"):
        folder = tmp_path / kind
        folder.mkdir()
        write(kind, folder)
        model, path = load_hearing_model(folder, torch.float32)
        prompt = asked(model, path, heard(path, sound(1.0)))
        names = {model.control(name): name for name in CONTROL[kind]}
        found[kind] = "".join(names.get(t) or ("." if t < 0 else model.decode([t])) for t in prompt.tokens)
    qwen = "<|im_start|>user\nAudio 1: <|audio_bos|>" + "." * 25 + "<|audio_eos|>\n<|im_end|>\n<|im_start|>assistant\n"
    assert found["qwen2-audio"].endswith(qwen)
    assert found["voxtral"].endswith("[INST][BEGIN_AUDIO]" + "." * 60 + "[/INST]")
    ultravox = "user<|end_header_id|>\n\n" + "." * 7 + "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    assert found["ultravox"].endswith(ultravox)


# ------------------------------------------------------------------------------------------------------- bad checkpoints

Damage = Callable[[Path], None]


def _without(name: str) -> Damage:
    def damage(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        del state[next(one for one in state if one.endswith(name))]
        save_file(state, folder / "model.safetensors")

    return damage


def _with(name: str, tensor: Tensor) -> Damage:
    def damage(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        there = next((one for one in state if one.endswith(name)), name)
        save_file({**state, there: tensor}, folder / "model.safetensors")

    return damage


def _config(**values: object) -> Damage:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return damage


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("kind", "damage", "said"),
    [
        ("qwen2-audio", _without("multi_modal_projector.linear.bias"), r"multi_modal_projector\.linear\.bias is missing"),
        ("qwen2-audio", _without("audio_tower.conv1.weight"), r"has no audio_tower\.conv1\.weight"),
        ("qwen2-audio", _without("audio_tower.layers.1.fc1.weight"), r"has no audio_tower\.layers\.1\.fc1\.weight"),
        ("qwen2-audio", _without("layers.0.mlp.up_proj.weight"), r"layers\.0\.mlp\.up_proj\.weight is missing"),
        ("qwen2-audio", _with("audio_tower.layers.0.fc1.bias", torch.zeros(3)), r"audio_tower\.layers\.0\.fc1\.bias is .*\(3,\)"),
        ("voxtral", _with("multi_modal_projector.linear_2.weight", torch.zeros(3, 3)), r"linear_2\.weight is \(3, 3\), not \(32, 32\)"),
        ("voxtral", _with("multi_modal_projector.linear_3.weight", torch.zeros(3)), r"should not have multi_modal_projector\.linear_3"),
        ("voxtral", _with("audio_tower.spare", torch.zeros(3)), r"should not have audio_tower\.spare"),
        ("voxtral", _with("vision_tower.spare", torch.zeros(3)), r"should not have vision_tower\.spare"),
        ("voxtral", _config(projector_hidden_act="relu"), "projector_hidden_act is 'relu'"),
        ("ultravox", _config(model_type="whale"), "is the config of 'whale'"),
        ("ultravox", _config(projector_act="gelu"), "projector_act is 'gelu'"),
        ("ultravox", _config(audio_latency_block_size=100), "audio_latency_block_size"),
        ("ultravox", _config(stack_factor="8"), "stack_factor is '8'"),
        ("ultravox", _config(text_config={**TEXT, "model_type": "bloom"}), "model_type is 'bloom'"),
        ("ultravox", _config(audio_config=3), "audio_config is 3"),
        ("ultravox", _cut, "is no safetensors, or is cut short"),
        ("ultravox-apart", lambda folder: shutil.rmtree(folder / "language_model"), r"'meta-llama/Llama-3\.1-8B-Instruct': put"),
        ("voxtral", lambda folder: write_tokenizer("ultravox", folder), r"no \[BEGIN_AUDIO\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, kind: str, damage: Damage, said: str) -> None:
    write(kind, tmp_path)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=said) as caught:
        load_hearing_model(tmp_path, torch.float32)
    assert str(tmp_path) in str(caught.value)
