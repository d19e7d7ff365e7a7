"""WHIP (RFC 9725), as a client of it uses the server: an offer that sends, one that also wants to hear, candidates, the end."""

import pytest

from agent.conversation import Conversation
from streaming.fakes import ScriptedEngine, ScriptedReply

FRAGMENT = "application/trickle-ice-sdpfrag"
CANDIDATE = "a=mid:0\r\na=candidate:1 1 udp 2130706431 192.0.2.77 50000 typ host\r\na=end-of-candidates\r\n"


async def test_a_client_that_offers_to_hear_is_answered_in_sound(start, ring, speech, client) -> None:
    served = await start(ScriptedEngine([ScriptedReply("One two three.")]), factory=Conversation)
    caller = await ring(served, path="/whip", events=False)
    assert caller.location.startswith("/whip/rtc_")
    caller.mouth.say(speech(600, rate=48_000))
    assert len(await caller.hears(48 * 180)) >= 48 * 180
    assert (await client.delete(served.url + caller.location)).status_code == 200
    await caller.closed()
    assert (await client.delete(served.url + caller.location)).status_code == 404


async def test_a_client_that_only_sends_is_heard(start, ring, speech, dial) -> None:
    served = await start(ScriptedEngine(), factory=Conversation)
    caller = await ring(served, path="/whip", events=False, hears=False)
    assert "a=recvonly" in caller.answer
    sideband = await dial(served, served.url.replace("http", "ws", 1) + f"/v1/realtime?call_id={caller.location.rpartition('/')[2]}")
    caller.mouth.say(speech(600, rate=48_000))
    await sideband.until("input_audio_buffer.committed")


async def test_candidates_may_follow_the_offer(start, ring, client) -> None:
    served = await start()
    caller = await ring(served, path="/whip", events=False)
    url = served.url + caller.location

    async def patch(content: str = CANDIDATE, **headers: str) -> int:
        return (await client.patch(url, content=content, headers={"Content-Type": FRAGMENT} | headers)).status_code

    tag = caller.headers["ETag"]
    assert await patch(**{"If-Match": tag}) == 204
    assert await patch() == 428
    assert await patch(**{"If-Match": '"another"'}) == 412
    assert await patch(**{"If-Match": "*"}) == 501
    assert await patch(**{"If-Match": tag, "Content-Type": "text/plain"}) == 415
    assert await patch("a=candidate:nonsense\r\n" * 500, **{"If-Match": tag}) == 204
    assert await patch("x" * (600 << 10), **{"If-Match": tag}) == 413


async def test_what_the_endpoint_takes(start, client) -> None:
    served = await start()
    options = await client.options(served.url + "/whip")
    assert (options.status_code, options.headers["Accept-Post"]) == (204, "application/sdp")
    assert (await client.post(served.url + "/whip", content="v=0", headers={"Content-Type": "text/plain"})).status_code == 415
    assert (await client.post(served.url + "/whip", content="x", headers={"Content-Type": "application/sdp"})).status_code == 400


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_only_who_has_a_key_may_touch_a_call(start, client, method) -> None:
    served = await start(api_keys=["a-lasting-key-1234"])
    assert (await client.request(method, served.url + "/whip/rtc_1")).status_code == 401
