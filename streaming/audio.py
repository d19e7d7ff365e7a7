"""Sound as values: frames with their position, PCM16 and G.711 coding, resampling.

Live paths use `StreamResampler` (5 ms of look-ahead, any split of the input gives the same samples); a whole clause may use
`resample_clause` (soxr in one shot, no edge of its own). Everything is mono. No clock, no socket: a transport pushes bytes and gets frames.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from math import gcd
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import soxr

from streaming.events import SAMPLE_RATE

__all__ = [
    "AudioFrame",
    "Encoding",
    "Pcm16",
    "Pcm16Decoder",
    "Samples",
    "StreamResampler",
    "WireDecoder",
    "decode_alaw",
    "decode_pcm16",
    "decode_ulaw",
    "encode_alaw",
    "encode_pcm16",
    "encode_ulaw",
    "resample_clause",
    "to_pcm16",
    "to_samples",
]

Samples = npt.NDArray[np.float32]
"""Mono samples in -1.0 to 1.0, shape (n,)."""

Pcm16 = npt.NDArray[np.int16]
"""Mono 16-bit samples in the machine's byte order, shape (n,)."""

Encoding = Literal["pcm16", "pcmu", "pcma"]
"""How samples are coded on the wire: little-endian 16-bit, or G.711 mu-law or A-law (one byte a sample)."""


@dataclass(frozen=True, slots=True, eq=False)
class AudioFrame:
    """Input sound at 16 kHz: `pcm` shape (n,), whose first sample stands at input position `at`. Frames of a session are
    contiguous: the next one's `at` is this one's `at + len(pcm)`."""

    pcm: Samples
    at: int


# ------------------------------------------------------------------------------------------------------------ PCM16

_FULL_SCALE: Final = 32_768.0


def to_samples(pcm: Pcm16) -> Samples:
    """16-bit samples as floats: -32768 becomes -1.0."""
    return pcm.astype(np.float32) / np.float32(_FULL_SCALE)


def to_pcm16(samples: Samples) -> Pcm16:
    """Floats as 16-bit samples, rounded to nearest; what lies outside -1.0 to 1.0 is clipped. Undoes `to_samples` exactly."""
    scaled: Samples = np.rint(samples * np.float32(_FULL_SCALE))
    return np.clip(scaled, -32_768, 32_767).astype(np.int16)


def decode_pcm16(data: bytes) -> Pcm16:
    """Little-endian 16-bit samples. Raises ValueError for an odd number of bytes: for a byte stream use `Pcm16Decoder`."""
    if len(data) % 2:
        raise ValueError(f"PCM16 has two bytes a sample, got {len(data)} bytes")
    return np.frombuffer(data, "<i2").astype(np.int16)


def encode_pcm16(pcm: Pcm16) -> bytes:
    """Little-endian bytes, two a sample."""
    return pcm.astype("<i2").tobytes()


class Pcm16Decoder:
    """A stream of PCM16 bytes cut anywhere: half a sample waits for its other byte."""

    def __init__(self) -> None:
        # The first byte of a sample whose second has not come: at most one byte.
        self._carry = b""

    def push(self, data: bytes) -> Pcm16:
        """The samples completed by `data`, shape (n,)."""
        data = self._carry + data
        whole = len(data) & ~1
        self._carry = data[whole:]
        return decode_pcm16(data[:whole])

    def flush(self) -> Pcm16:
        """Forget half a sample, if there is one. Nothing can be made of it."""
        self.reset()
        return np.zeros(0, np.int16)

    def reset(self) -> None:
        """Begin a new stream."""
        self._carry = b""


# ------------------------------------------------------------------------------------------------------------ G.711


def decode_ulaw(data: bytes) -> Pcm16:
    """G.711 mu-law to 16-bit samples, one a byte."""
    return _ulaw_decoding()[np.frombuffer(data, np.uint8)]


def encode_ulaw(pcm: Pcm16) -> bytes:
    """16-bit samples to G.711 mu-law, one byte each."""
    return _ulaw_encoding()[pcm.view(np.uint16)].tobytes()


def decode_alaw(data: bytes) -> Pcm16:
    """G.711 A-law to 16-bit samples, one a byte."""
    return _alaw_decoding()[np.frombuffer(data, np.uint8)]


def encode_alaw(pcm: Pcm16) -> bytes:
    """16-bit samples to G.711 A-law, one byte each."""
    return _alaw_encoding()[pcm.view(np.uint16)].tobytes()


# ITU-T G.711 (11/88), tables 1 and 2. A code is sign, 3 bits of segment, 4 bits within it; magnitudes are of 14 bits (mu-law) and
# 13 bits (A-law), scaled here to 16. Encoding follows the recommendation's decision values on the scaled-down integer, like every
# telephony stack, so a decoded code encodes to itself.

_ULAW_BIAS: Final = 33
_ULAW_CLIP: Final = 0x1FFF - _ULAW_BIAS


@cache
def _ulaw_decoding() -> Pcm16:
    code = ~np.arange(256, dtype=np.uint8)  # all bits are sent inverted
    segment, step = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = ((2 * step + _ULAW_BIAS) << segment) - _ULAW_BIAS
    return _frozen(np.where(code & 0x80, -magnitude, magnitude).astype(np.int16) * np.int16(4))


