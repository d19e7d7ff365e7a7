"""A Piper voice (VITS in ONNX): phoneme symbols in, samples and how long each symbol lasts out.

The exported graph keeps the durations to itself: the output of its `Ceil` node, frames per input id. ONNX Runtime only hands out what the
graph declares as an output, so the declaration is appended to the model as it is read: a protocol buffer followed by another is their
merge, repeated fields appended (https://protobuf.dev/programming-guides/encoding/#last-one-wins). No `onnx` package is needed.

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

__all__ = ["Noise", "PiperModel", "Utterance", "with_durations"]

_HOP: Final = 256
"""Samples a frame of the decoder, in every Piper voice."""

_BLANK, _BEGIN, _END = "_", "^", "$"


@dataclass(frozen=True, slots=True)
class Noise:
    """How much chance is in the voice: in its sound and in its rhythm. Both zero: the same audio for the same text, a flatter delivery."""

    sound: float
    rhythm: float


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """`samples` float32 shape (n,); `ends[i]` is the sample at which symbol `i` (and its blank) ends; shape (symbols,). `dropped` symbols
    the voice does not know were left out: they end where the one before them does."""

    samples: Samples
    ends: npt.NDArray[np.int64]
    dropped: int


class PiperModel:
    """One loaded voice. `synthesise` may be called by one thread at a time."""

    def __init__(self, session: onnxruntime.InferenceSession, ids: Mapping[str, int], sample_rate: int, noise: Noise) -> None:
        self._session = session
        self._ids = ids
        self.sample_rate = sample_rate
        self._noise = noise

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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Its threads must not burn a core that the language model needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        graph = with_durations(model.read_bytes())
        return cls(onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), ids, rate, noise or own)

    def synthesise(self, symbols: Sequence[str], length_scale: float) -> Utterance:
        """Say `symbols` (one code point each). `length_scale` 2.0 is twice as slow. Durations and samples agree to the sample."""
        known = [symbol in self._ids and symbol not in (_BLANK, _BEGIN, _END) for symbol in symbols]
        blank = self._ids[_BLANK]
        ids = [self._ids[_BEGIN], blank]
        for symbol, usable in zip(symbols, known, strict=True):
            if usable:
                ids.extend((self._ids[symbol], blank))
        ids.append(self._ids[_END])
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([self._noise.sound, length_scale, self._noise.rhythm], np.float32),
        }
        audio, frames = self._session.run(None, inputs)
        # (1, 1, ids) -> (ids,)
        ends = np.cumsum(frames.reshape(-1).astype(np.int64)) * _HOP
        samples: Samples = audio.reshape(-1).astype(np.float32, copy=False)
        assert ends[-1] == len(samples), "the durations are not those of the audio"
        # The n-th usable symbol's blank is id 2n + 3; before the first one the opening blank, id 1.
        return Utterance(samples, ends[1 + 2 * np.cumsum(known, dtype=np.int64)], len(known) - sum(known))


# ------------------------------------------------------------------------------------------- the graph's declaration

# Field numbers of onnx.proto3: ModelProto.graph; GraphProto.node and .output; NodeProto.output and .op_type.
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_OUTPUT, _NODE_OUTPUT, _NODE_OP = 7, 1, 12, 2, 4
# ValueInfoProto.name and .type; then TypeProto.tensor_type { elem_type: FLOAT }, shape left open.
_VALUE_NAME, _VALUE_TYPE, _FLOAT_TENSOR = 1, 2, b"\x0a\x02\x08\x01"


def with_durations(model: bytes) -> bytes:
    """The serialised model with its `Ceil` node's output declared as a second output. Raises ValueError where there is not exactly one such
    node, or the bytes are no ONNX model."""
    found: list[bytes] = []
    try:
        for _, start, end in _fields(model, 0, len(model), _MODEL_GRAPH):
            for _, node, node_end in _fields(model, start, end, _GRAPH_NODE):
                if any(model[a:b] == b"Ceil" for _, a, b in _fields(model, node, node_end, _NODE_OP)):
                    found.extend(model[a:b] for _, a, b in _fields(model, node, node_end, _NODE_OUTPUT))
    except IndexError as error:
        raise ValueError("not an ONNX model, or not all of it") from error
    if len(found) != 1:
        raise ValueError(f"expected one Ceil node (the durations of a Piper voice), found {len(found)}")
    value = _field(_VALUE_NAME, found[0]) + _field(_VALUE_TYPE, _FLOAT_TENSOR)
    return model + _field(_MODEL_GRAPH, _field(_GRAPH_OUTPUT, value))


def _fields(data: bytes, start: int, end: int, wanted: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields numbered `wanted` of the message `data[start:end]`: number, first byte, end.
    https://protobuf.dev/programming-guides/encoding/"""
    at = start
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 2:
            size, at = _varint(data, at)
            if key >> 3 == wanted:
                yield wanted, at, at + size
            at += size
        elif wire == 0:
            _, at = _varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"not an ONNX model: wire type {wire} at byte {at}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    size, encoded = len(payload), bytearray((number << 3 | 2,))
    while size > 127:
        encoded.append(size & 127 | 128)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + payload
