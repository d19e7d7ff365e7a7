"""One voice as Opus: mono, packets of 20 ms, coded where they are made. (The WebRTC library's own coder is stereo at 96 kbit/s and sits in
a thread, for a third of a millisecond.)
"""

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from av import AudioCodecContext, AudioFrame, AudioStream, CodecContext

from server.pacing import FRAME_SECONDS
from server.webrtc.opus import RATE

if TYPE_CHECKING:
    from av.packet import Packet

__all__ = ["FRAME", "OpusCoder"]

FRAME: Final = round(RATE * FRAME_SECONDS)
"""Samples in a packet."""
_TIME_BASE: Final = Fraction(1, RATE)


class OpusCoder:
    """One stream. `bit_rate` of speech, in a second: silence takes less. `loss` is the share of packets, in percent, that is prepared for:
    from 1 on a packet also holds a copy of the one before it, at a lower rate, wherever the coder finds it worth it."""

    def __init__(self, bit_rate: int, loss: int = 0) -> None:
        coder = CodecContext.create("libopus", "w")
        assert isinstance(coder, AudioCodecContext)
        coder.bit_rate, coder.sample_rate, coder.time_base = bit_rate, RATE, _TIME_BASE
        coder.format, coder.layout = "s16", "mono"
        coder.options = {"application": "voip", "fec": str(int(loss > 0)), "packet_loss": str(loss)}
        self._coder = coder
        self._at = 0

    def code(self, pcm: bytes) -> "Packet[AudioStream]":
        """20 ms of PCM16, with its place in the stream."""
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(pcm)
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, _TIME_BASE
        (packet,) = self._coder.encode(frame)  # Opus codes a frame of 20 ms as soon as it has it
        packet.pts, packet.time_base = self._at, _TIME_BASE
        self._at += FRAME
        return packet
