"""WAV as bytes to samples, and back: PCM of 8 to 32 bits, 32-bit floats, G.711. For what strangers send, so nothing in the header is
believed: sizes are clipped to the bytes that are there, and whatever else the container may hold is stepped over.

The format is Microsoft's and IBM's of 1991 (`fmt ` and `data` chunks in a RIFF), with WAVE_FORMAT_EXTENSIBLE of 1999.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from streaming.audio import Pcm16, Samples, decode_alaw, decode_ulaw, encode_pcm16, to_samples

__all__ = ["Wav", "WavError", "read_wav", "wav_bytes"]

_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_MAX_CHANNELS: Final = 8
_MAX_CHUNKS: Final = 64
"""Chunks before the sound: recorders write a handful, an endless row of empty ones is an attack."""
_RATES: Final = range(4_000, 192_001)
_HEADER: Final = struct.Struct("<4sI4s")
_CHUNK: Final = struct.Struct("<4sI")
_FORMAT: Final = struct.Struct("<HHIIHH")


class WavError(ValueError):
    """The bytes are no WAV that is read here; the message says what they are instead."""


@dataclass(frozen=True, slots=True, eq=False)
class Wav:
    """Sound of one file, its channels mixed to one: `samples` shape (n,) at `rate` Hz."""

    samples: Samples
    rate: int


def read_wav(data: bytes) -> Wav:
    """The sound in a WAV file; one whose sizes were never filled in, as when it was written to a pipe, ends where the bytes do. Raises
    WavError."""
    if len(data) < _HEADER.size:
        raise WavError("it is too short for a WAV file")
    riff, _, kind = _HEADER.unpack_from(data)
    if riff != b"RIFF" or kind != b"WAVE":
        raise WavError("it is no WAV file: it does not begin with RIFF and WAVE")
    layout: _Layout | None = None
    position = _HEADER.size
    for _ in range(_MAX_CHUNKS):
        if position + _CHUNK.size > len(data):
            break
        name, size = _CHUNK.unpack_from(data, position)
        position += _CHUNK.size
        if name == b"fmt ":
            layout = _layout(data[position : position + min(size, 64)])
        elif name == b"data":
            if layout is None:
                raise WavError("its sound comes before its format")
            return Wav(layout.samples(data[position : position + size]), layout.rate)
        position += size + size % 2  # chunks begin at even positions
    raise WavError("it holds no sound (no data chunk)")


@dataclass(frozen=True, slots=True)
class _Layout:
    """How samples stand in the data: the format's tag, and bits of one sample of one channel."""

    tag: int
    channels: int
    rate: int
    bits: int

    def samples(self, data: bytes) -> Samples:
        """(n,) mono; half a frame at the end is left out."""
        frame = self.channels * self.bits // 8
        data = data[: len(data) // frame * frame]
        mono: Samples = self._decode(data).reshape(-1, self.channels).mean(axis=1, dtype=np.float32)
        return np.ascontiguousarray(mono)

    def _decode(self, data: bytes) -> Samples:
        match self.tag, self.bits:
            case (1, 8):  # the only unsigned one
                return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
            case (1, 16):
                return to_samples(np.frombuffer(data, "<i2").astype(np.int16))
            case (1, 24):
                # Three bytes in the upper end of four: sign and scale are then those of 32 bits.
                wide = np.zeros((len(data) // 3, 4), np.uint8)
                wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
                return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
            case (1, 32):
                return (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32)
            case (3, 32):
                samples = np.frombuffer(data, "<f4").astype(np.float32)
                return np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
            case (6, 8):
                return to_samples(decode_alaw(data))
            case _:
                return to_samples(decode_ulaw(data))


def _layout(chunk: bytes) -> _Layout:
    if len(chunk) < _FORMAT.size:
        raise WavError("its format is cut short")
    tag, channels, rate, _, _, bits = _FORMAT.unpack_from(chunk)
    if tag == _EXTENSIBLE:
        if len(chunk) < 26:
            raise WavError("its format is cut short")
        (tag,) = struct.unpack_from("<H", chunk, 24)  # the first two bytes of the sub-format's GUID
    if (tag, bits) not in ((_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_ALAW, 8), (_ULAW, 8)):
        raise WavError(f"its coding (format {tag}, {bits} bits) is not read here: send PCM of 8, 16, 24 or 32 bits, 32-bit float, or G.711")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise WavError(f"it has {channels} channels: 1 to {_MAX_CHANNELS} are read")
    if rate not in _RATES:
        raise WavError(f"its rate is {rate} Hz: {_RATES.start} to {_RATES.stop - 1} are read")
    return _Layout(tag, channels, rate, bits)


def wav_bytes(pcm: Pcm16, rate: int) -> bytes:
    """A mono WAV file of 16-bit samples, whole."""
    data = encode_pcm16(pcm)
    header = _HEADER.pack(b"RIFF", 36 + len(data), b"WAVE") + _CHUNK.pack(b"fmt ", 16)
    return header + _FORMAT.pack(_PCM, 1, rate, 2 * rate, 2, 16) + _CHUNK.pack(b"data", len(data)) + data
