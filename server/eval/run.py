"""A benchmark run: every item asked of the server, every answer kept, every task scored."""

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from server.eval.ask import Answer, Asker, Part, sound_part, text_part
from server.eval.benchmarks.task import Task
from server.eval.errors import EvalError
from server.eval.judge import judged
from server.eval.metrics import Score
from server.eval.records import AnswerFile, Item, Record

__all__ = ["RunOptions", "TaskResult", "report_tasks", "run_tasks", "write_tasks"]

_MOST_FAILURES: Final = 10
"""In a row: then the server is not there any more."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`most` items of each task, drawn with a fixed seed, None all; `at_once` requests at a time; `answers` is a folder to keep them in;
    `heard` scores the words the server has heard, where a task is about them, instead of its answer; `judge` None asks none."""

    most: int | None = None
    at_once: int = 2
    answers: Path | None = None
    heard: bool = False
    judge: Asker | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task's figures; `failed` counts items that got no answer (they count as wrong), `error` is what the last of them was told."""

    task: str
    n: int
    scores: tuple[Score, ...]
    failed: int = 0
    error: str = ""


async def run_tasks(asker: Asker, tasks: Sequence[Task], options: RunOptions) -> list[TaskResult]:
    """The tasks, one after another. Raises EvalError."""
    for task in tasks:
        if task.rubric is not None and not task.metrics and options.judge is None and options.answers is None:
            raise EvalError(
                f"{task.name} is scored by a judge: name one with --judge-url and --judge-model, or keep the answers with --answers FOLDER"
            )
    results = []
    with Progress(console=Console(stderr=True)) as progress:
        for task in tasks:
            answers = AnswerFile(None if options.answers is None else options.answers / f"{task.name.replace(' ', '-')}.jsonl")
            line = progress.add_task(task.name, total=None)
            records = await _ask_all(asker, task, answers, options, partial(progress.advance, line))
            progress.update(line, total=len(records), completed=len(records))
            results.append(await _score(task, records, options, progress))
    return results


async def _ask_all(asker: Asker, task: Task, answers: AnswerFile, options: RunOptions, done: Callable[[], object]) -> list[Record]:
    """Every item, a few at once; the sound of only those is in memory."""
    records: list[Record] = []
    failures = 0
    items = _chosen(task, options.most)
    while batch := [item for _, item in zip(range(options.at_once), items, strict=False)]:
        found = await asyncio.gather(*(_ask(asker, task, item, answers) for item in batch))
        for record in found:
            failures = failures + 1 if record.error else 0
            if failures >= _MOST_FAILURES:
                raise EvalError(f"{task.name}: {failures} items in a row got no answer; the last: {record.error}")
            records.append(record)
            done()
    if not records:
        raise EvalError(f"{task.name}: the set is empty")
    return records


def _chosen(task: Task, most: int | None) -> Iterator[Item]:
    """The items, or a drawn sample of them in their order: the set is counted first, then read again."""
    if most is None:
        return task.items()
    count = sum(1 for _ in task.items())
    wanted = set(random.Random(0).sample(range(count), min(most, count)))
    return (item for number, item in enumerate(task.items()) if number in wanted)


async def _ask(asker: Asker, task: Task, item: Item, answers: AnswerFile) -> Record:
    if item.id in answers.known:
        return answers.known[item.id]
    parts: list[Part] = [*([text_part(item.instruction)] if item.instruction else []), *map(sound_part, item.sounds)]
    answer: Answer = await asker.ask(parts, most_tokens=task.most_tokens)
    record = Record(item.id, item.prompt, item.reference, answer.text, answer.heard, answer.error, dict(item.fields))
    answers.add(record)
    return record


async def _score(task: Task, records: Sequence[Record], options: RunOptions, progress: Progress) -> TaskResult:
    scored: Sequence[Record] = records
    if options.heard and task.of_speech:
        scored = [Record(one.id, one.prompt, one.reference, one.heard, one.heard, one.error, one.fields) for one in records]
    scores = [score for metric in task.metrics for score in metric(scored)]
    if task.rubric is not None and options.judge is not None:
        line = progress.add_task(f"{task.name}, judged", total=len(scored))
        scores += await judged(options.judge, task.rubric, scored, partial(progress.advance, line))
    errors = [record.error for record in records if record.error]
    return TaskResult(task.name, len(records), tuple(scores), len(errors), errors[-1] if errors else "")


def report_tasks(results: Iterable[TaskResult], console: Console) -> None:
    """The table."""
    table = Table()
    for column in ("task", "figure", "value", "95 %", "n", "no answer"):
        table.add_column(column, justify="left" if column in ("task", "figure") else "right")
    for result in results:
        for score in result.scores or (Score("answers kept, not judged", float(result.n), result.n, unit="answers"),):
            interval = "" if score.low is None or score.high is None else f"{score.low:.1f}-{score.high:.1f}"
            table.add_row(result.task, score.name, f"{score.value:.1f} {score.unit}", interval, str(score.n), str(result.failed))
    console.print(table)
    for result in results:
        if result.error:
            console.print(f"{result.task}: no answer: {result.error}", markup=False)


def write_tasks(results: Sequence[TaskResult], path: Path | None) -> None:
    """The figures as JSON. Raises EvalError."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"tasks": [asdict(result) for result in results]}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvalError(f"{path}: can't be written ({error.strerror})") from error
