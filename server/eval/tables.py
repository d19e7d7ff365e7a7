"""Data sets on disk, row by row: Hugging Face's Parquet files (a clone of a data set's repository), Arrow files (`save_to_disk`), JSON
lines.

Nothing is fetched. A row is a mapping of the set's own field names; class labels come as their names. Sound stands in a row as Hugging Face
stores it, an object of `bytes` and `path`, or as the path of a file.
"""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

from server.eval.errors import EvalError, optional
from streaming.audio import Samples, resample_clause
from streaming.events import SAMPLE_RATE

__all__ = ["Row", "read_rows", "sound_of", "subsets_in"]

Row = Mapping[str, object]

_SUFFIXES: Final = (".parquet", ".arrow", ".jsonl")
_ROWS_AT_ONCE: Final = 16
"""Of a table in memory: rows hold minutes of sound."""


def read_rows(folder: Path, subset: str = "", split: str = "test") -> Iterator[Row]:
    """The rows of a set, one by one. `subset` is a folder (or a file) in it, `split` the beginning of a file's or a folder's name; where
    none is named so, all are read. Raises EvalError."""
    for path in _files(folder, subset, split):
        yield from _rows_of(path)


def subsets_in(folder: Path) -> list[str]:
    """The folders of a set that hold tables."""
    found = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.suffix in _SUFFIXES}
    return sorted(name for name in found if (folder / name).is_dir() and name != "data")


def sound_of(row: Row, name: str, folder: Path) -> Samples:
    """The sound in a field at 16 kHz, float32 (n,); of several channels the first. Files are looked for from `folder`. Raises EvalError."""
    value = row.get(name)
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, value)
    if not isinstance(content, bytes) and not isinstance(path, str):
        raise EvalError(f"the field {name!r} holds no sound (neither bytes nor a path)")
    source = io.BytesIO(content) if isinstance(content, bytes) else folder / str(path)
    try:
        pcm, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise EvalError(f"the sound in {name!r} ({path}) can't be read: {str(error).rstrip('.')}") from error
    if not len(pcm):
        raise EvalError(f"the sound in {name!r} ({path}) is empty")
    return resample_clause(np.ascontiguousarray(pcm[:, 0]), int(rate), SAMPLE_RATE)


def _files(folder: Path, subset: str, split: str) -> list[Path]:
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder")
    root = folder / subset
    if not root.is_dir():
        named = [path for suffix in _SUFFIXES if (path := folder / f"{subset}{suffix}").is_file()]
        if named:
            return named
        raise EvalError(f"{folder} holds no {subset!r}: it holds {', '.join(subsets_in(folder)) or 'no tables'}")
    files = sorted(path for path in root.rglob("*") if path.suffix in _SUFFIXES)
    if not files:
        raise EvalError(f"{root}: holds no table ({', '.join(_SUFFIXES)})")
    of_split = [path for path in files if path.stem.startswith(split) or path.parent.name == split]
    if not of_split and any(path.stem.split("-")[0] in ("train", "test", "validation") for path in files):
        raise EvalError(f"{root}: has no split {split!r}")
    return of_split or files


def _rows_of(path: Path) -> Iterator[Row]:
    try:
        match path.suffix:
            case ".jsonl":
                with path.open(encoding="utf-8") as file:
                    yield from (json.loads(line) for line in file if line.strip())
            case ".parquet":
                table = optional("pyarrow.parquet").ParquetFile(path)
                yield from _named(table.schema_arrow, table.iter_batches(batch_size=_ROWS_AT_ONCE))
            case _:
                arrow = optional("pyarrow")
                with arrow.memory_map(str(path)) as source:
                    reader = arrow.ipc.open_stream(source)
                    yield from _named(reader.schema, reader)
    except (OSError, ValueError) as error:  # Arrow's own errors are ValueErrors
        raise EvalError(f"{path}: can't be read ({str(error)[:200]})") from error


def _named(schema: Any, batches: Iterator[Any]) -> Iterator[Row]:
    """The rows of Arrow batches, class labels by their names."""
    labels = _labels(schema)
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            for row in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                yield row | {
                    name: names[row[name]]
                    for name, names in labels.items()
                    if isinstance(row.get(name), int) and 0 <= row[name] < len(names)
                }


def _labels(schema: Any) -> dict[str, list[str]]:
    """The names of class labels, which Hugging Face's `datasets` writes into the schema."""
    metadata = schema.metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {
            name: list(kind["names"]) for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}
