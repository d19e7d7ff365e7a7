"""A caller's sound through a bad network in virtual time: coded as a microphone is, and heard by what a call hears with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.networks import Network, Path
from server.webrtc.microphone import Microphone, Tally
from server.webrtc.opus import OpusDecoder
from server.webrtc.opus_coder import FRAME, OpusCoder
from server.webrtc.opus_stream import Decoder
from streaming.audio import Pcm16

__all__ = ["Coding", "Heard", "Silence", "coded", "through"]

_SECONDS: Final = 0.02
_TICK: Final = 0.1
"""How often a stream from which nothing comes is looked at, as `Microphone.hear` does."""
_AFTER: Final = 1.0
"""Seconds listened on when everything has been sent."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How Opus is sent. `loss` is the share in percent that the coder prepares for: from 1 on each packet holds a copy of the last."""

    bit_rate: int = 32_000
    loss: int = 0


class Silence:
    """A decoder that mends nothing."""

    def __init__(self) -> None:
        self._decoder = OpusDecoder()

    def decode(self, packet: bytes) -> Pcm16:
        """As it is."""
        return self._decoder.decode(packet)

    def conceal(self, _samples: int) -> Pcm16:
        """Nothing."""
        return np.zeros(0, np.int16)

    def recover(self, _packet: bytes, _samples: int) -> Pcm16:
        """Nothing."""
        return np.zeros(0, np.int16)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a call heard of one clip: its sound at 48 kHz, the longest wait in seconds, the samples by which a packet was moved at most."""

    pcm: Pcm16
    tally: Tally
    wait: float
    moved: int


def coded(pcm: Pcm16, coding: Coding) -> list[bytes]:
    """The packets of a microphone, 20 ms each."""
    coder = OpusCoder(coding.bit_rate, coding.loss)
    return [bytes(coder.code(pcm[start : start + FRAME].tobytes())) for start in range(0, len(pcm) - FRAME + 1, FRAME)]


def through(packets: Sequence[bytes], network: Network, seed: int, decoder: Decoder | None = None) -> Heard:
    """What a call hears of packets sent every 20 ms."""
    way = Path(network, seed)
    arrivals = sorted((at, number) for number in range(len(packets)) for at in way.arrivals(number * _SECONDS))
    end = _SECONDS * len(packets) + network.stall + _AFTER
    now, look_at, moved = 0.0, _TICK, 0
    base: int | None = None
    waits = [0.0]
    heard: list[Pcm16] = []
    microphone = Microphone(lambda: now, waits.append, decoder)
    for at, number in [*arrivals, (end, None)]:
        while look_at <= at:  # as `Microphone.hear` does while nothing comes
            now, look_at = look_at, look_at + _TICK
            microphone.look()
            heard.append(microphone.drain())
        now = at
        if number is None:
            break
        microphone.take(number & 0xFFFF, number * FRAME, packets[number])
        heard.append(microphone.drain())
        if len(heard[-1]):
            look_at = now + _TICK
            total = sum(map(len, heard))
            assert microphone.sound.at is not None
            if base is None:
                base = microphone.sound.at - total
            moved = max(moved, abs(total - (microphone.sound.at - base)))
    return Heard(np.concatenate(heard), microphone.tally(), max(waits), moved)
