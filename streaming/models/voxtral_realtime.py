"""Voxtral Realtime (Mistral AI 2026) from the folder it is published in: `config.json`, safetensors, `tekken.json`.

A causal encoder (`audio_tower`), a projector of four frames to a row (`multi_modal_projector`) and a decoder (`language_model`). At each
step of 80 ms the decoder's input is the sum of a row and of the embedding of the token it wrote at the step before. It is told how far its
words are behind the sound by a vector that scales the input of every feed-forward layer (`ada_rms_norm`). The delay is one for all calls
here, so the factors are multiplied into the norm before that layer when the model is loaded, and the decoder is a Mistral.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from streaming.features import HOP
from streaming.models.audio_language import Tensors, section_of, split_parts, take_projector
from streaming.models.causal_encoder import FRAME_MEL, CausalEncoder, CausalShape, CausalWeights
from streaming.models.config_values import number_of
from streaming.models.ctranslate2 import WeightsError
from streaming.models.linear import Dense, usual_dtype
from streaming.models.llama import Llama, LlamaLayer
from streaming.models.pretrained import model_type
from streaming.models.projectors import Projector, stacked
from streaming.models.rope import rope_of
from streaming.models.safetensors import decoder_config, json_object, open_tensors, read_weights
from streaming.models.tekken import Tekken, load_tekken

__all__ = ["VoxtralRealtime", "is_voxtral_realtime", "load_voxtral_realtime"]

_KIND: Final = "voxtral_realtime"

_TEXT: Final[Mapping[str, object]] = MappingProxyType(
    {
        "vocab_size": 131_072, "hidden_size": 3_072, "intermediate_size": 9_216, "num_hidden_layers": 26, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "head_dim": 128, "sliding_window": 8_192,
    }
)  # fmt: skip
"""What a `text_config` leaves out, as `transformers` fills it in."""

_ROPE_BASE: Final = 1e6
"""The decoder's, where its config has none by either name."""

_AUDIO: Final[Mapping[str, object]] = MappingProxyType(
    {
        "hidden_size": 1_280, "intermediate_size": 5_120, "num_hidden_layers": 32, "num_attention_heads": 32, "num_mel_bins": 128,
        "max_position_embeddings": 1_500, "rms_norm_eps": 1e-5, "sliding_window": 750, "head_dim": 64,
    }
)  # fmt: skip
"""The same of an `audio_config`."""

_GAIN_WIDTH: Final = 32
"""Between the two products that make factors of a delay: fixed in the reference."""

_TIME_BASE: Final = 10_000.0
"""Of the sines that a delay is told by."""


@dataclass(frozen=True, slots=True, eq=False)
class VoxtralRealtime:
    """The model: words come `delay` steps behind the sound."""

    encoder: CausalEncoder
    projector: Projector
    decoder: Llama
    vocabulary: Tekken
    delay: int


def is_voxtral_realtime(folder: Path) -> bool:
    """Whether its `config.json` says that a folder holds one."""
    return model_type(folder) == _KIND


def load_voxtral_realtime(
    folder: Path, dtype: torch.dtype | None = None, device: str = "cpu", context: int | None = None
) -> VoxtralRealtime:
    """The model in a folder, for sequences of no more than `context` steps, in `dtype`, None for the usual one. Raises WeightsError, naming
    file and tensor, for what is no such model, and OSError where it can't be read."""
    path = folder / "config.json"
    config = json_object(path)
    if config.get("model_type") != _KIND:
        raise WeightsError(f"{path} is the config of {config.get('model_type')!r}, not of {_KIND}")
    sounds = dtype or usual_dtype(device)
    text = _text_config(path, config)
    text_config = decoder_config(path, text, context)
    shape, stack, delay = _sizes(path, config)
    vocabulary = load_tekken(folder / "tekken.json", text_config.shape.vocabulary, (shape.mels, stack * FRAME_MEL * HOP))
    delay = delay if vocabulary.delay is None else vocabulary.delay
    with open_tensors(folder) as opened:
        tower, projector, decoder = split_parts(folder, opened)
        scaled = _scaled(folder, decoder, text_config.shape.layers, text_config.shape.width, delay)
        weights = read_weights(folder, text_config, scaled, dtype, device)
        encoder = CausalEncoder(shape, _encoder_weights(shape, _Taker(folder, tower, sounds, device)))
        rows = stacked(partial(take_projector, folder, projector, sounds, device), shape.width, stack, text_config.shape.width)
    left = [*tower, *projector]
    if left:
        raise WeightsError(f"{folder}: it should not have {min(left)} ({len(left)} tensors)")
    return VoxtralRealtime(encoder, rows, Llama(text_config.shape, weights), vocabulary, delay)


def _text_config(path: Path, config: Mapping[str, object]) -> dict[str, object]:
    """The decoder's, as of the Mistral it is once its factors are multiplied in."""
    text = {**_TEXT, **section_of(path, config, "text_config"), "model_type": "mistral"}
    text["tie_word_embeddings"] = config.get("tie_word_embeddings", True)
    if "rope_parameters" not in text:
        text.setdefault("rope_theta", _ROPE_BASE)
    return text


