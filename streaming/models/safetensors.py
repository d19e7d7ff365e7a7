"""Models in the Hugging Face layout: `config.json`, `*.safetensors`, `tokenizer.json`. Llama, Mistral and Qwen2, as far as
`streaming.models.llama` goes: what a config asks for beyond it is refused by name, never ignored.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from streaming.models.llama import Llama, LlamaShape
from streaming.models.slots import decoder_of
from streaming.models.weights import Matrix, assemble

__all__ = ["load_safetensors"]

_ARCHITECTURES: Final = ("llama", "mistral", "qwen2")

_Value = TypeVar("_Value", int, float)


def load_safetensors(folder: Path, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> tuple[Llama, Tokenizer]:
    """The model, its weights in `dtype` on `device`, and its tokenizer. Raises ValueError, naming the file, for what is not such a model,
    and OSError where it can't be read."""
    shape = _shape(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"there are no .safetensors in {folder}")
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        except SafetensorError as error:
            raise ValueError(f"{folder} holds a file that is no safetensors, or is cut short ({error})") from error
        holders = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 (no mapping)

        def find(name: str) -> Matrix | None:
            return Matrix(holders[name].get_tensor(name)) if name in holders else None

        try:
            weights = assemble(shape, find, dtype, device=device)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
    return decoder_of(shape, weights), _tokenizer(folder / "tokenizer.json")


def _shape(path: Path) -> LlamaShape:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("model_type") not in _ARCHITECTURES:
        raise ValueError(f"{path} is not the config of a {', '.join(_ARCHITECTURES)} model")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"{path} stretches its rotary embedding ({rope}), which this decoder does not do")
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(key):
            raise ValueError(f"{path} asks for {key}, which this decoder does not do")
    heads, width = _number(path, config, "num_attention_heads", int), _number(path, config, "hidden_size", int)
    base = {**config, **rope}
    try:
        return LlamaShape(
            vocabulary=_number(path, config, "vocab_size", int),
            layers=_number(path, config, "num_hidden_layers", int),
            width=width,
            hidden=_number(path, config, "intermediate_size", int),
            heads=heads,
            kv_heads=_number(path, {"num_key_value_heads": heads, **config}, "num_key_value_heads", int),
            head_width=config.get("head_dim") or width // heads,
            context=config.get("sliding_window") or _number(path, config, "max_position_embeddings", int),
            rope_base=_number(path, {"rope_theta": 10_000.0, **base}, "rope_theta", float),
            norm_epsilon=_number(path, {"rms_norm_eps": 1e-6, **config}, "rms_norm_eps", float),
        )
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _number(path: Path, config: Mapping[str, object], key: str, kind: type[_Value]) -> _Value:
    value = config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{path}: {key} is {value!r}, not a number")
    return kind(value)


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path} is no tokenizer ({error})") from error
