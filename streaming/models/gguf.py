"""GGUF files of Llama-shaped models: weights dequantised into our decoder, and the tokenizer that travels with them.

Reading is PyPI `gguf`'s; ours is what the numbers mean. llama.cpp interleaves the rows of Q and K for its own rotary embedding; here they
go back to the half-rotated order of the Hugging Face weights. Reference: ggml's `docs/gguf.md`, llama.cpp's `convert_hf_to_gguf.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from streaming.models.llama import Llama, LlamaShape

__all__ = ["load_gguf"]

_SPECIAL: Final = 3
"""`tokenizer.ggml.token_type` of control tokens."""

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


def load_gguf(path: Path, dtype: torch.dtype = torch.bfloat16) -> tuple[Llama, Tokenizer]:
    """The model, its weights dequantised to `dtype`, and its tokenizer. Raises ValueError, naming the file, for what is not a GGUF of a
    Llama-shaped model with a byte-level BPE tokenizer, and OSError where it can't be read."""
    reader = _open(path)
    shape = _shape(path, reader)
    model = Llama(shape).to(dtype).eval()
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def weight(name: str) -> Tensor:
        if name not in tensors:
            raise ValueError(f"{path}: the tensor {name} is missing")
        tensor = tensors[name]
        values = dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    model.load_state_dict(_state(shape, weight), strict=True)
    return model.requires_grad_(False), _tokenizer(path, reader)


def _open(path: Path) -> GGUFReader:
    try:
        return GGUFReader(path)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is not a GGUF file, or is cut short ({error}); fetch it again with `vivavoce pull`") from error


def _field(path: Path, reader: GGUFReader, key: str) -> object:
    field = reader.get_field(key)
    if field is None:
        raise ValueError(f"{path}: the metadata has no {key}")
    return field.contents()


def _number(path: Path, reader: GGUFReader, key: str) -> float:
    value = _field(path, reader, key)
    if not isinstance(value, int | float):
        raise ValueError(f"{path}: {key} is {value!r}, not a number")
    return value


def _shape(path: Path, reader: GGUFReader) -> LlamaShape:
    architecture = _field(path, reader, "general.architecture")
    if architecture != "llama":
        raise ValueError(f"{path} holds a {architecture} model; this loader reads llama")
    heads = int(_number(path, reader, "llama.attention.head_count"))
    width = int(_number(path, reader, "llama.embedding_length"))
    return LlamaShape(
        vocabulary=int(_number(path, reader, "llama.vocab_size")),
        layers=int(_number(path, reader, "llama.block_count")),
        width=width,
        hidden=int(_number(path, reader, "llama.feed_forward_length")),
        heads=heads,
        kv_heads=int(_number(path, reader, "llama.attention.head_count_kv")),
        head_width=width // heads,
        context=int(_number(path, reader, "llama.context_length")),
        rope_base=_number(path, reader, "llama.rope.freq_base"),
        norm_epsilon=_number(path, reader, "llama.attention.layer_norm_rms_epsilon"),
        tied=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def _state(shape: LlamaShape, weight: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Our module's state, from the file's tensors."""
    embedding = weight("token_embd.weight")
    state = {
        "embedding.weight": embedding,
        "norm.weight": weight("output_norm.weight"),
        "head.weight": embedding if shape.tied else weight("output.weight"),
    }
    for index in range(shape.layers):
        theirs, ours = f"blk.{index}", f"layers.{index}"
        queries = _half_rotated(weight(f"{theirs}.attn_q.weight"), shape.heads)
        keys = _half_rotated(weight(f"{theirs}.attn_k.weight"), shape.kv_heads)
        state[f"{ours}.qkv.weight"] = torch.cat((queries, keys, weight(f"{theirs}.attn_v.weight")))
        state[f"{ours}.gate_up.weight"] = torch.cat((weight(f"{theirs}.ffn_gate.weight"), weight(f"{theirs}.ffn_up.weight")))
        state[f"{ours}.attention_out.weight"] = weight(f"{theirs}.attn_output.weight")
        state[f"{ours}.down.weight"] = weight(f"{theirs}.ffn_down.weight")
        state[f"{ours}.attention_norm.weight"] = weight(f"{theirs}.attn_norm.weight")
        state[f"{ours}.feed_forward_norm.weight"] = weight(f"{theirs}.ffn_norm.weight")
    return state


def _half_rotated(rows: Tensor, heads: int) -> Tensor:
    """Rows [heads * head_width, width] from interleaved pairs back to first halves, then second halves."""
    return rows.view(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def _tokenizer(path: Path, reader: GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer of the file."""
    kind, pre = _field(path, reader, "tokenizer.ggml.model"), _field(path, reader, "tokenizer.ggml.pre")
    if kind != "gpt2" or not isinstance(pre, str) or pre not in _PRE_TOKENIZERS:
        raise ValueError(f"{path}: tokenizer {kind}/{pre} is not known here (known: gpt2 with {', '.join(_PRE_TOKENIZERS)})")
    tokens = _strings(path, reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in _strings(path, reader, "tokenizer.ggml.merges")]
    kinds = _field(path, reader, "tokenizer.ggml.token_type")
    assert isinstance(kinds, list)
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL]
    tokenizer.add_special_tokens(special)
    return tokenizer


def _strings(path: Path, reader: GGUFReader, key: str) -> list[str]:
    values = _field(path, reader, key)
    if not isinstance(values, list):
        raise ValueError(f"{path}: {key} is not a list")
    return values