def _sizes(path: Path, config: Mapping[str, object]) -> tuple[CausalShape, int, int]:
    """Of the encoder, frames of a row, and the delay in rows. Raises WeightsError for what is not computed here."""
    audio = {**_AUDIO, **section_of(path, config, "audio_config")}
    for values, key, published in ((audio, "hidden_act", "silu"), (config, "projector_hidden_act", "gelu")):
        if values.get(key, published) != published:
            raise WeightsError(f"{path}: {key} is {values[key]!r}; published is {published}")
    size = partial(number_of, audio, kind=int)
    try:
        base, rope = rope_of(audio, size("head_dim"), 10_000.0, size("max_position_embeddings"))
        stack, delay = number_of(config, "downsample_factor", int, 4), number_of(config, "default_num_delay_tokens", int, 6)
        if number_of(config, "audio_length_per_tok", int, 8) != stack * FRAME_MEL or stack < 1 or delay < 1:
            raise ValueError("downsample_factor, audio_length_per_tok and default_num_delay_tokens do not fit together")
        shape = CausalShape(
            mels=size("num_mel_bins"),
            width=size("hidden_size"),
            hidden=size("intermediate_size"),
            heads=size("num_attention_heads"),
            head_width=size("head_dim"),
            layers=size("num_hidden_layers"),
            window=size("sliding_window"),
            rope=rope,
            rope_base=base,
            norm_epsilon=number_of(audio, "rms_norm_eps", float),
        )
        return shape, stack, delay
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def _scaled(folder: Path, tensors: Tensors, layers: int, width: int, delay: int) -> Tensors:
    """The decoder's tensors with the factors for `delay` in the norms before its feed-forward layers, and without what makes them."""
    frequencies = torch.exp(-math.log(_TIME_BASE) * torch.arange(width // 2) / (width // 2))
    told = torch.cat(((delay * frequencies).cos(), (delay * frequencies).sin()))  # [width]
    scaled = dict(tensors)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        first, second = (f"{at}.ada_rms_norm.linear{number}.weight" for number in (1, 2))
        for name, size in ((first, (_GAIN_WIDTH, width)), (second, (width, _GAIN_WIDTH))):
            if name not in scaled:
                raise WeightsError(f"{folder}: the tensor {name} of the decoder is missing")
            if tuple(scaled[name]().shape) != size:
                raise WeightsError(f"{folder}: the tensor {name} of the decoder is {tuple(scaled[name]().shape)}, not {size}")
        gain = 1 + scaled.pop(second)().float() @ functional.gelu(scaled.pop(first)().float() @ told)
        norm = f"{at}.post_attention_layernorm.weight"
        if norm in scaled:  # else it is missed where all are
            scaled[norm] = partial(_product, tensors[norm], gain)
    return scaled


def _product(read: Callable[[], Tensor], gain: Tensor) -> Tensor:
    found = read().float()
    return found * gain if found.shape == gain.shape else found  # of a wrong shape it is refused where all are


class _Taker:
    """Takes the encoder's tensors out of those `left`."""

    def __init__(self, folder: Path, left: Tensors, dtype: torch.dtype, device: str) -> None:
        self._folder = folder
        self._left = left
        self._dtype = dtype
        self._device = device

    def take(self, name: str, *size: int) -> Tensor:
        """A tensor of this size. Raises WeightsError where there is none."""
        read = self._left.pop(f"audio_tower.{name}", None)
        if read is None:
            raise WeightsError(f"{self._folder}: the tensor audio_tower.{name} is missing")
        tensor = read()
        if tuple(tensor.shape) != size:
            raise WeightsError(f"{self._folder}: the tensor audio_tower.{name} is {tuple(tensor.shape)}, not {size}")
        return tensor.to(device=self._device, dtype=self._dtype, copy=True)


def _encoder_weights(shape: CausalShape, taker: _Taker) -> CausalWeights:
    take, width, mixed = taker.take, shape.width, shape.heads * shape.head_width
    layers = []
    for index in range(shape.layers):
        at = f"layers.{index}"
        qkv = torch.cat([take(f"{at}.self_attn.{name}_proj.weight", mixed, width) for name in "qkv"])
        query, value = (take(f"{at}.self_attn.{name}_proj.bias", mixed) for name in "qv")  # keys have none, as in Whisper
        layers.append(
            LlamaLayer(
                attention_norm=take(f"{at}.self_attn_layer_norm.weight", width),
                qkv=Dense(qkv, torch.cat((query, torch.zeros_like(query), value))),
                attention_out=Dense(take(f"{at}.self_attn.o_proj.weight", width, mixed), take(f"{at}.self_attn.o_proj.bias", width)),
                feed_forward_norm=take(f"{at}.final_layer_norm.weight", width),
                gate_up=Dense(torch.cat([take(f"{at}.mlp.{name}_proj.weight", shape.hidden, width) for name in ("gate", "up")])),
                down=Dense(take(f"{at}.mlp.down_proj.weight", width, shape.hidden), take(f"{at}.mlp.down_proj.bias", width)),
            )
        )
    inputs = (("conv1", shape.mels), ("conv2", width))
    first, second = ((take(f"embedder.{at}.weight", width, size, 3), take(f"embedder.{at}.bias", width)) for at, size in inputs)
    return CausalWeights(first, second, tuple(layers), take("norm.weight", width))
