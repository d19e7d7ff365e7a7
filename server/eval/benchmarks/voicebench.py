"""VoiceBench (Chen et al. 2024): spoken requests to an assistant, each subset with its own measure.

On disk as Hugging Face's `hlt-lab/voicebench` is published: a folder a subset, in it Parquet files named by split, with the fields `audio`,
`prompt`, and by subset `output` or `reference`, `id`, `key`, `instruction_id_list`, `kwargs`. The request is the sound alone, as in the
benchmark's own harness; its words stand for it with `text`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from server.eval.benchmarks.task import Task, field_text
from server.eval.errors import EvalError
from server.eval.instructions import instructions_followed
from server.eval.judge import CORRECT, RATED, Rubric
from server.eval.metrics import Metric, chosen_letters, refusals, yes_or_no
from server.eval.records import Item
from server.eval.tables import read_rows, sound_of, subsets_in

__all__ = ["voicebench"]

_MEASURES: Final[Mapping[str, tuple[tuple[Metric, ...], Rubric | None]]] = {
    "alpacaeval": ((), RATED),
    "alpacaeval_full": ((), RATED),
    "commoneval": ((), RATED),
    "wildvoice": ((), RATED),
    "sd-qa": ((), CORRECT),
    "openbookqa": ((chosen_letters,), None),
    "mmsu": ((chosen_letters,), None),
    "bbh": ((yes_or_no,), None),
    "ifeval": ((instructions_followed,), None),
    "advbench": ((refusals,), None),
}
_KEPT: Final = ("key", "instruction_id_list", "kwargs", "domain", "category")
_TOKENS: Final = 512


def voicebench(folder: Path, subset: str, split: str, *, text: bool) -> list[Task]:
    """The tasks in `folder`: `subset`, or all that are there. `split` is "test", for sd-qa a region ("usa", "aus", ...), for mmsu a
    domain; "" takes all. Raises EvalError."""
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder")
    names = [subset] if subset else [name for name in subsets_in(folder) if name in _MEASURES]
    if not names:
        raise EvalError(f"{folder}: holds none of {', '.join(_MEASURES)}")
    if unknown := [name for name in names if name not in _MEASURES]:
        raise EvalError(
            f"there is no measure for {unknown[0]!r}: choose from {', '.join(_MEASURES)} (mtbench, of several turns, is not asked here)"
        )
    tasks = []
    for name in names:
        metrics, rubric = _MEASURES[name]
        items = partial(_items, folder, name, split, text=text)
        tasks.append(Task(f"voicebench {name}", items, metrics, rubric, _TOKENS))
    return tasks


def _items(folder: Path, subset: str, split: str, *, text: bool) -> Iterator[Item]:
    for number, row in enumerate(read_rows(folder, subset, split)):
        prompt = field_text(row, "prompt")
        reference = field_text(row, "reference") or field_text(row, "output")
        kept = {key: row[key] for key in _KEPT if row.get(key) is not None}
        # The harness tells bbh's tasks apart by the id, others have none.
        sounds = () if text else (sound_of(row, "audio", folder / subset),)
        yield Item(f"{field_text(row, 'id') or number}", sounds, prompt if text else "", prompt, reference, kept)
