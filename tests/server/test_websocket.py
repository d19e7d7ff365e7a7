"""The Realtime endpoint on a real socket: handshake, bad input, slow and vanishing clients, limits. The conversation is a plain one."""

import asyncio
import base64
import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent.events import ClearInput, CommitInput, PlaybackProgress, UpdateSession
from agent.settings import AudioEncoding, SessionKind
from server.limits import Limits
from streaming.events import Drop, RespondOptions, Speculate
from streaming.fakes import ScriptedEngine, ScriptedReply

LONG = ScriptedReply(" ".join(["word"] * 400))
"""24 s of speech."""


async def eventually(condition) -> None:
    """Let the loop run until `condition()` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event to wait for
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------- handshake


async def test_the_first_event_is_session_created(start, dial) -> None:
    client = await dial(await start())
    session = client.got[0]["session"]
    assert client.got[0]["type"] == "session.created"
    assert (session["object"], session["model"]) == ("realtime.session", "pocket")


@pytest.mark.parametrize("path", ["/v1/realtime", "//v1///realtime", "/openai/v1/realtime", "/openai/realtime?deployment=mine"])
async def test_every_form_of_the_address(start, dial, path) -> None:
    served = await start()
    client = await dial(served, served.url.replace("http", "ws", 1) + path)
    assert client.got[0]["type"] == "session.created"


@pytest.mark.parametrize(
    ("offered", "selected"),
    [([], None), (["realtime"], "realtime"), (["realtime", "openai-insecure-api-key.k"], "realtime"), (["openai-agents-sdk.1"], None)],
)
async def test_only_realtime_is_ever_selected(start, dial, offered, selected) -> None:
    client = await dial(await start(), subprotocols=offered or None)
    assert client.connection.subprotocol == selected


@pytest.mark.parametrize(
    "handshake", [{"additional_headers": {"OpenAI-Beta": "realtime=v1"}}, {"subprotocols": ["realtime", "openai-beta.realtime-v1"]}]
)
async def test_a_beta_handshake_gets_a_beta_session(start, dial, handshake) -> None:
    client = await dial(await start(), **handshake)
    assert client.got[0]["session"]["modalities"] == ["text", "audio"]
    assert "audio" not in client.got[0]["session"]


async def test_the_first_update_may_reveal_a_beta_client(start, dial) -> None:
    client = await dial(await start())
    await client.send(type="session.update", session={"modalities": ["text"], "voice": "alloy"})
    assert (await client.until("session.updated"))["session"]["modalities"] == ["text"]


async def test_a_transcription_intent(start, dial) -> None:
    served = await start()
    client = await dial(served, served.url.replace("http", "ws", 1) + "/v1/realtime?intent=transcription")
    assert client.got[0]["session"]["type"] == "transcription"
    assert served.dialogues[0].settings.kind is SessionKind.TRANSCRIPTION


async def refused(dial, served, **arguments) -> tuple[int, dict]:
    with pytest.raises(InvalidStatus) as caught:
        await dial(served, **arguments)
    response = caught.value.response
    return response.status_code, json.loads(response.body)["error"]


async def test_a_wrong_key_is_refused_before_the_upgrade(start, dial) -> None:
    served = await start(api_keys=["right"])
    assert (await refused(dial, served))[0] == 401
    status, error = await refused(dial, served, additional_headers={"Authorization": "Bearer wrong"})
    assert (status, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")
    assert (await dial(served, additional_headers={"Authorization": "Bearer right"})).got
    assert (await dial(served, subprotocols=["realtime", "openai-insecure-api-key.right"])).got


async def test_somebody_elses_page_cannot_reach_a_server_on_localhost(start, dial) -> None:
    served = await start(allowed_origins=["https://app.example"])
    assert (await refused(dial, served, origin="https://evil.example"))[1]["code"] == "origin_not_allowed"
    assert (await dial(served, origin="https://app.example")).got
    assert (await dial(served, origin=served.url)).got


async def test_too_many_sessions_are_turned_away_until_one_ends(start, dial) -> None:
    served = await start(limits=Limits(max_sessions=1))
    first = await dial(served)
    with pytest.raises(InvalidStatus) as caught:
        await dial(served)
    assert caught.value.response.status_code == 503
    assert caught.value.response.headers["Retry-After"] == "5"
    assert (await served.get("/healthz")).status_code == 200
    await first.connection.close()
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await dial(served)).got
                break
            except InvalidStatus:
                await asyncio.sleep(0.02)


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_event"),
        (b"\xff\x00", "invalid_event"),
        ("[]", "invalid_event"),
        ("[" * 50_000, "invalid_event"),
        ('{"type": "no.such"}', "invalid_event"),
        ('{"type": "input_audio_buffer.append", "audio": "%%"}', "invalid_value"),
        ('{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}}', "invalid_value"),
        (
            json.dumps(
                {
                    "type": "conversation.item.create",
                    "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 100_000}]},
                }
            ),
            "invalid_value",
        ),
    ],
)
async def test_bad_input_is_answered_and_the_session_goes_on(start, dial, frame, code) -> None:
    client = await dial(await start())
    await client.connection.send(frame)
    assert (await client.receive())["error"]["code"] == code
    await client.send(type="session.update", session={"type": "realtime"})
    assert (await client.receive())["type"] == "session.updated"


async def test_an_error_carries_the_clients_event_id(start, dial) -> None:
    client = await dial(await start())
    await client.send(type="session.update", event_id="mine_1", session={"speed": 7})
    error = (await client.until("error"))["error"]
    assert (error["event_id"], error["param"]) == ("mine_1", "session.speed")


async def test_an_oversized_frame_closes_with_1009(start, dial) -> None:
    client = await dial(await start(limits=Limits(max_frame_bytes=10_000)))
    await client.connection.send("x" * 10_001)
    with pytest.raises(ConnectionClosed):
        await client.receive()
    assert client.connection.close_code == 1009


async def test_odd_bytes_and_any_split_reach_the_ear_whole(start, dial, speech) -> None:
    served = await start()
    client = await dial(served)
    data = speech(300).tobytes()
    for begin in range(0, len(data), 777):
        await client.send(type="input_audio_buffer.append", audio=base64.b64encode(data[begin : begin + 777]).decode())
    await client.send(type="input_audio_buffer.commit")
    await client.until("input_audio_buffer.committed")
    assert CommitInput(None, 4800) in served.dialogues[0].seen


async def test_the_input_format_may_change_in_the_middle(start, dial, speech) -> None:
    served = await start()
    client = await dial(served)
    await client.append(speech(100))
    await client.send(type="session.update", session={"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    await client.send(type="input_audio_buffer.append", audio="////" * 400)
    await client.send(type="input_audio_buffer.commit")
    await client.until("input_audio_buffer.committed")
    (update,) = [event for event in served.dialogues[0].seen if isinstance(event, UpdateSession)]
    assert update.settings.input_format.encoding is AudioEncoding.PCMU
    assert CommitInput(None, 1600 + 2400) in served.dialogues[0].seen


async def test_a_full_conversation_takes_no_more_items(start, dial) -> None:
    client = await dial(await start(limits=Limits(max_items=2)))
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    for number in range(3):
        await client.send(type="conversation.item.create", item=item | {"id": f"item_{number}"})
    await client.until("error")
    assert [event["type"] for event in client.got].count("conversation.item.added") == 2


async def test_a_conversation_is_full_by_its_bytes_too(start, dial) -> None:
    client = await dial(await start(limits=Limits(max_items_bytes=100_000)))
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 60_000}]}
    for number in range(3):
        await client.send(type="conversation.item.create", item=item | {"id": f"item_{number}"})
    assert (await client.until("error"))["error"]["param"] == "item"
    assert [event["type"] for event in client.got].count("conversation.item.added") == 2


async def test_responses_out_of_band_are_bounded(start, dial) -> None:
    client = await dial(await start(ScriptedEngine([LONG] * 9, words_per_step=1), limits=Limits(max_replies=2)))
    for _ in range(3):
        await client.send(type="response.create", response={"conversation": "none"})
    assert (await client.until("error"))["error"]["code"] == "inference_rate_limit_exceeded"


# ------------------------------------------------------------------------------------------------------------- sound


async def test_a_reply_leaves_in_order_and_whole(start, dial) -> None:
    client = await dial(await start(ScriptedEngine([ScriptedReply("One two three four five six.")])))
    await client.send(type="response.create")
    done = await client.until("response.done")
    assert done["response"]["status"] == "completed"
    assert len(client.audio()) == 6 * 60 * 24 * 2
    assert client.kinds()[-1] == "response.done"
    assert max(len(event["delta"]) for event in client.got if event["type"] == "response.output_audio.delta") <= 4 * 4800 * 2 / 3 + 4


async def test_g711_out(start, dial) -> None:
    client = await dial(await start(ScriptedEngine([ScriptedReply("One two.")])), additional_headers={"OpenAI-Beta": "realtime=v1"})
    await client.send(type="session.update", session={"output_audio_format": "g711_ulaw"})
    await client.send(type="response.create")
    await client.until("response.done")
    assert "response.audio.delta" in client.kinds()
    assert len(client.audio()) == 2 * 60 * 8


async def test_a_client_gets_at_most_ten_seconds_ahead(start, dial) -> None:
    served = await start(ScriptedEngine([LONG]))
    client = await dial(served)
    await client.send(type="response.create")
    async with asyncio.timeout(10):
        while len(client.audio()) < 10 * 48_000:
            await client.receive()
    sent = [event.sent for event in served.dialogues[0].seen if isinstance(event, PlaybackProgress)]
    assert max(sent) < 12 * 24_000


async def test_after_a_cancel_no_sound_leaves(start, dial) -> None:
    client = await dial(await start(ScriptedEngine([LONG])))
    await client.send(type="response.create")
    await client.until("response.output_audio.delta")
    await client.send(type="response.cancel")
    done = await client.until("response.done")
    assert done["response"]["status"] == "cancelled"
    await client.send(type="session.update", session={})
    assert (await client.receive())["type"] == "session.updated"


async def test_an_acknowledging_client_is_kept_400_ms_ahead(start, dial) -> None:
    served = await start(ScriptedEngine([LONG]))
    client = await dial(served)
    await client.send(type="session.update", session={"vivavoce": {"playback": True}})
    await client.send(type="response.create")
    response_id = (await client.until("response.created"))["response"]["id"]
    await client.until("response.output_audio.delta")
    await client.send(type="vivavoce.playback", response_id=response_id, played_ms=100)
    await eventually(lambda: any(isinstance(event, PlaybackProgress) and event.played == 2400 for event in served.dialogues[0].seen))
    first = next(event for event in served.dialogues[0].seen if isinstance(event, PlaybackProgress))
    assert first.sent <= 400 * 24


async def test_the_ledger_goes_to_those_who_asked(start, dial, speech) -> None:
    client = await dial(await start(ScriptedEngine([ScriptedReply("One two.")])))
    await client.send(type="session.update", session={"vivavoce": {"ledger": True}})
    await client.append(speech(500))
    await client.send(type="input_audio_buffer.commit")
    await client.send(type="response.create")
    ledger = await client.until("vivavoce.ledger")
    assert sum(ledger["stages_ms"].values()) == ledger["total_ms"]
    assert (ledger["item_id"], ledger["event_id"] != "") == ("item_in", True)


async def test_what_becomes_of_a_prepared_answer_goes_to_those_who_asked_for_the_ledger(start, dial, plain) -> None:
    class Preparing(plain):
        def handle(self, event, now):
            if isinstance(event, ClearInput):
                return [Speculate("r", "item_in", "What", RespondOptions()), Drop("r")]
            return super().handle(event, now)

    client = await dial(await start(ScriptedEngine(), factory=Preparing))
    await client.send(type="input_audio_buffer.clear")
    await client.send(type="session.update", session={"vivavoce": {"ledger": True}})
    await client.send(type="input_audio_buffer.clear")
    told = [await client.until("vivavoce.speculation") for _ in range(2)]
    assert [(event["response_id"], event["state"]) for event in told] == [("r", "begun"), ("r", "dropped")]
    kinds = [event["type"] for event in client.got]
    assert kinds.index("vivavoce.speculation") > kinds.index("session.updated")


# --------------------------------------------------------------------------------------------------- hostile networks


async def test_a_client_that_vanishes_is_forgotten_and_others_go_on(start, dial) -> None:
    engine = ScriptedEngine([LONG])
    served = await start(engine)
    victim, other = await dial(served), await dial(served)
    await victim.send(type="response.create")
    await victim.until("response.output_audio.delta")
    victim.connection.transport.abort()
    await eventually(lambda: len(engine._sessions) == 1)
    await other.send(type="session.update", session={})
    assert (await other.receive())["type"] == "session.updated"


async def test_a_client_that_never_reads_is_closed_and_others_go_on(start, dial) -> None:
    engine = ScriptedEngine([LONG] * 50, words_per_step=4)
    served = await start(engine, limits=Limits(max_outbox_bytes=200_000, send_timeout=0.3))
    deaf, other = await dial(served), await dial(served)
    deaf.connection.transport.pause_reading()
    tools = [{"type": "function", "name": f"f{n}", "description": "x" * 1000} for n in range(100)]
    update = json.dumps({"type": "session.update", "session": {"tools": tools}})
    await eventually_closed(deaf, update)
    await eventually(lambda: len(engine._sessions) == 1)
    await other.send(type="session.update", session={})
    assert (await other.receive())["type"] == "session.updated"


async def eventually_closed(deaf, update: str) -> None:
    """Make the server answer more and more, until it has had enough."""
    async with asyncio.timeout(20):
        try:
            while True:
                await asyncio.wait_for(deaf.connection.send(update), 1)
        except (ConnectionClosed, TimeoutError):
            pass


async def test_a_session_that_fails_takes_no_other_with_it(start, dial) -> None:
    served = await start()
    bad, good = await dial(served), await dial(served)
    served.dialogues[0].deadline = lambda: 1 // 0
    await bad.send(type="session.update", session={})
    await bad.connection.wait_closed()
    assert bad.connection.close_code == 1011
    await good.send(type="session.update", session={})
    assert (await good.receive())["type"] == "session.updated"


async def test_audio_far_ahead_of_real_time_holds_the_socket_and_loses_nothing(start, dial, speech) -> None:
    served = await start(limits=Limits(max_input_lead=1.0))
    client = await dial(served)
    for _ in range(20):
        await client.append(speech(1000))
    await client.send(type="input_audio_buffer.commit")
    await client.until("input_audio_buffer.committed")
    assert CommitInput(None, 20 * 16_000) in served.dialogues[0].seen


async def test_a_session_expires(start, dial) -> None:
    client = await dial(await start(limits=Limits(session_seconds=0.05)))
    assert (await client.until("error"))["error"]["code"] == "session_expired"
    with pytest.raises(ConnectionClosed):
        await client.receive()
    assert client.connection.close_code == 1001


async def test_no_key_is_ever_logged(start, dial, caplog) -> None:
    served = await start(api_keys=["right-and-secret"])
    with caplog.at_level("INFO"):
        await refused(dial, served, additional_headers={"Authorization": "Bearer wrong-and-secret"})
        await dial(served, subprotocols=["realtime", "openai-insecure-api-key.right-and-secret"])
        await served.get("/v1/models", {"Authorization": "Bearer right-and-secret"})
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("websockets.client", "httpx", "httpcore"))]
    assert not any("secret" in message for message in ours)
