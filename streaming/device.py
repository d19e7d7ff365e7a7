"""Where the large models run: Whisper or another recogniser, and the language model.

One device is chosen when the engine starts. The small models (VAD, end of turn) stay on the CPU: a GPU's launches cost more than they do.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import torch

from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf_file import GgufFile
from streaming.models.omni import is_heard

__all__ = ["DeviceError", "choose_device", "needed_bytes"]

log = logging.getLogger(__name__)

_WEIGHT_BYTES: Final = 2
"""On a GPU every weight is a bfloat16, whatever it is in its file."""

_WORKING_BYTES: Final = 2 << 30
"""Beside the weights: the CUDA context, libraries' workspaces, graphs, a piece of a prompt, a few sequences."""


class DeviceError(ValueError):
    """The models can't run where they were told to; the message is one line that says what to do."""


def choose_device(name: str, needed: int) -> torch.device:
    """The device for models of about `needed` bytes. `name` is `cpu`, `cuda`, `cuda:N`, or `auto`: the GPU where there is one with room,
    else the CPU. Raises DeviceError where a GPU was named and is not there, or is too small."""
    if name == "cpu":
        return torch.device("cpu")
    try:
        device = _gpu("cuda" if name == "auto" else name)
        _check_room(device, torch.cuda.mem_get_info(device)[0], needed)
    except DeviceError as error:
        if name != "auto":
            raise
        # A warning: the engine's process has no log for less.
        log.warning("the models run on the CPU: %s", error)
        return torch.device("cpu")
    return device


def _gpu(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type != "cuda":
        raise DeviceError(f"there is no device {name!r}: give auto, cpu, cuda or cuda:1")
    if torch.version.cuda is None:
        message = f"{name}: this PyTorch ({torch.__version__}) is built without CUDA"
        raise DeviceError(f"{message}; install its CUDA build or serve with --device cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise DeviceError(f"{name}: PyTorch finds no NVIDIA GPU (does `nvidia-smi` show one?); serve with --device cpu without one")
    if (device.index or 0) >= count:
        raise DeviceError(f"{name}: there are {count} GPUs, the last is cuda:{count - 1}")
    return torch.device("cuda", device.index or 0)


def _check_room(device: torch.device, free: int, needed: int) -> None:
    if needed > free:
        raise DeviceError(
            f"{device} has {free / 1e9:.1f} GB free and these models need about {needed / 1e9:.1f} GB: "
            "end what else runs there, choose a smaller bundle, or serve with --device cpu"
        )


def needed_bytes(parts: Iterable[Path]) -> int:
    """What the models in these files and folders need of a GPU, about. Raises OSError or WeightsError for a file that can't be read."""
    return _WORKING_BYTES + sum(_weight_bytes(file) for part in parts for file in _weight_files(part))


def _weight_files(part: Path) -> Iterator[Path]:
    if not part.is_dir():
        yield part
        return
    # One layout of those a folder may have: a repository often carries several.
    for pattern in ("model.bin", "*.safetensors", "pytorch_model.bin", "*.pt"):
        if found := sorted(part.glob(pattern)):
            yield from found
            break
    if (within := part / "language_model").is_dir():  # Ultravox's
        yield from _weight_files(within)


def _weight_bytes(file: Path) -> int:
    if file.suffix == ".gguf":
        return _WEIGHT_BYTES * sum(math.prod(int(size) for size in tensor.shape) for tensor in GgufFile(file).tensors.values())
    if file.suffix == ".safetensors":
        return _WEIGHT_BYTES * sum(_safetensors_counts(file))
    return file.stat().st_size  # fp16 as a rule


def _safetensors_counts(file: Path) -> list[int]:
    """The numbers of each tensor, from the header: 8 bytes of its length, then JSON."""
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        return [math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__" and is_heard(name)]
    except (ValueError, OverflowError, MemoryError, AttributeError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} is no safetensors, or is cut short ({error})") from error
