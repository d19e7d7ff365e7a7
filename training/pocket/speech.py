"""Synthetic callers: the lines they say, and their sound, kept in the cache folder so that a run that was stopped goes on.

Kokoro speaks with 15 voices; joe, of Piper, has one, and varies in pace and in how much chance is in it.
"""

import hashlib
import os
import random
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.dialogues.sources import list_of
from benchmarks.kokoro import Kokoro
from streaming.audio import Samples
from streaming.bundle import default_places
from streaming.events import SAMPLE_RATE
from streaming.models.piper import WHOLE, Noise
from streaming.tts import PhonemeVoice
from training.pocket.texts import Templates, Vocabulary, allowed

__all__ = ["JOE", "Line", "Voices", "lines"]

JOE: Final = "joe"
_NOISES: Final = (Noise(0.4, 0.6), Noise(0.667, 0.8), Noise(0.85, 1.0))
"""How much chance is in joe's sound and rhythm; the middle one is his own."""


@dataclass(frozen=True, slots=True)
class Line:
    """`voice` says `text` at `speed`; `noise` is which of joe's."""

    text: str
    voice: str
    speed: float
    noise: int = 0


def lines(configuration: Mapping[str, Any], vocabulary: Vocabulary, imagined: Sequence[str], forbidden: Collection[str]) -> list[Line]:
    """All lines of a configuration (`data.toml`); the same for the same. Each voice has its own texts."""
    templates = Templates(vocabulary, random.Random(configuration["seed"]), configuration["texts"]["words"])
    voices = {JOE: [JOE], "kokoro": list_of("tune")["voices"]}
    found = []
    for kind, names in voices.items():
        wanted = configuration[kind]
        said = [templates.words() for _ in range(wanted["words"])] + [templates.sentence() for _ in range(wanted["sentences"])]
        chosen = random.Random(f"{configuration['seed']} {kind}").sample(imagined, min(len(imagined), wanted["imagined"]))
        found += [_line(text, names) for text in allowed([*said, *chosen], forbidden)]
    random.Random(configuration["seed"]).shuffle(found)
    return found


def _line(text: str, names: Sequence[str]) -> Line:
    """How a text is said is drawn by the text, so that other lines beside it change nothing."""
    rng = random.Random(text)
    return Line(text, rng.choice(names), round(rng.uniform(0.85, 1.25), 2), rng.randrange(len(_NOISES)))


class Voices:
    """Says lines, at 16 kHz."""

    def __init__(self, folder: Path | None = None) -> None:
        """Joe's speech is kept in `folder`, Kokoro's where the benchmarks keep it."""
        self._folder = folder or default_places().cache / "training" / "joe"
        self._folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def _kokoro(self) -> Kokoro:
        return Kokoro.load()

    @cached_property
    def _joes(self) -> list[PhonemeVoice]:
        folder = default_places().cache / "parts" / "piper-en-us-joe"
        return [PhonemeVoice.load(folder, noise=noise, stretches=WHOLE) for noise in _NOISES]

    def say(self, line: Line) -> Samples:
        """The sound of a line, float32 (n,)."""
        if line.voice != JOE:
            return self._kokoro.speak(line.text, line.voice, line.speed)
        name = hashlib.sha256(f"{line.text}|{line.speed:.3f}|{line.noise}".encode()).hexdigest()[:24]
        path = self._folder / f"{name}.npy"
        if not path.is_file():
            chunks = [speech.pcm for speech in self._joes[line.noise].speak(line.text, SAMPLE_RATE, line.speed)]
            pcm = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as stream:
                np.save(stream, pcm)
            os.replace(stream.name, path)
        return np.load(path).astype(np.float32) / np.float32(32_768)
