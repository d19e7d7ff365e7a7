"""What a benchmark asks of a server, and how the answers are scored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.eval.judge import Rubric
from server.eval.metrics import Metric
from server.eval.records import Item

__all__ = ["Task", "field_text", "field_texts"]


@dataclass(frozen=True, slots=True)
class Task:
    """One data set of a benchmark. `items` reads it from the start each time, one by one, and raises EvalError. `metrics` score answers
    here; with a `rubric` a judge is asked. `of_speech` says that the answer should be the words spoken, so that the words a server has
    heard can stand for it."""

    name: str
    items: Callable[[], Iterator[Item]]
    metrics: tuple[Metric, ...] = ()
    rubric: Rubric | None = None
    most_tokens: int = 256
    of_speech: bool = False
    folder: Path | None = None


def field_text(row: Mapping[str, object], *path: str) -> str:
    """The text at `path` in a row; "" where there is none."""
    value: object = row
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def field_texts(row: Mapping[str, object], key: str) -> list[str]:
    """A list of texts in a row; empty where there is none."""
    value = row.get(key)
    return [str(one) for one in value] if isinstance(value, list) else []
