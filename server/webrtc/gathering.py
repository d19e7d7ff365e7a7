"""The addresses under which a call may reach this server, its ICE candidates, found before the offer is answered.

It stands in the place of the library's own search, which has no port range, cannot announce an address that is not this machine's, asks one
STUN server over IPv4 only and tries one TURN server. Everything is bounded in time: what has not answered is left out, so a dead
STUN or TURN server makes an answer late and not impossible. A relay's address is IPv4: the library can't ask for another.
"""

import asyncio
import contextlib
import errno
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, get_host_addresses, relayed_candidate

from server.webrtc.ice import IceOptions, TurnCredentials, parse_server
from server.webrtc.names import Names

__all__ = ["Gatherer", "NoCandidatesError", "open_all"]

_COMPONENT: Final = 1
"""RTP and RTCP share a port."""
_STUN_SECONDS: Final = 2.0
_STUN_GRACE_SECONDS: Final = 0.2
"""What the other addresses get once one has been answered: those of bridges and tunnels never are."""
_TURN_SECONDS: Final = 4.0
"""For all TURN servers together."""
_TURN_NEXT_SECONDS: Final = 0.5
"""After which the next one is asked too: several round trips. All at once would leave a relay at each."""
_GIVE_BACK_SECONDS: Final = 2.0
"""For a TURN server to take its relay back at the end of a call. One that has died is asked for a minute, by itself."""
_RECEIVE_BUFFER: Final = 256 << 10
"""As the library's: a burst of packets while the loop is busy."""

log = logging.getLogger(__name__)


class NoCandidatesError(Exception):
    """Nobody could reach this server; the message says why."""


class Gatherer:
    """Finds the candidates of all calls of a server. `clock` gives unix seconds."""

    def __init__(self, options: IceOptions, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self._clock = clock
        self._names = Names()

    async def gather(self, connection: Connection) -> None:
        """Fill the candidates of a connection, which closes its sockets in any case. Raises NoCandidatesError."""
        connection._local_candidates_start = True
        options = self.options
        hosts = [] if options.relay_only else await _bind(connection, options.ports)
        async with asyncio.TaskGroup() as group:
            searches = [
                group.create_task(_announced(hosts, options.public_addresses, self._names)),
                group.create_task(_reflexive(hosts, options.stun_servers, self._names)),
                group.create_task(_relayed(connection, options, options.credentials(self._clock()), self._names)),
            ]
        candidates: dict[tuple[str, int], Candidate] = {}
        for candidate in [*(host.local_candidate for host in hosts), *(candidate for search in searches for candidate in search.result())]:
            candidates.setdefault((candidate.host, candidate.port), candidate)
        if not candidates:
            lacking = "no TURN server gives a relay" if options.relay_only else "it has no network"
            raise NoCandidatesError(f"This server can't be reached by WebRTC now: {lacking}.")
        connection._local_candidates = list(candidates.values())
        connection._local_candidates_end = True

    async def close(self) -> None:
        """Nothing is looked up any more."""
        await self._names.close()


# ------------------------------------------------------------------------------------------------------- own addresses


async def _bind(connection: Connection, ports: tuple[int, int] | None) -> list[StunProtocol]:
    """A socket on each address of this machine but loopback. Of a range all have the same port: which of them a router forwards it to is
    not known here."""
    loop = asyncio.get_running_loop()
    addresses = get_host_addresses(use_ipv4=True, use_ipv6=True)
    # Left to the system, each address gets a port of its own.
    sockets = [sock for address in addresses for sock in open_all([address], 0) or ()] if ports is None else _open_range(addresses, ports)
    made: list[StunProtocol] = []
    for sock in sockets:
        _, protocol = await loop.create_datagram_endpoint(lambda: StunProtocol(connection), sock=sock)
        host, port = sock.getsockname()[:2]
        protocol.local_candidate = _candidate("host", host, host, port)
        connection._protocols.append(protocol)
        made.append(protocol)
    return made


def _open_range(addresses: Sequence[str], ports: tuple[int, int]) -> list[socket.socket]:
    """Any port of the range that is free on all addresses, in random order: packets of a call that has just ended don't come to the next.
    Raises NoCandidatesError."""
    first, last = ports
    for port in random.sample(range(first, last + 1), last - first + 1):
        if (sockets := open_all(addresses, port)) is not None:
            return sockets
    raise NoCandidatesError(f"Every UDP port from {first} to {last} is taken by a call.")


def open_all(addresses: Sequence[str], port: int) -> list[socket.socket] | None:
    """A socket with this port on each address; None where it is taken on one. Left out is an address that can't be used: an IPv6 one that
    is not ready, one that has gone."""
    sockets: list[socket.socket] = []
    for address in addresses:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            sock.bind((address, port))
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                for opened in sockets:
                    opened.close()
                return None
            log.debug("no call on %s: %s", address, error.strerror)
        else:
            sockets.append(sock)
    return sockets


def _candidate(kind: str, base: str, host: str, port: int, related: tuple[str, int] | None = None) -> Candidate:
    return Candidate(
        foundation=candidate_foundation(kind, "udp", base),
        component=_COMPONENT,
        transport="udp",
        priority=candidate_priority(_COMPONENT, kind),
        host=host,
        port=port,
        type=kind,
        related_address=related[0] if related else None,
        related_port=related[1] if related else None,
    )


def _seen_as(protocol: StunProtocol, host: str, port: int) -> Candidate:
    """What a socket is from outside (RFC 8445 section 5.1.1.2): checks are still sent from the socket itself."""
    base = protocol.local_candidate
    return _candidate("srflx", base.host, host, port, (base.host, base.port))


# ---------------------------------------------------------------------------------------------------- public addresses


async def _announced(hosts: Sequence[StunProtocol], public: Sequence[str], names: Names) -> list[Candidate]:
    """Each public address with the port of each socket of its family: the router or the cloud in front changes the address only."""
    found = await asyncio.gather(*(names.addresses(name) for name in public))
    for name, addresses in zip(public, found, strict=True):
        if not addresses:
            log.warning("the public address %s can't be resolved: a call goes without it", name)
    return [
        _seen_as(protocol, address, protocol.local_candidate.port)
        for addresses in found
        for address in addresses
        for protocol in hosts
        if (":" in address) == (":" in protocol.local_candidate.host)
    ]


# --------------------------------------------------------------------------------------------------------------- STUN


async def _reflexive(hosts: Sequence[StunProtocol], servers: Sequence[str], names: Names) -> list[Candidate]:
    """What STUN servers see of the sockets."""
    tasks = {asyncio.create_task(_ask(protocol, url, names)) for url in servers for protocol in hosts}
    if not tasks:
        return []
    found: list[Candidate] = []
    try:
        async with asyncio.timeout(_STUN_SECONDS) as patience:
            for task in asyncio.as_completed(tasks):
                answers = await task
                if answers and not found:
                    patience.reschedule(asyncio.get_running_loop().time() + _STUN_GRACE_SECONDS)
                found += answers
    except TimeoutError:
        pass
    finally:
        for pending in tasks:
            pending.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not found:
        log.warning("no STUN server answers: %s", ", ".join(servers))
    return found


async def _ask(protocol: StunProtocol, url: str, names: Names) -> list[Candidate]:
    """The candidate that one server sees of one socket; none where they don't speak the same IP, or nothing comes back."""
    server, base = parse_server(url), protocol.local_candidate
    addresses = await names.addresses(server.host, socket.AF_INET6 if ":" in base.host else socket.AF_INET)
    if not addresses:
        return []
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    try:
        response, _ = await protocol.request(request, (addresses[0], server.port))
        host, port = response.attributes["XOR-MAPPED-ADDRESS"]
    except (OSError, KeyError, stun.TransactionError):
        return []
    return [_seen_as(protocol, host, port)]


# --------------------------------------------------------------------------------------------------------------- TURN


class _Relay(StunProtocol):
    """A relay whose end no call waits for: the library would, for as long as it asks a dead server."""

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_SECONDS):
                await super().close()


