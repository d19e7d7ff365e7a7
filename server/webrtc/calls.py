"""The WebRTC calls of a server: begun by an offer, found by their id, hung up. Each is a task that owns its peer connection."""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final

from agent.settings import AudioFormat, PlaybackOwner, SessionSettings
from server.auth import Refusal
from server.limits import Limits
from server.metrics import Metrics
from server.realtime.dialect import Dialect
from server.sessions import Sessions, new_id
from server.webrtc.channel import CallChannel, CallRefusedError
from server.webrtc.gathering import Gatherer
from server.webrtc.ice import IceOptions
from server.webrtc.offer import OfferError, read_offer
from server.webrtc.opus import RATE, library_problem

__all__ = ["Call", "CallRefusedError", "Calls"]

log = logging.getLogger(__name__)

_MEDIA_FORMAT: Final = AudioFormat(rate=RATE, told_rate=AudioFormat().rate)
"""What comes out of the decoder and goes into the encoder. Clients believe in the protocol's only rate."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call."""

    id: str
    channel: CallChannel

    @property
    def answer(self) -> str:
        """The SDP that its client is answered."""
        return self.channel.answer.result()


class Calls:
    """All of them."""

    def __init__(self, sessions: Sessions, limits: Limits, metrics: Metrics, ice: IceOptions) -> None:
        self._sessions = sessions
        self._limits = limits
        self._metrics = metrics
        # The way to this server; browsers are told of its servers too.
        self.ice = ice
        self._gatherer = Gatherer(ice)
        self._problem = library_problem()
        if self._problem is not None:
            log.error("no WebRTC call can be taken: %s", self._problem)
        self._calls: dict[str, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def defaults(self) -> SessionSettings:
        """What a call's session begins with."""
        return self._sessions.defaults

    def get(self, call_id: str) -> Call | None:
        """The call of this id, while it lasts."""
        return self._calls.get(call_id)

    async def begin(self, offer_text: str, settings: SessionSettings, dialect: Dialect | None) -> Call:
        """Answer an offer. Raises OfferError, CallRefusedError."""
        if self._problem is not None:
            raise CallRefusedError(Refusal(503, "webrtc_unavailable", self._problem))
        offer = read_offer(offer_text)
        settings = replace(settings, playback=PlaybackOwner.SERVER, input_format=_MEDIA_FORMAT, output_format=_MEDIA_FORMAT)
        call_id = new_id("rtc")
        call = Call(call_id, CallChannel(call_id, offer, self._limits.connect_seconds, self._metrics, self._gatherer))
        task = asyncio.create_task(self._run(call, settings, dialect), name=call_id)
        self._calls[call_id] = call
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(call.channel.answer)
        return call

    async def close(self) -> None:
        """Hang up whatever is left; returns when nothing of it is."""
        for call in tuple(self._calls.values()):
            call.channel.hang_up()
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
        await self._gatherer.close()

    async def _run(self, call: Call, settings: SessionSettings, dialect: Dialect | None) -> None:
        """The whole call. Whether there is room is asked here, for the session takes its place without waiting in between."""
        channel = call.channel
        politely = False
        try:
            refusal = self._sessions.refuses()
            if refusal is not None:
                channel.answer.set_exception(CallRefusedError(refusal))
                return
            end = await self._sessions.run(channel, settings, dialect)
            politely = end.code is not None
        finally:
            if not channel.answer.done():
                channel.answer.set_exception(OfferError("The call could not be begun."))
            del self._calls[call.id]
            await channel.close(politely=politely)
