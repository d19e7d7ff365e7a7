"""Language models that hear, from the folders they are published in: Qwen-Audio, Qwen2-Audio, Voxtral, Ultravox, Qwen2.5-Omni.

Each is a Whisper encoder (`audio_tower`), a projector (`multi_modal_projector`) and a decoder (`language_model`) in Hugging Face's layout:
one `config.json`, one set of safetensors. Every tensor must be there in its shape, and every tensor of the folder must have a place.
Ultravox is published with its decoder left out (`text_model_id` names it): that is a folder `language_model` within.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from streaming.models.ctranslate2 import WeightsError
from streaming.models.linear import usual_dtype
from streaming.models.llama import Llama
from streaming.models.omni import OMNI, omni_config, omni_tensors
from streaming.models.pretrained import model_type
from streaming.models.projectors import Projector, gated, pooled, stacked
from streaming.models.qwen_audio import QWEN_AUDIO, qwen_audio_config, qwen_audio_tensors
from streaming.models.qwen_tokenizer import AUDIO, qwen_tokenizer
from streaming.models.safetensors import (
    decoder_config,
    json_object,
    load_safetensors,
    open_tensors,
    read_decoder,
    read_tokenizer,
)
from streaming.models.tekken_tokenizer import tekken_tokenizer
from streaming.models.whisper import WhisperEncoder, WhisperShape
from streaming.models.whisper_weights import read_encoder

__all__ = ["KINDS", "AudioLanguage", "Tensors", "audio_language_kind", "load_audio_language", "section_of", "split_parts", "take_projector"]

KINDS: Final = ("qwen2_audio", "voxtral", "ultravox", QWEN_AUDIO, *OMNI)
"""What `model_type` may be."""

_TEXT: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "qwen2_audio": {
            "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 4_096, "intermediate_size": 22_016, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
        },
        "voxtral": {
            "model_type": "llama", "vocab_size": 131_072, "hidden_size": 3_072, "intermediate_size": 8_192, "num_hidden_layers": 30,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
            "head_dim": 128,
        },
        "ultravox": {"model_type": "llama"},
        **dict.fromkeys((QWEN_AUDIO, *OMNI), MappingProxyType({})),
    }
)  # fmt: skip
"""What a published `text_config` leaves out, as `transformers` fills it in."""

_ROPE_BASE: Final = 1e8
"""Voxtral's, where its config has none by either name."""

_PARTS: Final = ("audio_tower.", "multi_modal_projector.", "language_model.")

Tensors = dict[str, Callable[[], Tensor]]
"""What reads each tensor, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class AudioLanguage:
    """A model that hears, of one of `KINDS`: what `encoder` makes of sound `projector` makes rows for `decoder` of."""

    kind: str
    encoder: WhisperEncoder
    projector: Projector
    decoder: Llama
    tokenizer: Tokenizer


def audio_language_kind(folder: Path) -> str | None:
    """The `model_type` of a folder that is one of `KINDS`; None for any other."""
    kind = model_type(folder)
    return kind if kind in KINDS else None


def load_audio_language(folder: Path, dtype: torch.dtype | None = None, device: str = "cpu", context: int | None = None) -> AudioLanguage:
    """The model in a folder, for prompts of no more than `context` positions, in `dtype`, None for the usual one. Raises WeightsError,
    naming file and tensor, for what is no such model, and OSError where it can't be read."""
    path = folder / "config.json"
    config = json_object(path)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise WeightsError(f"{path} is the config of {kind!r}, not of {', '.join(KINDS)}")
    if kind == "ultravox" and config.get("audio_latency_block_size") is not None:
        raise WeightsError(f"{path}: audio_latency_block_size is set: an encoder trained so is not supported")
    sounds = dtype or usual_dtype(device)
    with open_tensors(folder) as opened:
        if kind in OMNI:
            config = omni_config(path, config)
            opened = omni_tensors(path, config, opened)
        elif kind == QWEN_AUDIO:
            config = qwen_audio_config(path, config)
            opened = qwen_audio_tensors(folder, config, opened)
        tower, projector, text = split_parts(folder, opened)
        # Before the decoder, which on a GPU divides what memory is free into slots for calls.
        shape = _tower_shape(path, config, tower)
        encoder = read_encoder(folder, shape, {name: read() for name, read in tower.items()}, "audio_tower.", sounds, device)
        if kind == "ultravox" and not text:
            decoder, tokenizer = _elsewhere(folder, config, dtype, device, context)
        else:
            text_config = decoder_config(path, _text_config(kind, section_of(path, config, "text_config")), context)
            decoder = read_decoder(folder, text_config, text, dtype, device)
            tokenizer = _tokenizer(folder, config, text_config.shape.vocabulary)
        made = _projector(path, config, kind, encoder, decoder.shape.width, partial(take_projector, folder, projector, sounds, device))
    if projector:
        raise WeightsError(f"{folder}: it should not have {min(projector)} ({len(projector)} tensors)")
    return AudioLanguage(kind, encoder, made, decoder, tokenizer)


def split_parts(folder: Path, opened: Mapping[str, Callable[[], Tensor]]) -> tuple[Tensors, Tensors, Tensors]:
    """Of the encoder and the projector, by the names they are published under, and of the decoder by those it has alone. `transformers`
    has put a prefix before them in some of its versions, and the decoder's head beside it."""
    tower: Tensors = {}
    projector: Tensors = {}
    text: Tensors = {}
    for name, read in opened.items():
        plain = name.removeprefix("model.")
        place = next((part for part in _PARTS if plain.startswith(part)), None)
        if place == "audio_tower.":
            tower[plain] = read
        elif place == "multi_modal_projector.":
            projector[plain] = read
        elif place == "language_model.":
            inner = plain.removeprefix(place)
            text[inner if inner.startswith(("model.", "lm_head.")) else f"model.{inner}"] = read
        elif name == "lm_head.weight":
            text[name] = read
        else:
            raise WeightsError(f"{folder}: it should not have {name}, which is of none of {', '.join(_PARTS)}")
    return tower, projector, text


