"""A session's log: what its conversation was told, what it ordered, and where each turn's time went; enough to replay it bit for bit.

A file of JSON lines (design.md section 3). The first says who recorded it; then there is a line per event, with the commands it led to,
and one per turn that was answered, replaced by a later one of the same response; the last counts them, so that a log that breaks off is
known for one. Texts are in it; secrets are not, and PCM never is. Nothing in it decides anything: `server.replay` reads it back.
"""

import hashlib
import json
import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast, get_args

from pydantic import TypeAdapter, ValidationError

import agent
import streaming.events
from agent.commands import Command
from agent.events import Event
from server.ledger import STAGES, TurnLedger
from streaming.events import ContextMessage, SetHistory

__all__ = ["LogEnd", "LogError", "LogHeader", "LogLine", "Recorder", "Told", "UnknownCommand", "core_fingerprint", "read_log"]

log = logging.getLogger(__name__)

_Kind = TypeVar("_Kind")

_FORMAT: Final = 2
"""1 was a log without commands: nothing in it to compare with."""
_MAX_BYTES: Final = 64 << 20
"""A log longer than this (days of talk) is a fault; the session goes on without it."""
_BUFFER_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class LogHeader:
    """Who recorded it: the `version` of vivavoce and its `core` (`core_fingerprint`), when (ISO 8601, UTC), and what keys the ids."""

    version: str
    core: str
    began: str
    session_id: str
    seed: int


@dataclass(frozen=True, slots=True)
class UnknownCommand:
    """A command of the log that this version does not have, or not with these fields."""

    name: str
    fields: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the conversation was told at `now` (1/16000 s) and what it ordered then. `failed` is the exception, where it raised one."""

    now: int
    event: Event
    ordered: tuple[Command | UnknownCommand, ...] = ()
    failed: str = ""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The session came to its end, after so many events and commands."""

    events: int
    commands: int


LogLine = LogHeader | Told | TurnLedger | LogEnd


class LogError(Exception):
    """The log can't be read (on); the message says where and why."""


