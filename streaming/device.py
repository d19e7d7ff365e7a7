"""Where the large models run, and in what numbers: Whisper or another recogniser, and the language model.

One device and one dtype are chosen when the engine starts. The small models (VAD, end of turn) stay on the CPU: a GPU's launches cost
more than they do.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch

from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf_file import GgufFile
from streaming.models.linear import usual_dtype
from streaming.models.omni import is_heard

__all__ = ["DeviceError", "choose_device", "choose_dtype", "needed_bytes"]

log = logging.getLogger(__name__)

_DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
)

_WEIGHT_BYTES: Final = 2
"""On a GPU every weight is a bfloat16 or float16, whatever it is in its file, where nobody asks for float32."""

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


def choose_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """The numbers that the large models are held in on `device`: `bfloat16`, `float16` or `float32`, or `auto`, which is None: each model's
    usual ones (`streaming.models.linear.usual_dtype`), and on a CPU packed. Raises DeviceError for a name nobody has, and for numbers that
    the device has no arithmetic for."""
    if name == "auto":
        return None
    if name not in _DTYPES:
        raise DeviceError(f"there is no dtype {name!r}: give auto, {', '.join(_DTYPES)}")
    dtype, usual = _DTYPES[name], usual_dtype(device)
    if device.type == "cpu" and dtype is torch.float16:
        raise DeviceError("float16 is for a GPU, and the models run on the CPU: serve with --dtype bfloat16, float32 or auto")
    if dtype is torch.bfloat16 and usual is not torch.bfloat16:
        if device.type == "cuda":
            what = f"{device} ({torch.cuda.get_device_name(device)})"
            raise DeviceError(f"{what} has no arithmetic for bfloat16, which came with Ampere: serve with --dtype float16 or auto")
        log.warning("this CPU has no arithmetic for bfloat16: float32 is faster here")
    return dtype


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


def needed_bytes(parts: Iterable[Path], dtype: str = "auto") -> int:
    """What the models in these files and folders need of a GPU where they are held in `dtype`, about. Raises OSError or WeightsError for a
    file that can't be read."""
    each = _DTYPES[dtype].itemsize if dtype in _DTYPES else _WEIGHT_BYTES
    return _WORKING_BYTES + sum(each * _weights(file) for part in parts for file in _weight_files(part))


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


def _weights(file: Path) -> int:
    """How many numbers a file holds, about."""
    if file.suffix == ".gguf":
        return sum(math.prod(int(size) for size in tensor.shape) for tensor in GgufFile(file).tensors.values())
    if file.suffix == ".safetensors":
        return sum(_safetensors_counts(file))
    return file.stat().st_size // 2  # fp16 as a rule


def _safetensors_counts(file: Path) -> list[int]:
    """The numbers of each tensor, from the header: 8 bytes of its length, then JSON."""
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        return [math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__" and is_heard(name)]
    except (ValueError, OverflowError, MemoryError, AttributeError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} is no safetensors, or is cut short ({error})") from error
