"""End-of-turn model: how likely it is that the caller has finished, from the sound of the turn itself.

Smart Turn v3.2 (pipecat-ai, BSD-2) is a Whisper-tiny encoder with a classifier, quantised to int8. It hears intonation and wording, not
silence; so it is asked in a pause, and who decides is `agent.endpointing`.
"""

from functools import cache
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnxruntime

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE
from streaming.features import HOP, WINDOW, mel_filters

__all__ = ["TURN_SAMPLES", "EndOfTurnModel", "SmartTurn", "whisper_features"]

TURN_SAMPLES: Final = 8 * SAMPLE_RATE
"""What the model hears: the last 8 s; longer turns lose their beginning."""

_FLOOR: Final = np.float32(1e-10)
"""Mel power below which the logarithm is not taken."""

_RANGE: Final = np.float32(8.0)
"""Decades kept below the loudest."""


class EndOfTurnModel(Protocol):
    """Judges a pause."""

    def score(self, pcm: Samples) -> float:
        """Probability, 0.0 to 1.0, that the speech in `pcm` (shape (n,), 16 kHz, up to and including the pause) is a finished turn."""


class SmartTurn:
    """Smart Turn v3.2 on onnxruntime, one thread; about 20 ms a call. Holds no state between calls."""

    def __init__(self, model: Path) -> None:
        """`model` is `smart-turn-v3.2-cpu.onnx`. Raises onnxruntime's own error where it is not a model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def score(self, pcm: Samples) -> float:
        """See `EndOfTurnModel`. The output is called `logits` in the graph but a sigmoid precedes it."""
        (output,) = self._session.run(None, {"input_features": whisper_features(pcm)[None]})
        return float(output[0, 0])


def whisper_features(pcm: Samples) -> Samples:
    """Whisper's log-mel of the last 8 s, shape (n,) to (80, 800), zeros in front where there is less.

    Equals `WhisperFeatureExtractor(chunk_length=8)` with `do_normalize=True` on the padded samples: the 8 s, padding included, are brought
    to zero mean and unit variance before the transform, and the result is clamped to 8 decades below its own maximum.
    """
    padded = np.zeros(TURN_SAMPLES, np.float32)
    recent = pcm[-TURN_SAMPLES:]
    padded[TURN_SAMPLES - len(recent) :] = recent
    # Sums in float64: 128,000 small squares.
    mean, variance = padded.mean(dtype=np.float64), padded.var(dtype=np.float64)
    normal = (padded - np.float32(mean)) / np.float32(np.sqrt(variance + 1e-7))
    framed = np.lib.stride_tricks.sliding_window_view(np.pad(normal, WINDOW // 2, mode="reflect"), WINDOW)[:-1:HOP]  # (800, 400)
    window, filters = _tables()
    spectrum = np.fft.rfft(framed * window)  # (800, 201)
    power = spectrum.real**2 + spectrum.imag**2
    mel = np.log10(np.maximum(power @ filters, _FLOOR))  # (800, 80)
    features: Samples = (np.maximum(mel, mel.max() - _RANGE) + 4) / 4
    return np.ascontiguousarray(features.T, np.float32)


@cache
def _tables() -> tuple[Samples, Samples]:
    """The periodic Hann window, shape (400,), and the mel filters, shape (201, 80), in the precision of the model."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return window.astype(np.float32), mel_filters().astype(np.float32)
