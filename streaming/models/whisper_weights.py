"""Whisper's weights from the three layouts they are published in: OpenAI's `.pt`, Hugging Face's folder, CTranslate2's `model.bin`.

Sizes come from the file (`dims`, `config.json`, or the tensors themselves), so every size loads: tiny to large-v3 with its 128 mel
bands, the turbo and Distil-Whisper with their few decoder layers, the English ones. Every tensor the model has must be there in its shape,
and every tensor of the file must have a place: another model is refused by name, never loaded in part. Linear layers of eight bits stay
so (`EightBits`); what else a file has in levels becomes the asked type: a weight is its level divided by its row's scale.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from streaming.models.ctranslate2 import WeightsError, read_weights
from streaming.models.eight_bits import EightBits
from streaming.models.linear import usual_dtype
from streaming.models.low_rank import Adaptation, fingerprint, merged, read_adaptation
from streaming.models.whisper import Whisper, WhisperEncoder, WhisperShape, replace_linears

__all__ = ["load_whisper", "read_encoder", "whisper_file"]

_CTRANSLATE2: Final = (
    # Ours and the file's, as parts of names; several of the file's are one under the other.
    ("encoder.positions", ("encoder/position_encodings/encodings",)),
    ("decoder.positions", ("decoder/position_encodings/encodings",)),
    ("decoder.embeddings", ("decoder/embeddings/weight",)),
    (".self_attention.qkv", ("/self_attention/linear_0",)),
    (".self_attention.out", ("/self_attention/linear_1",)),
    (".attention.query", ("/attention/linear_0",)),
    (".attention.key_value", ("/attention/linear_1",)),
    (".attention.out", ("/attention/linear_2",)),
    (".feed_forward.up", ("/ffn/linear_0",)),
    (".feed_forward.down", ("/ffn/linear_1",)),
    (".feed_forward", ("/ffn",)),
    (".layers.", ("/layer_",)),
    ("norm.weight", ("layer_norm/gamma",)),
    ("norm.bias", ("layer_norm/beta",)),
    (".", ("/",)),
)

_HUGGING_FACE: Final = (
    (".positions", (".embed_positions.weight",)),
    ("decoder.embeddings", ("decoder.embed_tokens.weight",)),
    (".self_attention.norm", (".self_attn_layer_norm",)),
    (".self_attention.qkv", (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj")),
    (".self_attention.out", (".self_attn.out_proj",)),
    (".attention.norm", (".encoder_attn_layer_norm",)),
    (".attention.query", (".encoder_attn.q_proj",)),
    (".attention.key_value", (".encoder_attn.k_proj", ".encoder_attn.v_proj")),
    (".attention.out", (".encoder_attn.out_proj",)),
    (".feed_forward.norm", (".final_layer_norm",)),
    (".feed_forward.up", (".fc1",)),
    (".feed_forward.down", (".fc2",)),
    (".norm.", (".layer_norm.",)),
)

_OPENAI: Final = (
    (".positions", (".positional_embedding",)),
    ("decoder.embeddings", ("decoder.token_embedding.weight",)),
    (".self_attention.norm", (".attn_ln",)),
    (".self_attention.qkv", (".attn.query", ".attn.key", ".attn.value")),
    (".self_attention.out", (".attn.out",)),
    (".attention.norm", (".cross_attn_ln",)),
    (".attention.query", (".cross_attn.query",)),
    (".attention.key_value", (".cross_attn.key", ".cross_attn.value")),
    (".attention.out", (".cross_attn.out",)),
    (".feed_forward.norm", (".mlp_ln",)),
    (".feed_forward.up", (".mlp.0",)),
    (".feed_forward.down", (".mlp.2",)),
    (".layers.", (".blocks.",)),
    ("encoder.norm.", ("encoder.ln_post.",)),
    ("decoder.norm.", ("decoder.ln.",)),
)


_ENCODER: Final = "encoder."
"""Begins the names of our tensors of the encoder."""


@dataclass(frozen=True, slots=True, eq=False)
class _Checkpoint:
    """A file's tensors under its own names (`unused` need not have a place), and how ours are made of them."""

    path: Path
    shape: WhisperShape
    tensors: Mapping[str, Tensor]
    names: tuple[tuple[str, tuple[str, ...]], ...]
    unused: frozenset[str] = frozenset()


