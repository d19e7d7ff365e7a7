"""Dynamic-SUPERB (Huang et al. 2023, 2024): an instruction in text about one sound or more, and a label.

On disk as its instances are published on Hugging Face (`DynamicSuperb/TASK_DATASET-SUBSET`): a folder an instance, in it Parquet files,
with `audio` (`audio2`, ... where there are more), `file`, `instruction` and `label`. The first phase's measure is accuracy by the exact
label. The second phase has recognition tasks measured by word error, and lets a judge say whether a sentence gives the label; with a judge
it is asked.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from server.eval.benchmarks.task import Task, field_text
from server.eval.errors import EvalError
from server.eval.judge import RIGHT
from server.eval.metrics import exact_match, word_error
from server.eval.records import Item
from server.eval.tables import Row, read_rows, sound_of, subsets_in

__all__ = ["dynamic_superb"]

_RECOGNITION: Final = re.compile(r"SpeechRecognition|SuperbASR|_ASR", re.IGNORECASE)


def dynamic_superb(folder: Path, subset: str, split: str, *, judged: bool) -> list[Task]:
    """The instances in `folder`: `subset`, or all that are there, or the folder itself where it is one. Raises EvalError."""
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder")
    names = [subset] if subset else subsets_in(folder)
    if not names:
        folder, names = folder.parent, [folder.name]
    return [_task(folder, name, split, judged=judged) for name in names]


def _task(folder: Path, name: str, split: str, *, judged: bool) -> Task:
    recognition = bool(_RECOGNITION.search(name))
    metrics = (word_error,) if recognition else (exact_match,)
    rubric = RIGHT if judged and not recognition else None
    return Task(f"dynamic-superb {name}", partial(_items, folder, name, split), metrics, rubric, most_tokens=128, of_speech=recognition)


def _items(folder: Path, name: str, split: str) -> Iterator[Item]:
    for number, row in enumerate(read_rows(folder, name, split)):
        sounds = tuple(sound_of(row, field, folder / name) for field in _sound_fields(row))
        instruction = field_text(row, "instruction")
        yield Item(f"{field_text(row, 'file') or number}#{number}", sounds, instruction, instruction, field_text(row, "label"))


def _sound_fields(row: Row) -> list[str]:
    return sorted(name for name in row if re.fullmatch(r"audio\d*", name) and row[name] is not None)
