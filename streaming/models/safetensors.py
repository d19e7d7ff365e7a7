"""Models in the Hugging Face layout: `config.json`, `*.safetensors` (one file, or shards and their index), `tokenizer.json`. Which, and how
far, `streaming.models.llama_config` says.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from streaming.models.ctranslate2 import WeightsError
from streaming.models.linear import Packing
from streaming.models.llama import Llama, LlamaWeights
from streaming.models.llama_config import LlamaConfig, llama_config
from streaming.models.slots import decoder_of
from streaming.models.weights import Matrix, assemble, fused

__all__ = [
    "decoder_config",
    "json_object",
    "load_safetensors",
    "load_tokenizer",
    "open_tensors",
    "read_decoder",
    "read_tokenizer",
    "read_weights",
]

_INDEX: Final = "model.safetensors.index.json"

_IGNORED: Final = ".rotary_emb.inv_freq"
"""Ends the names of tensors that old files have and nothing reads."""


def load_safetensors(
    folder: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    packing: Packing = Packing.SMALLEST,
    context: int | None = None,
) -> tuple[Llama, Tokenizer]:
    """The model, its weights as `assemble` makes them, and its tokenizer, for sequences of no more than `context` positions; None for as
    many as it was trained for. Raises WeightsError, naming file and tensor, for what is not such a model, and OSError where it
    can't be read."""
    path = folder / "config.json"
    config = decoder_config(path, json_object(path), context)
    with open_tensors(folder) as tensors:
        model = read_decoder(folder, config, tensors, dtype, device, packing)
    return model, read_tokenizer(folder, config.shape.vocabulary)


@contextmanager
def open_tensors(folder: Path) -> Iterator[dict[str, Callable[[], Tensor]]]:
    """What reads each tensor of a folder, by name, while this is open. Raises WeightsError for a file that is no safetensors, and OSError
    where it can't be read."""
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(safe_open(file, framework="pt")) for file in _files(folder)]
        except SafetensorError as error:
            raise WeightsError(f"{folder} holds a file that is no safetensors, or is cut short ({error})") from error
        yield {name: partial(file.get_tensor, name) for file in opened for name in file.keys()}  # noqa: SIM118 (no mapping)


def read_decoder(
    folder: Path,
    config: LlamaConfig,
    tensors: Mapping[str, Callable[[], Tensor]],
    dtype: torch.dtype | None,
    device: torch.device | str,
    packing: Packing = Packing.SMALLEST,
) -> Llama:
    """The decoder whose weights are all of `tensors`, as fits where they go. Raises WeightsError as `read_weights` does."""
    return decoder_of(config.shape, read_weights(folder, config, tensors, dtype, device, packing))


def read_weights(
    folder: Path,
    config: LlamaConfig,
    tensors: Mapping[str, Callable[[], Tensor]],
    dtype: torch.dtype | None,
    device: torch.device | str,
    packing: Packing = Packing.SMALLEST,
) -> LlamaWeights:
    """The weights of a decoder, all of `tensors`. Raises WeightsError, naming `folder` and tensor, where they are not those of
    `config`."""
    shape = config.shape
    _expect(folder, config, tensors)
    asked = {"lm_head.weight"} if config.tied else set()

    def find(name: str) -> Matrix | None:
        if name not in tensors or (config.tied and name == "lm_head.weight"):
            return None
        asked.add(name)
        return Matrix(tensors[name]())

    try:
        weights = assemble(shape, fused(shape, find) if config.fused else find, dtype, packing, device)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    spare = sorted(name for name in tensors if name not in asked and not name.endswith(_IGNORED))
    if spare:
        raise WeightsError(f"{folder}: it should not have {spare[0]} ({len(spare)} tensors)")
    return weights


def read_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """The folder's tokenizer. Raises WeightsError where it is damaged or has more tokens than the model, and OSError."""
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if tokenizer.get_vocab_size() > vocabulary:
        raise WeightsError(f"{folder}: tokenizer.json has {tokenizer.get_vocab_size()} tokens, the model {vocabulary}")
    return tokenizer


def decoder_config(path: Path, config: Mapping[str, object], context: int | None) -> LlamaConfig:
    """What `config`, found in the file `path`, says of a decoder. Raises WeightsError, naming the file."""
    try:
        return llama_config(config, context)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def json_object(path: Path) -> dict[str, object]:
    """The object in a JSON file. Raises WeightsError where there is none, and OSError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} is not a JSON object")
    return value


def _files(folder: Path) -> list[Path]:
    """The files with weights: `model.safetensors`, else those of the index, else all. Mistral's folders hold theirs in another layout
    beside it."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not (folder / _INDEX).is_file():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"there are no .safetensors in {folder}")
        return files
    places = json_object(folder / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
        raise WeightsError(f"{folder / _INDEX} has no weight_map of file names")
    files = [folder / name for name in sorted(set(places.values()))]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there, though {_INDEX} names it")
    return files


def _expect(folder: Path, config: LlamaConfig, names: Iterable[str]) -> None:
    """Biases and head are there where the config has them: without them it would be another model."""
    there = set(names)
    if not config.tied and "lm_head.weight" not in there:
        raise WeightsError(f"{folder}: the tensor lm_head.weight is missing")
    for product in sorted(config.biased):
        if f"model.layers.0.{product}.bias" not in there:
            raise WeightsError(f"{folder}: the tensor model.layers.0.{product}.bias is missing")
    biases = sorted(name for name in there if name.startswith("model.layers.") and name.endswith("_proj.bias"))
    unexpected = [name for name in biases if name.removesuffix(".bias").split(".", 3)[3] not in config.biased]
    if unexpected:
        raise WeightsError(f"{folder}: it should not have {unexpected[0]} ({len(unexpected)} tensors)")


def load_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json`. Raises WeightsError for what is none, FileNotFoundError where it is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise WeightsError(f"{path} is no tokenizer ({error})") from error
