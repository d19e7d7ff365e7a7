"""Reads a CTranslate2 `model.bin` into torch tensors. Nothing of CTranslate2 itself is needed.

The layout (version 6, CTranslate2 `src/models/model.cc`), little-endian, strings as u16 length (their final NUL included) and bytes:

    u32 version   string specification   u32 revision
    u32 count     count x (string name, u8 rank, rank x u32 dimension, u8 type, u32 bytes, data)
    u32 aliases   aliases x (string alias, string name)
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

__all__ = ["WeightsError", "WeightsFile", "read_weights"]

_VERSION: Final = 6
_MOST_TENSORS: Final = 100_000
_MOST_DIMENSIONS: Final = 8

_TYPES: Final = {0: torch.float32, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.float16, 5: torch.bfloat16}
"""Type codes of the file."""


class WeightsError(ValueError):
    """The file is not a model we can read. The message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightsFile:
    """What a `model.bin` holds: the kind of model it names (`specification`, "WhisperSpec") and its tensors, aliases included. Tensors
    have the file's own types and must not be written to: they may share memory."""

    specification: str
    tensors: dict[str, torch.Tensor]


def read_weights(path: Path) -> WeightsFile:
    """Read the whole file. Raises WeightsError for a truncated, overlong or foreign one, OSError where it cannot be opened."""
    cursor = _Cursor(path, bytearray(path.read_bytes()))
    version = cursor.u32()
    if version != _VERSION:
        raise cursor.error(f"it says version {version}, expected {_VERSION}: not a CTranslate2 model, or converted by another release")
    specification = cursor.text()
    cursor.u32()  # the specification's revision: tells old layouts of the same model, which the reader of the tensors notices by name
    count = cursor.u32()
    if count > _MOST_TENSORS:
        raise cursor.error(f"it announces {count} tensors")
    tensors: dict[str, torch.Tensor] = {}
    for _ in range(count):
        name = cursor.text()
        tensors[name] = cursor.tensor(name)
    for _ in range(cursor.u32()):
        alias, name = cursor.text(), cursor.text()
        if name not in tensors:
            raise cursor.error(f"{alias} stands for {name}, which is not there")
        tensors[alias] = tensors[name]
    cursor.finish()
    return WeightsFile(specification, tensors)


class _Cursor:
    """A position in the file's bytes."""

    def __init__(self, path: Path, data: bytearray) -> None:
        self._path = path
        self._data = data
        self._at = 0

    def error(self, what: str) -> WeightsError:
        return WeightsError(f"{self._path}: {what}")

    def u32(self) -> int:
        return int(struct.unpack_from("<I", self._data, self._take(4))[0])

    def text(self) -> str:
        length = int(struct.unpack_from("<H", self._data, self._take(2))[0])
        start = self._take(length)
        try:
            return self._data[start : start + length].rstrip(b"\0").decode()
        except UnicodeDecodeError:
            raise self.error(f"bytes {start} to {start + length} should be a name and are not text") from None

    def tensor(self, name: str) -> torch.Tensor:
        rank = self._data[self._take(1)]
        if rank > _MOST_DIMENSIONS:
            raise self.error(f"{name} has {rank} dimensions")
        shape = struct.unpack_from(f"<{rank}I", self._data, self._take(4 * rank))
        code = self._data[self._take(1)]
        if code not in _TYPES:
            raise self.error(f"{name} has the unknown type {code}")
        size = self.u32()
        elements = 1
        for dimension in shape:
            elements *= dimension
        if size != elements * _TYPES[code].itemsize:
            raise self.error(f"{name} has {size} bytes for shape {shape} of {_TYPES[code]}")
        start = self._take(size)
        if not elements:
            return torch.zeros(shape, dtype=_TYPES[code])
        return torch.frombuffer(self._data, dtype=_TYPES[code], count=elements, offset=start).reshape(shape)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise self.error(f"{len(self._data) - self._at} bytes follow the model's end")

    def _take(self, size: int) -> int:
        """Where the next `size` bytes begin, after making sure that they are there."""
        start = self._at
        if start + size > len(self._data):
            raise self.error(f"it ends after {len(self._data)} bytes, in the middle of the model: incomplete download?")
        self._at = start + size
        return start
