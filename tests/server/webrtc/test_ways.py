"""Ways to a call on a real server: what browsers are told, ports and addresses in answers, and connections that never come up."""

import asyncio
import re
import socket

import pytest

from benchmarks.nat_world import udp_sockets
from server.limits import Limits
from server.webrtc.ice import IceOptions

KEY = "a-lasting-key-1234"
TURN = "turn:turn.example.org:3478?transport=udp"


def candidate_lines(answer: str) -> list[list[str]]:
    return [line.split() for line in answer.splitlines() if line.startswith("a=candidate:")]


def checks() -> int:
    """Connectivity checks under way, the caller's and the server's."""
    return sum("Connection.check_start" in repr(task) for task in asyncio.all_tasks())


async def settled(served) -> None:
    """No session, no call and none of their tasks is left."""
    async with asyncio.timeout(20):
        while "vivavoce_sessions 0.0" not in (await served.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while any(task.get_name().startswith(("rtc_", "sess_", "webrtc")) for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def not_connected(metrics: str) -> float:
    return float(re.search(r'vivavoce_webrtc_calls_total\{outcome="not connected"\} (\S+)', metrics)[1])


@pytest.mark.parametrize("path", ["/v1/realtime/ice_servers", "/openai/v1/realtime/ice_servers"])
async def test_a_browser_is_told_of_the_servers_and_gets_credentials_that_expire(start, path) -> None:
    ice = IceOptions(stun_servers=("stun:stun.example.org",), turn_servers=(TURN,), turn_secret="shared-secret", turn_seconds=600)
    served = await start(api_keys=[KEY], ice=ice)
    assert (await served.get(path)).json()["error"]["code"] == "missing_api_key"
    response = await served.get(path, {"Authorization": f"Bearer {KEY}"})
    assert response.headers["Cache-Control"] == "no-store"
    told = response.json()
    stun, turn = told["iceServers"]
    assert stun == {"urls": ["stun:stun.example.org"]}
    assert turn["urls"] == [TURN]
    assert turn["username"] == f"{told['expires_at']}:vivavoce"
    assert "shared-secret" not in response.text
    asked = b'{"expires_after": {"anchor": "created_at", "seconds": 60}}'
    secret = (await served.post("/v1/realtime/client_secrets", asked, {"Authorization": f"Bearer {KEY}"})).json()
    short = (await served.get(path, {"Authorization": f"Bearer {secret['value']}"})).json()
    assert short["expires_at"] == secret["expires_at"]
    assert 'vivavoce_refused_total{reason="missing_api_key"} 1.0' in (await served.get("/metrics")).text


async def test_nothing_configured_is_an_empty_list(start) -> None:
    assert (await (await start()).get("/v1/realtime/ice_servers")).json() == {"iceServers": [], "expires_at": None}


async def test_somebody_elses_page_is_told_nothing(start) -> None:
    response = await (await start()).get("/v1/realtime/ice_servers", {"Origin": "https://evil.example"})
    assert response.json()["error"]["code"] == "origin_not_allowed"


async def test_whip_clients_are_told_in_links(start, ring) -> None:
    served = await start(ice=IceOptions(stun_servers=("stun:127.0.0.1:9",)))
    caller = await ring(served, path="/whip", events=False)
    assert caller.headers.get_list("Link") == ['<stun:127.0.0.1:9>; rel="ice-server"']


async def test_a_call_is_told_the_public_address_and_uses_the_range(start, ring) -> None:
    served = await start(ice=IceOptions(public_addresses=("203.0.113.7",), ports=(31_000, 31_400)))
    caller = await ring(served)
    lines = candidate_lines(caller.answer)
    ports = {int(line[5]) for line in lines}
    assert len(ports) == 1  # a browser's sections are bundled, and all addresses of a call have one port
    assert ports <= set(range(31_000, 31_401))
    assert {line[4] for line in lines if line[7] == "srflx"} == {"203.0.113.7"}
    assert "a=end-of-candidates" in caller.answer


async def test_a_call_for_which_no_port_is_left_is_refused_and_may_come_back(start, ring, caller, post) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    served = await start(ice=IceOptions(ports=(port, port)))
    first = await ring(served)
    refused = await post(served, await caller().offer())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_way_to_server")
    assert refused.headers["Retry-After"] == "5"
    assert f"Every UDP port from {port} to {port} is taken" in refused.json()["error"]["message"]
    await first.hang_up()
    await settled(served)
    await ring(served)


# ----------------------------------------------------------------------------------------------- what never comes up


async def test_a_thousand_candidates_cost_a_few_checks_and_the_call_connects(start, caller, post) -> None:
    served, one = await start(), caller()
    offer = await one.offer()
    many = "".join(f"a=candidate:x{number} 1 udp 1 192.0.2.{number % 250} {1_024 + number} typ host\r\n" for number in range(1_000))
    own = "\r\n".join(line for line in offer.splitlines() if line.startswith("a=candidate:"))
    response = await post(served, offer.replace(own, own + "\r\n" + many.rstrip(), 1))
    assert response.status_code == 201
    await one.accept(response.text)
    await one.until("session.created")
    assert checks() <= 2 * 32
    await one.hang_up()
    await settled(served)


@pytest.mark.parametrize("count", [0, 1_000])
async def test_ice_that_never_completes_is_given_up_and_leaves_no_socket(start, caller, post, count) -> None:
    served, one = await start(limits=Limits(connect_seconds=0.5)), caller()
    offer = await one.offer()
    before = udp_sockets()
    lines = [line for line in offer.splitlines() if not line.startswith("a=candidate:")]
    lines += [f"a=candidate:x{number} 1 udp 1 192.0.2.{number % 250} {1_024 + number} typ host" for number in range(count)]
    assert (await post(served, "\r\n".join(lines) + "\r\n")).status_code == 201
    await settled(served)
    assert not_connected((await served.get("/metrics")).text) == 1
    assert udp_sockets() <= before


async def test_dtls_that_never_finishes_is_given_up_and_leaves_no_socket(start, caller, post) -> None:
    served, one = await start(limits=Limits(connect_seconds=1.5)), caller()
    response = await post(served, await one.offer())
    before = udp_sockets()

    async def say_nothing(*_: object) -> None:
        await asyncio.sleep(0)

    for end in {one.pc.getSenders()[0].transport, one.pc.sctp.transport}:
        end.start = say_nothing
    await one.accept(response.text)
    await settled(served)
    assert one.pc.iceConnectionState in ("completed", "closed", "failed")  # the network was there
    assert not_connected((await served.get("/metrics")).text) == 1
    assert udp_sockets() < before


async def test_candidates_that_keep_coming_are_counted(start, caller, client) -> None:
    served, one = await start(limits=Limits(connect_seconds=2.0)), caller()
    answer = (await client.post(served.url + "/api/offer", json={"sdp": await one.offer(), "type": "offer"})).json()
    most = 0
    for begin in range(0, 1_000, 100):
        found = [f"candidate:x 1 udp 1 192.0.2.{number % 250} {1_024 + number} typ host" for number in range(begin, begin + 100)]
        body = {"pc_id": answer["pc_id"], "candidates": [{"sdp_mid": "0", "candidate": candidate} for candidate in found]}
        assert (await client.patch(served.url + "/api/offer", json=body)).status_code == 200
        most = max(most, checks())
    assert most <= 64 + 32
    await settled(served)