@cache
def core_fingerprint() -> str:
    """12 hexadecimal digits that stand for the source of what decides: `agent` and its seam. Equal ones must replay every log exactly."""
    digest = hashlib.sha256()
    for path in (*sorted(Path(agent.__file__).parent.glob("*.py")), Path(streaming.events.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Recorder:
    """Writes one session's log to `folder`. Whatever goes wrong (a full disk, no permission) ends the log, never the session."""

    def __init__(self, folder: Path, session_id: str, seed: int) -> None:
        self._path = folder / f"{session_id}.jsonl"
        self._session_id = session_id
        self._written = 0
        # Lines not yet written: a system call per event would be made on the event loop.
        self._buffer = bytearray()
        self._events = 0
        self._commands = 0
        # The history as it was last ordered. Of the next only what is new is written, or a long log would hold each word a thousand times.
        self._history: tuple[ContextMessage, ...] = ()
        self._file: BinaryIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            self._give_up(error)
            return
        began = datetime.now(UTC).isoformat(timespec="seconds")
        header = LogHeader(version("vivavoce"), core_fingerprint(), began, session_id, seed)
        self._write({"vivavoce_log": _FORMAT, **_plain(header)})

    def record(self, now: int, event: Event, commands: Sequence[Command], failed: str = "") -> None:
        """Append an event and what was ordered; `failed` is the exception the conversation raised instead."""
        line: dict[str, object] = {"now": now, "event": type(event).__name__, "fields": _plain(event)}
        if commands:
            line["ordered"] = [self._order(command) for command in commands]
        if failed:
            line["failed"] = failed
        self._events += 1
        self._commands += len(commands)
        self._write(line)

    def turn(self, turn: TurnLedger) -> None:
        """Append where a turn's time went; again when more is known of it."""
        self._write({"turn": _plain(turn) | {"stages": dict(zip(STAGES, turn.stages, strict=True))}})

    def close(self) -> None:
        """The session has ended: its log is complete."""
        self._write(_plain(LogEnd(self._events, self._commands)))
        self._flush()
        if self._file is not None:
            self._file.close()

    def _order(self, command: Command) -> tuple[str, dict[str, object]]:
        if not isinstance(command, SetHistory):
            return type(command).__name__, _plain(command)
        kept = _common(self._history, command.messages)
        self._history = command.messages
        return "SetHistory", {"kept": kept, "messages": command.messages[kept:]}

    def _write(self, line: dict[str, object]) -> None:
        if self._file is None:
            return
        try:
            self._buffer += json.dumps(line, separators=(",", ":"), default=_plain_value).encode("ascii") + b"\n"
        except (TypeError, ValueError) as error:
            self._flush()
            self._give_up(error)
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

    def _give_up(self, error: Exception) -> None:
        log.warning("session %s is not recorded any further: %s", self._session_id, error)
        self._buffer.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _plain(value: object) -> dict[str, object]:
    """The fields of a dataclass. Those of its own fields' dataclasses follow when JSON asks for them."""
    return {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]


def _plain_value(value: object) -> object:
    return value.value if isinstance(value, Enum) else _plain(value)


def _common(before: Sequence[ContextMessage], after: Sequence[ContextMessage]) -> int:
    """How many messages at the beginning are the same."""
    return next((count for count, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), min(len(before), len(after)))


# ------------------------------------------------------------------------------------------------------------ reading


def read_log(path: Path) -> Iterator[LogLine]:
    """The lines of a log, the `LogHeader` first and, in a whole log, the `LogEnd` last. Raises LogError at the first line that can't be
    read, and at the end of a log that breaks off; what came before it is good."""
    reader = _Reader()
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith("\n"):
                    raise LogError(f"{path} breaks off in line {number}: the server was killed or its disk was full")
                yield _read_line(reader, text, f"{path}: line {number}", first=number == 1)
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}") from error
    if not reader.ended:
        raise LogError(f"{path} has no end: the session is still going on, or the server was killed")


def _read_line(reader: "_Reader", text: str, place: str, *, first: bool) -> LogLine:
    try:
        line = json.loads(text)
        return reader.read_header(line) if first else reader.read(line)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LogError(f"{place} is damaged: {_reason(error)}") from error
    except LogError as error:
        raise LogError(f"{place} {error}") from error


class _Reader:
    """Turns the JSON of one log's lines into values."""

    def __init__(self) -> None:
        self.ended = False
        # The history as it was last ordered, of which the next one says only what is new.
        self._history: tuple[ContextMessage, ...] = ()
        self._count = LogEnd(0, 0)

    def read_header(self, line: dict[str, Any]) -> LogHeader:
        if not isinstance(line, dict) or "session_id" not in line:
            raise LogError("should say who recorded it: this is no log of vivavoce")
        if (found := line.pop("vivavoce_log", 1)) != _FORMAT:
            why = "it does not say what was ordered, so nothing can be compared" if found == 1 else "take the version that recorded it"
            raise LogError(f"says that the log's format is {found}, and this version reads {_FORMAT}: {why}")
        return _parse(LogHeader, line)

    def read(self, line: dict[str, Any]) -> LogLine:
        if self.ended:
            raise LogError("comes after the log's end")
        match line:
            case {"now": int(now), "event": str(name), "fields": fields}:
                return self._told(now, name, fields, line)
            case {"turn": {"stages": stages, **turn}}:
                # By name, for another version may have had others.
                return _parse(TurnLedger, turn | {"stages": tuple(stages.get(name, 0) for name in STAGES)})
            case {"events": int(events), "commands": int(commands)}:
                self.ended = True
                if self._count != LogEnd(events, commands):
                    held = f"{self._count.events} and {self._count.commands}"
                    raise LogError(f"counts {events} events and {commands} commands, but the log has {held}: lines are missing")
                return self._count
        raise LogError("is none of a log")

    def _told(self, now: int, name: str, fields: object, line: dict[str, Any]) -> Told:
        event: Event | None = self._find(name, fields, get_args(Event))
        if event is None:
            raise LogError(f"has an event, {name}, that this version does not have: replay it with the version that recorded it")
        ordered = tuple(self._command(*one) for one in line.get("ordered", ()))
        self._count = LogEnd(self._count.events + 1, self._count.commands + len(ordered))
        return Told(now, event, ordered, str(line.get("failed", "")))

    def _command(self, name: str, fields: dict[str, Any]) -> Command | UnknownCommand:
        if name == "SetHistory":
            messages = _parse(SetHistory, {"messages": fields["messages"]}).messages
            self._history = (*self._history[: fields["kept"]], *messages)
            return SetHistory(self._history)
        command: Command | None = self._find(name, fields, get_args(Command))
        return UnknownCommand(name, json.dumps(fields)) if command is None else command

    def _find(self, name: str, fields: object, kinds: tuple[type[_Kind], ...]) -> _Kind | None:
        """None where this version has none of that name with these fields. Fields it does not know are left out."""
        kind = next((kind for kind in kinds if kind.__name__ == name), None)
        try:
            return None if kind is None else _parse(kind, fields)
        except ValidationError:
            return None


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("type", kind))


def _parse(kind: type[_Kind], given: object) -> _Kind:
    """Raises ValidationError, which is a ValueError."""
    parsed: _Kind = _adapter(cast("Hashable", kind)).validate_python(given)
    return parsed


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in column {error.colno}"
    return f"{type(error).__name__} {error}".splitlines()[0]
