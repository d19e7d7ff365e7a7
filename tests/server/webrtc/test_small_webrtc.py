"""Pipecat's SmallWebRTC: the offer in JSON, candidates by PATCH, a call begun anew."""

import pytest


async def post(client, served, **body: object):
    return await client.post(served.url + "/api/offer", json=body)


async def test_an_offer_is_answered_and_the_call_comes_up(start, caller, client) -> None:
    served, one = await start(), caller()
    response = await post(client, served, sdp=await one.offer(), type="offer", request_data={"any": 1})
    answer = response.json()
    assert (response.status_code, answer["type"]) == (200, "answer")
    candidate = {"candidate": "candidate:1 1 udp 2130706431 192.0.2.77 50000 typ host", "sdp_mid": "0", "sdp_mline_index": 0}
    patched = await client.patch(served.url + "/api/offer", json={"pc_id": answer["pc_id"], "candidates": [candidate]})
    assert (patched.status_code, patched.json()) == (200, {"status": "success"})
    await one.accept(answer["sdp"])
    await one.until("session.created")
    one.channel.send("ping")
    one.send(type="session.update", session={"type": "realtime"})
    await one.until("session.updated")
    assert "error" not in one.kinds()


async def test_a_call_may_be_begun_anew(start, caller, client) -> None:
    served, first, second = await start(), caller(), caller()
    before = (await post(client, served, sdp=await first.offer(), type="offer")).json()
    await first.accept(before["sdp"])
    await first.until("session.created")
    refused = await post(client, served, sdp=await second.offer(), type="offer", pc_id=before["pc_id"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (501, "not_implemented")
    after = (await post(client, served, sdp=await second.offer(), type="offer", pc_id=before["pc_id"], restart_pc=True)).json()
    assert after["pc_id"] != before["pc_id"]
    await second.accept(after["sdp"])
    await second.until("session.created")
    await first.closed()


@pytest.mark.parametrize(
    ("method", "content", "status"),
    [
        ("POST", b"{", 400),
        ("POST", b"{}", 400),
        ("POST", b'{"sdp": 5}', 400),
        ("POST", b'{"sdp": "v=1"}', 400),
        ("PATCH", b"[]", 400),
        ("PATCH", b'{"pc_id": "rtc_none"}', 404),
        ("PATCH", b'{"pc_id": "x", "candidates": 7}', 400),
        ("PATCH", b'{"pc_id": "x", "candidates": [{}]}', 400),
    ],
)
async def test_a_bad_request_is_refused(start, client, method, content, status) -> None:
    served = await start()
    assert (await client.request(method, served.url + "/api/offer", content=content)).status_code == status
