"""What is heard: recordings of the `train` part with their texts, synthetic callers, and noises with nothing to say.

A recording that is missing, empty, clipped throughout or at no known rate, and a text with no recording, is refused by name.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

from streaming.audio import Samples, resample_clause
from streaming.events import SAMPLE_RATE
from training.heard_speech import may_be_shipped
from training.pocket.speech import Line, Voices
from training.pocket.texts import plain, spelled_out

__all__ = ["Clip", "DataError", "dev_texts", "manifest", "noises", "read", "recorded", "spoken"]

_RATES: Final = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_CLIPPED: Final = 0.05
"""Share of samples at full scale beyond which a recording is spoilt."""

_ASKS: Final = re.compile(
    r"(who|what|where|when|why|how|which|whose|do|does|did|is|are|was|were|can|could|will|would|should|may|have|has)\b"
)


class DataError(ValueError):
    """A recording or a text that can't be learned from; the message names it."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Something heard: `words` gives its sound, float32 (n,) at 16 kHz; `text` is "" where nothing is said."""

    name: str
    source: str
    speaker: str
    text: str
    words: Callable[[], Samples]


def manifest(data: Path) -> list[dict[str, Any]]:
    """The lines of the recordings' manifest. Raises FileNotFoundError where it is not there."""
    path = data / "manifest.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: --data names the folder of the recordings")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def dev_texts(lines: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The words (`plain`) of everything said in the `dev` part: no synthetic caller says one of them."""
    return frozenset(plain(line["text"]) for line in lines if line["part"] == "dev" and line.get("text"))


def recorded(data: Path, lines: Sequence[Mapping[str, Any]], names: Sequence[str], cased: Callable[[str], str]) -> list[Clip]:
    """The recordings of these sets that may be trained on, of nobody who is heard in the `dev` part. `cased` writes a word of a text in
    capitals as a sentence has it. Raises DataError for a set without any, and for a recording without a text."""
    known = {line.get("speaker") for line in lines if line["part"] == "dev"} - {None}
    ours = [line for line in lines if line["part"] == "train" and line["set"] in names and may_be_shipped(line)]
    mine = [line for line in ours if line.get("speaker") not in known]
    if missing := sorted(set(names) - {line["set"] for line in mine}):
        raise DataError(f"{data / 'manifest.jsonl'} has nothing of {missing[0]} that may be trained on")
    found = []
    for line in mine:
        text = spelled_out(_sentence(line.get("text") or "", cased))
        if not text:
            raise DataError(f"{line['path']} has no text")
        speaker = str(line.get("speaker") or line["set"])
        found.append(Clip(line["path"], line["set"], speaker, text, lambda path=line["path"]: read(data / path)))
    return found


def noises(data: Path, lines: Sequence[Mapping[str, Any]]) -> list[Callable[[], Samples]]:
    """What reads each noise of the `train` part that may be trained on."""
    mine = [line for line in lines if line["part"] == "train" and line.get("kind") == "noise" and may_be_shipped(line)]
    return [lambda path=line["path"]: read(data / path) for line in mine]


def spoken(said: Sequence[Line], voices: Voices) -> list[Clip]:
    """Synthetic callers."""
    return [
        Clip(f"{line.voice}: {line.text}", "synthetic", line.voice, spelled_out(line.text), lambda line=line: voices.say(line))
        for line in said
    ]


def read(path: Path) -> Samples:
    """A recording, one channel at 16 kHz. Raises DataError, naming it, for one that can't be learned from."""
    if not path.is_file():
        raise DataError(f"{path} is not there, though the manifest names it")
    try:
        pcm, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} can't be read: {error}") from error
    if rate not in _RATES:
        raise DataError(f"{path} has {rate} samples a second, which no recording has")
    mono = np.ascontiguousarray(pcm.mean(axis=1))
    if not len(mono) or not np.isfinite(mono).all() or not mono.any():
        raise DataError(f"{path} is empty")
    if np.mean(np.abs(mono) > 0.999) > _CLIPPED:
        raise DataError(f"{path} is clipped throughout")
    return resample_clause(mono, rate, SAMPLE_RATE)


def _sentence(text: str, cased: Callable[[str], str]) -> str:
    """A text that is all capitals as a sentence with its stop; any other as it is."""
    if not text.isupper():
        return text
    words = [cased(word) for word in text.lower().split()]
    if not words:
        return ""
    said = " ".join(words)
    return said[0].upper() + said[1:] + ("?" if _ASKS.match(said) else ".")