@cache
def _ulaw_encoding() -> npt.NDArray[np.uint8]:
    linear = np.arange(65_536).astype(np.uint16).view(np.int16).astype(np.int32) >> 2
    biased = np.minimum(np.abs(linear), _ULAW_CLIP) + _ULAW_BIAS
    segment = np.searchsorted([0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF], biased)
    code = (segment << 4) | ((biased >> (segment + 1)) & 15)
    return _frozen((code ^ np.where(linear < 0, 0x7F, 0xFF)).astype(np.uint8))


@cache
def _alaw_decoding() -> Pcm16:
    code = np.arange(256, dtype=np.uint8) ^ 0x55  # even bits are sent inverted
    segment, step = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = np.where(segment == 0, 2 * step + 1, (2 * step + 33) << (np.maximum(segment, 1) - 1))
    return _frozen(np.where(code & 0x80, magnitude, -magnitude).astype(np.int16) * np.int16(8))


@cache
def _alaw_encoding() -> npt.NDArray[np.uint8]:
    linear = np.arange(65_536).astype(np.uint16).view(np.int16).astype(np.int32) >> 3
    magnitude = np.where(linear < 0, -linear - 1, linear)
    segment = np.searchsorted([0x1F, 0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF], magnitude)
    code = (segment << 4) | ((magnitude >> np.maximum(segment, 1)) & 15)
    return _frozen((code ^ np.where(linear < 0, 0x55, 0xD5)).astype(np.uint8))


_Code = TypeVar("_Code", np.uint8, np.int16)


def _frozen(table: npt.NDArray[_Code]) -> npt.NDArray[_Code]:
    table.setflags(write=False)
    return table


# ------------------------------------------------------------------------------------------------------- resampling

_HALF_WIDTH_SECONDS: Final = 0.005
"""Reach of the filter to each side, hence the delay of a live path. Longer would be steeper; 5 ms is what a dialogue can spare."""

_KAISER_BETA: Final = 6.76
"""About 70 dB of stop band (Kaiser and Schafer 1980: beta = 0.1102 (A - 8.7))."""

_TRANSITION_HZ: Final = 435.0
"""Width of the pass-to-stop transition that 5 ms and 70 dB leave: (A - 7.95) / (14.36 * 2 * 0.005 s)."""

_LOWEST_RATE: Final = 4_000
_HIGHEST_RATE: Final = 192_000
"""Rates in Hz that sound cards and codecs have; more would only be a way to make a large filter."""

_MAX_RATIO: Final = 640
"""Largest number of filter phases, so that nobody's odd rate makes a filter of gigabytes (11,025 to 16,000 Hz needs 640)."""

_MIN_BLOCK: Final = 80
"""Output samples computed at once, at least: enough to spread numpy's call cost, few enough to recompute an unfinished block."""


