"""What is asked, and what was answered: the rows that metrics see. Answers are kept as they come, so that a run that was stopped goes
on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from server.eval.errors import EvalError
from streaming.audio import Samples

__all__ = ["AnswerFile", "Item", "Record"]

_NONE: Final[Mapping[str, object]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One thing to ask: sounds (float32, 16 kHz) and an instruction in text, "" where the sound says all. `prompt` is what the sound asks
    in words, `reference` the right answer, where the set has them; `fields` what the metric needs besides."""

    id: str
    sounds: tuple[Samples, ...]
    instruction: str = ""
    prompt: str = ""
    reference: str = ""
    fields: Mapping[str, object] = field(default_factory=lambda: _NONE)


@dataclass(frozen=True, slots=True)
class Record:
    """An item and its answer, without the sound: a line of JSON. `heard` are the words that were heard, where the server says so; `error`
    is why there is no answer, which counts as an empty one."""

    id: str
    prompt: str
    reference: str
    response: str
    heard: str = ""
    error: str = ""
    fields: Mapping[str, object] = field(default_factory=lambda: _NONE)


class AnswerFile:
    """Answers on disk, a line each. What is there already is not asked again."""

    def __init__(self, path: Path | None) -> None:
        """None keeps nothing. Raises EvalError."""
        self._path = path
        self.known: dict[str, Record] = {}
        if path is None or not path.exists():
            return
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                record = Record(**json.loads(line))
                self.known[record.id] = record
        except (OSError, ValueError, TypeError) as error:
            raise EvalError(f"{path}: not answers of an earlier run ({error}); name another file, or remove it") from error

    def add(self, record: Record) -> None:
        """Keep an answer; one that failed is asked again the next time. Raises EvalError."""
        self.known[record.id] = record
        if self._path is None or record.error:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        except OSError as error:
            raise EvalError(f"{self._path}: can't be written ({error.strerror})") from error
