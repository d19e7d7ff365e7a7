"""A Piper voice (VITS in ONNX): phoneme symbols in, how long each one lasts and samples, a stretch at a time, out.

The exported graph is three networks in a row. The front makes of symbols their durations (the output of the graph's only `Ceil` node,
frames per input id) and a vector for every frame, the prior; all chance is in here. The flow makes of the prior the latent, frame by frame,
and the decoder (HiFi-GAN) of every frame of the latent 256 samples. These two take six sevenths of the time, and both are convolutional:
what they make of a frame depends on some frames to each side and no others (`streaming.models.frames`). So the graph is cut where the prior
enters the flow and where the latent enters the decoder (`streaming.models.onnx_graph`), the front runs once, and the others run over
stretches, each with as many frames around it as their reach. What comes out is what they make of the whole, to float rounding (below 1e-5).

Input ids as the voices were trained: begin, blank, then each symbol and a blank, end (https://github.com/rhasspy/piper, TRAINING.md).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from streaming.audio import Samples
from streaming.models.frames import FrameNetwork, Frames
from streaming.models.onnx_graph import Graph
from streaming.models.onnx_session import session_of

__all__ = ["WHOLE", "Networks", "Noise", "PiperModel", "Stretches", "Utterance", "split"]

_HOP: Final = 256
"""Samples a frame of the decoder, in every Piper voice."""

_FLOW_FRAMES: Final = 256
"""How many frames the flow is run over at once, at least, after the first stretch: 3 s of sound, some 20 ms of work."""

_BLANK, _BEGIN, _END = "_", "^", "$"


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
class Networks:
    """The three networks as serialised models. `front` gives the prior and the durations of the ids it is fed as the whole did; `flow`
    takes the tensors `prior` and `mask` (1 for every frame) and gives the latent; `decoder` takes the tensor `latent` and gives samples."""

    front: bytes
    flow: bytes
    decoder: bytes
    prior: str
    mask: str
    latent: str


def split(model: bytes) -> Networks:
    """The serialised voice cut in three. Raises ValueError where it has not one `Ceil` node (the durations), one output, one tensor that
    enters the decoder (the latent), one that masks it and one other that enters the flow (the prior), or the bytes are no ONNX model."""
    graph = Graph(model)
    durations = [output for node in graph.nodes if node.kind == "Ceil" for output in node.outputs]
    latent = _only("latent that enters /dec/", _entering(graph, "/dec/"))
    into_flow = _entering(graph, "/flow/")
    masked = next((node.inputs for node in graph.nodes if latent in node.outputs), ())
    mask = _only("mask of the latent and the flow", into_flow.intersection(masked))
    prior = _only("prior that enters /flow/", into_flow - {mask})
    output = _only("output", graph.outputs)
    return Networks(
        graph.part((), (prior, _only("Ceil node (the durations)", durations))),
        graph.part((prior, mask), (latent,)),
        graph.part((latent,), (output,)),
        prior,
        mask,
        latent,
    )


def _flow_and_decoder(networks: Networks, threads: int, gpu: int | None) -> tuple[Callable[[Frames], Frames], Callable[[Frames], Frames]]:
    """The flow and the decoder, to be called, on the CPU or a GPU."""
    flow, decoder = session_of(networks.flow, threads, gpu), session_of(networks.decoder, threads, gpu)
    # Names only: what these functions mention lives as long as they do, and the serialised networks need not.
    prior_name, mask_name, latent_name = networks.prior, networks.mask, networks.latent

    def run_flow(prior: Frames) -> Frames:
        (latent,) = flow.run(None, {prior_name: prior, mask_name: np.ones((1, 1, prior.shape[2]), np.float32)})
        return np.asarray(latent, np.float32)

    def run_decoder(latent: Frames) -> Frames:
        (audio,) = decoder.run(None, {latent_name: latent})
        return np.asarray(audio, np.float32).reshape(1, 1, -1)

    return run_flow, run_decoder


def _entering(graph: Graph, module: str) -> set[str]:
    """The tensors that nodes of `module` take and that do not depend on any of them. Nodes are in the order they are computed in."""
    taken: set[str] = set()
    dependent: set[str] = set()
    for node in graph.nodes:
        if node.name.startswith(module):
            taken.update(name for name in node.inputs if name not in graph.weights and name)
            dependent.update(node.outputs)
        elif not dependent.isdisjoint(node.inputs):
            dependent.update(node.outputs)
    return taken - dependent


def _only(what: str, found: Collection[str]) -> str:
    if len(found) != 1:
        raise ValueError(f"expected one {what} in a Piper voice, found {len(found)}")
    return next(iter(found))


class PiperModel:
    """One loaded voice. Called by one thread at a time; several utterances may be under way."""

    whole: Final = False

    def __init__(
        self,
        front: onnxruntime.InferenceSession,
        flow: Callable[[Frames], Frames],
        decoder: Callable[[Frames], Frames],
        ids: Mapping[str, int],
        sample_rate: int,
        noise: Noise,
    ) -> None:
        """`flow` makes the latent of the prior, `decoder` samples of the latent. Raises ValueError where they depend on too much."""
        self._front = front
        self._ids = ids
        self.sample_rate = sample_rate
        self._noise = noise
        # Sound, not silence, so that no part of the networks is at rest while they are measured.
        prior, _ = self._run_front([ids[symbol] for symbol in "ab" if symbol in ids], 1.0)
        self.flow = FrameNetwork(flow, 1, prior)
        self.decoder = FrameNetwork(decoder, _HOP, flow(prior))

    @classmethod
    def load(cls, model: Path, threads: int, noise: Noise | None = None, gpu: int | None = None) -> "PiperModel":
        """`model` is the .onnx; its .onnx.json lies beside it. `noise` None takes the voice's own. On the GPU of that number, where one is
        given, run the flow and the decoder: the front is small steps whose sizes depend on numbers, and stays. Raises OSError for a missing
        file, or where that GPU can't be used, and ValueError for a file that is no Piper voice of one speaker."""
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
        networks = split(model.read_bytes())
        made = cls(session_of(networks.front, threads), *_flow_and_decoder(networks, threads, None), ids, rate, noise or own)
        if gpu is not None:
            # How far they reach was measured on the CPU: a GPU's sums may differ in their last bits where nothing has changed.
            flow, decoder = _flow_and_decoder(networks, threads, gpu)
            made.flow, made.decoder = made.flow.computed_by(flow), made.decoder.computed_by(decoder)
        return made

    def stream(self, symbols: Sequence[str], length_scale: float, stretches: Stretches, _: str = "") -> Utterance:
        """Say `symbols` (one code point each). `length_scale` 2.0 is twice as slow. When this returns, the front has run: every duration is
        known, and no sample has been made. Durations and samples agree to the sample."""
        known = [symbol in self._ids and symbol not in (_BLANK, _BEGIN, _END) for symbol in symbols]
        usable = [self._ids[symbol] for symbol, is_known in zip(symbols, known, strict=True) if is_known]
        prior, frames = self._run_front(usable, length_scale)
        ends = np.cumsum(frames) * _HOP
        assert ends[-1] == prior.shape[2] * _HOP, "the durations are not those of the prior"
        # The n-th usable symbol's blank is id 2n + 3; before the first one the opening blank, id 1.
        symbol_ends = ends[1 + 2 * np.cumsum(known, dtype=np.int64)]
        return Utterance(int(ends[-1]), symbol_ends, len(known) - len(usable), self._decode(prior, stretches))

    def _run_front(self, symbol_ids: Sequence[int], length_scale: float) -> tuple[Frames, npt.NDArray[np.int64]]:
        """The prior, and the frames of each input id, shape (ids,)."""
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
        prior, frames = self._front.run(None, inputs)
        # (1, 1, ids) -> (ids,)
        return prior, frames.reshape(-1).astype(np.int64)

    def _decode(self, prior: Frames, stretches: Stretches) -> Iterator[Samples]:
        """The samples of each stretch, decoded with the frames it depends on."""
        frames = prior.shape[2]
        latent: Frames = np.empty((1, 0, 0), np.float32)
        for start, end in stretches.cut(frames):
            # What this stretch needs of the latent; after the first one more, for the flow reaches far, and all of it where the rest would
            # be read in any case.
            done, needed = latent.shape[2], min(frames, end + self.decoder.reach)
            if done < needed:
                until = max(needed, min(frames, done + _FLOW_FRAMES)) if done else needed
                until = until if until + self.flow.reach < frames else frames
                ahead = self.flow.run(prior, done, until)
                latent = np.concatenate((latent, ahead), axis=2) if done else ahead
            yield self.decoder.run(latent, start, end).reshape(-1)
