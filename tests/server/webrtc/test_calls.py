"""Calls over WebRTC on a real server with a scripted engine: a spoken turn, an interruption, the data channel, hanging up."""

import asyncio
import json
import re

import httpx
import numpy as np
import pytest
from aiortc.rtcsctptransport import RTCSctpTransport
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent.conversation import Conversation
from agent.events import CommitInput
from server.limits import Limits
from server.metrics import Metrics
from server.webrtc.channel import CallChannel
from server.webrtc.gathering import Gatherer
from server.webrtc.ice import IceOptions
from server.webrtc.offer import Offer
from streaming.fakes import ScriptedEngine, ScriptedReply

RATE = 48_000
OTHER = b"--x\r\nContent-Disposition: form-data; name=other\r\n\r\ny\r\n--x--\r\n"


async def eventually(condition) -> None:
    """Let the loop run until `condition()` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event to wait for
            await asyncio.sleep(0.01)


async def gone(served) -> None:
    """No session is left."""
    async with asyncio.timeout(20):
        while "vivavoce_sessions 0.0" not in (await served.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_spoken_turn_is_answered_in_sound(start, ring, speech) -> None:
    served = await start(ScriptedEngine([ScriptedReply("One two three four five.")]), factory=Conversation)
    caller = await ring(served)
    await caller.pause_for(2_000)
    caller.mouth.say(speech(600, rate=48_000))
    done = await caller.until("response.done")
    assert done["response"]["status"] == "completed"
    await caller.until("output_audio_buffer.stopped")
    kinds = caller.kinds()
    assert "response.output_audio.delta" not in kinds
    assert kinds.index("response.content_part.added") < kinds.index("output_audio_buffer.started")
    assert kinds.index("response.done") < kinds.index("output_audio_buffer.stopped")
    assert "error" not in kinds
    sound = await caller.hears(48 * 5 * 60)
    assert np.abs(sound[: 48 * 5 * 60]).max() > 300


STORY = ScriptedReply(" ".join(["word"] * 200))
"""12 s of speech."""


async def test_a_caller_who_interrupts_cuts_the_sound_and_is_told_what_was_heard(start, ring, speech) -> None:
    engine = ScriptedEngine([STORY, ScriptedReply("Yes?")])
    served = await start(engine, factory=Conversation)
    caller = await ring(served)
    await caller.pause_for(2_000)
    caller.mouth.say(speech(600, rate=48_000))
    await caller.hears(RATE)
    begin = len(caller.got)
    caller.mouth.say(speech(900, rate=48_000))
    cleared = await caller.until("output_audio_buffer.cleared", begin)
    truncated = await caller.until("conversation.item.truncated", begin)
    done = await caller.until("response.done", begin)
    assert (done["response"]["status"], done["response"]["status_details"]["reason"]) == ("cancelled", "turn_detected")
    assert cleared["response_id"] == done["response"]["id"]
    assert truncated["item_id"] == done["response"]["output"][0]["id"]
    heard = truncated["audio_end_ms"]
    assert 900 < heard < 11_000
    second = await caller.until("response.done", caller.got.index(done) + 1)
    assert second["response"]["status"] == "completed"
    # The model believes what was heard, to the word: 60 ms each.
    said = [message for message in engine.contexts[1] if message.role == "assistant"]
    assert len(said[0].text.split()) == heard // 60
    await caller.until("output_audio_buffer.stopped", begin)


async def test_the_client_may_clear_what_sounds(start, ring) -> None:
    served = await start(ScriptedEngine([STORY]), factory=Conversation)
    caller = await ring(served)
    caller.send(type="output_audio_buffer.clear")
    assert (await caller.until("output_audio_buffer.cleared"))["response_id"] == ""
    caller.send(type="response.create")
    started = await caller.until("output_audio_buffer.started")
    begin = len(caller.got)
    caller.send(type="output_audio_buffer.clear")
    assert (await caller.until("output_audio_buffer.cleared", begin))["response_id"] == started["response_id"]
    done = await caller.until("response.done", begin)
    assert done["response"]["status_details"]["reason"] == "client_cancelled"


async def test_the_formats_are_the_transports_whatever_is_asked_for(start, ring) -> None:
    caller = await ring(await start(ScriptedEngine([ScriptedReply("One two.")]), factory=Conversation))
    caller.send(type="session.update", session={"type": "realtime", "audio": {"output": {"format": {"type": "audio/pcmu"}}}})
    session = (await caller.until("session.updated"))["session"]
    assert session["audio"]["output"]["format"] == session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    caller.send(type="response.create", response={"audio": {"output": {"format": {"type": "audio/pcma"}}}})
    done = await caller.until("response.done")
    assert done["response"]["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert len(await caller.hears(48 * 120)) >= 48 * 120


async def test_sound_in_messages_is_refused(start, ring) -> None:
    caller = await ring(await start())
    caller.send(type="input_audio_buffer.append", event_id="mine", audio="AAAA")
    error = (await caller.until("error"))["error"]
    assert (error["code"], error["event_id"]) == ("invalid_event", "mine")


async def test_a_commit_counts_what_came_over_rtp(start, ring, speech) -> None:
    served = await start()
    caller = await ring(served)
    caller.mouth.say(speech(300, rate=48_000))
    await eventually(lambda: not caller.mouth.said)
    caller.send(type="input_audio_buffer.commit")
    await caller.until("input_audio_buffer.committed")
    (commit,) = [event for event in served.dialogues[0].seen if isinstance(event, CommitInput)]
    assert commit.at > 4_000


# --------------------------------------------------------------------------------------------------------- beginnings


async def test_a_form_brings_the_session_with_the_offer(start, caller) -> None:
    served, one = await start(), caller()
    session = {"type": "realtime", "instructions": "Be brief.", "model": "any"}
    async with httpx.AsyncClient() as http:
        form = {"sdp": (None, await one.offer(), "application/sdp"), "session": (None, json.dumps(session), "application/json")}
        response = await http.post(served.url + "/v1/realtime/calls", files=form)
    assert response.status_code == 201
    assert response.headers["Content-Type"] == "application/sdp"
    await one.accept(response.text)
    assert (await one.until("session.created"))["session"]["instructions"] == "Be brief."


async def test_the_beta_address_and_dialect(start, caller, post) -> None:
    served, one = await start(), caller()
    response = await post(served, await one.offer(), "/v1/realtime?model=mine", **{"OpenAI-Beta": "realtime=v1"})
    assert response.status_code == 201
    await one.accept(response.text)
    session = (await one.until("session.created"))["session"]
    assert (session["model"], session["modalities"], session["output_audio_format"]) == ("mine", ["text", "audio"], "pcm16")


async def test_an_ephemeral_key_begins_a_call_with_its_session(start, caller, post) -> None:
    served, one = await start(api_keys=["a-lasting-key-1234"]), caller()
    body = json.dumps({"session": {"type": "realtime", "instructions": "Rhyme."}}).encode()
    secret = (await served.post("/v1/realtime/client_secrets", body, {"Authorization": "Bearer a-lasting-key-1234"})).json()["value"]
    assert (await post(served, await one.offer())).status_code == 401
    response = await post(served, await one.offer(), Authorization=f"Bearer {secret}")
    assert response.status_code == 201
    await one.accept(response.text)
    assert (await one.until("session.created"))["session"]["instructions"] == "Rhyme."


async def test_somebody_elses_page_begins_no_call(start, caller, post) -> None:
    response = await post(await start(), await caller().offer(), Origin="https://evil.example")
    assert response.json()["error"]["code"] == "origin_not_allowed"


async def test_a_full_server_says_when_to_come_back(start, ring, caller, post) -> None:
    served = await start(limits=Limits(max_sessions=1))
    await ring(served)
    response = await post(served, await caller().offer())
    assert (response.status_code, response.json()["error"]["code"], response.headers["Retry-After"]) == (503, "too_many_sessions", "5")


async def test_a_machine_without_opus_takes_no_call_and_says_so(start, caller, post, monkeypatch) -> None:
    monkeypatch.setattr("server.webrtc.calls.library_problem", lambda: "libopus is not there")
    refused = await post(await start(), await caller().offer())
    assert (refused.status_code, refused.json()["error"]["message"]) == (503, "libopus is not there")


async def test_an_offer_with_video_gets_its_audio(start, caller, post) -> None:
    one = caller()
    one.pc.addTransceiver("video", "sendrecv")
    response = await post(await start(), await one.offer())
    assert response.status_code == 201
    assert "m=video 0 " in response.text
    assert re.search(r"m=audio [1-9]\d* ", response.text)


@pytest.mark.parametrize(("body", "message"), [(b"", "v=0"), (b"\xff\x00" * 99, "v=0"), (b"v=0\r\ns=-\r\n", "no audio")])
async def test_an_offer_that_is_none_is_refused_by_name(start, body, message) -> None:
    served = await start()
    response = await served.post("/v1/realtime/calls", body, {"Content-Type": "application/sdp"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_offer"
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("text/plain", b"v=0", 415, "unsupported_media_type"),
        ("application/sdp", b"v" * (600 << 10), 413, "request_too_large"),
        ("multipart/form-data", b"", 400, "missing_required_parameter"),
        (
            "multipart/form-data; boundary=x",
            OTHER,
            400,
            "missing_required_parameter",
        ),
        ("multipart/form-data; boundary=x", b"\xff\xfe", 400, "missing_required_parameter"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="sdp"\r\n\r\nv=0\r\n--x\r\n'
            b'Content-Disposition: form-data; name="session"\r\n\r\n{"type": 1}\r\n--x--\r\n',
            400,
            "invalid_type",
        ),
    ],
)
async def test_a_bad_request_is_refused_by_name(start, content_type, body, status, code) -> None:
    served = await start()
    response = await served.post("/v1/realtime/calls", body, {"Content-Type": content_type})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


# ----------------------------------------------------------------------------------------------------------------- ends


async def test_hanging_up_over_http(start, ring) -> None:
    served = await start()
    caller = await ring(served)
    assert (await served.post(caller.location + "/hangup", b"")).status_code == 200
    await caller.closed()
    assert (await served.post(caller.location + "/hangup", b"")).status_code == 404


async def test_a_client_that_closes_leaves_its_place(start, ring) -> None:
    served = await start(limits=Limits(max_sessions=1))
    for _ in range(2):
        caller = await ring(served)
        await caller.hang_up()
        await gone(served)


async def test_a_client_that_never_connects_is_given_up(start, caller, post) -> None:
    served = await start(limits=Limits(max_sessions=1, connect_seconds=0.3))
    assert (await post(served, await caller().offer())).status_code == 201
    await gone(served)


async def test_a_client_that_gives_up_before_it_is_connected_leaves_its_place(start, caller, post) -> None:
    served = await start(limits=Limits(max_sessions=1))
    response = await post(served, await caller().offer())
    assert (await served.post(response.headers["location"] + "/hangup", b"")).status_code == 200
    await gone(served)


async def test_a_data_channel_that_never_opens_ends_the_call(start, caller, post) -> None:
    served, one = await start(limits=Limits(connect_seconds=1.0)), caller()
    response = await post(served, await one.offer())
    one.pc.sctp.start = lambda *_: asyncio.sleep(0)
    await one.accept(response.text)
    await gone(served)
    await one.closed()


async def test_a_flood_of_messages_is_read_as_it_comes_and_the_call_goes_on(start, ring) -> None:
    caller = await ring(await start())
    for _ in range(300):
        caller.channel.send("x" * 200)
    await eventually(lambda: caller.kinds().count("error") == 300)


async def test_more_messages_than_a_session_reads_end_the_call() -> None:
    channel = CallChannel("rtc_1", Offer("", (), False), 1.0, Metrics(), Gatherer(IceOptions()))
    for _ in range(257):
        channel.request("x")
    assert await channel.receive() is None
    await channel.close(politely=False)


async def test_binary_nonsense_is_answered_and_the_call_goes_on(start, ring) -> None:
    caller = await ring(await start())
    caller.channel.send(b"\xff\x00")
    assert (await caller.until("error"))["error"]["code"] == "invalid_event"
    caller.send(type="session.update", session={"type": "realtime"})
    await caller.until("session.updated")


async def test_a_message_without_end_is_not_kept(start, ring, monkeypatch) -> None:
    begin = RTCSctpTransport.__init__

    def begin_small(sctp: RTCSctpTransport, *arguments: object) -> None:
        begin(sctp, *arguments)
        sctp._advertised_rwnd = 32 << 10

    monkeypatch.setattr(RTCSctpTransport, "__init__", begin_small)
    served = await start()
    caller = await ring(served)
    caller.pc.sctp._remote_max_message_size = 0
    caller.channel.send("x" * (200 << 10))
    await gone(served)


# ------------------------------------------------------------------------------------------------------------- sideband


async def test_a_sideband_sees_the_call_and_may_speak_for_it(start, ring, dial) -> None:
    served = await start(ScriptedEngine([ScriptedReply("One two.")]), factory=Conversation)
    caller = await ring(served)
    caller.send(type="session.update", session={"type": "realtime", "instructions": "Be brief."})
    await caller.until("session.updated")
    call_id = caller.location.rpartition("/")[2]
    sideband = await dial(served, served.url.replace("http", "ws", 1) + f"/v1/realtime?call_id={call_id}")
    assert sideband.got[0]["session"]["instructions"] == "Be brief."
    await sideband.send(type="response.create")
    await sideband.until("response.done")
    await caller.until("response.done")
    assert sideband.got[-1]["response"]["id"] == caller.got[-1]["response"]["id"]
    await sideband.connection.close()
    await caller.hang_up()
    await gone(served)


async def test_a_sideband_ends_with_its_call(start, ring, dial) -> None:
    served = await start()
    caller = await ring(served)
    call_id = caller.location.rpartition("/")[2]
    sideband = await dial(served, served.url.replace("http", "ws", 1) + f"/v1/realtime?call_id={call_id}")
    await caller.hang_up()
    with pytest.raises(ConnectionClosed):
        await sideband.receive()
    assert sideband.connection.close_code == 1000


async def test_there_is_no_sideband_without_a_call(start, dial) -> None:
    served = await start()
    with pytest.raises(InvalidStatus) as caught:
        await dial(served, served.url.replace("http", "ws", 1) + "/v1/realtime?call_id=rtc_none")
    assert caught.value.response.status_code == 404
