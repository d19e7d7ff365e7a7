"""A bad network between two UDP sockets of this machine: a relay that loses, delays, reorders and repeats by `benchmarks.networks`.

The client is told the relay's address instead of the server's. Packets that are not media (STUN, DTLS) pass untouched unless asked for.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from benchmarks.networks import GOOD, Network, Path

__all__ = ["UdpRelay", "is_media"]

_MAX_WAITING: Final = 4_096
"""Packets on their way: 30 s of a stall in both directions. More are lost."""


def is_media(packet: bytes) -> bool:
    """Whether this is RTP (RFC 7983) and no RTCP (RFC 5761)."""
    return len(packet) >= 12 and 128 <= packet[0] <= 191 and not 192 <= packet[1] <= 223


class UdpRelay:
    """`async with UdpRelay(("127.0.0.1", 5000), network, seed) as relay`, then send to `relay.address`. One client: the last that sent."""

    def __init__(
        self,
        target: tuple[str, int],
        network: Network = GOOD,
        seed: int = 1,
        *,
        host: str = "127.0.0.1",
        spoils: Callable[[bytes], bool] = is_media,
    ) -> None:
        self._target = target
        self._host = host
        self._seed = seed
        self._spoils = spoils
        self._client: tuple[str, int] | None = None
        self._near: asyncio.DatagramTransport | None = None
        self._far: asyncio.DatagramTransport | None = None
        # Packets on their way, by their number.
        self.waiting: dict[int, asyncio.TimerHandle] = {}
        self._count = 0
        self._loop = asyncio.get_running_loop()
        # Whether nothing passes at all.
        self.cut = False
        self.change(network)

    async def __aenter__(self) -> Self:
        self._near = await self._open(self._from_client)
        self._far = await self._open(self._from_server)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for timer in self.waiting.values():
            timer.cancel()
        self.waiting.clear()
        for transport in (self._near, self._far):
            if transport is not None:
                transport.close()
        await asyncio.sleep(0)  # closed by the loop's next turn

    @property
    def address(self) -> tuple[str, int]:
        """Where the client sends to."""
        assert self._near is not None
        host, port = self._near.get_extra_info("sockname")[:2]
        return host, port

    def change(self, network: Network, down: Network | None = None) -> None:
        """Another network from now on, on the way back `down` where that is another; its time begins now."""
        self._began = self._loop.time()
        self._up, self._down = Path(network, self._seed), Path(down or network, self._seed + 1)

    async def rebind(self) -> None:
        """From now on the server sees another port: a NAT that has forgotten, a telephone that has left the Wi-Fi. What is sent to the old
        one is lost."""
        assert self._far is not None
        old = self._far
        self._far = await self._open(self._from_server)
        old.close()

    async def _open(self, receive: Callable[[bytes, tuple[str, int]], None]) -> asyncio.DatagramTransport:
        transport, _ = await self._loop.create_datagram_endpoint(lambda: _Socket(receive), local_addr=(self._host, 0))
        return transport

    def _from_client(self, packet: bytes, source: tuple[str, int]) -> None:
        self._client = source
        self._pass(packet, self._up, lambda: self._far, self._target)

    def _from_server(self, packet: bytes, _: tuple[str, int]) -> None:
        if self._client is not None:
            self._pass(packet, self._down, lambda: self._near, self._client)

    def _pass(self, packet: bytes, path: Path, out: Callable[[], asyncio.DatagramTransport | None], to: tuple[str, int]) -> None:
        if self.cut:
            return
        now = self._loop.time() - self._began
        for at in path.arrivals(now) if self._spoils(packet) else (now,):
            if at <= now:
                self._send(packet, out, to)
            elif len(self.waiting) < _MAX_WAITING:
                self._count += 1
                self.waiting[self._count] = self._loop.call_at(self._began + at, self._due, self._count, packet, out, to)

    def _due(self, number: int, packet: bytes, out: Callable[[], asyncio.DatagramTransport | None], to: tuple[str, int]) -> None:
        del self.waiting[number]
        self._send(packet, out, to)

    @staticmethod
    def _send(packet: bytes, out: Callable[[], asyncio.DatagramTransport | None], to: tuple[str, int]) -> None:
        transport = out()
        if transport is not None and not transport.is_closing():
            transport.sendto(packet, to)


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._receive(data, addr)
