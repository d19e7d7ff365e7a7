"""Packets in order in, sound at its place out; what is lost between two of them is taken from the copy in the second, or concealed. Pure.

The decoder is told of a loss before it decodes on: what it makes of a packet depends on what it believes came before.
"""

from typing import Final, Protocol

import numpy as np

from server.webrtc.opus import RATE, OpusDecoder, OpusError, carries_copy
from streaming.audio import Pcm16

__all__ = ["Decoder", "OpusStream"]

_CONCEALED: Final = RATE // 10
"""Samples concealed at once: after 100 ms the decoder has faded out, and what it would make up beyond is no speech."""
_FRAME: Final = RATE // 50
"""What everybody sends, until a packet has come."""


class Decoder(Protocol):
    """`OpusDecoder`, or what takes its place in a measurement. `conceal` and `recover` may give nothing."""

    def decode(self, packet: bytes) -> Pcm16:
        """A packet's sound. Raises OpusError."""

    def conceal(self, samples: int) -> Pcm16:
        """What may have been in `samples` that are lost."""

    def recover(self, packet: bytes, samples: int) -> Pcm16:
        """The `samples` before `packet`. Raises OpusError."""


class OpusStream:
    """One caller's stream. Positions are RTP's, 48 kHz, continued beyond 32 bits."""

    def __init__(self, decoder: Decoder | None = None) -> None:
        self._decoder = decoder or OpusDecoder()
        # Where the next packet stands if nothing is missing, and its number; samples of the last packet.
        self.at: int | None = None
        self._number = 0
        self._frame = _FRAME
        # Packets that were lost and taken from a copy, and those concealed; packets that could not be decoded.
        self.recovered = 0
        self.concealed = 0
        self.damaged = 0

    def push(self, number: int, timestamp: int, packet: bytes) -> list[tuple[int, Pcm16]]:
        """Pieces of sound, each shape (n,) with the position of its first sample: what stands for packets lost just before this one, and
        its own. What is lost beyond that is left missing."""
        at = self._unwrap(timestamp)
        pieces: list[tuple[int, Pcm16]] = []
        try:
            if self.at is not None and (lost := (number - self._number) & 0xFFFF):
                pieces += self._mend(packet, at, min(at - self.at, lost * self._frame))
            sound = self._decoder.decode(packet)
            pieces.append((at, sound))
            self._frame = len(sound)
        except OpusError:
            self.damaged += 1
            sound = np.zeros(0, np.int16)
        self._number = (number + 1) & 0xFFFF
        self.at = at + len(sound)
        return [(start, pcm) for start, pcm in pieces if len(pcm)]

    def _mend(self, packet: bytes, at: int, missing: int) -> list[tuple[int, Pcm16]]:
        """What stands for `missing` samples: behind the packet before, and directly before this one."""
        assert self.at is not None
        if missing < self._frame:
            return []
        before, pieces = self.at, []
        if missing > self._frame:
            made_up = self._decoder.conceal(min(missing - self._frame, _CONCEALED))
            self.concealed += len(made_up) // self._frame
            pieces.append((before, made_up))
        copied = self._decoder.recover(packet, self._frame)
        if carries_copy(packet):
            self.recovered += len(copied) // self._frame
        else:
            self.concealed += len(copied) // self._frame
        return [*pieces, (at - len(copied), copied)]

    def _unwrap(self, timestamp: int) -> int:
        """The position nearest to where the next packet is expected."""
        if self.at is None:
            return timestamp
        return self.at + ((timestamp - self.at + (1 << 31)) % (1 << 32)) - (1 << 31)
