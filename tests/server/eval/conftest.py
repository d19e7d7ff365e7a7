"""Data sets in the published layouts, made here with tones for speech."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

WriteSet = Callable[..., Path]


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """`write_set("voicebench/openbookqa", rows, split="test", labels={"label": [...]}, arrow=True)` gives the folder of the whole set."""

    def write(name: str, rows: Sequence[dict[str, object]], split: str = "test", *, arrow: bool = False, **labels: Sequence[str]) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(list(rows))
        features = {key: {"names": list(names), "_type": "ClassLabel"} for key, names in labels.items()}
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
        if arrow:
            with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
        else:
            pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
        return tmp_path / name.split("/")[0]

    return write
