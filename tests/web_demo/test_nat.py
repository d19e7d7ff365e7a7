"""The page in Chromium behind NAT, across network namespaces: through a TURN server, or over the WebSocket where nothing else goes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from visit import ALLOW, visit

from benchmarks.nat import port_of, serving
from benchmarks.nat_peer import KEY
from benchmarks.nat_world import World, world

pytestmark = [pytest.mark.browser, pytest.mark.networks, pytest.mark.timeout(180)]

HOSTS = {"symmetric": "symmetric", "blocked": "blocked", "forwarding": "forwarding", "symmetric-server": "symmetric"}
GIVEN_UP = "Over the WebSocket: WebRTC did not connect; UDP may be blocked"
PATIENCE = 8.0


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with world([], HOSTS) as internet:
        yield internet


@pytest.mark.parametrize(
    ("server", "host", "caller", "route"),
    [
        ("forwarded ports", "forwarding", "symmetric", "Over WebRTC"),
        ("symmetric NAT, TURN", "symmetric-server", "symmetric", "Over WebRTC"),
        ("symmetric NAT, TURN", "symmetric-server", "blocked", "Over WebRTC"),  # TURN over TCP
        ("forwarded ports", "forwarding", "blocked", GIVEN_UP),
    ],
)
async def test_a_turn(
    server: str, host: str, caller: str, route: str, made: World, browsing: Callable, spoken: Callable, chromium: str, tmp_path: Path
) -> None:
    there = tmp_path / "chromium"
    there.write_text(f'#!/bin/sh\nexec ip netns exec {made.prefix}{caller} {chromium} "$@"\n')
    there.chmod(0o755)
    address = f"http://{made.address[host]}:{port_of(server)}"
    flags = (ALLOW, f"--unsafely-treat-insecure-origin-as-secure={address}", spoken(8.0, 1.2, 60.0))
    with serving(made, server, PATIENCE):
        async with browsing(*flags, executable=str(there)) as browser:
            seen = await visit(browser, address, scripts=(f"sessionStorage.setItem('vivavoce-key', '{KEY}')",))
            await seen.page.click("#call")
            await seen.route(route)
            entries = await seen.settled(2)
            await seen.page.click("#call")
    assert [(who, cut) for who, _, _, cut in entries] == [("you", "false"), ("agent", "false")]
    assert made.relays_left() == 0
