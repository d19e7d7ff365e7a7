"""One peer connection: an offer answered, sound both ways, the data channel, and an end to it in any case. What of the library needs care
is here.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceTransport,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InternalError, InvalidAccessError, InvalidStateError, OperationError
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtp import RtpPacket
from aiortc.sdp import candidate_from_sdp

from server.doors import ChannelClosedError
from server.webrtc.gathering import Gatherer
from server.webrtc.microphone import Microphone
from server.webrtc.offer import Offer, OfferError, write_answer
from server.webrtc.speaker import SpeakerTrack

__all__ = ["Peer", "listen"]

_LIBRARY_ERRORS: Final = (
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    InternalError,
    InvalidAccessError,
    InvalidStateError,
    OperationError,
)
"""What the library raises over an offer that it can't answer."""

log = logging.getLogger(__name__)

_BUFFER: Final = "_RTCRtpReceiver__jitter_buffer"
"""Where the library keeps it."""
_MAX_BUFFERED: Final = 64 << 10
"""Bytes of events that the library holds for the network before the session waits: none of them are sound."""
_CLOSE_SECONDS: Final = 5.0
_MAX_LATER_CANDIDATES: Final = 64
"""Candidates that a client may send after its offer."""


class Peer:
    """Answer once, close in any case. `receive` is given each message of the data channel, `on_wait` the seconds each packet waited for
    those before it."""

    def __init__(
        self,
        receive: Callable[[str | bytes], None],
        on_wait: Callable[[float], None],
        gatherer: Gatherer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receive = receive
        self.microphone = Microphone(clock, on_wait)
        self.speaker = SpeakerTrack()
        self._gatherer = gatherer
        # The servers are ours to ask; told of none, the library would ask a public one.
        policy = RTCIceTransportPolicy.RELAY if gatherer.options.relay_only else RTCIceTransportPolicy.ALL
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[], iceTransportPolicy=policy))
        self._events: RTCDataChannel | None = None
        self._wants_events = False
        self._candidates = 0
        self._changed = asyncio.Event()
        self._gone = False
        self._drained = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._connection.on("connectionstatechange", self._note_state)
        self._connection.on("datachannel", self._take_channel)
        self._connection.on("track", self._take_track)

    @property
    def gone(self) -> bool:
        """Whether the connection has ended or failed."""
        return self._gone

    @property
    def overrun(self) -> bool:
        """Whether the client has sent more of an unfinished message than it was allowed to: the library keeps it all."""
        return self._connection.sctp is not None and self._connection.sctp._advertised_rwnd < 0

    @property
    def path(self) -> str:
        """How a connected call goes, for the log: the kinds of its two candidates (RFC 8445 section 5.1)."""
        pairs = [pair for transport in self._transports() for pair in transport._connection._nominated.values()]
        return " and ".join(f"{pair.local_candidate.type} to {pair.remote_candidate.type}" for pair in pairs)

    async def answer(self, offer: Offer) -> str:
        """The answer, with all of our candidates; from then on the client may connect. Raises OfferError, NoCandidatesError."""
        self._wants_events = offer.has_events
        self._connection.addTrack(self.speaker)
        transceiver = self._connection.getTransceivers()[0]
        opus = [codec for codec in RTCRtpSender.getCapabilities("audio").codecs if codec.mimeType == "audio/opus"]
        transceiver.setCodecPreferences(opus)
        listen(transceiver.receiver, self.microphone)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
            self._gather_as_told()
            await self._connection.setLocalDescription()
        except _LIBRARY_ERRORS as error:
            raise OfferError("The offer can't be answered.") from error
        return write_answer(self._connection.localDescription.sdp, offer)

    async def add_candidate(self, mid: str, candidate: str) -> None:
        """A candidate that the client has found after its offer, `candidate:...`, checked by `is_usable_candidate`. Beyond a bound none is
        looked at."""
        if self._candidates >= _MAX_LATER_CANDIDATES or self._gone:
            return
        self._candidates += 1
        parsed = candidate_from_sdp(candidate.removeprefix("candidate:"))
        parsed.sdpMid = mid
        await self._connection.addIceCandidate(parsed)

    async def connected(self) -> None:
        """Returns when sound flows and the data channel is open, if the offer has one. Raises ChannelClosedError if that fails."""
        while self._connection.connectionState != "connected" or (self._wants_events and self._events is None):
            if self._gone:
                raise ChannelClosedError
            self._changed.clear()
            await self._changed.wait()

    async def send(self, text: str) -> None:
        """Hand an event over; returns when the next one may come. Nothing where there is no data channel. Raises ChannelClosedError, and
        ValueError for one that is larger than the client takes."""
        channel = self._events
        if channel is None:
            return
        try:
            channel.send(text)
        except InvalidStateError as error:
            raise ChannelClosedError from error
        while channel.bufferedAmount > _MAX_BUFFERED:
            if self._gone:
                raise ChannelClosedError
            self._drained.clear()
            await self._drained.wait()

    async def close(self) -> None:
        """Nothing of the connection is left. The library's own close may wait for ever for a task that has died."""
        self._end()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._connection.close()
        except TimeoutError:
            log.error("a peer connection did not close within %.0f seconds", _CLOSE_SECONDS)
        self.speaker.stop()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def _end(self) -> None:
        self._gone = True
        self.microphone.end()
        self._changed.set()
        self._drained.set()

    def _transports(self) -> set[RTCIceTransport]:
        """One, unless the client does not bundle its media sections."""
        ends = [transceiver.receiver.transport for transceiver in self._connection.getTransceivers()]
        if self._connection.sctp is not None:
            ends.append(self._connection.sctp.transport)
        return {end.transport for end in ends}

    def _gather_as_told(self) -> None:
        """Puts our search for candidates in the place of the library's."""
        for transport in self._transports():
            connection = transport._connection
            connection.gather_candidates = partial(self._gatherer.gather, connection)  # type: ignore[method-assign]

    # -- what the library tells

    def _note_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._end()
        self._changed.set()

    def _take_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._reader is None:
            self._reader = asyncio.create_task(self.microphone.until_end(track), name="webrtc-microphone")

    def _take_channel(self, channel: RTCDataChannel) -> None:
        """The client's first data channel carries the events, whatever its name; another is not heard."""
        if self._events is not None:
            return
        self._events = channel
        channel.bufferedAmountLowThreshold = _MAX_BUFFERED
        channel.on("message", self._receive)
        channel.on("bufferedamountlow", self._drained.set)
        channel.on("close", self._end)
        self._changed.set()


def listen(receiver: RTCRtpReceiver, microphone: Microphone) -> None:
    """Give the receiver's packets to `microphone` as they come, and none to the library's own buffer and decoder. Raises RuntimeError where
    the library has no such place any more."""
    if not isinstance(getattr(receiver, _BUFFER, None), JitterBuffer):
        raise RuntimeError(f"aiortc's receiver keeps no jitter buffer as {_BUFFER} any more: server/webrtc/peer.py needs to be adapted.")
    setattr(receiver, _BUFFER, _NoBuffer(microphone))


class _NoBuffer(JitterBuffer):
    """The library's seam for a jitter buffer: given each packet of a codec that was agreed on. None becomes a frame of the library's."""

    def __init__(self, microphone: Microphone) -> None:
        super().__init__(capacity=1)
        self._microphone = microphone

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        if packet.payload:
            self._microphone.take(packet.sequence_number, packet.timestamp, packet.payload)
        return False, None
