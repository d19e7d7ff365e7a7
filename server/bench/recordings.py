"""What the benches say, and to whom: recordings, and a server that is running or is started for the run."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from server.caller_audio import Recording, RecordingError, load_recording

__all__ = ["BenchError", "choose_recordings", "server_at", "short_name"]

_KINDS: Final = (".wav", ".flac")


class BenchError(Exception):
    """The bench can't run; the message says what to do."""


def choose_recordings(given: Sequence[Path], most: int) -> list[Recording]:
    """The recordings given: files, folders of them, or lists of them. Raises BenchError."""
    paths = [path for place in given for path in _recordings_at(place)]
    if not paths:
        raise BenchError("no recordings: name spoken questions as WAV or FLAC files, or a folder of them")
    try:
        return [load_recording(path) for path in paths[:most]]
    except RecordingError as error:
        raise BenchError(str(error)) from error


def _recordings_at(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.suffix in _KINDS)
    if place.suffix != ".txt":
        return [place]
    try:
        return [place.parent / line for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BenchError(f"{place}: not a list that can be read ({error})") from error


def short_name(recording: Recording) -> str:
    """The file and the two folders it is in: where the data lies says nothing to others."""
    return "/".join(Path(recording.name).parts[-3:])


@contextlib.asynccontextmanager
async def server_at(url: str | None, arguments: Sequence[str] = ()) -> AsyncIterator[str]:
    """The server's address; one of our own, started with `arguments` and stopped at the end, where none is given."""
    if url is not None:
        yield url
        return
    command = (sys.executable, "-m", "server", "serve", "--port", "0", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        while line := (await process.stdout.readline()).decode():
            if line.startswith("vivavoce ready on http"):
                yield line.split()[-1].replace("http", "ws", 1) + "/v1/realtime"
                return
        raise BenchError("the server did not start: `vivavoce serve` says why")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
