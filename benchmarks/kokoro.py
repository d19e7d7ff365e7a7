"""Kokoro-82M, for synthetic callers: the 28 English voices of the bundle `pocket-kokoro`.

What has been spoken is kept in the cache folder, so a second run costs nothing.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from streaming.audio import Samples, resample_clause
from streaming.bundle import default_places, ensure_bundle, is_present
from streaming.events import SAMPLE_RATE
from streaming.manifest import load_manifest
from streaming.models.kokoro import KokoroModel
from streaming.normalise import normalise
from streaming.phonemes import EnglishPhonemes

__all__ = ["VOICES", "Kokoro"]

VOICES: Final = tuple(
    f"{kind}_{name}"
    for kind, names in (
        ("af", "alloy aoede bella heart jessica kore nicole nova river sarah sky"),
        ("am", "adam echo eric fenrir liam michael onyx puck santa"),
        ("bf", "alice emma isabella lily"),
        ("bm", "daniel fable george lewis"),
    )
    for name in names.split()
)
"""The English voices: American and British, women (f) and men (m)."""

_HUMS: Final = {"Uh-huh.": "ʌhˈʌ."}
"""Sounds that no dictionary has, in Kokoro's symbols. "Mm-hmm" it can't hum: the recogniser hears "I'm home"."""


class Kokoro:
    """All voices. Rendering is deterministic; it takes about half of real time."""

    def __init__(self, folder: Path, spoken: Path) -> None:
        """`folder` has the model and its voices; what has been spoken is kept in `spoken`."""
        self._model = KokoroModel.load(folder, 1)
        self._phonemes = EnglishPhonemes.load()
        self._spoken = spoken
        self._spoken.mkdir(parents=True, exist_ok=True)

    @classmethod
    def load(cls, say: Callable[[str], None] = print) -> "Kokoro":
        """From the cache, or fetched into it (93 MB). Raises BundleError where the registries can't be reached."""
        manifest, places = load_manifest("pocket-kokoro"), default_places()
        if not is_present(manifest.part_for("voice"), places):
            say("fetching Kokoro-82M and its voices, 93 MB")
        return cls(ensure_bundle(manifest).part("voice"), places.cache / "benchmarks" / "kokoro-82m-int8" / "spoken")

    def speak(self, text: str, voice: str, speed: float = 1.0) -> Samples:
        """`text` at 16 kHz, shape (n,), from its first audible sample to its last and 50 ms around. Raises KeyError for no such voice."""
        if voice not in VOICES:
            raise KeyError(voice)
        name = hashlib.sha256(f"{text}|{voice}|{speed:.3f}".encode()).hexdigest()[:24]
        path = self._spoken / f"{name}.npy"
        if not path.is_file():
            pcm = _trimmed(self._render(text, voice, speed))
            half = np.rint(np.clip(pcm, -1, 1) * 32_767).astype(np.int16)
            with path.with_suffix(".part").open("wb") as stream:
                np.save(stream, half)
            path.with_suffix(".part").rename(path)
        return np.load(path).astype(np.float32) / np.float32(32_767)

    def _render(self, text: str, voice: str, speed: float) -> Samples:
        utterance = self._model.stream(self._symbols(text), 1 / speed, None, voice)
        return resample_clause(np.concatenate([*utterance.stretches]), self._model.sample_rate, SAMPLE_RATE)

    def _symbols(self, text: str) -> str:
        if text in _HUMS:
            return _HUMS[text]
        tokens = normalise(text)
        sounds = iter(self._phonemes.pronounce([word for token in tokens for word in token.words]))
        spelled = ""
        for token in tokens:
            spelled += "".join(f" {next(sounds)}" for _ in token.words) + token.stop
        spelled = spelled.strip()
        if text.rstrip().endswith(("...", "…")):
            # Normalised to a full stop, whose melody falls.
            spelled = spelled.rstrip(".…") + "…"
        return spelled


def _trimmed(pcm: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(pcm) > 0.01)
    margin = SAMPLE_RATE // 20
    return pcm[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else pcm
