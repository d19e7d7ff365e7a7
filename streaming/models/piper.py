"""A Piper voice (VITS in ONNX): phoneme symbols in, how long each one lasts and samples, a stretch at a time, out.

The exported graph is two networks in a row. The front makes of symbols their durations (the output of the graph's only `Ceil` node, frames
per input id) and the latent, one vector a frame. The decoder (HiFi-GAN, the nodes under `/dec/`) makes of every frame 256 samples. It takes
two thirds of the time and is convolutional: what it makes of a frame depends on some frames to each side and no others. So the graph is cut
in two where the latent enters the decoder (`streaming.models.onnx_graph`), the front runs once, and the decoder runs over stretches of the
latent, each with as many frames around it as its reach. What comes out is what it makes of the whole, to float rounding (below 1e-5).

Measured on en_US-joe-medium: a reach of 10.1 frames, hence 11 frames of context (128 ms).

Input ids as the voices were trained: begin, blank, then each symbol and a blank, end (https://github.com/rhasspy/piper, TRAINING.md).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from streaming.audio import Samples
from streaming.models.onnx_graph import Graph

__all__ = ["WHOLE", "Halves", "Noise", "PiperModel", "Stretches", "Utterance", "halves"]

_HOP: Final = 256
"""Samples a frame of the decoder, in every Piper voice."""

_BLANK, _BEGIN, _END = "_", "^", "$"

_Latent = npt.NDArray[np.float32]
"""What the decoder speaks from, shape (1, channels, frames)."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How much chance is in the voice: in its sound and in its rhythm. Both zero: the same audio for the same text, a flatter delivery."""

    sound: float
    rhythm: float


@dataclass(frozen=True, slots=True)
class Stretches:
    """How many frames are decoded at once: `first`, then twice as many each time up to `longest`. What is left goes with the last stretch
    where it is at most half as long. Every cut costs twice the decoder's reach in frames decoded again: with these, 20 % of a clause of six
    words."""

    first: int = 22
    longest: int = 128

    def cut(self, frames: int) -> Iterator[tuple[int, int]]:
        """First and end frame of each stretch of `frames` frames."""
        start, size = 0, self.first
        while start < frames:
            end = frames if frames - start <= size * 3 // 2 else start + size
            yield start, end
            start, size = end, min(2 * size, self.longest)


