"""A further client of a call: between its socket and the call."""

import asyncio
from typing import Final

from server.doors import Channel, ChannelClosedError
from server.session import SessionEnd
from server.webrtc.channel import CallChannel
from server.webrtc.sideband import Sideband

__all__ = ["attend"]

_CLOSE_NORMAL: Final = 1000
_CLOSE_TRY_AGAIN_LATER: Final = 1013


async def attend(call: CallChannel, client: Channel) -> SessionEnd:
    """One further client of a call, until it or the call has gone."""
    try:
        await client.accept()
    except ChannelClosedError:
        return SessionEnd(None)
    sideband = call.sidebands.attach()
    if sideband is None:
        return SessionEnd(_CLOSE_TRY_AGAIN_LATER, "too many clients on this call")
    reading = asyncio.create_task(_read(call, client), name="sideband-reader")
    writing = asyncio.create_task(_write(sideband, client), name="sideband-writer")
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        return SessionEnd(None) if reading.done() else SessionEnd(_CLOSE_NORMAL, "the call has ended")
    finally:
        call.sidebands.detach(sideband)
        reading.cancel()
        writing.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)


async def _read(call: CallChannel, client: Channel) -> None:
    while (message := await client.receive()) is not None:
        call.request(message)


async def _write(sideband: Sideband, client: Channel) -> None:
    try:
        while (text := await sideband.get()) is not None:
            await client.send(text)
    except ChannelClosedError:
        pass
