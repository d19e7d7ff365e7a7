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

from streaming.bundle import Places, free_space, is_present, missing_bytes, needed_space, usable_sources
from streaming.fetch import Progress, Report, Stage
from streaming.manifest import HubSource, Manifest, Part
from streaming.needs import Machine, cpu_memory, gpu_memory, size_text

__all__ = ["show_bundles", "show_needs", "show_overview", "show_progress"]

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
            size = f" {size_text(progress.total)}" if progress.total else ""
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


def show_needs(manifest: Manifest, places: Places, machine: Machine, dtype: str = "auto", *, hub: bool = False) -> None:
    """What a bundle that is to be fetched takes in `dtype`, beside what there is, on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"fetching {size_text(missing_bytes(manifest, places, hub=hub))} for the bundle {manifest.name} into {places.cache}")
    needed, free = size_text(needed_space(manifest, places, hub=hub)), size_text(free_space(places))
    console.print(f"  disk: {needed} while it is fetched; {free} are free")
    needs = manifest.needs
    if needs.memory:
        console.print(f"  memory: about {size_text(cpu_memory(needs, machine, dtype))} on the CPU; here are {size_text(machine.memory)}")
    if needs.gpu_memory:
        found = f"the largest here has {size_text(machine.gpu_memory)}" if machine.gpu_memory else "here is none"
        console.print(f"  GPU: about {size_text(gpu_memory(needs, dtype))}; {found}. Without one it answers far too slowly for a dialogue")
    for part in manifest.parts:
        source = usable_sources(part, hub=hub)[0]
        if isinstance(source, HubSource) and not is_present(part, places):
            unhashed = "" if all(file.sha256 for file in source.files) else ", as it is there: this manifest has no hashes for it"
            gated = "; its licence has to be accepted there first, and HF_TOKEN set" if source.gated else ""
            console.print(f"  {part.name} comes from the hub's {source.repository}{unhashed}{gated}")


def show_overview(manifests: Sequence[Manifest], places: Places) -> None:
    """What each bundle is and takes, one line a bundle, on stdout."""
    console = Console(highlight=False)
    table = Table("bundle", "what it is", "memory", "GPU", "to fetch")
    for manifest in manifests:
        needs, missing = manifest.needs, missing_bytes(manifest, places)
        sizes = [size_text(size) if size else "" for size in (needs.memory, needs.gpu_memory)]
        table.add_row(manifest.name, manifest.description, *sizes, size_text(missing) if missing else "here")
    console.print(table)
    console.print("memory on a CPU, or a GPU's, about; `vivavoce bundles NAME` shows the parts", style="dim")


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
        notes = [f"answers in: {', '.join(manifest.languages)}", *_needs(manifest), f"the parts lie in {places.cache / 'parts'}"]
        console.print(f"{'; '.join(notes)}\n", soft_wrap=True, style="dim")


def _needs(manifest: Manifest) -> list[str]:
    """What it takes while it serves, and what answers where that is no part."""
    needs, chat = manifest.needs, manifest.chat
    memory = [f"memory: about {size_text(needs.memory)}"] if needs.memory else []
    gpu = [f"or a GPU with {size_text(needs.gpu_memory)}"] if needs.gpu_memory else []
    return [*memory, *gpu, *([f"answered by {chat.model} at {chat.url}"] if chat else [])]


def _cells(part: Part, places: Places) -> tuple[str, ...]:
    languages = ", ".join(part.languages[:_LANGUAGES_SHOWN]) or "any"
    if len(part.languages) > _LANGUAGES_SHOWN:
        languages += f" and {len(part.languages) - _LANGUAGES_SHOWN} more"
    size = sum(file.size for file in part.sources[0].files)
    does = ", ".join(role.replace("_", " ") for role in part.roles)
    return does, part.licence, languages, "yes" if is_present(part, places) else "no", size_text(size)
