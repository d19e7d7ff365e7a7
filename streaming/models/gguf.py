"""GGUF files of Llama-shaped models: weights, shape, and the tokenizer that travels with them.

llama.cpp interleaves the rows of Q and K of the llama architecture for its own rotary embedding; here they go back to the half-rotated
order of the Hugging Face weights. Reference: ggml's `docs/gguf.md`, llama.cpp's `convert_hf_to_gguf.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from gguf import GGMLQuantizationType, ReaderTensor, dequantize
from tokenizers import Tokenizer

from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf_file import GgufFile
from streaming.models.gguf_tokenizer import gguf_tokenizer
from streaming.models.linear import GROUP, FourBits, Packing
from streaming.models.llama import Llama, LlamaShape
from streaming.models.rope import Rope
from streaming.models.slots import decoder_of
from streaming.models.weights import Matrix, assemble, fused

__all__ = ["load_gguf", "read_gguf"]

_TENSORS: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
}
"""Hugging Face names to ggml's."""

_ROPE: Final = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
"""What each frequency is divided by: Llama 3.1's, and Phi-3's two sets."""


_LARGE: Final = 1_000_000_000
"""Weights: 2 GB in bfloat16, beyond which a copy of 4 bits beside them is no small thing."""


@dataclass(frozen=True, slots=True)
class _Family:
    """What an architecture is without its metadata saying so."""

    interleaved: bool = False
    biased: bool = False
    head_norm: bool = False
    fused: bool = False
    # Every so many layers one is not turned by positions.
    still: int | None = None


_FAMILIES: Final[Mapping[str, _Family]] = MappingProxyType(
    {
        "llama": _Family(interleaved=True),
        "phi3": _Family(fused=True),
        "qwen2": _Family(biased=True),
        "qwen3": _Family(head_norm=True),
        "smollm3": _Family(interleaved=True, still=4),
    }
)
"""By `general.architecture`. Mistral's and SmolLM2's is llama."""


def load_gguf(
    path: Path,
    dtype: torch.dtype | None = None,
    packing: Packing | None = None,
    device: torch.device | str = "cpu",
    context: int | None = None,
) -> tuple[Llama, Tokenizer]:
    """The model, its weights as `assemble` makes them, and its tokenizer, for sequences of no more than `context` positions; None for as
    many as it was trained for. Where `packing` is None, a quantised model too large to be held twice on a CPU is held in its bits alone.
    Raises WeightsError, naming file and tensor, for what is not a GGUF of such a model, and OSError where it can't be read."""
    return read_gguf(GgufFile(path), dtype, packing, device, context)


def read_gguf(
    file: GgufFile,
    dtype: torch.dtype | None = None,
    packing: Packing | None = None,
    device: torch.device | str = "cpu",
    context: int | None = None,
) -> tuple[Llama, Tokenizer]:
    """`load_gguf` of a file that is open."""
    path = file.path
    kind = file.text("general.architecture")
    if kind not in _FAMILIES:
        raise WeightsError(f"{path} holds a {kind} model; this loader reads {', '.join(_FAMILIES)}")
    family = _FAMILIES[kind]
    shape = _shape(file, kind, family, context)
    asked = set(_ROPE)

    def find(name: str) -> Matrix | None:
        there = _their_name(name)
        if there not in file.tensors:
            return None
        asked.add(there)
        matrix = _read(file, file.tensors[there])
        if family.interleaved and (".q_proj." in name or ".k_proj." in name):
            return matrix.rows(_half_rotated(matrix.shape[0], shape.head_width))
        return matrix

    try:
        weights = assemble(shape, fused(shape, find) if family.fused else find, dtype, packing or _packing(file, device), device)
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    if family.biased and "blk.0.attn_q.bias" not in asked:
        raise WeightsError(f"{path}: the tensor blk.0.attn_q.bias is missing")
    spare = sorted(name for name in file.tensors if name not in asked)
    if spare:
        raise WeightsError(f"{path}: it should not have {spare[0]} ({len(spare)} tensors)")
    return decoder_of(shape, weights), gguf_tokenizer(file)


def _packing(file: GgufFile, device: torch.device | str) -> Packing:
    """Large models are held in their bits alone where they have any."""
    weights = [tensor for tensor in file.tensors.values() if len(tensor.shape) > 1]
    count, held = sum(int(tensor.n_elements) for tensor in weights), sum(int(tensor.n_bytes) for tensor in weights)
    return Packing.ALONE if torch.device(device).type == "cpu" and count > _LARGE and held < 1.5 * count else Packing.SMALLEST


