"""Qwen-Audio, the first, tiny, in its published layout. Its code is on the hub and not in `transformers`, so what it does is said again in
`transformers`' parts: Qwen2 with as many key-value heads as query heads is Qwen-1's arithmetic, and the encoder is Whisper's."""

import base64
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny_models import teach
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from streaming.models.qwen_tokenizer import qwen_audio_control, qwen_tokenizer

__all__ = ["QwenAudio", "sounded", "write_qwen_audio", "write_qwen_tiktoken"]

_WIDTH, _HEADS, _HIDDEN, _VOCABULARY = 64, 4, 48, 3_800
_PIECES = [*(bytes([byte]) for byte in range(256)), b"in", b"us", b"er", b"user"]
_START = len(_PIECES) + len(qwen_audio_control()) - 2


class QwenAudio(nn.Module):
    """The reference: `language_model`, `audio_tower`, `proj` and the two rows `around` a sound."""

    def __init__(self, layers: int, positions: int) -> None:
        super().__init__()
        sizes = {"hidden_size": _WIDTH, "intermediate_size": _HIDDEN, "num_hidden_layers": layers, "num_attention_heads": _HEADS}
        config = Qwen2Config(
            vocab_size=_VOCABULARY, **sizes, num_key_value_heads=_HEADS, rms_norm_eps=1e-5, max_position_embeddings=2_048,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=False,
        )  # fmt: skip
        self.language_model = Qwen2ForCausalLM(config)
        tower = {"num_mel_bins": 80, "d_model": 16, "encoder_layers": layers, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
        self.audio_tower = WhisperEncoder(WhisperConfig(**tower, max_source_positions=positions))
        self.proj = nn.Linear(16, _WIDTH)
        self.around = nn.Embedding(2, _WIDTH)

    def rows(self, mel: Tensor) -> Tensor:
        """[1, mels, an even number of frames that hold sound] to rows. Behind the features is what convolutions pad with."""
        tower = self.audio_tower
        hidden = functional.gelu(tower.conv2(functional.gelu(tower.conv1(mel)))).transpose(1, 2)
        hidden = hidden + tower.embed_positions.weight[: hidden.shape[1]]
        for layer in tower.layers:
            found = layer(hidden, None)
            hidden = found[0] if isinstance(found, tuple) else found
        pooled = functional.avg_pool1d(hidden.transpose(1, 2), 2, 2).transpose(1, 2)
        return self.proj(tower.layer_norm(pooled))[0]

    def logits(self, tokens: list[int], mel: Tensor) -> Tensor:
        """After a prompt in which numbers below zero stand for the rows of a sound: [vocabulary]."""
        ids = torch.tensor([tokens])
        embedded = self.language_model.get_input_embeddings()(ids.clamp(min=0))
        embedded[ids == _START] = self.around.weight[0]
        embedded[ids == _START + 1] = self.around.weight[1]
        embedded[ids < 0] = self.rows(mel)
        return self.language_model(inputs_embeds=embedded).logits[0, -1]


def write_qwen_audio(folder: Path, *, random: bool = False, layers: int = 1, positions: int = 1_500) -> QwenAudio:
    """Qwen/Qwen-Audio-Chat, whose reference is returned; all of it `random`, or taught its answer."""
    torch.manual_seed(5)
    folder.mkdir(parents=True, exist_ok=True)
    model = QwenAudio(layers, positions).eval()
    write_qwen_tiktoken(folder / "qwen.tiktoken", _PIECES)
    if random:
        for parameter in model.parameters():
            parameter.data.normal_(0.0, 0.15)
    else:
        teach(model, qwen_tokenizer(folder / "qwen.tiktoken", _VOCABULARY), "\n", "<|im_end|>")
    audio = {"n_mels": 80, "n_ctx": positions, "n_state": 16, "n_head": 2, "n_layer": layers, "output_dim": _WIDTH}
    config = {
        "architectures": ["QWenLMHeadModel"], "model_type": "qwen", "vocab_size": _VOCABULARY, "hidden_size": _WIDTH,
        "intermediate_size": 2 * _HIDDEN, "num_hidden_layers": layers, "num_attention_heads": _HEADS, "kv_channels": _WIDTH // _HEADS,
        "layer_norm_epsilon": 1e-5, "max_position_embeddings": 8_192, "seq_length": 2_048, "no_bias": True, "rotary_emb_base": 10_000,
        "rotary_pct": 1.0, "scale_attn_weights": True, "tie_word_embeddings": False, "use_dynamic_ntk": True, "use_logn_attn": True,
        "audio": {**audio, "avg_pool": True, "add_audio_bos_eos_token": True, "audio_start_id": _START},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"chat_format": "chatml", "eos_token_id": len(_PIECES)}))
    save_file({name: tensor.contiguous() for name, tensor in _published(model, layers).items()}, folder / "model.safetensors")
    return model


