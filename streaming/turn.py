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

__all__ = ["TURN_SAMPLES", "EndOfTurnModel", "SmartTurn", "whisper_features"]

TURN_SAMPLES: Final = 8 * SAMPLE_RATE
"""What the model hears: the last 8 s; longer turns lose their beginning."""

# Whisper's front end (Radford et al. 2022, section 2.2; openai/whisper `audio.py`): 25 ms windows, 10 ms apart, 80 mel bands.
_WINDOW: Final = 400
_HOP: Final = 160
_MELS: Final = 80
_FLOOR: Final = 1e-10
_DYNAMIC_RANGE: Final = 8.0


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
    framed = np.lib.stride_tricks.sliding_window_view(np.pad(normal, _WINDOW // 2, mode="reflect"), _WINDOW)[:-1:_HOP]  # (800, 400)
    spectrum = np.fft.rfft(framed * _hann())  # (800, 201)
    power = spectrum.real**2 + spectrum.imag**2
    mel = np.log10(np.maximum(power @ _mel_filters(), np.float32(_FLOOR)))  # (800, 80)
    features: Samples = (np.maximum(mel, mel.max() - np.float32(_DYNAMIC_RANGE)) + 4) / 4
    return np.ascontiguousarray(features.T, np.float32)


@cache
def _hann() -> Samples:
    """Periodic Hann window, shape (400,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)


@cache
def _mel_filters() -> Samples:
    """Triangles on Slaney's mel scale, each of unit area, shape (201, 80), 0 Hz to Nyquist (Slaney 1998, Auditory Toolbox)."""
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), _MELS + 2))
    bins = np.arange(_WINDOW // 2 + 1)[:, None] * (SAMPLE_RATE / _WINDOW)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return (np.maximum(0.0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)


# Linear up to 1 kHz (15 mel), logarithmic above: 27 mel for a factor of 6.4.
_LINEAR_HERTZ: Final = 200 / 3
_BREAK_MEL: Final = 15.0
_BREAK_HERTZ: Final = 1000.0
_LOG_STEP: Final = 27 / np.log(6.4)


def _hertz_to_mel(hertz: float) -> float:
    return hertz / _LINEAR_HERTZ if hertz < _BREAK_HERTZ else _BREAK_MEL + float(np.log(hertz / _BREAK_HERTZ)) * _LOG_STEP


def _mel_to_hertz(mel: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HERTZ, _BREAK_HERTZ * np.exp((mel - _BREAK_MEL) / _LOG_STEP))
