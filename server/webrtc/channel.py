"""A call's channel: `server.doors.Channel` and `Media` over a peer connection, for the caller and those who are attached to the call."""

import asyncio
import json
import logging
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from server.auth import Refusal
from server.doors import ChannelClosedError
from server.metrics import Metrics
from server.webrtc.gathering import Gatherer, NoCandidatesError
from server.webrtc.offer import Offer, OfferError
from server.webrtc.peer import Peer
from server.webrtc.rtvi import Rtvi, is_rtvi
from server.webrtc.sideband import Sidebands

__all__ = ["CallChannel", "CallRefusedError"]

log = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 10.0
"""Gathering candidates: the addresses of this machine, what STUN and TURN servers say (`server.webrtc.gathering`)."""
_RETRY_SECONDS: Final = 5
"""By then a call may have ended and given its port back."""
_MAX_WAITING: Final = 256
_MAX_WAITING_BYTES: Final = 4 << 20
"""Messages of the client that the session has not read. It reads one in each turn of the loop: more waiting is a flood."""
_PIPECATS: Final = ("ping", '{"type":"signalling"')
"""How messages of Pipecat's clients begin that are not heard: one every second, with the time, but that the connection lives is ICE's to
find out; and which tracks are muted, or that another offer follows."""
_TAIL_SECONDS: Final = 0.3
"""When we end a call: what the client's jitter buffer holds is still to be heard, and the last events are on their way."""


class CallRefusedError(Exception):
    """No call can begin now."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class CallChannel:
    """Made with the offer, `accept`ed by the session, closed by the call."""

    def __init__(self, call_id: str, offer: Offer, connect_seconds: float, metrics: Metrics, gatherer: Gatherer) -> None:
        """The call is given up where it is not connected within `connect_seconds`."""
        self._call_id = call_id
        self._offer = offer
        self._connect_seconds = connect_seconds
        self._metrics = metrics
        # The answer to the offer, or why there is none (`OfferError`, `CallRefusedError`).
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.sidebands = Sidebands()
        self.peer = Peer(self._take, metrics.rtp_wait.observe, gatherer)
        self._waiting: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._hung_up = False
        # Where the client speaks RTVI, which it shows by its first message.
        self._rtvi: Rtvi | None = None
        # Set while the client is awaited: one that has given up, and says so, is awaited no longer.
        self._connecting: asyncio.Timeout | None = None

    # -- Channel

    async def accept(self) -> None:
        """Answer the offer, then wait for the client. Raises ChannelClosedError."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await self.peer.answer(self._offer)
        except OfferError as error:
            self.answer.set_exception(error)
            raise ChannelClosedError from error
        except (NoCandidatesError, TimeoutError) as error:
            told = str(error) or "This server could not find out in time how it is reached by WebRTC."
            log.warning("call %s: %s", self._call_id, told)
            self.answer.set_exception(CallRefusedError(Refusal(503, "no_way_to_server", told, _RETRY_SECONDS)))
            raise ChannelClosedError from error
        self.answer.set_result(answer)
        try:
            async with asyncio.timeout(0 if self._hung_up else self._connect_seconds) as self._connecting:
                await self.peer.connected()
        except (ChannelClosedError, TimeoutError) as error:
            self._metrics.webrtc_calls.labels("not connected").inc()
            wanted = " and its data channel opened" if self._offer.has_events else ""
            late = "the client gave up" if self._hung_up else f"{self._connect_seconds:.0f} seconds have passed"
            log.info("call %s was not connected%s: %s", self._call_id, wanted, late)
            raise ChannelClosedError from error
        finally:
            self._connecting = None
        self._metrics.webrtc_calls.labels("connected").inc()
        log.info("call %s is connected, %s", self._call_id, self.peer.path)

    async def receive(self) -> str | bytes | None:
        """The next message; None when the call is over."""
        while (message := await self._next()) is not None and is_rtvi(message):
            try:
                await self._take_rtvi(str(message))
            except ChannelClosedError:
                return None
        return message

    async def _take_rtvi(self, message: str) -> None:
        """A message of a client that speaks RTVI: what it asks for is read next."""
        self._rtvi = self._rtvi or Rtvi()
        translation = self._rtvi.hear(message)
        if translation.ends:
            self.hang_up()
        for reply in translation.replies:
            await self.peer.send(reply)
        self._waiting.extendleft(reversed(translation.requests))
        self._waiting_bytes += sum(map(len, translation.requests))

    async def _next(self) -> str | bytes | None:
        while not self._waiting:
            if self._hung_up or self.peer.gone:
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._waiting.popleft()
        self._waiting_bytes -= len(message)
        return message

    async def send(self, text: str) -> None:
        """To everybody. Raises ChannelClosedError."""
        self.sidebands.put(text)
        for message in (text,) if self._rtvi is None else self._rtvi.tell(text, datetime.now(UTC).isoformat()):
            try:
                await self.peer.send(message)
            except ValueError:
                await self.peer.send(_too_large(text))

    # -- Media

    async def hear(self) -> bytes | None:
        """The caller's sound."""
        heard = await self.peer.microphone.hear()
        if heard is None or self.peer.overrun:
            self.hang_up()
            return None
        return heard

    def play(self, frame: bytes) -> None:
        """Ours."""
        self.peer.speaker.play(frame)

    # -- the call

    def request(self, message: str | bytes) -> None:
        """A message of somebody attached to the call."""
        self._take(message)

    def hang_up(self) -> None:
        """End the call."""
        self._hung_up = True
        self._changed.set()
        if self._connecting is not None and not self._connecting.expired():
            self._connecting.reschedule(asyncio.get_running_loop().time())

    async def close(self, *, politely: bool) -> None:
        """Nothing is left afterwards. `politely`: what is on its way to the client may arrive."""
        if politely and not self.peer.gone:
            await asyncio.sleep(_TAIL_SECONDS)
        self.sidebands.end()
        await self.peer.close()
        for outcome, count in asdict(self.peer.microphone.tally()).items():
            self._metrics.rtp_packets.labels(outcome).inc(count)

    def _take(self, message: str | bytes) -> None:
        if self._hung_up or (isinstance(message, str) and message.startswith(_PIPECATS)):
            return
        if len(self._waiting) >= _MAX_WAITING or self._waiting_bytes + len(message) > _MAX_WAITING_BYTES:
            log.warning("call %s: the client floods the data channel; hanging up", self._call_id)
            self._waiting.clear()
            self.hang_up()
            return
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        self._changed.set()


def _too_large(text: str) -> str:
    """What a client is told instead of an event that is larger than it takes."""
    event = json.loads(text)
    message = f"An event of {len(text)} bytes, {event['type']}, is larger than what this data channel takes."
    error = {"type": "server_error", "code": "event_too_large", "message": message, "param": None, "event_id": None}
    return json.dumps({"event_id": event["event_id"], "type": "error", "error": error}, separators=(",", ":"))