def whisper_file(folder: Path) -> Path:
    """The weights in a folder: its `model.bin`, its one `.pt`, or the folder itself where it holds safetensors. Raises WeightsError for
    none or several `.pt`."""
    if (folder / "model.bin").is_file():
        return folder / "model.bin"
    if any(folder.glob("*.safetensors")) or (folder / "model.safetensors.index.json").is_file():
        return folder
    found = sorted(folder.glob("*.pt"))
    if len(found) != 1:
        raise WeightsError(
            f"{folder} holds no Whisper: it needs a model.bin (CTranslate2), safetensors (Hugging Face), or one .pt (OpenAI), "
            f"and has {len(found)} .pt"
        )
    return found[0]


def load_whisper(path: Path, dtype: torch.dtype | None = None, device: str = "cpu", adaptation: Path | None = None) -> Whisper:
    """Read the weights `whisper_file` names, in `dtype`, exactly; where it is None in the usual one, the decoder's packed
    on a CPU. What the file `adaptation` adds is added to the encoder that it was made for, and to no other (`Whisper.adaptation`). Raises
    WeightsError, naming file and tensor, for what is no such model or no such change; OSError."""
    read: Callable[[Path], _Checkpoint] = _hugging_face if path.is_dir() else _openai if path.suffix == ".pt" else _ctranslate2
    checkpoint = read(path)
    numbers = usual_dtype(device) if dtype is None else dtype
    with torch.device("meta"):
        model = Whisper(checkpoint.shape)
    used: set[str] = set()
    if _is_quantised(checkpoint):
        replace_linears(model, lambda name, layer: _eight_bits(checkpoint, name, layer, used, numbers, device))
    found = {name: _assembled(checkpoint, name, wanted.shape, used) for name, wanted in model.state_dict().items()}
    if adaptation is not None:
        model.adaptation, found = _adapted(adaptation, found)
    state = {name: tensor.to(device=device, dtype=numbers, copy=True) for name, tensor in found.items()}
    extra = sorted(set(checkpoint.tensors) - used - checkpoint.unused)
    if extra:
        raise WeightsError(f"{path}: it has {extra[0]} ({len(extra)} tensors too many), which no Whisper of its size has")
    model.load_state_dict(state, assign=True)
    model.eval().requires_grad_(False)
    if dtype is None:
        model.decoder.pack()
    return model


def _adapted(path: Path, found: dict[str, Tensor]) -> tuple[Adaptation | None, dict[str, Tensor]]:
    """The change in a file and our tensors with it; None, and the tensors as they are, where it was made for others."""
    adaptation = read_adaptation(path)
    encoder = {name.removeprefix(_ENCODER): tensor for name, tensor in found.items() if name.startswith(_ENCODER)}
    if fingerprint(encoder) != adaptation.base:
        return None, found
    return adaptation, found | {f"{_ENCODER}{name}": tensor for name, tensor in merged(path, adaptation, encoder).items()}


