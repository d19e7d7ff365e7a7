"""SUPERB (Yang et al. 2021), as far as a server that answers can be asked: recognition, keywords, intents, emotions, slots.

On disk as Hugging Face's `superb` is published: a folder a task (`asr`, `ks`, `ic`, `er`, `si`), in it Parquet files by split, with `audio`
(or `file`) and `text`, `label`, or `action`, `object` and `location`; slot filling (`sf`) with `text` tagged as S3PRL prepares it,
"play B-artist miles davis E-artist". The metrics are the benchmark's. The protocol is not: SUPERB trains a small head on frozen
representations for each task, a server is asked in words, so figures do not compare with SUPERB's table. Speaker verification,
diarisation, phonemes, search by example and generation can't be asked so and are not here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from server.eval.benchmarks.task import Task, field_text
from server.eval.errors import EvalError
from server.eval.metrics import Metric, exact_match, slot_type_f1, slot_value_error, word_error
from server.eval.records import Item
from server.eval.tables import Row, read_rows, sound_of, subsets_in

__all__ = ["superb"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a task is asked and scored. `ask` gets the labels that the set has, joined."""

    ask: str
    reference: Callable[[Row], str]
    metrics: tuple[Metric, ...]
    of_speech: bool = False


def _letters(text: str) -> str:
    """LibriSpeech's spelling: capitals and apostrophes, nothing else."""
    return " ".join(re.sub(r"[^A-Z' ]+", " ", text.upper()).split())


def _intent(row: Row) -> str:
    return ", ".join(field_text(row, name) for name in ("action", "object", "location"))


_KINDS: Final = {
    "asr": _Kind(
        "Transcribe the speech into text. Write only the words that were spoken.",
        lambda row: field_text(row, "text"),
        (partial(word_error, normalise=_letters),),
        of_speech=True,
    ),
    "ks": _Kind("Which command is spoken? Answer with one of: {labels}.", lambda row: field_text(row, "label"), (exact_match,)),
    "ic": _Kind("What is wanted? Answer with one of: {labels}.", _intent, (exact_match,)),
    "er": _Kind("Which emotion does the voice have? Answer with one of: {labels}.", lambda row: field_text(row, "label"), (exact_match,)),
    "si": _Kind("Who speaks? Answer with one of: {labels}.", lambda row: field_text(row, "label"), (exact_match,)),
    "sf": _Kind(
        "Transcribe the speech, with B-slot and E-slot around each slot, as in: play B-artist miles davis E-artist.",
        lambda row: field_text(row, "text"),
        (slot_type_f1, slot_value_error),
    ),
}
_MOST_LABELS: Final = 64
"""Of those that are named in the question: more would be longer than a small model's context."""


def superb(folder: Path, subset: str, split: str) -> list[Task]:
    """The tasks in `folder`: `subset`, or all of those above that are there. Raises EvalError."""
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder")
    names = [subset] if subset else [name for name in subsets_in(folder) if name in _KINDS]
    if not names or names[0] not in _KINDS:
        raise EvalError(
            f"{subset or folder}: choose from {', '.join(_KINDS)}; SUPERB's other tasks can't be asked of a server that answers"
        )
    return [
        Task(
            f"superb {name}",
            partial(_items, folder, name, split, _KINDS[name]),
            _KINDS[name].metrics,
            most_tokens=128,
            of_speech=_KINDS[name].of_speech,
        )
        for name in names
    ]


def _items(folder: Path, name: str, split: str, kind: _Kind) -> Iterator[Item]:
    labels = ""
    if "{labels}" in kind.ask:
        found = sorted({kind.reference(row) for row in read_rows(folder, name, split)})
        labels = "; ".join(found[:_MOST_LABELS])
    question = kind.ask.replace("{labels}", labels)
    for number, row in enumerate(read_rows(folder, name, split)):
        sound = sound_of(row, "audio" if row.get("audio") is not None else "file", folder / name)
        yield Item(field_text(row, "id") or str(number), (sound,), question, question, kind.reference(row))
