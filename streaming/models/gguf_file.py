"""An open GGUF file. Reading is PyPI `gguf`'s; what the numbers mean, `streaming.models.gguf` and `streaming.models.gguf_tokenizer` say."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, ReaderTensor

from streaming.models.ctranslate2 import WeightsError

__all__ = ["GgufFile"]


class _PlainReader(GGUFReader):
    """`GGUFReader` on a plain array: slicing a memmap some 250,000 times, for the vocabulary, costs seconds."""

    @property  # type: ignore[override]
    def data(self) -> npt.NDArray[np.uint8]:
        return self._plain

    @data.setter
    def data(self, mapped: npt.NDArray[np.uint8]) -> None:
        self._plain = np.asarray(mapped)


class GgufFile:
    """An open GGUF file with typed access to its metadata."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; fetch it with `vivavoce pull`")
        try:
            self._reader = _PlainReader(path)
            self.tensors: Final[dict[str, ReaderTensor]] = {tensor.name: tensor for tensor in self._reader.tensors}
        except (ValueError, IndexError, KeyError) as error:
            raise WeightsError(f"{path} is not a GGUF file, or is cut short ({error}); fetch it again with `vivavoce pull`") from error

    def text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str):
            raise WeightsError(f"{self.path}: {key} is {value!r}, not text")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key) if default is None or self.has(key) else default
        if not isinstance(value, int | float):
            raise WeightsError(f"{self.path}: {key} is {value!r}, not a number")
        return value

    def flag(self, key: str) -> bool:
        value = self._value(key)
        if not isinstance(value, bool):
            raise WeightsError(f"{self.path}: {key} is {value!r}, neither true nor false")
        return value

    def has(self, key: str) -> bool:
        return self._reader.get_field(key) is not None

    def texts(self, key: str) -> list[str]:
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise WeightsError(f"{self.path}: {key} is not a list of texts")
        return value

    def scores(self, key: str) -> list[float]:
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
            raise WeightsError(f"{self.path}: {key} is not a list of numbers")
        return value

    def numbers(self, key: str) -> list[int]:
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise WeightsError(f"{self.path}: {key} is not a list of whole numbers")
        return value

    def _value(self, key: str) -> object:
        field = self._reader.get_field(key)
        if field is None:
            raise WeightsError(f"{self.path}: the metadata has no {key}")
        value: object = field.contents()
        return value
