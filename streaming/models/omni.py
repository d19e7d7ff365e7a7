"""Qwen2.5-Omni's thinker (Xu et al. 2025): its names and config in the terms of the other audio language models.

Published is one folder with the thinker, which hears and writes, the talker and the vocoder, which speak; `transformers` saves a thinker
alone too. What speaks and what sees is passed over. Its rotary embedding has three positions for every token, which are one for all that is
not seen: Qwen2's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from streaming.models.ctranslate2 import WeightsError

__all__ = ["OMNI", "is_heard", "omni_config", "omni_tensors"]

OMNI: Final = ("qwen2_5_omni", "qwen2_5_omni_thinker")
"""`model_type` of the published folder, and of a thinker alone."""

_TEXT: Final[Mapping[str, object]] = MappingProxyType(
    {
        "vocab_size": 152_064, "hidden_size": 3_584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    }
)  # fmt: skip
"""What a `text_config` may leave out, as `transformers` fills it in."""

_PASSED_OVER: Final = ("talker.", "token2wav.", "visual.", "audio_tower.audio_bos_eos_token.")
"""What speaks, what sees, and what its code never uses."""


def is_heard(name: str) -> bool:
    """Whether a tensor of any checkpoint is one that is loaded: not of what speaks or sees in an Omni."""
    return not name.removeprefix("thinker.").removeprefix("model.").startswith(_PASSED_OVER)


def omni_config(path: Path, config: Mapping[str, object]) -> dict[str, object]:
    """`config`, found in the file `path`, as an audio language model's: `audio_config` and `text_config`. Raises WeightsError."""
    thinker = config.get("thinker_config", {}) if config["model_type"] == OMNI[0] else config
    if not isinstance(thinker, dict):
        raise WeightsError(f"{path}: thinker_config is {thinker!r}, not an object")
    text = thinker.get("text_config", {})
    if not isinstance(text, dict):
        raise WeightsError(f"{path}: text_config is {text!r}, not an object")
    filled = {**_TEXT, **text, "model_type": "qwen2"}
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(filled.get(key), dict):
            filled[key] = {name: value for name, value in filled[key].items() if name != "mrope_section"}
    return {"model_type": config["model_type"], "audio_config": thinker.get("audio_config"), "text_config": filled}


def omni_tensors(path: Path, config: Mapping[str, object], opened: Mapping[str, Callable[[], Tensor]]) -> dict[str, Callable[[], Tensor]]:
    """The tensors of a folder by the names that Qwen2-Audio has for them, and the sinusoids of a block, which are not saved. Raises
    WeightsError."""
    found: dict[str, Callable[[], Tensor]] = {}
    for name, read in opened.items():
        if not is_heard(name):
            continue
        plain = name.removeprefix("thinker.").removeprefix("model.")
        if plain.startswith("audio_tower.proj."):
            plain = plain.replace("audio_tower.proj.", "multi_modal_projector.linear.")
        elif plain.startswith("audio_tower."):
            plain = plain.replace("audio_tower.ln_post.", "audio_tower.layer_norm.")
        elif plain != "lm_head.weight":
            plain = f"language_model.model.{plain.removeprefix('language_model.').removeprefix('model.')}"
        found[plain] = read
    audio = config.get("audio_config")
    block = audio.get("n_window", 100) if isinstance(audio, dict) else 100
    width = found["audio_tower.conv1.weight"]().shape[0] if "audio_tower.conv1.weight" in found else 0
    if not isinstance(block, int) or isinstance(block, bool) or block < 1 or width % 2:
        raise WeightsError(f"{path}: n_window is {block!r} and the encoder {width} wide: blocks are whole frames, and widths even")
    found["audio_tower.embed_positions.weight"] = lambda: _sinusoids(block, width)
    return found


def _sinusoids(count: int, width: int) -> Tensor:
    """Whisper's (Radford et al. 2022): sines in the first half, cosines in the second; [count, width]."""
    half = width // 2
    steps = torch.exp(-torch.log(torch.tensor(10_000.0)) / (half - 1) * torch.arange(half))
    angles = torch.arange(count)[:, None] * steps[None]
    return torch.cat((angles.sin(), angles.cos()), dim=1)
