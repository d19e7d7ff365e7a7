"""AudioBench (Wang et al. 2024): recognition, translation, questions about speech, sounds and voices.

On disk as its sets are published on Hugging Face (`AudioLLMs/...`): a folder a set, in it Parquet files, with `context` (the sound),
`instruction` and `answer`; older ones have `{"text": ..., "audio": ...}` in each of the three. A set is known by its folder's name,
versions (`_v2`) apart. METEOR, which some caption sets may be scored with too, is not computed: its word lists would have to be fetched.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from server.eval.benchmarks.task import Task, field_text, field_texts
from server.eval.errors import EvalError
from server.eval.judge import GRADED, RIGHT, Rubric
from server.eval.metrics import Metric, Score, bleu, option_words, word_error
from server.eval.records import Item, Record
from server.eval.tables import Row, read_rows, sound_of, subsets_in
from server.eval.words import english_normaliser
from streaming.audio import Samples

__all__ = ["audiobench"]

_RECOGNITION: Final = re.compile(
    r"librispeech|common_voice|peoples_speech|gigaspeech|tedlium|earnings|aishell|_asr_|asr_test|seame|fleurs|idpc|mediacorp|parliament|cna_|ukusnews"
)
_TRANSLATION: Final = re.compile(r"covost2_(\w\w)_(\w\w)")
_RIGHT_OR_WRONG: Final = re.compile(r"_mcq_|emotion|sentiment|accent|gender|_ar_|_gr_|mu_chomusic")
_LANGUAGES: Final = {"en": "English", "zh": "Chinese", "id": "Indonesian", "ta": "Tamil"}
_TOKENIZERS: Final = {"zh": "zh", "ta": "flores101", "id": "13a", "en": "13a"}
_FILLERS: Final = re.compile(r"\b(?:uh|umm|um|er|ah)\b")


def audiobench(folder: Path, subset: str, split: str) -> list[Task]:
    """The sets in `folder`: `subset`, or all that are there, or the folder itself where it is one. Raises EvalError."""
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder")
    names = [subset] if subset else subsets_in(folder)
    if not names:
        return [_task(folder.parent, folder.name, split)]
    return [_task(folder, name, split) for name in names]


def _task(folder: Path, name: str, split: str) -> Task:
    metrics, rubric, default = _measure(name)
    items = partial(_items, folder, name, split, default)
    return Task(f"audiobench {name}", items, metrics, rubric, of_speech=bool(_RECOGNITION.search(name)))


def _measure(name: str) -> tuple[tuple[Metric, ...], Rubric | None, str]:
    """How a set is scored, and what is asked where its rows ask nothing."""
    if _RECOGNITION.search(name):
        return (_recognition_error,), None, "Transcribe the speech into text. Write only the words that were spoken."
    if (pair := _TRANSLATION.search(name)) is not None:
        target = pair.group(2)
        measure = partial(bleu, tokenize=_TOKENIZERS.get(target, "13a"))
        return (measure,), None, f"Translate the speech into {_LANGUAGES.get(target, target)}. Write only the translation."
    if "mmau" in name:
        return (option_words,), None, ""
    if _RIGHT_OR_WRONG.search(name):
        return (), RIGHT, ""
    if re.search(r"audiocaps_test|wavcaps_test", name):
        return (), GRADED, "Write a caption for the sound."
    return (), GRADED, "Follow the instruction that is spoken." if re.search(r"alpaca|openhermes", name) else ""


def _recognition_error(records: Sequence[Record]) -> list[Score]:
    """Word error after Whisper's normaliser, without fillers, as the benchmark's own."""
    normalise = english_normaliser()
    return word_error(records, lambda text: _FILLERS.sub("", normalise(text)))


def _items(folder: Path, name: str, split: str, default: str) -> Iterator[Item]:
    for number, row in enumerate(read_rows(folder, name, split)):
        sound = _sound(row, folder / name)
        instruction = _said(row, "instruction") or default
        choices = field_texts(row, "choices")
        if choices and "mmau" in name:
            instruction = f"Question:\n{instruction}\nChoices:\n{' '.join(choices)}"
        yield Item(str(number), (sound,), instruction, instruction, _said(row, "answer"), {"choices": choices})


def _sound(row: Row, folder: Path) -> Samples:
    context = row.get("context")
    if isinstance(context, Mapping) and "audio" in context:
        return sound_of(context, "audio", folder)
    return sound_of(row, "context", folder)


def _said(row: Row, name: str) -> str:
    """A text, or an object that has one."""
    return field_text(row, name, "text") if isinstance(row.get(name), Mapping) else field_text(row, name)
