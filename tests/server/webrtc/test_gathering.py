"""Candidates: of a range of ports, with a public address, from STUN, and what happens where nothing answers."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aioice import Candidate, Connection, stun

import server.webrtc.gathering
from server.webrtc.gathering import Gatherer, NoCandidatesError
from server.webrtc.ice import IceOptions

TURN = "turn:127.0.0.1:9?transport=udp"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """This machine's addresses; a test may change them."""
    addresses = ["127.0.0.1"]
    monkeypatch.setattr(server.webrtc.gathering, "get_host_addresses", lambda **_: addresses)
    monkeypatch.setattr(server.webrtc.gathering, "_STUN_SECONDS", 0.1)
    monkeypatch.setattr(server.webrtc.gathering, "_TURN_SECONDS", 0.1)
    return addresses


class Stun(asyncio.DatagramProtocol):
    """A STUN server that sees everybody at 203.0.113.7, port 5000."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.7", 5_000)
        self._transport.sendto(bytes(answer), address)


@pytest.fixture
async def stun_server() -> AsyncIterator[str]:
    """Its address."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Stun, local_addr=("127.0.0.1", 0))
    yield f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    transport.close()


async def candidates(options: IceOptions) -> list[Candidate]:
    connection, gatherer = Connection(ice_controlling=False), Gatherer(options, lambda: 0)
    try:
        await gatherer.gather(connection)
        return connection.local_candidates
    finally:
        await connection.close()
        await gatherer.close()


def free_range(count: int) -> tuple[int, int]:
    """So many neighbouring UDP ports that nobody has."""
    for first in range(20_000, 60_000, count):
        held = []
        try:
            for port in range(first, first + count):
                held.append(sock := socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for sock in held:
                sock.close()
        return first, first + count - 1
    raise AssertionError


async def test_without_options_this_machines_addresses_are_told() -> None:
    (found,) = await candidates(IceOptions())
    assert (found.host, found.type, found.related_address) == ("127.0.0.1", "host", None)


async def test_ports_are_of_the_range_and_given_back() -> None:
    first, last = free_range(3)
    options = IceOptions(ports=(first, last))
    ports = {(await candidates(options))[0].port for _ in range(30)}
    assert ports <= set(range(first, last + 1))
    assert len(ports) > 1  # not always the same: 1 in 3 ** 29 that it is by chance


async def test_all_addresses_of_a_call_have_the_same_port(here) -> None:
    here[:] = ["127.0.0.1", "127.0.0.2", "203.0.113.99"]  # the last is not ours
    first, last = free_range(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", first))  # free on one address only is not free
        for _ in range(10):
            one, two = await candidates(IceOptions(ports=(first, last)))
            assert one.port == two.port != first
            assert {one.host, two.host} == {"127.0.0.1", "127.0.0.2"}


async def test_a_range_that_is_taken_is_said(here) -> None:
    first, _ = free_range(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", first))
        with pytest.raises(NoCandidatesError, match=f"Every UDP port from {first} to {first} is taken"):
            await candidates(IceOptions(ports=(first, first)))


async def test_a_machine_without_a_network_is_said(here) -> None:
    here[:] = []
    with pytest.raises(NoCandidatesError, match="it has no network"):
        await candidates(IceOptions())


async def test_a_public_address_is_told_with_the_calls_port() -> None:
    options = IceOptions(public_addresses=("203.0.113.7", "2001:db8::7", "127.0.0.1"))
    own, public = await candidates(options)  # no IPv6 here to be behind that address; our own is told once
    assert (public.host, public.port, public.type) == ("203.0.113.7", own.port, "srflx")
    assert (public.related_address, public.related_port) == ("127.0.0.1", own.port)
    assert public.priority < own.priority


async def test_a_public_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        return [(None, None, None, "", ("203.0.113.7", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    _, public = await candidates(IceOptions(public_addresses=("home.example.org",)))
    assert public.host == "203.0.113.7"


async def test_a_name_that_is_none_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    assert len(await candidates(IceOptions(public_addresses=("home.example.org",)))) == 1
    assert "home.example.org can't be resolved" in caplog.text


async def test_stun_says_how_we_are_seen(stun_server) -> None:
    own, seen = await candidates(IceOptions(stun_servers=("stun:127.0.0.1:9", stun_server)))
    assert (seen.host, seen.port, seen.type) == ("203.0.113.7", 5_000, "srflx")
    assert (seen.related_address, seen.related_port) == (own.host, own.port)


async def test_servers_that_are_silent_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    options = IceOptions(stun_servers=("stun:127.0.0.1:9",), turn_servers=(TURN,), turn_secret="shared-secret")
    assert [found.type for found in await candidates(options)] == ["host"]
    assert "no STUN server answers: stun:127.0.0.1:9" in caplog.text
    assert "no TURN server gives a relay within" in caplog.text
    assert "shared-secret" not in caplog.text


async def test_without_its_relay_a_relayed_server_is_not_reached() -> None:
    options = IceOptions(turn_servers=(TURN,), turn_password="secret", relay_only=True)
    with pytest.raises(NoCandidatesError, match="no TURN server gives a relay"):
        await candidates(options)


class Turn(asyncio.DatagramProtocol):
    """A TURN server that gives anybody a relay, and then has died."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        if request.message_method is not stun.Method.ALLOCATE:
            return
        answer = stun.Message(stun.Method.ALLOCATE, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["XOR-RELAYED-ADDRESS"], answer.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.9", 50_000), address
        answer.attributes["LIFETIME"] = 600
        self._transport.sendto(bytes(answer), address)


@pytest.fixture
async def turn_server() -> AsyncIterator[str]:
    """Its address."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Turn, local_addr=("127.0.0.1", 0))
    yield f"turn:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    transport.close()


async def test_dead_turn_servers_do_not_keep_a_living_one_from_being_asked(turn_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.webrtc.gathering, "_GIVE_BACK_SECONDS", 0.05)
    monkeypatch.setattr(server.webrtc.gathering, "_TURN_SECONDS", 20.0)
    monkeypatch.setattr(server.webrtc.gathering, "_TURN_NEXT_SECONDS", 0.05)
    dead = ("turn:127.0.0.1:9?transport=tcp", "turn:127.0.0.1:9", "turn:127.0.0.1:9?transport=udp", TURN)
    connection = Connection(ice_controlling=False)
    await Gatherer(IceOptions(turn_servers=(*dead, turn_server), turn_password="secret")).gather(connection)
    assert [found.type for found in connection.local_candidates] == ["host", "relay"]
    await forget(connection)


async def forget(connection: Connection) -> None:
    """Close it, and ask the TURN server that never answers no longer."""
    async with asyncio.timeout(20):  # the library asks for a minute
        await connection.close()
    asking = asyncio.all_tasks() - {asyncio.current_task()}
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_the_end_of_a_call_does_not_wait_for_a_turn_server_that_has_died(turn_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.webrtc.gathering, "_GIVE_BACK_SECONDS", 0.05)
    monkeypatch.setattr(server.webrtc.gathering, "_TURN_SECONDS", 20.0)
    connection = Connection(ice_controlling=False)
    await Gatherer(IceOptions(turn_servers=(turn_server,), turn_password="secret")).gather(connection)
    assert [found.type for found in connection.local_candidates] == ["host", "relay"]
    await forget(connection)
