"""Speech to learn hearing from, without its words: recordings of the `train` part, one after the other, as a microphone gives them.

Example `n` is a function of the seed and of `n`: a run that goes on hears what it would have heard.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

from streaming.audio import Samples, resample_clause
from streaming.events import SAMPLE_RATE

__all__ = ["HeardSpeech", "may_be_shipped", "train_lines"]

_SHARE_ALIKE: Final = ("-SA", "Sampling")
"""In the names of licences whose recordings nothing that we ship is trained on."""

_SPEEDS: Final = (0.9, 1.0, 1.0, 1.1)
_LEVELS_DB: Final = (-32.0, -14.0)
_NOISE_DB: Final = (5.0, 30.0)
"""How far a noise lies below the speech."""
_HISS_DB: Final = -75.0
_PAUSE: Final = (0.1, 0.9)
"""Seconds between two recordings of an example."""
_QUIET: Final = 1e-4
_TELEPHONE: Final = 8_000


def may_be_shipped(line: Mapping[str, Any]) -> bool:
    """Whether what is trained on this line of the manifest may be shipped under our licence."""
    return not any(word in line["licence"] for word in _SHARE_ALIKE)


def train_lines(data: Path, sets: Sequence[str]) -> list[dict[str, Any]]:
    """The manifest's lines of these sets that may be trained on. Raises FileNotFoundError without the recordings, and ValueError for a set
    that has none."""
    manifest = data / "manifest.jsonl"
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest} is missing: --data names the folder of the recordings")
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    mine = [line for line in lines if line["part"] == "train" and line["set"] in sets]
    allowed = [line for line in mine if may_be_shipped(line)]
    if missing := sorted(set(sets) - {line["set"] for line in allowed}):
        raise ValueError(f"{manifest} has nothing of {missing[0]} that may be trained on")
    return allowed


class HeardSpeech:
    """The examples. Raises FileNotFoundError and ValueError as `train_lines` does."""

    def __init__(self, data: Path, settings: Mapping[str, Any], seed: int) -> None:
        """`settings` are the table `data` of `streaming_encoder.toml`."""
        self._data = data
        self._settings = settings
        self._seed = seed
        self._shares: Mapping[str, float] = settings["shares"]
        lines = train_lines(data, list(self._shares))
        # Paths by set.
        self._speech = {name: [line["path"] for line in lines if line["set"] == name] for name in self._shares}
        self._noises: list[str] = [line["path"] for line in train_lines(data, ["esc10"])]

    def example(self, number: int) -> Samples:
        """Float32 (n,) at 16 kHz. Raises ValueError, naming the file, for one that is not there or can't be read."""
        rng = np.random.default_rng([self._seed, number])
        settings = self._settings
        seconds = rng.uniform(*settings["long_seconds" if rng.random() < settings["long"] else "seconds"])
        count = int(seconds * SAMPLE_RATE)
        level = 10 ** (rng.uniform(*_LEVELS_DB) / 20)
        if rng.random() < settings["noise_only"]:
            return self._hissing(_scaled(self._noise(count, rng), level), rng)
        pcm = _scaled(self._words(count, rng), level)
        if rng.random() < settings["noisy"]:
            pcm = pcm + _scaled(self._noise(len(pcm), rng), level * 10 ** (-rng.uniform(*_NOISE_DB) / 20))
        if rng.random() < settings["telephone"]:
            pcm = resample_clause(resample_clause(pcm, SAMPLE_RATE, _TELEPHONE), _TELEPHONE, SAMPLE_RATE)
        return self._hissing(pcm, rng)

    def _words(self, count: int, rng: np.random.Generator) -> Samples:
        """Recordings with pauses between, `count` samples; most begin where the first one does, and end before the last one's end."""
        names = list(self._shares)
        weights = np.array([self._shares[name] for name in names])
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        parts: list[Samples] = []
        while sum(map(len, parts)) < count:
            paths = self._speech[name]
            parts.append(self._read(paths[rng.integers(len(paths))], rng.choice(_SPEEDS)))
            parts.append(np.zeros(int(rng.uniform(*_PAUSE) * SAMPLE_RATE), np.float32))
        return np.concatenate(parts)[:count]

    def _read(self, path: str, speed: float) -> Samples:
        """A recording, said `speed` times as fast (and as high)."""
        try:
            pcm, rate = soundfile.read(self._data / path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{self._data / path}, which the manifest names, can't be read ({error.error_string})") from error
        return resample_clause(np.ascontiguousarray(pcm[:, 0]), round(rate * speed), SAMPLE_RATE)

    def _noise(self, count: int, rng: np.random.Generator) -> Samples:
        noise = np.resize(self._read(self._noises[rng.integers(len(self._noises))], 1.0), count)
        return np.roll(noise, int(rng.integers(count)))

    def _hissing(self, pcm: Samples, rng: np.random.Generator) -> Samples:
        hiss = rng.standard_normal(len(pcm)) * 10 ** (_HISS_DB / 20)
        return np.clip(pcm + hiss.astype(np.float32), -1.0, 1.0).astype(np.float32)


def _scaled(pcm: Samples, level: float) -> Samples:
    """At a root mean square of `level`; what is nearly silent stays so."""
    loud = float(np.sqrt(np.mean(pcm**2, dtype=np.float64)))
    return pcm * np.float32(level / loud) if loud > _QUIET else pcm
