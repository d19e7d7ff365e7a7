"""YAMNet (Plakal and Ellis, TensorFlow Model Garden): which of AudioSet's 521 classes sound in a second of input.

A MobileNet over log-mel patches of 96 frames. The published ONNX export takes and gives 8-bit numbers; its graph is cut behind and before
those, so that the front end's own floats go in and logits come out. Weights lie in a file beside the graph, both in one zip.
"""

import csv
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE
from streaming.models.onnx_graph import Graph
from streaming.sound_events import PATCH

__all__ = ["YamNet"]

_WINDOW: Final = 400
_HOP: Final = 160
_FRAMES: Final = 96
_TRANSFORM: Final = 512
"""A frame: 25 ms every 10 ms, zeros behind it up to the length of its Fourier transform; a patch: 96 of them."""

assert PATCH == (_FRAMES - 1) * _HOP + _WINDOW

_BANDS: Final = 64
_LOWEST, _HIGHEST = 125.0, 7_500.0
_OFFSET: Final = 0.001
"""Added to a band's magnitude before the logarithm."""

_INPUT, _OUTPUT = "audio_updated", "class_scores_updated"
"""Tensors of the export: the patch as floats, (1, 1, 96, 64), and the logits, (1, 521)."""

_GRAPH, _WEIGHTS = "model.onnx", "model.data"


class YamNet:
    """The network on onnxruntime, one thread; some 3 ms a patch. Holds no stream's state."""

    def __init__(self, session: onnxruntime.InferenceSession, classes: tuple[str, ...]) -> None:
        """`session` takes a patch and gives a logit for each of `classes`."""
        self._session = session
        self._classes = classes

    @classmethod
    def load(cls, folder: Path) -> "YamNet":
        """From a folder with the zipped export and the class map (`.csv`). Raises OSError for a missing file and ValueError, naming it, for
        one that is not YAMNet's."""
        archive, names = _only(folder, "*.zip"), _only(folder, "*.csv")
        with names.open(encoding="utf-8", newline="") as file:
            classes = tuple(row.get("display_name") or "" for row in csv.DictReader(file))
        if not all(classes) or not classes:
            raise ValueError(f"{names} is no class map: it has no display_name on every line")
        return cls(_session(archive), classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """See `SoundClassifier`."""
        return self._classes

    def hear(self, patch: Samples) -> npt.NDArray[np.float32]:
        """See `SoundClassifier`."""
        (logits,) = self._session.run(None, {_INPUT: _log_mel(patch)[None, None]})
        return np.asarray(1 / (1 + np.exp(-logits[0].astype(np.float64))), np.float32)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"expected one {pattern} in {folder}, found {len(found)}")
    return found[0]


def _session(archive: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        with zipfile.ZipFile(archive) as file, tempfile.TemporaryDirectory() as folder:
            members = {Path(name).name: name for name in file.namelist()}
            # onnxruntime reads weights beside the graph only from files.
            (Path(folder) / _WEIGHTS).write_bytes(file.read(members[_WEIGHTS]))
            (Path(folder) / _GRAPH).write_bytes(Graph(file.read(members[_GRAPH])).part([_INPUT], [_OUTPUT]))
            return onnxruntime.InferenceSession(str(Path(folder) / _GRAPH), options, providers=["CPUExecutionProvider"])
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{archive} is no YAMNet: {error}") from error


def _log_mel(patch: Samples) -> Samples:
    """The features of a patch, (PATCH,) to (96, 64)."""
    framed = np.lib.stride_tricks.sliding_window_view(patch, _WINDOW)[::_HOP]
    window, filters = _tables()
    magnitude = np.abs(np.fft.rfft(framed * window, _TRANSFORM, axis=1))  # (96, 257)
    return np.log(magnitude @ filters + _OFFSET).astype(np.float32)


@cache
def _tables() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The periodic Hann window, (400,), and triangular filters of peak 1 on the mel scale of HTK, (257, 64)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    frequencies = np.arange(_TRANSFORM // 2 + 1) * (SAMPLE_RATE / _TRANSFORM)
    mels = np.linspace(2_595 * np.log10(1 + _LOWEST / 700), 2_595 * np.log10(1 + _HIGHEST / 700), _BANDS + 2)
    edges = 700 * (10 ** (mels / 2_595) - 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies[:, None] - low) / (centre - low), (high - frequencies[:, None]) / (high - centre)
    return window, np.maximum(0.0, np.minimum(rising, falling))