def _shape(file: GgufFile, kind: str, family: _Family, context: int | None) -> LlamaShape:
    def number(name: str, default: float | None = None) -> float:
        return file.number(f"{kind}.{name}", default)

    heads, width, layers = (int(number(name)) for name in ("attention.head_count", "embedding_length", "block_count"))
    trained = int(number("context_length"))
    positions = min(trained, context or trained)
    window = int(number("attention.sliding_window", 0))
    try:
        head_width = int(number("attention.key_length", width // heads))
        return LlamaShape(
            vocabulary=len(file.texts("tokenizer.ggml.tokens")),
            layers=layers,
            width=width,
            hidden=int(number("feed_forward_length")),
            heads=heads,
            kv_heads=int(number("attention.head_count_kv", heads)),
            head_width=head_width,
            context=positions,
            rope_base=number("rope.freq_base", 10_000.0),
            norm_epsilon=number("attention.layer_norm_rms_epsilon"),
            rope=_rope(file, kind, head_width, positions),
            windows=(window,) * layers if window else (),
            still=frozenset(range(family.still - 1, layers, family.still)) if family.still else frozenset(),
            head_norm=family.head_norm,
        )
    except WeightsError:
        raise
    except (ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{file.path}: {error}") from error


def _rope(file: GgufFile, kind: str, head_width: int, positions: int) -> Rope:
    """How positions turn a head: `streaming.models.rope`, by ggml's names."""
    width = int(file.number(f"{kind}.rope.dimension_count", head_width))
    stretch = file.text(f"{kind}.rope.scaling.type") if file.has(f"{kind}.rope.scaling.type") else "none"
    if stretch not in ("none", "linear", "longrope"):
        raise WeightsError(f"{file.path}: its rotary embedding is stretched by {stretch!r}, which this decoder does not do")
    if stretch == "linear":
        return Rope(width, (file.number(f"{kind}.rope.scaling.factor"),) * (width // 2))
    gain = file.number(f"{kind}.rope.scaling.attn_factor", 1.0)
    common, short, long = _ROPE
    original = file.number(f"{kind}.rope.scaling.original_context_length", file.number(f"{kind}.context_length"))
    name = common if common in file.tensors else long if positions > original else short
    if name not in file.tensors:
        return Rope(width, gain=gain)
    return Rope(width, tuple(_read(file, file.tensors[name]).values.tolist()), gain)


def _their_name(name: str) -> str:
    """ggml's name of a tensor with this Hugging Face name."""
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("model.layers."):
        return f"{_TENSORS[stem]}.{kind}"
    index, stem = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{index}.{_TENSORS[stem]}.{kind}"


def _half_rotated(rows: int, head_width: int) -> torch.Tensor:
    """The order of rows that undoes llama.cpp's pairs: within a head, the first of every pair, then the second."""
    return torch.arange(rows).view(-1, head_width // 2, 2).transpose(1, 2).reshape(-1)


def _read(file: GgufFile, tensor: ReaderTensor) -> Matrix:
    match tensor.tensor_type:
        case GGMLQuantizationType.Q4_1:
            return _four_bits(tensor, has_minimum=True)
        case GGMLQuantizationType.Q4_0:
            return _four_bits(tensor, has_minimum=False)
        case GGMLQuantizationType.Q4_K:
            return _four_bits_of_256(tensor)
        case kind:
            try:
                return Matrix(torch.from_numpy(np.array(dequantize(tensor.data, kind), dtype=np.float32)))
            except NotImplementedError as error:
                raise WeightsError(f"{file.path}: {tensor.name} is quantised as {kind.name}, which can't be read here") from error


def _four_bits(tensor: ReaderTensor, *, has_minimum: bool) -> Matrix:
    """ggml's blocks of 32: scale float16, then for Q4_1 the minimum float16 (Q4_0's is -8 scales), then 16 bytes: the low halves are the
    first 16 levels, the high halves the others."""
    outputs = tensor.data.shape[0]
    header = 4 if has_minimum else 2
    blocks = np.ascontiguousarray(tensor.data).reshape(outputs, -1, header + GROUP // 2)
    factors = blocks[..., :header].copy().view(np.float16).astype(np.float32)
    scales = torch.from_numpy(factors[..., 0].copy())  # [outputs, blocks]
    zeros = torch.from_numpy(factors[..., 1].copy()) if has_minimum else -8 * scales
    packed = torch.from_numpy(blocks[..., header:].copy())
    levels = torch.cat((packed & 15, packed >> 4), dim=-1)  # [outputs, blocks, GROUP]
    return Matrix(None, FourBits(levels.flatten(1), scales, zeros))


def _four_bits_of_256(tensor: ReaderTensor) -> Matrix:
    """Q4_K: blocks of 256 are eight groups of 32. Float16 factors of scales and of minima, then 12 bytes with both of each group in 6 bits,
    then 128 bytes, of which 32 at a time are the low halves of one group and the high halves of the next."""
    outputs = tensor.data.shape[0]
    blocks = np.ascontiguousarray(tensor.data).reshape(outputs, -1, 4 + 12 + 128)
    factors = torch.from_numpy(blocks[..., :4].copy().view(np.float16).astype(np.float32))  # [outputs, blocks, 2]
    first, second, mixed = torch.from_numpy(blocks[..., 4:16].copy()).view(outputs, -1, 3, 4).unbind(2)  # [outputs, blocks, 4] each
    scales = torch.cat((first & 63, (mixed & 15) | (first >> 6 << 4)), dim=-1)  # [outputs, blocks, 8]
    minima = torch.cat((second & 63, (mixed >> 4) | (second >> 6 << 4)), dim=-1)
    packed = torch.from_numpy(blocks[..., 16:].copy()).view(outputs, -1, 4, GROUP)
    levels = torch.stack((packed & 15, packed >> 4), dim=-2)  # [outputs, blocks, 4, 2, GROUP]
    scaled, lowest = scales * factors[..., :1], -(minima * factors[..., 1:])  # bytes, so the sign comes last
    return Matrix(None, FourBits(levels.flatten(1), scaled.flatten(1), lowest.flatten(1)))