def write_qwen_tiktoken(path: Path, pieces: list[bytes]) -> None:
    """The vocabulary file: a token a line, and its rank."""
    path.write_text("".join(f"{base64.b64encode(piece).decode()} {rank}\n" for rank, piece in enumerate(pieces)))


def _published(model: QwenAudio, layers: int) -> dict[str, Tensor]:
    """The state under the names of the published code."""
    text, tower = model.language_model.state_dict(), model.audio_tower.state_dict()
    state = {
        "lm_head.weight": text["lm_head.weight"],
        "transformer.wte.weight": text["model.embed_tokens.weight"],
        "transformer.ln_f.weight": text["model.norm.weight"],
        "transformer.rotary_emb.inv_freq": torch.ones(8),
        "transformer.audio.audio_bos_eos_token.weight": model.around.weight.detach(),
        "transformer.audio.positional_embedding": tower["embed_positions.weight"],
    }
    for kind in ("weight", "bias"):
        state |= {f"transformer.audio.{name}.{kind}": tower[f"{name}.{kind}"] for name in ("conv1", "conv2")}
        state[f"transformer.audio.ln_post.{kind}"] = tower[f"layer_norm.{kind}"]
        state[f"transformer.audio.proj.{kind}"] = getattr(model.proj, kind).detach()
    for n in range(layers):
        at, there = f"transformer.h.{n}", f"model.layers.{n}"
        for kind in ("weight", "bias"):
            state[f"{at}.attn.c_attn.{kind}"] = torch.cat([text[f"{there}.self_attn.{part}_proj.{kind}"] for part in "qkv"])
        state[f"{at}.attn.c_proj.weight"] = text[f"{there}.self_attn.o_proj.weight"]
        state[f"{at}.ln_1.weight"] = text[f"{there}.input_layernorm.weight"]
        state[f"{at}.ln_2.weight"] = text[f"{there}.post_attention_layernorm.weight"]
        # The published forward pass is c_proj(w1(x) * silu(w2(x))).
        for theirs, ours in (("w1", "up_proj"), ("w2", "gate_proj"), ("c_proj", "down_proj")):
            state[f"{at}.mlp.{theirs}.weight"] = text[f"{there}.mlp.{ours}.weight"]
    blocks = {
        "attn.query": "self_attn.q_proj", "attn.key": "self_attn.k_proj", "attn.value": "self_attn.v_proj",
        "attn.out": "self_attn.out_proj", "attn_ln": "self_attn_layer_norm", "mlp.0": "fc1", "mlp.2": "fc2", "mlp_ln": "final_layer_norm",
    }  # fmt: skip
    for n in range(layers):
        for theirs, ours in blocks.items():
            for kind in ("weight",) if theirs == "attn.key" else ("weight", "bias"):
                state[f"transformer.audio.blocks.{n}.{theirs}.{kind}"] = tower[f"layers.{n}.{ours}.{kind}"]
    return state


def sounded(log_mel: np.ndarray, samples: int) -> Tensor:
    """The features of a sound as the published code cuts them: whole frames of 10 ms, an even number of them."""
    frames = samples // 160
    return torch.from_numpy(log_mel[: frames + frames % 2]).T[None]