WHOLE: Final = Stretches(1 << 30, 1 << 30)
"""Everything at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """`samples` is how many there will be; `ends[i]` is the sample at which symbol `i` (and its blank) ends, shape (symbols,). `dropped`
    symbols the voice does not know were left out: they end where the one before them does. `stretches`, float32 (n,) each, are decoded as
    they are asked for, once."""

    samples: int
    ends: npt.NDArray[np.int64]
    dropped: int
    stretches: Iterator[Samples]


@dataclass(frozen=True, slots=True)
class Halves:
    """The two networks as serialised models. `front` gives the latent and the durations of the ids it is fed as the whole did; `decoder`
    takes the tensor named `latent` and gives samples."""

    front: bytes
    decoder: bytes
    latent: str


def halves(model: bytes) -> Halves:
    """The serialised voice cut in two. Raises ValueError where it has not one `Ceil` node (the durations), one tensor that enters the
    decoder from elsewhere (the latent) and one output, or the bytes are no ONNX model."""
    graph = Graph(model)
    durations = [output for node in graph.nodes if node.kind == "Ceil" for output in node.outputs]
    decoder = [node for node in graph.nodes if node.name.startswith("/dec/")]
    own = graph.weights.union(*(node.outputs for node in decoder), [""])
    latents = {name for node in decoder for name in node.inputs if name not in own}
    for what, found in (("Ceil node (the durations)", durations), ("latent that enters /dec/", latents), ("output", graph.outputs)):
        if len(found) != 1:
            raise ValueError(f"expected one {what} in a Piper voice, found {len(found)}")
    (latent,) = latents
    return Halves(graph.part((), (latent, durations[0])), graph.part((latent,), graph.outputs), latent)


class PiperModel:
    """One loaded voice. Called by one thread at a time; several utterances may be under way."""

    def __init__(
        self,
        front: onnxruntime.InferenceSession,
        decoder: onnxruntime.InferenceSession,
        latent: str,
        ids: Mapping[str, int],
        sample_rate: int,
        noise: Noise,
    ) -> None:
        self._front = front
        self._decoder = decoder
        self._latent = latent
        self._ids = ids
        self.sample_rate = sample_rate
        self._noise = noise
        # Frames the decoder looks to each side.
        self.reach = self._measure_reach()

    @classmethod
    def load(cls, model: Path, threads: int, noise: Noise | None = None) -> "PiperModel":
        """`model` is the .onnx; its .onnx.json lies beside it. `noise` None takes the voice's own. Raises OSError for a missing file and
        ValueError for one that is no Piper voice of one speaker."""
        config = json.loads(model.with_name(model.name + ".json").read_text("utf-8"))
        try:
            ids = {symbol: int(numbers[0]) for symbol, numbers in config["phoneme_id_map"].items()}
            rate = int(config["audio"]["sample_rate"])
            inference = config["inference"]
            own = Noise(float(inference["noise_scale"]), float(inference["noise_w"]))
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{model.name}.json is not the configuration of a Piper voice: {error!r}") from error
        if config.get("num_speakers", 1) != 1:
            raise ValueError(f"{model.name} has {config['num_speakers']} speakers; only voices of one speaker are supported")
        cut = halves(model.read_bytes())
        return cls(_session(cut.front, threads), _session(cut.decoder, threads), cut.latent, ids, rate, noise or own)

    def stream(self, symbols: Sequence[str], length_scale: float, stretches: Stretches) -> Utterance:
        """Say `symbols` (one code point each). `length_scale` 2.0 is twice as slow. When this returns, the front has run: every duration is
        known, and no sample has been made. Durations and samples agree to the sample."""
        known = [symbol in self._ids and symbol not in (_BLANK, _BEGIN, _END) for symbol in symbols]
        usable = [self._ids[symbol] for symbol, is_known in zip(symbols, known, strict=True) if is_known]
        latent, frames = self._run_front(usable, length_scale)
        ends = np.cumsum(frames) * _HOP
        assert ends[-1] == latent.shape[2] * _HOP, "the durations are not those of the latent"
        # The n-th usable symbol's blank is id 2n + 3; before the first one the opening blank, id 1.
        symbol_ends = ends[1 + 2 * np.cumsum(known, dtype=np.int64)]
        return Utterance(int(ends[-1]), symbol_ends, len(known) - len(usable), self._decode(latent, stretches))

    def _run_front(self, symbol_ids: Sequence[int], length_scale: float) -> tuple[_Latent, npt.NDArray[np.int64]]:
        """The latent, and the frames of each input id, shape (ids,)."""
        blank = self._ids[_BLANK]
        ids = [self._ids[_BEGIN], blank]
        for symbol in symbol_ids:
            ids += (symbol, blank)
        ids.append(self._ids[_END])
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([self._noise.sound, length_scale, self._noise.rhythm], np.float32),
        }
        latent, frames = self._front.run(None, inputs)
        # (1, 1, ids) -> (ids,)
        return latent, frames.reshape(-1).astype(np.int64)

    def _decode(self, latent: _Latent, stretches: Stretches) -> Iterator[Samples]:
        """The samples of each stretch, decoded with the frames it depends on."""
        for start, end in stretches.cut(latent.shape[2]):
            # At the edges of the utterance the decoder's own padding is right: there the whole has nothing either.
            first = max(0, start - self.reach)
            samples = self._run_decoder(latent[:, :, first : end + self.reach])
            yield samples[(start - first) * _HOP : (end - first) * _HOP]

    def _run_decoder(self, latent: _Latent) -> Samples:
        (audio,) = self._decoder.run(None, {self._latent: np.ascontiguousarray(latent)})
        samples: Samples = audio.reshape(-1).astype(np.float32, copy=False)
        return samples

    def _measure_reach(self) -> int:
        """Frames beyond which a change of one frame leaves no trace, to each side. Raises ValueError for a decoder that looks at more than
        is tried, for it may look at everything."""
        spoken, _ = self._run_front((), 1.0)
        frames, middle = 2 * _MOST_REACH + 1, _MOST_REACH
        # Sound, not silence, so that no part of the network is at rest.
        latent = np.resize(spoken[0].T, (frames, spoken.shape[1])).T[None].astype(np.float32)
        changed = latent.copy()
        changed[:, :, middle] += 1.0
        traces = np.flatnonzero(self._run_decoder(latent) != self._run_decoder(changed)) // _HOP
        reach = int(max(middle - traces[0], traces[-1] - middle)) if len(traces) else _MOST_REACH
        if reach >= _MOST_REACH:
            raise ValueError(f"a Piper decoder looks at some frames to each side, this one at {reach} or more")
        return reach


_MOST_REACH: Final = 40
"""Frames: several times what the decoders of the known voices look at."""


def _session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its threads must not burn a core that the language model needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
