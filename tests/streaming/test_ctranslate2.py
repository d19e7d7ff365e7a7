import struct
from pathlib import Path

import pytest
import torch

from streaming.models.ctranslate2 import WeightsError, read_weights


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def tensor(name: str, code: int, shape: tuple[int, ...], data: bytes) -> bytes:
    return text(name) + struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, code, len(data)) + data


def model(*tensors: bytes, version: int = 6, aliases: tuple[tuple[str, str], ...] = (), end: bytes = b"") -> bytes:
    head = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    tail = struct.pack("<I", len(aliases)) + b"".join(text(alias) + text(name) for alias, name in aliases)
    return head + b"".join(tensors) + tail + end


WEIGHTS = tensor("decoder/weight", 4, (2, 3), torch.arange(6, dtype=torch.float16).numpy().tobytes())
HEADS = tensor("decoder/num_heads", 2, (), struct.pack("<h", 8))


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(data)
    return path


def test_tensors_types_and_aliases(tmp_path: Path) -> None:
    file = read_weights(
        written(tmp_path, model(WEIGHTS, HEADS, tensor("empty", 0, (0, 4), b""), aliases=(("projection", "decoder/weight"),)))
    )
    assert file.specification == "WhisperSpec"
    assert set(file.tensors) == {"decoder/weight", "decoder/num_heads", "empty", "projection"}
    assert torch.equal(file.tensors["decoder/weight"], torch.arange(6, dtype=torch.float16).reshape(2, 3))
    assert file.tensors["projection"] is file.tensors["decoder/weight"]
    assert file.tensors["decoder/num_heads"].shape == ()
    assert int(file.tensors["decoder/num_heads"]) == 8
    assert file.tensors["empty"].shape == (0, 4)


def test_a_file_cut_anywhere_is_refused_and_named(tmp_path: Path) -> None:
    data = model(WEIGHTS, HEADS, aliases=(("projection", "decoder/weight"),))
    for length in range(len(data)):
        with pytest.raises(WeightsError, match=r"model\.bin: .*incomplete download"):
            read_weights(written(tmp_path, data[:length]))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (model(WEIGHTS, version=5), "version 5"),
        (b"<!DOCTYPE html><html>not a model</html>", "version"),
        (model(WEIGHTS, end=b"more"), "4 bytes follow"),
        (model(WEIGHTS, aliases=(("projection", "nothing"),)), "nothing, which is not there"),
        (model(tensor("weight", 9, (1,), b"\0")), "unknown type 9"),
        (model(tensor("weight", 0, (3,), b"\0" * 8)), "8 bytes for shape"),
        (model(tensor("weight", 0, (1,) * 9, b"\0" * 4)), "9 dimensions"),
        (struct.pack("<I", 6) + struct.pack("<H", 2) + b"\xff\xfe", "not text"),
        (struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 2**31), "2147483648 tensors"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(WeightsError, match=what):
        read_weights(written(tmp_path, data))


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "model.bin")


@pytest.mark.models
def test_the_pocket_bundles_whisper(parts: Path) -> None:
    file = read_weights(parts / "whisper-base" / "model.bin")
    assert file.specification == "WhisperSpec"
    assert len(file.tensors) == 213
    assert file.tensors["decoder/projection/weight"] is file.tensors["decoder/embeddings/weight"]
