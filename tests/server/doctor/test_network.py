"""Ports that are taken, addresses that are not ours, STUN and TURN servers that are silent or refuse."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest
from aioice import stun

import server.doctor.network
from benchmarks.nat_world import TURN_SECRET, World, world
from server.config import ServerConfig
from server.doctor.finding import Finding, Outcome
from server.doctor.network import check_addresses, check_port, check_turn, check_udp
from server.webrtc.ice import IceOptions

TURN = "turn:127.0.0.1:9?transport=udp"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """This machine's addresses; a test may change them."""
    addresses = ["127.0.0.1"]
    monkeypatch.setattr(server.doctor.network, "get_host_addresses", lambda **_: addresses)
    for name in ("_STUN_SECONDS", "_TURN_SECONDS", "_PROBE_SECONDS"):
        monkeypatch.setattr(server.doctor.network, name, 0.3)
    return addresses


@pytest.fixture
async def stun_server() -> AsyncIterator[Callable[..., object]]:
    """`await stun_server(host, port)` starts one that sees everybody there, and gives its address."""
    opened = []

    async def start(host: str, port: int | None = None) -> str:
        class Stun(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
                answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, stun.parse_message(data).transaction_id)
                answer.attributes["XOR-MAPPED-ADDRESS"] = (host, port or address[1])
                transport.sendto(bytes(answer), address)

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Stun, local_addr=("127.0.0.1", 0))
        opened.append(transport)
        return f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"

    yield start
    for transport in opened:
        transport.close()


def outcomes(findings: list[Finding]) -> dict[str, Outcome]:
    return {finding.check: finding.outcome for finding in findings}


async def addresses(ice: IceOptions, host: str = "127.0.0.1") -> dict[str, Finding]:
    config = ServerConfig(host=host, api_keys=("vv_0123456789abcdef",))
    return {finding.check: finding for finding in await check_addresses(config, ice)}


# --------------------------------------------------------------------------------------------------------------- ports


async def test_a_free_port() -> None:
    assert outcomes(await check_port(ServerConfig(port=0))) == {"port": Outcome.PASS}


async def test_a_port_that_somebody_else_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        (finding,) = await check_port(ServerConfig(port=other.getsockname()[1]))
    assert finding.outcome is Outcome.FAIL
    assert "is in use" in finding.found
    assert "--port" in finding.advice


async def test_a_port_that_a_server_of_ours_has(start) -> None:
    served = await start()
    (finding,) = await check_port(ServerConfig(port=int(served.url.rpartition(":")[2])))
    assert finding.outcome is Outcome.WARN
    assert "a vivavoce server is running there" in finding.found


async def test_a_port_of_which_somebody_else_speaks_json() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        (finding,) = await check_port(ServerConfig(port=other.sockets[0].getsockname()[1]))
    assert finding.outcome is Outcome.FAIL


async def test_of_a_large_range_a_sample_is_looked_at() -> None:
    (finding, _) = await check_udp(IceOptions(ports=(20_000, 60_000)), 8)
    assert finding.outcome is Outcome.PASS
    assert finding.found.endswith("of 256 from 20000 to 60000 are free, a sample")


async def test_udp_comes_through_and_any_port_will_do() -> None:
    assert outcomes(await check_udp(IceOptions(), 8)) == {"UDP ports": Outcome.PASS, "UDP": Outcome.PASS}


async def test_udp_that_does_not_come_through(here) -> None:
    here[:] = ["127.0.0.1", "203.0.113.99"]  # the second is not ours
    (*_, finding) = await check_udp(IceOptions(), 8)
    assert finding.outcome is Outcome.FAIL
    assert "203.0.113.99" in finding.found


async def test_a_machine_without_a_network(here) -> None:
    here[:] = []
    assert outcomes(await check_udp(IceOptions(), 8)) == {"UDP": Outcome.WARN}


async def test_a_range_is_counted() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        (taken, _) = await check_udp(IceOptions(ports=(port, port)), 8)
        assert (taken.outcome, taken.found) == (Outcome.FAIL, f"0 of 1 from {port} to {port} are free")
    (few, _) = await check_udp(IceOptions(ports=(port, port)), 8)
    assert few.outcome is Outcome.WARN
    (enough, _) = await check_udp(IceOptions(ports=(port, port)), 1)
    assert enough.outcome is Outcome.PASS
    (all_of_them, _) = await check_udp(IceOptions(public_addresses=("203.0.113.7",)), 1)
    assert all_of_them.outcome is Outcome.WARN


# ----------------------------------------------------------------------------------------------------------- addresses


async def test_what_stun_sees_is_what_is_set(stun_server) -> None:
    url = await stun_server("203.0.113.7")
    found = await addresses(IceOptions(public_addresses=("203.0.113.7",), stun_servers=(url,)))
    assert {check: finding.outcome for check, finding in found.items()} == {"STUN": Outcome.PASS, "public address": Outcome.PASS}


async def test_what_stun_sees_is_something_else(stun_server) -> None:
    url = await stun_server("203.0.113.7")
    finding = (await addresses(IceOptions(public_addresses=("203.0.113.9",), stun_servers=(url,))))["public address"]
    assert finding.outcome is Outcome.FAIL
    assert "STUN sees 203.0.113.7" in finding.found
    assert "--public-address 203.0.113.7" in finding.advice


