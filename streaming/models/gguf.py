"""GGUF files of Llama-shaped models: weights, shape, and the tokenizer that travels with them.

Reading is PyPI `gguf`'s; ours is what the numbers mean. llama.cpp interleaves the rows of Q and K of the llama architecture for its own
rotary embedding; here they go back to the half-rotated order of the Hugging Face weights. Reference: ggml's `docs/gguf.md`, llama.cpp's
`convert_hf_to_gguf.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor, dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from streaming.models.linear import GROUP, FourBits, Packing
from streaming.models.llama import Llama, LlamaShape
from streaming.models.slots import decoder_of
from streaming.models.weights import Matrix, assemble

__all__ = ["load_gguf"]

_CONTROL: Final = (3, 4)
"""`tokenizer.ggml.token_type` of control and user-defined tokens."""

_TENSORS: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Hugging Face names to ggml's."""

_PRE_TOKENIZERS: Final[dict[str, Callable[[], pre_tokenizers.PreTokenizer]]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    ),
    "qwen2": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
                "isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}
"""How text is cut before byte-pair merges, by `tokenizer.ggml.pre`."""


def load_gguf(
    path: Path, dtype: torch.dtype = torch.bfloat16, packing: Packing = Packing.SMALLEST, device: torch.device | str = "cpu"
) -> tuple[Llama, Tokenizer]:
    """The model, its weights in `dtype` on `device`, and its tokenizer. Raises ValueError, naming the file, for what is not a GGUF of a
    llama or qwen2 model with a byte-level BPE tokenizer, and OSError where it can't be read."""
    file = _File(path)
    shape = _shape(file)
    try:
        weights = assemble(shape, lambda name: _matrix(file, shape, name), dtype, packing, device)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return decoder_of(shape, weights), _tokenizer(file)


class _PlainReader(GGUFReader):
    """`GGUFReader` on a plain array: slicing a memmap some 250,000 times, for the vocabulary, costs seconds."""

    @property  # type: ignore[override]
    def data(self) -> npt.NDArray[np.uint8]:
        return self._plain

    @data.setter
    def data(self, mapped: npt.NDArray[np.uint8]) -> None:
        self._plain = np.asarray(mapped)


class _File:
    """An open GGUF file with typed access to its metadata."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; fetch it with `vivavoce pull`")
        try:
            self._reader = _PlainReader(path)
            self.tensors: Final[dict[str, ReaderTensor]] = {tensor.name: tensor for tensor in self._reader.tensors}
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{path} is not a GGUF file, or is cut short ({error}); fetch it again with `vivavoce pull`") from error

    def text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str):
            raise ValueError(f"{self.path}: {key} is {value!r}, not text")
        return value

    def number(self, key: str) -> float:
        value = self._value(key)
        if not isinstance(value, int | float):
            raise ValueError(f"{self.path}: {key} is {value!r}, not a number")
        return value

    def has(self, key: str) -> bool:
        return self._reader.get_field(key) is not None

    def texts(self, key: str) -> list[str]:
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{self.path}: {key} is not a list of texts")
        return value

    def numbers(self, key: str) -> list[int]:
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise ValueError(f"{self.path}: {key} is not a list of whole numbers")
        return value

    def _value(self, key: str) -> object:
        field = self._reader.get_field(key)
        if field is None:
            raise ValueError(f"{self.path}: the metadata has no {key}")
        value: object = field.contents()
        return value


def _shape(file: _File) -> LlamaShape:
    kind = file.text("general.architecture")
    if kind not in ("llama", "qwen2"):
        raise ValueError(f"{file.path} holds a {kind} model; this loader reads llama and qwen2")
    if file.has(f"{kind}.rope.scaling.type") or "rope_freqs.weight" in file.tensors:
        raise ValueError(f"{file.path} stretches its rotary embedding, which this decoder does not do")
    heads, width = int(file.number(f"{kind}.attention.head_count")), int(file.number(f"{kind}.embedding_length"))
    try:
        return LlamaShape(
            vocabulary=len(file.texts("tokenizer.ggml.tokens")),
            layers=int(file.number(f"{kind}.block_count")),
            width=width,
            hidden=int(file.number(f"{kind}.feed_forward_length")),
            heads=heads,
            kv_heads=int(file.number(f"{kind}.attention.head_count_kv")),
            head_width=int(file.number(f"{kind}.attention.key_length")) if file.has(f"{kind}.attention.key_length") else width // heads,
            context=int(file.number(f"{kind}.context_length")),
            rope_base=file.number(f"{kind}.rope.freq_base"),
            norm_epsilon=file.number(f"{kind}.attention.layer_norm_rms_epsilon"),
        )
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{file.path}: {error}") from error


def _matrix(file: _File, shape: LlamaShape, name: str) -> Matrix | None:
    """The tensor of this Hugging Face name."""
    stem, kind = name.rsplit(".", 1)
    prefix = ""
    if stem.startswith("model.layers."):
        index, stem = stem.removeprefix("model.layers.").split(".", 1)
        prefix = f"blk.{index}."
    tensor = file.tensors.get(f"{prefix}{_TENSORS[stem]}.{kind}")
    if tensor is None:
        return None
    matrix = _read(tensor)
    if file.text("general.architecture") != "llama" or stem not in ("self_attn.q_proj", "self_attn.k_proj"):
        return matrix
    return matrix.rows(_half_rotated(len(matrix.values), shape.head_width))


def _half_rotated(rows: int, head_width: int) -> torch.Tensor:
    """The order of rows that undoes llama.cpp's pairs: within a head, the first of every pair, then the second."""
    return torch.arange(rows).view(-1, head_width // 2, 2).transpose(1, 2).reshape(-1)


def _read(tensor: ReaderTensor) -> Matrix:
    match tensor.tensor_type:
        case GGMLQuantizationType.Q4_1:
            return _four_bits(tensor, has_minimum=True)
        case GGMLQuantizationType.Q4_0:
            return _four_bits(tensor, has_minimum=False)
        case kind:
            return Matrix(torch.from_numpy(np.array(dequantize(tensor.data, kind), dtype=np.float32)))


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
    values = levels * scales[..., None] + zeros[..., None]
    return Matrix(values.view(outputs, -1), FourBits(levels.view(outputs, -1), scales, zeros))


def _tokenizer(file: _File) -> Tokenizer:
    """The byte-level BPE tokenizer of the file."""
    kind, pre = file.text("tokenizer.ggml.model"), file.text("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise ValueError(f"{file.path}: the tokenizer {kind}/{pre} is not known here (known: gpt2 with {', '.join(_PRE_TOKENIZERS)})")
    tokens = file.texts("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in file.texts("tokenizer.ggml.merges")]
    kinds = file.numbers("tokenizer.ggml.token_type")
    if len(kinds) != len(tokens):
        raise ValueError(f"{file.path}: {len(tokens)} tokens have {len(kinds)} types")
    try:
        tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))  # type: ignore[arg-type]
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{file.path}: its merges are not of its tokens ({error})") from error
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind in _CONTROL]
    tokenizer.add_special_tokens(special)
    return tokenizer
