"""Looks at the network: the server's port, UDP ports, what STUN servers see of this machine, whether TURN servers relay."""

import asyncio
import contextlib
import ipaddress
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx2
from aioice import stun
from aioice.ice import get_host_addresses

from server.auth import is_loopback_host
from server.config import ServerConfig
from server.doctor.finding import Finding, aside, failed, passed, warned
from server.doctor.relay import check_relay
from server.serve import StartupError, listen
from server.webrtc.gathering import open_all
from server.webrtc.ice import IceOptions, IceServer, parse_server

__all__ = ["check_addresses", "check_port", "check_turn", "check_udp"]

_PROBE_SECONDS: Final = 1.0
_MOST_PORTS: Final = 256
"""Of a range that are looked at."""
_STUN_TRIES: Final = 3
_STUN_SECONDS: Final = 0.5
"""For each try."""
_TURN_SECONDS: Final = 6.0


async def check_port(config: ServerConfig) -> list[Finding]:
    """Whether the server can listen."""
    place = f"TCP port {config.port} on {config.host}"
    try:
        sock = await aside(lambda: listen(config.host, config.port))
    except StartupError as error:
        if await _is_ours(config):
            advice = "nothing, if that is the one you mean; UDP ports that it uses count as taken below"
            return [warned("port", f"{place}: a vivavoce server is running there", advice)]
        found, _, advice = str(error).partition(": ")
        return [failed("port", found, advice or "choose another with --host and --port")]
    sock.close()
    return [passed("port", f"{place} is free")]


async def _is_ours(config: ServerConfig) -> bool:
    """Whether what listens there answers as we do."""
    scheme = "https" if config.tls_cert else "http"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.port}/"
    try:
        # It is our own machine, and only a look: the certificate is checked by itself.
        async with httpx2.AsyncClient(verify=False, timeout=_PROBE_SECONDS) as http:
            return "<title>Vivavoce</title>" in (await http.get(url)).text
    except (httpx2.HTTPError, ValueError):
        return False


# ----------------------------------------------------------------------------------------------------------------- UDP


async def check_udp(ice: IceOptions, max_sessions: int) -> list[Finding]:
    """Whether calls find ports, and whether a packet comes through on each address."""
    addresses = get_host_addresses(use_ipv4=True, use_ipv6=True)
    if not addresses:
        advice = "connect it to a network; a WebSocket from this machine itself works without"
        return [warned("UDP", "this machine has no network but loopback: it takes no WebRTC call", advice)]
    return [*await aside(lambda: _ports(ice, max_sessions, addresses)), *await _echoes(addresses)]


def _ports(ice: IceOptions, max_sessions: int, addresses: Sequence[str]) -> list[Finding]:
    if ice.ports is None:
        if ice.public_addresses:
            advice = "set --udp-ports, and forward them"
            return [
                warned("UDP ports", "a public address is announced, but calls take any port: a router would have to forward all", advice)
            ]
        return [passed("UDP ports", "any free one; firewalls have to let in all of them, or set --udp-ports")]
    first, last = ice.ports
    every = range(first, last + 1)
    looked = random.sample(every, min(len(every), _MOST_PORTS))
    free = sum(_is_free(addresses, port) for port in looked)
    told = f"{free} of {len(looked)} from {first} to {last} are free{'' if len(looked) == len(every) else ', a sample'}"
    if not free:
        return [failed("UDP ports", told, "stop the program that holds them, or choose another range with --udp-ports")]
    if free * len(every) < max_sessions * len(looked):
        return [warned("UDP ports", f"{told}, for up to {max_sessions} calls", "each call takes one: choose a larger range")]
    return [passed("UDP ports", told)]


def _is_free(addresses: Sequence[str], port: int) -> bool:
    sockets = open_all(addresses, port)
    for sock in sockets or ():
        sock.close()
    return sockets is not None


async def _echoes(addresses: Sequence[str]) -> list[Finding]:
    deaf = [address for address, hears in zip(addresses, await asyncio.gather(*map(_echo, addresses)), strict=True) if not hears]
    if deaf:
        return [failed("UDP", f"a packet of this machine to itself does not arrive at {', '.join(deaf)}", "let UDP through its firewall")]
    return [passed("UDP", f"packets arrive at {', '.join(addresses)}")]


async def _echo(address: str) -> bool:
    """Whether a packet from an address to itself arrives."""
    sockets = open_all([address], 0)
    if not sockets:
        return False
    loop, message = asyncio.get_running_loop(), b"vivavoce"
    with sockets[0] as sock, contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PROBE_SECONDS):
            await loop.sock_sendto(sock, message, sock.getsockname())
            return await loop.sock_recv(sock, len(message)) == message
    return False