class StreamResampler:
    """From one rate to another, a linear-phase polyphase low-pass (windowed sinc), 5 ms of look-ahead.

    The delay is taken out: output sample `j` stands at the time of input sample `j * source_rate / target_rate`. After `flush`,
    `n` input samples have given `ceil(n * target_rate / source_rate)` output samples. Where the rates are equal nothing is changed
    or held back. Any split of the input gives bit-identical output: every block of outputs is one product of fixed shape, always
    from the same input positions; what has not arrived yet is zero there, and the outputs that would need it are withheld.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        """Rates in Hz. Raises ValueError for one outside 4 to 192 kHz, or where their ratio is not of whole numbers up to 640."""
        if not all(_LOWEST_RATE <= rate <= _HIGHEST_RATE for rate in (source_rate, target_rate)):
            raise ValueError(f"sample rates are {_LOWEST_RATE} to {_HIGHEST_RATE} Hz, got {source_rate} and {target_rate}")
        divisor = gcd(source_rate, target_rate)
        self._up, self._down = target_rate // divisor, source_rate // divisor
        if max(self._up, self._down) > _MAX_RATIO:
            raise ValueError(f"cannot resample {source_rate} to {target_rate} Hz: {self._up}/{self._down} is not of small whole numbers")
        # Input samples the filter reaches to each side.
        self._half = int(source_rate * _HALF_WIDTH_SECONDS)
        repeats = -(-_MIN_BLOCK // self._up)
        # A block is `_block_in` input samples that give `_block_out` output samples.
        self._block_in, self._block_out = self._down * repeats, self._up * repeats
        # (block_in + 2 * half, block_out); None where the rates are equal.
        self._filter: Samples | None = None
        if source_rate != target_rate:
            self._filter = _filter_block(source_rate, target_rate, self._half, self._block_in, self._block_out)
        # Input from `half` before the first unfinished block on: at most a block, the filter's reach and one push.
        self._held: Samples = np.zeros(self._half, np.float32)
        # Which block is the first unfinished one.
        self._block = 0
        # Input samples taken and output samples given since the stream began.
        self._taken = 0
        self._given = 0

    def reset(self) -> None:
        """Begin a new stream at position 0."""
        self._held = np.zeros(self._half, np.float32)
        self._block = self._taken = self._given = 0

    def push(self, samples: Samples) -> Samples:
        """The output that `samples` completes, shape (n,)."""
        if self._filter is None:
            return samples
        self._held = np.concatenate((self._held, samples.astype(np.float32, copy=False)))
        self._taken += len(samples)
        # Output j needs input up to floor(j * down / up) + half.
        return self._emit(max(0, -(-(self._taken - self._half) * self._up // self._down)))

    def flush(self) -> Samples:
        """What was waiting for look-ahead, as if silence followed; then begins a new stream."""
        if self._filter is None:
            return np.zeros(0, np.float32)
        rest = self._emit(-(-self._taken * self._up // self._down))
        self.reset()
        return rest

    def _emit(self, until: int) -> Samples:
        """Outputs from the first not yet given to `until`."""
        parts: list[Samples] = []
        while self._given < until:
            start = self._block * self._block_out
            stop = min(until, start + self._block_out)
            parts.append(self._first_block()[self._given - start : stop - start])
            self._given = stop
            if stop == start + self._block_out:
                self._block += 1
                self._held = self._held[self._block_in :]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _first_block(self) -> Samples:
        """All outputs of the first unfinished block, as if silence followed what has come."""
        assert self._filter is not None
        inputs = self._held[: len(self._filter)]
        if len(inputs) < len(self._filter):
            inputs = np.concatenate((inputs, np.zeros(len(self._filter) - len(inputs), np.float32)))
        # einsum, not matmul: one thread and one order of summation whatever BLAS does, and fast enough (20 us a block).
        block: Samples = np.einsum("k,kn->n", inputs, self._filter)
        return block


@lru_cache(maxsize=32)
def _filter_block(source_rate: int, target_rate: int, half: int, block_in: int, block_out: int) -> Samples:
    """The filter as a matrix (block_in + 2 * half, block_out): column j holds the taps of output j of a block whose inputs begin
    `half` before it. Each column sums to 1, so that a constant passes exactly."""
    # The -6 dB point, in cycles per input sample: half a transition below the lower of the two Nyquist rates.
    cutoff = (min(source_rate, target_rate) - _TRANSITION_HZ) / 2 / source_rate
    inputs = np.arange(block_in + 2 * half)[:, None] - half
    distance = inputs - np.arange(block_out)[None, :] * (source_rate / target_rate)
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1 - (distance / half) ** 2)))
    taps = np.where(np.abs(distance) <= half, np.sinc(2 * cutoff * distance) * window, 0.0)
    matrix: Samples = np.ascontiguousarray(taps / taps.sum(axis=0), np.float32)
    matrix.setflags(write=False)
    return matrix


def resample_clause(pcm: Samples, source_rate: int, target_rate: int) -> Samples:
    """A whole clause at once, shape (n,) to (about n * target_rate / source_rate,): soxr, high quality, no delay. Not for live paths:
    it must see the end."""
    if source_rate == target_rate or not len(pcm):
        return pcm
    resampled: Samples = soxr.resample(pcm, source_rate, target_rate, "HQ").astype(np.float32, copy=False)
    return resampled


# ------------------------------------------------------------------------------------------------------- wire input


class WireDecoder:
    """Wire bytes of one stream, cut anywhere, into contiguous 16 kHz frames.

    A change of encoding or rate in a session is a new decoder that begins at the old one's `at`. Up to 5 ms of sound wait for the
    resampler's look-ahead until the next push; no reply of a conversation depends on them.
    """

    def __init__(self, encoding: Encoding, rate: int, at: int = 0) -> None:
        """`rate` in Hz; `at` is the input position of the first sample. Raises ValueError for an unknown encoding or rate."""
        if encoding not in ("pcm16", "pcmu", "pcma"):
            raise ValueError(f"unknown encoding {encoding!r}; known are pcm16, pcmu and pcma")
        self._encoding = encoding
        self._bytes = Pcm16Decoder()
        self._resampler = StreamResampler(rate, SAMPLE_RATE)
        self._at = at

    @property
    def at(self) -> int:
        """The input position of the next frame."""
        return self._at

    def push(self, data: bytes) -> AudioFrame | None:
        """The frame that `data` completes; None where it completes no sample."""
        return self._frame(self._resampler.push(to_samples(self._decode(data))))

    def flush(self) -> AudioFrame | None:
        """The end of the stream: what was still waiting, then ready for a new stream that goes on at `at`."""
        self._bytes.reset()
        return self._frame(self._resampler.flush())

    def reset(self, at: int) -> None:
        """Drop what is waiting; the next frame begins at `at` (a transport that skipped or filled a gap)."""
        self._bytes.reset()
        self._resampler.reset()
        self._at = at

    def _decode(self, data: bytes) -> Pcm16:
        if self._encoding == "pcm16":
            return self._bytes.push(data)
        return decode_ulaw(data) if self._encoding == "pcmu" else decode_alaw(data)

    def _frame(self, samples: Samples) -> AudioFrame | None:
        if not len(samples):
            return None
        frame = AudioFrame(samples, self._at)
        self._at += len(samples)
        return frame
