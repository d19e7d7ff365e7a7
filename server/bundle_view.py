"""Bundles on a terminal: progress while parts are fetched, and a table of what they are."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from streaming.bundle import Places, is_present
from streaming.fetch import Progress, Report, Stage
from streaming.manifest import Manifest, Part

__all__ = ["show_bundles", "show_progress"]

_LANGUAGES_SHOWN: Final = 6


@contextmanager
def show_progress() -> Iterator[Report]:
    """Bars on stderr, one for each part that is not simply there; plain lines where stderr is no terminal. While it lasts, SIGTERM ends the
    program as Ctrl-C does, so that nothing half-fetched stays behind."""
    console = Console(stderr=True, highlight=False)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not console.is_terminal:
            yield _Lines(console).report
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bars(*columns, console=console) as bars:
            yield _LiveBars(bars).report
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Lines:
    """A line for every stage of every part, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, Stage] | None = None

    def report(self, progress: Progress) -> None:
        """Take a step; says something only where the stage is a new one."""
        here = (progress.part, progress.stage)
        if here != self._last and progress.stage is not Stage.READY:
            size = f" {_megabytes(progress.total)}" if progress.total else ""
            note = f" ({progress.note})" if progress.note else ""
            self._console.print(f"{progress.part}: {progress.stage.value}{size}{note}", soft_wrap=True, markup=False)
        self._last = here


class _LiveBars:
    """A bar for each part that takes time, relabelled from stage to stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        # Part to its bar and the stage it shows.
        self._shown: dict[str, tuple[TaskID, Stage]] = {}

    def report(self, progress: Progress) -> None:
        """Take a step."""
        if progress.stage is Stage.READY and progress.part not in self._shown:
            return
        if progress.note:
            self._bars.console.print(f"{progress.part}: {progress.note}", soft_wrap=True, markup=False)
        label = f"{progress.part}: {progress.stage.value}"
        if progress.part not in self._shown:
            self._shown[progress.part] = (self._bars.add_task(label, total=progress.total or None), progress.stage)
        bar, stage = self._shown[progress.part]
        if progress.stage is Stage.READY:
            self._bars.update(bar, description=label)
        elif progress.stage is not stage:
            self._bars.reset(bar, description=label, total=progress.total or None)
        else:
            self._bars.update(bar, completed=progress.done)
        self._shown[progress.part] = (bar, progress.stage)


def show_bundles(manifests: Sequence[Manifest], places: Places) -> None:
    """A table of each bundle's parts on stdout."""
    console = Console(highlight=False)
    for manifest in manifests:
        table = Table(title=f"{manifest.name}: {manifest.description}", title_justify="left", title_style="bold")
        table.add_column("part", no_wrap=True)
        for heading in ("does", "licence", "languages", "here"):
            table.add_column(heading)
        table.add_column("size", justify="right")
        for part in manifest.parts:
            table.add_row(part.name, *_cells(part, places))
        console.print(table)
        console.print(
            f"answers in: {', '.join(manifest.languages)}; the parts lie in {places.cache / 'parts'}\n", soft_wrap=True, style="dim"
        )


def _cells(part: Part, places: Places) -> tuple[str, ...]:
    languages = ", ".join(part.languages[:_LANGUAGES_SHOWN]) or "any"
    if len(part.languages) > _LANGUAGES_SHOWN:
        languages += f" and {len(part.languages) - _LANGUAGES_SHOWN} more"
    size = sum(file.size for file in part.sources[0].files)
    does = ", ".join(role.replace("_", " ") for role in part.roles)
    return does, part.licence, languages, "yes" if is_present(part, places) else "no", _megabytes(size)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