# ----------------------------------------------------------------------------------------------------- public address


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a STUN server sees of the socket for one version of IP."""

    url: str
    version: int
    host: str
    port: int


async def check_addresses(config: ServerConfig, ice: IceOptions) -> list[Finding]:
    """Whether STUN servers answer, and see what is configured."""
    own = get_host_addresses(use_ipv4=True, use_ipv6=True)
    seen = await _asked(ice, own)
    findings = []
    for url in ice.stun_servers:
        if any(one.url == url for one in seen):
            findings.append(passed("STUN", f"{url} answers"))
        else:
            findings.append(failed("STUN", f"no answer from {url}", "is it right, and is UDP let out to it?"))
    for version in (4, 6):
        if len({(one.host, one.port) for one in seen if one.version == version}) > 1:
            told = f"over IPv{version} it takes another port for each destination (symmetric)"
            findings.append(warned("NAT", told, "STUN alone does not help here: forward a range of ports, or name a TURN server"))
    return findings + await _compared(config, ice, own, sorted({one.host for one in seen}))


async def _asked(ice: IceOptions, own: Sequence[str]) -> list[_Seen]:
    """What the STUN servers see of one socket for each version of IP: as calls do, on a port of the range."""
    seen: list[_Seen] = []
    for version in sorted({_version(address) for address in own}):
        sock = _any_socket([address for address in own if _version(address) == version][:1], ice.ports)
        if sock is None:
            continue
        with sock:
            answers = [(url, await _ask(sock, parse_server(url))) for url in ice.stun_servers]
        seen += [_Seen(url, version, *place) for url, place in answers if place is not None]
    return seen


def _version(host: str) -> int:
    """Of IP."""
    return 6 if ":" in host else 4


def _any_socket(addresses: Sequence[str], ports: tuple[int, int] | None) -> socket.socket | None:
    for port in (0,) if ports is None else range(ports[0], ports[1] + 1):
        if sockets := open_all(addresses, port):
            return sockets[0]
    return None


async def _ask(sock: socket.socket, server: IceServer) -> tuple[str, int] | None:
    """The address a STUN server sees (RFC 8489 section 7); None where it does not answer."""
    loop = asyncio.get_running_loop()
    try:
        places = await aside(lambda: socket.getaddrinfo(server.host, server.port, family=sock.family, type=socket.SOCK_DGRAM))
    except OSError:
        return None
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    for _ in range(_STUN_TRIES):
        with contextlib.suppress(OSError, ValueError, KeyError, TimeoutError):
            async with asyncio.timeout(_STUN_SECONDS):
                await loop.sock_sendto(sock, bytes(request), places[0][4])
                answer = stun.parse_message(await loop.sock_recv(sock, 2_048))
                if answer.transaction_id == request.transaction_id:
                    host, port = answer.attributes["XOR-MAPPED-ADDRESS"]
                    return str(host), int(port)
    return None


async def _compared(config: ServerConfig, ice: IceOptions, own: Sequence[str], outside: Sequence[str]) -> list[Finding]:
    """The configured addresses against what is seen from outside."""
    check = "public address"
    if ice.public_addresses:
        return [await _one_compared(name, own, outside) for name in ice.public_addresses]
    hidden = [host for host in outside if host not in own]
    if hidden and not ice.turn_servers:
        told = f"none is set; from outside this machine is seen as {', '.join(hidden)}"
        return [warned(check, told, f"if a router forwards ports to it: --public-address {hidden[0]} --udp-ports 40000-40100")]
    if outside:
        return [passed(check, f"from outside this machine is seen as {', '.join(outside)}")]
    private = all(ipaddress.ip_address(address).is_private for address in own)
    if private and not is_loopback_host(config.host) and not ice.turn_servers:
        told = f"none is set, and this machine's own ({', '.join(own)}) are private: WebRTC works in this network only"
        return [warned(check, told, "set --public-address and --udp-ports, or name a TURN server")]
    return [passed(check, f"none is set; WebRTC works where {', '.join(own) or 'nothing'} can be reached")]


async def _one_compared(name: str, own: Sequence[str], outside: Sequence[str]) -> Finding:
    check = "public address"
    try:
        places = await aside(lambda: socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM))
    except OSError:
        return failed(check, f"the name {name} can't be resolved", "correct it, or wait until your name server knows it")
    addresses = sorted({str(place[4][0]) for place in places})
    here = [address for address in addresses if address in own or address in outside]
    told = name if addresses == [name] else f"{name} ({', '.join(addresses)})"
    if here:
        return passed(check, f"{told} is this machine's")
    others = [host for host in outside if _version(host) in {_version(address) for address in addresses}]
    if others:
        return failed(check, f"{told} is set, but STUN sees {', '.join(others)}", f"set --public-address {others[0]}, or correct the name")
    return warned(check, f"{told} could not be compared: no STUN server says how this machine is seen", "name one: --stun-server stun:HOST")


# ---------------------------------------------------------------------------------------------------------------- TURN


async def check_turn(ice: IceOptions) -> list[Finding]:
    """Whether each TURN server takes our credentials and relays a packet."""
    credentials = ice.credentials(time.time())
    if credentials is None:
        return []
    return list(await asyncio.gather(*(check_relay(url, credentials, _TURN_SECONDS) for url in ice.turn_servers)))