def read_encoder(
    folder: Path, shape: WhisperShape, tensors: Mapping[str, Tensor], prefix: str, dtype: torch.dtype, device: str
) -> WhisperEncoder:
    """The encoder alone, of which other models are made, from `tensors` of a `folder` in Hugging Face's layout, all of which it must have a
    place for; the file's names begin with `prefix`. Raises WeightsError, naming folder and tensor."""
    checkpoint = _Checkpoint(folder, shape, tensors, ((f"{prefix}encoder.", (prefix,)), *_HUGGING_FACE))
    with torch.device("meta"):
        model = WhisperEncoder(shape)
    used: set[str] = set()
    state = {
        name: _assembled(checkpoint, f"{prefix}encoder.{name}", wanted.shape, used).to(device=device, dtype=dtype, copy=True)
        for name, wanted in model.state_dict().items()
    }
    if extra := sorted(set(tensors) - used):
        raise WeightsError(f"{folder}: it should not have {extra[0]} ({len(extra)} tensors)")
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _assembled(checkpoint: _Checkpoint, name: str, wanted: torch.Size, used: set[str]) -> Tensor:
    """Our tensor `name`, of shape `wanted`, from the file's; those it took are added to `used`."""
    names = _theirs(checkpoint, name)
    # Keys have no bias: adding the same to all scores changes no attention. One file leaves it out where the other writes zeros.
    keyless = {one for one in names if one.endswith(("key.bias", "k_proj.bias")) and one not in checkpoint.tensors}
    size = torch.Size((wanted[0] // len(names), *wanted[1:]))
    parts = [torch.zeros(size) if one in keyless else _tensor(checkpoint, one, size) for one in names]
    used.update(names)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _theirs(checkpoint: _Checkpoint, name: str) -> list[str]:
    """The file's names of what our tensor `name` is made of, from the first row on."""
    names = [name]
    for ours, theirs in checkpoint.names:
        names = [one.replace(ours, each) for one in names for each in (theirs if ours in one else ("",))]
    return names


def _tensor(checkpoint: _Checkpoint, name: str, size: torch.Size) -> Tensor:
    """The file's tensor, of shape `size`; eight-bit levels as the weights they stand for."""
    tensor = checkpoint.tensors.get(name)
    if tensor is None:
        raise WeightsError(f"{checkpoint.path}: it has no {name}")
    scale = checkpoint.tensors.get(f"{name}_scale")
    levels = tensor.dtype is torch.int8 and scale is not None
    if tensor.shape != size or not (levels or tensor.is_floating_point()):
        raise WeightsError(f"{checkpoint.path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, expected {tuple(size)}")
    if not levels or scale is None:
        return tensor
    if scale.shape != size[:1] or not scale.is_floating_point():
        raise WeightsError(f"{checkpoint.path}: {name}_scale is {scale.dtype} {tuple(scale.shape)}, expected {tuple(size[:1])}")
    return tensor.float() / scale.float().view(-1, *[1] * (tensor.dim() - 1))


def _is_quantised(checkpoint: _Checkpoint) -> bool:
    """Whether the linear layers are levels; a file has all of them so, or none."""
    names = (name for name in checkpoint.tensors if name.endswith("/ffn/linear_0/weight"))
    return any(checkpoint.tensors[name].dtype is torch.int8 for name in names)


def _eight_bits(checkpoint: _Checkpoint, name: str, layer: nn.Linear, used: set[str], dtype: torch.dtype, device: str) -> EightBits:
    """Our linear layer `name` as the file has it."""
    bias = _assembled(checkpoint, f"{name}.bias", torch.Size((layer.out_features,)), used).to(device=device, dtype=dtype, copy=True)
    (theirs,) = _theirs(checkpoint, f"{name}.weight")
    levels, scale = checkpoint.tensors.get(theirs), checkpoint.tensors.get(f"{theirs}_scale")
    if levels is None or scale is None:
        raise WeightsError(f"{checkpoint.path}: it has no {theirs if levels is None else f'{theirs}_scale'}")
    _tensor(checkpoint, theirs, torch.Size((layer.out_features, layer.in_features)))  # of the right shapes
    if levels.dtype is not torch.int8:
        raise WeightsError(f"{checkpoint.path}: {theirs} is {levels.dtype} and other layers are in eight bits")
    used.add(theirs)
    return EightBits(levels.to(device, copy=True), (1 / scale.float()).to(device), bias)


# ------------------------------------------------------------------------------------------------------------- layouts


def _ctranslate2(path: Path) -> _Checkpoint:
    """`model.bin`: any float type, or eight bits with scales."""
    file = read_weights(path)
    if file.specification != "WhisperSpec":
        raise WeightsError(f"{path}: it is a {file.specification}, not a WhisperSpec")
    tensors = file.tensors

    def sized(name: str, rank: int) -> torch.Size:
        if name not in tensors or tensors[name].dim() != rank:
            raise WeightsError(f"{path}: it has no {name} of {rank} dimensions")
        return tensors[name].shape

    width, mels, _ = sized("encoder/conv1/weight", 3)
    sized("encoder/num_heads", 0)
    shape = WhisperShape(
        mels=mels,
        width=width,
        heads=int(tensors["encoder/num_heads"]),
        encoder_layers=_count(tensors, "encoder/layer_{}/ffn/linear_0/weight"),
        decoder_layers=_count(tensors, "decoder/layer_{}/ffn/linear_0/weight"),
        vocabulary=sized("decoder/embeddings/weight", 2)[0],
        audio_positions=sized("encoder/position_encodings/encodings", 2)[0],
        text_positions=sized("decoder/position_encodings/encodings", 2)[0],
    )
    # Single numbers say how the layers are wired, alike in every Whisper; the projection is the embeddings again.
    unused = {name for name, tensor in tensors.items() if tensor.dim() == 0 or name.endswith("_scale") or "/projection/" in name}
    return _Checkpoint(path, _checked(path, shape), tensors, _CTRANSLATE2, frozenset(unused))


def _openai(path: Path) -> _Checkpoint:
    """`{"dims": {...}, "model_state_dict": {...}}` (openai/whisper, `whisper/__init__.py`, `load_model`). Read as data: a file that asks
    for code to be run is refused."""
    try:
        file = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        what = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path}: it is no file of weights, or is cut short, or asks for code to be run ({what})") from error
    dims, tensors = (file.get("dims"), file.get("model_state_dict")) if isinstance(file, dict) else (None, None)
    if not isinstance(dims, dict) or not isinstance(tensors, dict):
        raise WeightsError(f"{path}: it has no `dims` and `model_state_dict`: not one of OpenAI's Whisper files")
    if any(not isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise WeightsError(f"{path}: its `model_state_dict` holds more than tensors")
    for audio, text in (("n_audio_state", "n_text_state"), ("n_audio_head", "n_text_head")):
        _same(path, dims, audio, text)
    shape = WhisperShape(
        mels=_number(path, dims, "n_mels"),
        width=_number(path, dims, "n_audio_state"),
        heads=_number(path, dims, "n_audio_head"),
        encoder_layers=_number(path, dims, "n_audio_layer"),
        decoder_layers=_number(path, dims, "n_text_layer"),
        vocabulary=_number(path, dims, "n_vocab"),
        audio_positions=_number(path, dims, "n_audio_ctx"),
        text_positions=_number(path, dims, "n_text_ctx"),
    )
    return _Checkpoint(path, _checked(path, shape), tensors, _OPENAI)


def _hugging_face(folder: Path) -> _Checkpoint:
    """`config.json` and `model.safetensors`, or the shards its index names, as `WhisperForConditionalGeneration` or `WhisperModel`."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error})") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "whisper":
        raise WeightsError(f"{path} is the config of {kind!r}, not of a Whisper")
    _same(path, config, "encoder_attention_heads", "decoder_attention_heads")
    if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding"):
        raise WeightsError(f"{path} asks for another activation than gelu, or for scaled embeddings: no published Whisper does")
    shape = WhisperShape(
        mels=_number(path, config, "num_mel_bins"),
        width=_number(path, config, "d_model"),
        heads=_number(path, config, "encoder_attention_heads"),
        encoder_layers=_number(path, config, "encoder_layers"),
        decoder_layers=_number(path, config, "decoder_layers"),
        vocabulary=_number(path, config, "vocab_size"),
        audio_positions=_number(path, config, "max_source_positions"),
        text_positions=_number(path, config, "max_target_positions"),
    )
    tensors = {name.removeprefix("model."): tensor for name, tensor in _shards(folder).items()}
    head, embeddings = tensors.get("proj_out.weight"), tensors.get("decoder.embed_tokens.weight")
    if head is not None and embeddings is not None and not torch.equal(head, embeddings):
        raise WeightsError(f"{folder}: proj_out.weight is not the embeddings again, as in every published Whisper")
    return _Checkpoint(folder, _checked(path, shape), tensors, _HUGGING_FACE, frozenset({"proj_out.weight"}))


def _shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder. `model.safetensors` counts alone: some repositories hold the same weights twice."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif index.is_file():
        try:
            files = [folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{index} names no shards ({error!r})") from error
    else:
        files = sorted(folder.glob("*.safetensors"))
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{file} is not there: incomplete download?")
        try:
            tensors |= load_file(file)
        except SafetensorError as error:
            raise WeightsError(f"{file} is no safetensors, or is cut short ({error})") from error
    return tensors


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many layers there are, counted from the first."""
    return next(n for n in range(len(tensors) + 1) if pattern.format(n) not in tensors)


def _number(path: Path, sizes: Mapping[str, object], key: str) -> int:
    value = sizes.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise WeightsError(f"{path}: {key} is {value!r}, not a whole number")
    return value


def _same(path: Path, sizes: Mapping[str, object], one: str, other: str) -> None:
    if sizes.get(one) != sizes.get(other):
        raise WeightsError(f"{path}: {one} is {sizes.get(one)!r} and {other} {sizes.get(other)!r}; every published Whisper has them alike")


def _checked(path: Path, shape: WhisperShape) -> WhisperShape:
    if shape.heads < 1 or shape.width % shape.heads:
        raise WeightsError(f"{path}: {shape.heads} attention heads do not divide a width of {shape.width}")
    small = [name for name in ("mels", "encoder_layers", "decoder_layers", "vocabulary") if getattr(shape, name) < 1]
    if small:
        raise WeightsError(f"{path}: it has no {small[0].replace('_', ' ')}")
    return shape