_Found = tuple[Candidate, StunProtocol]


async def _relayed(connection: Connection, options: IceOptions, credentials: TurnCredentials | None, names: Names) -> list[Candidate]:
    """A relay of the first TURN server that gives one. They are asked in their order, the next where one has failed or is slow."""
    if credentials is None:
        return []
    waiting, asking = deque(options.turn_servers), set[asyncio.Task[_Found | None]]()
    found: list[_Found] = []
    try:
        async with asyncio.timeout(_TURN_SECONDS):
            while not found and (waiting or asking):
                if waiting:
                    asking.add(asyncio.create_task(_allocate(connection, waiting.popleft(), credentials, names, hides=options.relay_only)))
                done, asking = await asyncio.wait(
                    asking, timeout=_TURN_NEXT_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                found += [relay for task in done if (relay := task.result()) is not None]
    except TimeoutError:
        log.warning("no TURN server gives a relay within %.0f seconds", _TURN_SECONDS)
    finally:
        for task in asking:
            task.cancel()
        late = await asyncio.gather(*asking, return_exceptions=True)
        for _, protocol in [*found[1:], *(relay for relay in late if isinstance(relay, tuple))]:
            protocol.transport.close()
    connection._protocols += [protocol for _, protocol in found[:1]]
    return [candidate for candidate, _ in found[:1]]


async def _allocate(connection: Connection, url: str, credentials: TurnCredentials, names: Names, *, hides: bool) -> _Found | None:
    """A relay of one server; None where it gives none. `hides`: nobody is told where its user is."""
    server = parse_server(url)
    try:
        if not (addresses := await names.addresses(server.host)):
            raise OSError(f"{server.host} can't be resolved")
        return await relayed_candidate(
            component=_COMPONENT,
            hide_related_address=hides,
            protocol_factory=lambda: _Relay(connection),
            # A certificate is for the name.
            turn_server=(server.host if server.scheme == "turns" else addresses[0], server.port),
            turn_username=credentials.username,
            turn_password=credentials.password,
            turn_ssl=server.scheme == "turns",
            turn_transport=server.transport,
        )
    except (OSError, stun.TransactionError) as error:
        log.warning("the TURN server %s gives no relay: %s", url, error or type(error).__name__)
        return None
