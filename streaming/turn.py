"""End-of-turn model: how likely it is that the caller has finished, from the sound of the turn itself.

Smart Turn v3.2 (pipecat-ai, BSD-2) is a Whisper-tiny encoder with a classifier, quantised to int8. We keep the encoder and judge its states
by a classifier of our own, which was trained on pauses (`training/end_of_turn.py`): Smart Turn's own says "finished" after most sentences
that go on. It hears intonation and wording, not silence; so it is asked in a pause, and who decides is `agent.endpointing`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnxruntime
from safetensors import SafetensorError
from safetensors.numpy import load_file

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE
from streaming.features import HOP, WINDOW, mel_filters
from streaming.models.onnx_graph import Graph

__all__ = ["CLASSIFIER", "FEATURES", "TURN_SAMPLES", "Classifier", "EndOfTurnModel", "SmartTurn", "TurnEncoder", "whisper_features"]

CLASSIFIER: Final = Path(__file__).parent / "models" / "end_of_turn.safetensors"
"""The classifier that comes with vivavoce."""

_POOLED: Final = "sum_1"
_STATES: Final = "layer_norm_8"
_OWN: Final = "logits"
"""Tensors of Smart Turn v3.2's graph: the states pooled by its attention (1, 384), the states (1, 400, 384), one for 20 ms, and its own
probability (1, 1), which is called logits though a sigmoid precedes it."""
_LAST: Final = (25, 60, 150)
"""States before the pause that are averaged: half a second, 1.2 s and 3 s, the pause itself included."""
FEATURES: Final = 384 * (1 + len(_LAST)) + 1
"""What a pause is judged by: the pooled states, those averages, and the log-odds of Smart Turn's own probability."""
_SURE: Final = 1e-3

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


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """One hidden layer of rectified linear units over the features: `hidden` (units, FEATURES), `hidden_bias` (units,), `out` (units,) and
    `out_bias` (1,), all float32 (the file has `hidden` in float16)."""

    hidden: Samples
    hidden_bias: Samples
    out: Samples
    out_bias: Samples

    @classmethod
    def load(cls, file: Path = CLASSIFIER) -> "Classifier":
        """From a safetensors file with these tensors. Raises OSError, or ValueError for what is no such file."""
        try:
            tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(file).items()}
            made = cls(**tensors)
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{file} is no end-of-turn classifier ({error})") from error
        units = len(made.out)
        if made.hidden.shape != (units, FEATURES) or made.hidden_bias.shape != (units,) or made.out_bias.shape != (1,):
            raise ValueError(f"{file} is a classifier of other features: its hidden layer is {made.hidden.shape}, not (units, {FEATURES})")
        return made

    def probability(self, features: Samples) -> float:
        """That the turn is finished, 0.0 to 1.0, from its features (FEATURES,)."""
        units = np.maximum(self.hidden @ features + self.hidden_bias, 0)
        odds = float(self.out @ units) + float(self.out_bias[0])
        return float(1 / (1 + np.exp(-odds)))


class TurnEncoder:
    """Smart Turn v3.2's encoder on onnxruntime, one thread; about 20 ms a call. Holds no state between calls."""

    def __init__(self, model: Path) -> None:
        """`model` is `smart-turn-v3.2-cpu.onnx`. Raises ValueError, naming it, where it is not, and OSError."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            graph = Graph(model.read_bytes()).part([], [_POOLED, _STATES, _OWN])
        except ValueError as error:
            raise ValueError(f"{model} is not Smart Turn v3.2: {error}") from error
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def features(self, pcm: Samples) -> Samples:
        """What the classifier judges `pcm` (n,) by, shape (FEATURES,)."""
        pooled, states, own = self._session.run(None, {"input_features": whisper_features(pcm)[None]})
        probability = min(max(float(own[0, 0]), _SURE), 1 - _SURE)
        averages = [states[0, -count:].mean(axis=0) for count in _LAST]
        odds = np.log(probability / (1 - probability))
        return np.concatenate((pooled.reshape(-1), *averages, [odds]), dtype=np.float32)


class SmartTurn:
    """Smart Turn's encoder and our classifier."""

    def __init__(self, model: Path) -> None:
        """As `TurnEncoder`."""
        self._encoder = TurnEncoder(model)
        self._classifier = Classifier.load()

    def score(self, pcm: Samples) -> float:
        """See `EndOfTurnModel`."""
        return self._classifier.probability(self._encoder.features(pcm))


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
