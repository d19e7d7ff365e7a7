"""Bad networks do what they say, the same for the same seed; the relay between two sockets too."""

import asyncio
import itertools

import pytest

from benchmarks.networks import GOOD, NETWORKS, Network, Path
from benchmarks.relay import UdpRelay, is_media

SENT = 5_000
RTP = bytes([0x80, 111]) + bytes(20)


def arrivals(network: Network, seed: int = 1, count: int = SENT) -> list[list[float]]:
    path = Path(network, seed)
    return [path.arrivals(number * 0.02) for number in range(count)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_is_a_network(name) -> None:
    assert arrivals(NETWORKS[name], 7) == arrivals(NETWORKS[name], 7)
    assert all(at >= number * 0.02 for number, times in enumerate(arrivals(NETWORKS[name])) for at in times)


def test_a_good_network_changes_nothing() -> None:
    assert arrivals(GOOD) == [[number * 0.02] for number in range(SENT)]


@pytest.mark.parametrize("burst", [1.0, 3.0])
def test_the_share_and_the_runs_that_are_lost(burst) -> None:
    lost = [not times for times in arrivals(Network(loss=0.2, burst=burst))]
    assert sum(lost) / SENT == pytest.approx(0.2, abs=0.03)
    runs = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / runs == pytest.approx(1 / 0.8 if burst == 1 else burst, rel=0.15)


def test_jitter_lets_packets_overtake_each_other_and_none_is_lost() -> None:
    came = [times[0] for times in arrivals(Network(jitter=0.2))]
    assert came != sorted(came)
    assert max(at - number * 0.02 for number, at in enumerate(came)) <= 0.2


def test_swapped_and_repeated() -> None:
    came = [times[0] for times in arrivals(Network(swapped=0.3))]
    assert sum(later < earlier for earlier, later in itertools.pairwise(came)) > SENT * 0.15
    assert sum(len(times) == 2 for times in arrivals(Network(repeated=0.3))) / SENT == pytest.approx(0.3, abs=0.03)


def test_a_stall_ends_with_everything_in_order() -> None:
    came = [times[0] for times in arrivals(Network(stall_at=1.0, stall=2.0), count=300)]
    assert came[50:150] == [3.0] * 100
    assert came[150:] == [number * 0.02 for number in range(150, 300)]


def test_what_is_media() -> None:
    assert is_media(RTP)
    assert not is_media(bytes([0x80, 200]) + bytes(20))  # RTCP
    assert not is_media(bytes([0x16, 0xFE]) + bytes(20))  # DTLS
    assert not is_media(bytes(20))  # STUN


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes and keeps who has sent it."""

    def __init__(self) -> None:
        self.sources: list[tuple[str, int]] = []
        self.got: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data, addr) -> None:
        self.sources.append(addr)
        self.got.put_nowait(data)
        if data.endswith(b"?"):
            self.transport.sendto(data[:-1] + b"!", addr)


async def opened() -> tuple[Echo, tuple[str, int]]:
    transport, echo = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    return echo, transport.get_extra_info("sockname")


async def test_the_relay_goes_between_and_can_change_its_address() -> None:
    server, address = await opened()
    client, _ = await opened()
    async with asyncio.timeout(20), UdpRelay(address) as relay:
        for question in (b"one?", RTP + b"?"):
            client.transport.sendto(question, relay.address)
            assert await server.got.get() == question
            assert await client.got.get() == question[:-1] + b"!"
        await relay.rebind()
        client.transport.sendto(b"two?", relay.address)
        assert await client.got.get() == b"two!"
        assert len(set(server.sources)) == 2
        relay.change(Network(loss=1.0))
        client.transport.sendto(RTP, relay.address)
        client.transport.sendto(b"not media", relay.address)
        assert [await server.got.get() for _ in range(2)] == [b"two?", b"not media"]
    for each in (server, client):
        each.transport.close()


async def test_what_is_on_its_way_ends_with_the_relay() -> None:
    server, address = await opened()
    client, _ = await opened()
    async with asyncio.timeout(20), UdpRelay(address, Network(stall=1_000.0)) as relay:
        client.transport.sendto(RTP, relay.address)
        client.transport.sendto(b"mark", relay.address)
        assert await server.got.get() == b"mark"
    assert not relay.waiting
    for each in (server, client):
        each.transport.close()
