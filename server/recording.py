"""A session's log: one JSON line per `(now, event)` the conversation was told, enough to replay it bit for bit (design.md section 3).

The first line holds the session's id and seed. Texts are in it and secrets are not; PCM never is.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import TypeAdapter

from agent.events import Event

__all__ = ["Recorder", "read_recording"]

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 64 << 20
"""A log longer than this (days of talk) is a fault; the session goes on without it."""
_BUFFER_BYTES: Final = 64 << 10


class Recorder:
    """Writes one session's log to `folder`. A full disk ends the log, never the session."""

    def __init__(self, folder: Path, session_id: str, seed: int) -> None:
        self._path = folder / f"{session_id}.jsonl"
        self._session_id = session_id
        self._written = 0
        # Lines not yet written: a system call per event would be made on the event loop.
        self._buffer = bytearray()
        self._adapters: dict[type, TypeAdapter[Event]] = {}
        self._file: BinaryIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            self._give_up(error)
            return
        self._write({"session_id": session_id, "seed": seed})

    def record(self, now: int, event: Event) -> None:
        """Append one event."""
        kind = type(event)
        adapter = self._adapters.setdefault(kind, TypeAdapter(kind))
        self._write({"now": now, "event": kind.__name__, "fields": adapter.dump_python(event, mode="json")})

    def close(self) -> None:
        """The session has ended: its log is complete."""
        self._flush()
        if self._file is not None:
            self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        if self._file is None:
            return
        self._buffer += json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            return
        self._written += len(self._buffer)
        try:
            if self._written > _MAX_BYTES:
                raise OSError(f"longer than {_MAX_BYTES} bytes")
            self._file.write(self._buffer)
        except OSError as error:
            self._give_up(error)
        self._buffer.clear()

    def _give_up(self, error: OSError) -> None:
        log.warning("session %s is not recorded any further: %s", self._session_id, error)
        if self._file is not None:
            self._file.close()
            self._file = None


def read_recording(path: Path) -> Iterator[tuple[int, Event]]:
    """The `(now, event)` pairs of a log. Raises ValueError for a line that is none."""
    kinds = {kind.__name__: TypeAdapter(kind) for kind in Event.__args__}
    with path.open(encoding="ascii") as lines:
        next(lines)
        for text in lines:
            line = json.loads(text)
            yield line["now"], kinds[line["event"]].validate_python(line["fields"])