async def test_a_public_address_that_nobody_has_looked_at() -> None:
    finding = (await addresses(IceOptions(public_addresses=("203.0.113.9",))))["public address"]
    assert finding.outcome is Outcome.WARN
    assert "--stun-server" in finding.advice


async def test_a_public_name_that_is_none(monkeypatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    finding = (await addresses(IceOptions(public_addresses=("home.example.org",))))["public address"]
    assert finding.outcome is Outcome.FAIL
    assert "home.example.org can't be resolved" in finding.found


async def test_a_nat_that_nobody_has_set_anything_for(stun_server) -> None:
    url = await stun_server("203.0.113.7")
    finding = (await addresses(IceOptions(stun_servers=(url,))))["public address"]
    assert finding.outcome is Outcome.WARN
    assert "--public-address 203.0.113.7" in finding.advice


async def test_a_symmetric_nat_is_recognised(stun_server) -> None:
    urls = (await stun_server("203.0.113.7", 5_000), await stun_server("203.0.113.7", 5_001))
    assert (await addresses(IceOptions(stun_servers=urls)))["NAT"].outcome is Outcome.WARN
    alike = (await stun_server("203.0.113.7", 5_000), await stun_server("203.0.113.7", 5_000))
    assert "NAT" not in await addresses(IceOptions(stun_servers=alike))


async def test_private_addresses_are_said_to_be(here) -> None:
    assert (await addresses(IceOptions(), "0.0.0.0"))["public address"].outcome is Outcome.WARN
    assert (await addresses(IceOptions()))["public address"].outcome is Outcome.PASS


async def test_a_stun_server_that_is_silent() -> None:
    finding = (await addresses(IceOptions(stun_servers=("stun:127.0.0.1:9",))))["STUN"]
    assert finding.outcome is Outcome.FAIL
    assert "no answer from stun:127.0.0.1:9" in finding.found


# ---------------------------------------------------------------------------------------------------------------- TURN


async def test_a_turn_server_that_is_silent() -> None:
    (finding,) = await check_turn(IceOptions(turn_servers=(TURN,), turn_secret="shared-secret"))
    assert finding.outcome is Outcome.FAIL
    assert f"{TURN} does not answer" in finding.found
    assert "shared-secret" not in finding.found + finding.advice


async def test_a_turn_server_over_tcp_that_is_not_there() -> None:
    (finding,) = await check_turn(IceOptions(turn_servers=("turn:127.0.0.1:9?transport=tcp",), turn_secret="shared-secret"))
    assert finding.outcome is Outcome.FAIL
    assert "gives no relay" in finding.found


async def test_without_one_there_is_nothing_to_say() -> None:
    assert await check_turn(IceOptions()) == []


LOOK = """
import asyncio, json, sys
from server.config import ServerConfig
from server.doctor.command import to_json
from server.doctor.network import check_addresses, check_turn
from server.webrtc.ice import IceOptions

async def look():
    ice = IceOptions(**json.loads(sys.argv[1]))
    return [*await check_addresses(ServerConfig(), ice), *await check_turn(ice)]

print(to_json(asyncio.run(look())))
"""


def looked(made: World, host: str, *, trusts: bool = True, **ice: object) -> list[tuple[str, str, str]]:
    """What is found on a host of a world: check, outcome, words."""
    env = dict(os.environ) | ({"SSL_CERT_FILE": str(made.certificate)} if trusts else {})
    running = made.start(host, [sys.executable, "-c", LOOK, json.dumps(ice)], env, stdout=subprocess.PIPE)
    shown = json.loads(running.communicate(timeout=60)[0])
    return [(finding["check"], finding["outcome"], finding["found"]) for finding in shown["findings"]]


@pytest.mark.networks
def test_real_servers_across_a_nat() -> None:
    with world([], {"behind": "symmetric", "blocked": "blocked"}) as made:
        urls = [*(f"turn:{made.turn}:3478?transport={transport}" for transport in ("udp", "tcp")), f"turns:{made.turn}"]
        seen, own = made.address["behind"], {"stun_servers": [f"stun:{made.turn}"], "turn_secret": TURN_SECRET}
        found = looked(made, "behind", **own, turn_servers=urls, public_addresses=[seen])
        assert ("public address", "pass", f"{seen} is this machine's") in found
        assert [check for check, _, _ in found] == ["STUN", "public address", "TURN", "TURN", "TURN"]
        assert {outcome for _, outcome, _ in found} == {"pass"}
        assert f"relays packets at {made.turn}" in found[-1][2]

        refused = looked(made, "behind", turn_servers=urls, turn_secret="another")
        assert [(outcome, "refuses the credentials (401)" in words) for check, outcome, words in refused if check == "TURN"] == [
            ("fail", True),
            ("fail", True),
            ("fail", True),
        ]
        ((_, outcome, words),) = [
            finding for finding in looked(made, "behind", trusts=False, **own, turn_servers=urls[2:]) if finding[0] == "TURN"
        ]
        assert outcome == "fail"
        assert "CERTIFICATE_VERIFY_FAILED" in words
        blocked = looked(made, "blocked", **own, turn_servers=urls)
        assert [outcome for check, outcome, _ in blocked if check in ("STUN", "TURN")] == ["fail", "fail", "pass", "pass"]
        assert made.relays_left() == 0
