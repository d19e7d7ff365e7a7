"""uvicorn's WebSocket protocol with short buffers: what is handed over is gone within a frame or two, and a dead client can be cut off.

The default high-water mark of 64 KiB is more than a second of base64 PCM16 that an interruption could not take back.
"""

import asyncio
import socket
from typing import Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["TRANSPORT", "RealtimeProtocol"]

TRANSPORT: Final = "transport"
"""Key of the connection's `asyncio.Transport` in the ASGI scope's state."""

_HIGH_WATER: Final = 16 << 10
"""Bytes our side may hold: one delta of 200 ms at 24 kHz is 13 KiB."""
_UNSENT: Final = 16 << 10
"""Bytes the kernel may hold unsent (Linux `TCP_NOTSENT_LOWAT`)."""


class RealtimeProtocol(WebSocketsSansIOProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock = cast("socket.socket", transport.get_extra_info("socket"))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    async def run_asgi(self) -> None:
        self.scope["state"][TRANSPORT] = self.transport
        await super().run_asgi()
