"""Qwen-Audio (Chu et al. 2023), the first: its names and config in the terms of its child, Qwen2-Audio. Its code is not in `transformers`;
facts are from what it was published with (QwenLM/Qwen-Audio: `modeling_qwen.py`, `audio.py`, `config.json`).

The decoder is Qwen-1's: query, key and value are one product, `w2` is the gate of the feed-forward layer, and the config counts both of its
halves in `intermediate_size`. The tokens around a sound have embeddings of their own, which stand here in the rows of these tokens. Beyond
`seq_length` positions it stretches its rotary embedding and scales its queries as a sequence grows, which would turn what is held anew:
that is not done, and no session is longer.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from torch import Tensor

from streaming.models.config_values import number_of
from streaming.models.ctranslate2 import WeightsError

__all__ = ["QWEN_AUDIO", "qwen_audio_config", "qwen_audio_tensors"]

QWEN_AUDIO: Final = "qwen"
"""`model_type`, of the first Qwens that do not hear too."""

_AS_PUBLISHED: Final[Mapping[str, object]] = MappingProxyType(
    {"no_bias": True, "rotary_pct": 1.0, "scale_attn_weights": True, "tie_word_embeddings": False}
)
_AUDIO_AS_PUBLISHED: Final[Mapping[str, object]] = MappingProxyType({"avg_pool": True, "add_audio_bos_eos_token": True})

_LAYER: Final = (
    # The file's and Qwen2's.
    ("ln_1.weight", "input_layernorm.weight"),
    ("attn.c_proj.weight", "self_attn.o_proj.weight"),
    ("ln_2.weight", "post_attention_layernorm.weight"),
    ("mlp.w1.weight", "mlp.up_proj.weight"),
    ("mlp.w2.weight", "mlp.gate_proj.weight"),
    ("mlp.c_proj.weight", "mlp.down_proj.weight"),
)

_BLOCK: Final = (
    # The file's and Qwen2-Audio's, weight and bias.
    ("attn_ln", "self_attn_layer_norm"),
    ("attn.query", "self_attn.q_proj"),
    ("attn.value", "self_attn.v_proj"),
    ("attn.out", "self_attn.out_proj"),
    ("mlp_ln", "final_layer_norm"),
    ("mlp.0", "fc1"),
    ("mlp.2", "fc2"),
)

_TOWER: Final = (
    ("conv1", "audio_tower.conv1"),
    ("conv2", "audio_tower.conv2"),
    ("ln_post", "audio_tower.layer_norm"),
    ("proj", "multi_modal_projector.linear"),
)

_EMBEDDING: Final = "transformer.wte.weight"
_AROUND: Final = "transformer.audio.audio_bos_eos_token.weight"

_IGNORED: Final = (".attn.masked_bias", ".rotary_emb.inv_freq")
"""Ends the names of tensors that old files have and nothing reads."""


def qwen_audio_config(path: Path, config: Mapping[str, object]) -> dict[str, object]:
    """`config`, found in the file `path`, as an audio language model's: `audio_config` and `text_config`, and `audio_start_id`, the token
    before a sound. Raises WeightsError."""
    audio = config.get("audio")
    if not isinstance(audio, dict):
        raise WeightsError(f"{path}: its audio is {audio!r}, not an object: of the first Qwens, those that hear are known here")
    for section, published in ((config, _AS_PUBLISHED), (audio, _AUDIO_AS_PUBLISHED)):
        for key, value in published.items():
            if section.get(key, value) != value:
                raise WeightsError(f"{path}: {key} is {section[key]!r}; published is {value!r}")
    try:
        trained = number_of(config, "seq_length", int)
        stretched = config.get("use_dynamic_ntk", True) or config.get("use_logn_attn", True)
        text = {
            "model_type": "qwen2",
            "vocab_size": number_of(config, "vocab_size", int),
            "hidden_size": number_of(config, "hidden_size", int),
            "intermediate_size": number_of(config, "intermediate_size", int) // 2,
            "num_hidden_layers": number_of(config, "num_hidden_layers", int),
            "num_attention_heads": number_of(config, "num_attention_heads", int),
            "max_position_embeddings": trained if stretched else number_of(config, "max_position_embeddings", int, trained),
            "rms_norm_eps": number_of(config, "layer_norm_epsilon", float, 1e-6),
            "rope_theta": number_of(config, "rotary_emb_base", float, 10_000.0),
        }
        heads, layers, start = (number_of(audio, key, int) for key in ("n_head", "n_layer", "audio_start_id"))
        heard = {"encoder_attention_heads": heads, "encoder_layers": layers}
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return {"model_type": QWEN_AUDIO, "text_config": text, "audio_config": heard, "audio_start_id": start}


def qwen_audio_tensors(
    folder: Path, config: Mapping[str, object], opened: Mapping[str, Callable[[], Tensor]]
) -> dict[str, Callable[[], Tensor]]:
    """The tensors of a folder by the names that Qwen2-Audio has for them; `config` is `qwen_audio_config`'s. Raises WeightsError where one
    is missing or left over."""
    places = dict(_places(config))
    wanted = {theirs for theirs, _ in places.values()} | {_AROUND}
    if missing := sorted(wanted - opened.keys()):
        raise WeightsError(f"{folder}: the tensor {missing[0]} is missing")
    if spare := sorted(name for name in opened.keys() - wanted if not name.endswith(_IGNORED)):
        raise WeightsError(f"{folder}: it should not have {spare[0]} ({len(spare)} tensors)")
    found = {ours: opened[theirs] if part is None else partial(_third, opened[theirs], part) for ours, (theirs, part) in places.items()}
    start = config["audio_start_id"]
    assert isinstance(start, int)
    found["language_model.model.embed_tokens.weight"] = partial(_embedded, folder, opened[_EMBEDDING], opened[_AROUND], start)
    return found


def _places(config: Mapping[str, object]) -> Iterator[tuple[str, tuple[str, int | None]]]:
    """Each of our tensors: its name, the file's, and which third of that it is, None for all."""
    text, audio = config["text_config"], config["audio_config"]
    assert isinstance(text, dict)
    assert isinstance(audio, dict)
    for ours, theirs in (("model.embed_tokens", "transformer.wte"), ("model.norm", "transformer.ln_f"), ("lm_head", "lm_head")):
        yield f"language_model.{ours}.weight", (f"{theirs}.weight", None)
    for layer in range(text["num_hidden_layers"]):
        at, there = f"language_model.model.layers.{layer}", f"transformer.h.{layer}"
        for theirs, ours in _LAYER:
            yield f"{at}.{ours}", (f"{there}.{theirs}", None)
        for kind in ("weight", "bias"):
            for part, name in enumerate("qkv"):
                yield f"{at}.self_attn.{name}_proj.{kind}", (f"{there}.attn.c_attn.{kind}", part)
    yield "audio_tower.embed_positions.weight", ("transformer.audio.positional_embedding", None)
    pairs = list(_TOWER)
    for layer in range(audio["encoder_layers"]):
        pairs += [(f"blocks.{layer}.{theirs}", f"audio_tower.layers.{layer}.{ours}") for theirs, ours in _BLOCK]
        yield f"audio_tower.layers.{layer}.self_attn.k_proj.weight", (f"transformer.audio.blocks.{layer}.attn.key.weight", None)
    for theirs, ours in pairs:
        for kind in ("weight", "bias"):
            yield f"{ours}.{kind}", (f"transformer.audio.{theirs}.{kind}", None)


def _third(read: Callable[[], Tensor], part: int) -> Tensor:
    rows = read()
    third = -(-len(rows) // 3)
    return rows[part * third : (part + 1) * third]


def _embedded(folder: Path, read: Callable[[], Tensor], around: Callable[[], Tensor], start: int) -> Tensor:
    """The embeddings, with those of a sound's beginning and end in the rows `start` and the one behind it."""
    rows, two = read().clone(), around()
    if two.shape != (2, *rows.shape[1:]) or not 0 <= start < len(rows) - 1:
        raise WeightsError(f"{folder}: the tensor {_AROUND} is {tuple(two.shape)}, for tokens {start} and behind of {tuple(rows.shape)}")
    rows[start : start + 2] = two
    return rows