def _tokenizer(folder: Path, config: Mapping[str, object], vocabulary: int) -> Tokenizer:
    """The folder's, by `tokenizer.json`, or by what Voxtral (`tekken.json`) and Qwen-Audio (`qwen.tiktoken`) are published with."""
    if config["model_type"] == QWEN_AUDIO:
        tokenizer = qwen_tokenizer(folder / "qwen.tiktoken", vocabulary)
        if (found := tokenizer.token_to_id(AUDIO[0])) != config["audio_start_id"]:
            raise WeightsError(f"{folder}: {AUDIO[0]} is token {found} of qwen.tiktoken, and of config.json {config['audio_start_id']}")
        return tokenizer
    tekken = folder / "tekken.json"
    if tekken.is_file() and not (folder / "tokenizer.json").is_file():
        return tekken_tokenizer(tekken, vocabulary)
    return read_tokenizer(folder, vocabulary)


def _elsewhere(
    folder: Path, config: Mapping[str, object], dtype: torch.dtype | None, device: str, context: int | None
) -> tuple[Llama, Tokenizer]:
    """The decoder that a checkpoint was published without."""
    within = folder / "language_model"
    if not within.is_dir():
        raise WeightsError(
            f"{folder}: it has no language model, which is {config.get('text_model_id')!r}: put that model's folder at {within}"
        )
    return load_safetensors(within, dtype, device, context=context)


def section_of(path: Path, config: Mapping[str, object], key: str) -> dict[str, object]:
    """The object at `key` of the config in the file `path`, empty where there is none. Raises WeightsError where it is something else."""
    section = config.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise WeightsError(f"{path}: {key} is {section!r}, not an object")
    return section


def _text_config(kind: str, section: Mapping[str, object]) -> dict[str, object]:
    filled = {**_TEXT[kind], **section}
    if kind == "voxtral" and "rope_parameters" not in filled:
        filled.setdefault("rope_theta", _ROPE_BASE)
    return filled


def _tower_shape(path: Path, config: Mapping[str, object], tower: Tensors) -> WhisperShape:
    """Sizes from the tensors: Ultravox is published without its `audio_config`. Only the number of heads is not in them, 64 wide in every
    Whisper."""
    audio = section_of(path, config, "audio_config")
    if audio.get("activation_function", "gelu") != "gelu" or audio.get("scale_embedding"):
        raise WeightsError(f"{path}: its audio_config asks for another activation than gelu, or for scaled embeddings")
    sizes = []
    for name, rank in (("conv1.weight", 3), ("embed_positions.weight", 2)):
        read = tower.get(f"audio_tower.{name}")
        if read is None or (found := read()).dim() != rank:
            raise WeightsError(f"{path.parent}: it has no audio_tower.{name} of {rank} dimensions")
        sizes.append(found.shape)
    width, mels, _ = sizes[0]
    heads = audio.get("encoder_attention_heads", audio.get("num_attention_heads", max(1, width // 64)))
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or width % heads:
        raise WeightsError(f"{path}: {heads!r} attention heads do not divide the encoder's width of {width}")
    layers = len({name.split(".")[2] for name in tower if name.startswith("audio_tower.layers.")})
    return WhisperShape(
        mels=mels, width=width, heads=heads, encoder_layers=layers, decoder_layers=0, vocabulary=0, audio_positions=sizes[1][0],
        text_positions=0,
    )  # fmt: skip


def _projector(
    path: Path, config: Mapping[str, object], kind: str, encoder: WhisperEncoder, width: int, take: Callable[[str, tuple[int, ...]], Tensor]
) -> Projector:
    """The projector to rows of `width`. Takes the encoder's last norm where that comes after pooling."""
    frame = encoder.shape.width
    if kind in ("qwen2_audio", QWEN_AUDIO, *OMNI):
        norm = encoder.norm
        assert isinstance(norm, nn.LayerNorm)
        encoder.norm = nn.Identity()
        return pooled(take, (norm.weight, norm.bias), width)
    if kind == "voxtral":
        if config.get("projector_hidden_act", "gelu") != "gelu":
            raise WeightsError(f"{path}: projector_hidden_act is {config['projector_hidden_act']!r}; published is gelu")
        return stacked(take, frame, 4, width)
    if config.get("projector_act", "swiglu") != "swiglu":
        raise WeightsError(f"{path}: projector_act is {config['projector_act']!r}; published is swiglu")
    stack, hidden = (_size(path, config, key, default) for key, default in (("stack_factor", 8), ("hidden_size", 4_096)))
    return gated(take, frame, stack, hidden, width, middle=bool(config.get("projector_ln_mid", False)))


def _size(path: Path, config: Mapping[str, object], key: str, default: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WeightsError(f"{path}: {key} is {value!r}, not a whole number above 0")
    return value


def take_projector(folder: Path, left: Tensors, dtype: torch.dtype, device: str, name: str, size: tuple[int, ...]) -> Tensor:
    """A tensor of the projector, taken from those `left`."""
    read = left.pop(f"multi_modal_projector.{name}", None)
    if read is None:
        raise WeightsError(f"{folder}: the tensor multi_modal_projector.{name} is missing")
    tensor = read()
    if tuple(tensor.shape) != size:
        raise WeightsError(f"{folder}: the tensor multi_modal_projector.{name} is {tuple(tensor.shape)}, not {size}")
    return tensor.to(device=device, dtype=dtype, copy=True)
