"""Recordings with their texts, from a folder: a manifest, a table, or a text beside each.

Read are, in this order: `manifest.jsonl` (a line a clip: `path`, and `text`, `text_source`, `part`, `set`, `speaker`, `language`, ... where
they are known), `metadata.jsonl` or `metadata.csv` as Hugging Face's audio folders have them (`file_name`, and `text`, `transcription` or
`transcript`), and else every WAV, FLAC, Ogg or Opus file, with the text in the `.txt` beside it.
"""

import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from server.eval.errors import EvalError
from server.eval.words import plain_words
from streaming.audio import Samples, resample_clause
from streaming.events import SAMPLE_RATE

__all__ = ["Clip", "chosen", "load_clip", "read_clips", "unseen"]

_KINDS: Final = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_TEXTS: Final = ("text", "transcription", "transcript", "sentence")
_SAYS_MUCH: Final = 4
"""Words from which on a text is somebody's and no longer everybody's: a digit may well have been said in training."""
_EMPTY: Final[Mapping[str, object]] = {}


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording. `text` is "" where none is known, `human` whether a person wrote it; `fields` is the manifest's line."""

    name: str
    path: Path
    text: str = ""
    human: bool = True
    fields: Mapping[str, object] = field(default_factory=lambda: _EMPTY)

    def field(self, name: str) -> str:
        """A field of the manifest as text, "" where there is none."""
        value = self.fields.get(name)
        return "" if value is None else str(value)


def read_clips(folder: Path) -> list[Clip]:
    """Every recording of the folder, in its order. Raises EvalError; where a text's recording is missing the message names it."""
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder")
    for name in ("manifest.jsonl", "metadata.jsonl", "metadata.csv"):
        if (folder / name).is_file():
            return [_clip(folder, line, f"{folder / name}:{number}") for number, line in enumerate(_lines(folder / name), 1)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _KINDS)
    if not paths:
        raise EvalError(f"{folder}: holds neither a manifest nor recordings")
    return [Clip(str(path.relative_to(folder)), path, _text_beside(path)) for path in paths]


def load_clip(clip: Clip) -> Samples:
    """Its sound at 16 kHz, float32 (n,); of several channels the first. Raises EvalError."""
    try:
        pcm, rate = soundfile.read(clip.path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise EvalError(f"{clip.path}: not a recording that can be read ({str(error).rstrip('.')})") from error
    if not len(pcm):
        raise EvalError(f"{clip.path}: the recording is empty")
    return resample_clause(np.ascontiguousarray(pcm[:, 0]), int(rate), SAMPLE_RATE)


def chosen(clips: Iterable[Clip], most: int | None, seed: int = 0) -> list[Clip]:
    """At most `most` of them, drawn with a fixed seed, in their order."""
    found = list(clips)
    if most is None or len(found) <= most:
        return found
    kept = sorted(random.Random(seed).sample(range(len(found)), most))
    return [found[index] for index in kept]


def unseen(clips: Iterable[Clip], part: str, trained: str = "train") -> list[Clip]:
    """The clips of `part` whose speaker, and whose words where there are at least four, are not in the part `trained` too. Clips of a
    folder without parts are all kept."""
    every = list(clips)
    seen = [clip for clip in every if clip.field("part") == trained]
    speakers, texts = {clip.field("speaker") for clip in seen} - {""}, {tuple(plain_words(clip.text)) for clip in seen}

    def is_new(clip: Clip) -> bool:
        words = tuple(plain_words(clip.text))
        return clip.field("speaker") not in speakers and (len(words) < _SAYS_MUCH or words not in texts)

    return [clip for clip in every if clip.field("part") in ("", part) and (part == trained or is_new(clip))]


def _lines(path: Path) -> Sequence[Mapping[str, object]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines()))
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise EvalError(f"{path}: can't be read ({error})") from error
    if not all(isinstance(line, dict) for line in lines):
        raise EvalError(f"{path}: every line must be a JSON object")
    return lines


def _clip(folder: Path, line: Mapping[str, object], where: str) -> Clip:
    name = line.get("path") or line.get("file_name")
    if not isinstance(name, str):
        raise EvalError(f"{where}: names no recording ('path' or 'file_name')")
    if not (folder / name).is_file():
        raise EvalError(f"{where}: the recording {name} is missing")
    text = next((str(line[key]) for key in _TEXTS if line.get(key)), "")
    return Clip(name, folder / name, text, str(line.get("text_source") or "human") == "human", line)


def _text_beside(path: Path) -> str:
    beside = path.with_suffix(".txt")
    return beside.read_text(encoding="utf-8").strip() if beside.is_file() else ""
