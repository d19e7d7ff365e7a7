"""Whole exchanges over a real socket with the real conversation and a scripted engine: the event tables of protocols.md 1.8 to 1.14."""

import asyncio

import numpy as np
import pytest

from agent.commands import Command
from agent.conversation import Conversation
from agent.events import Event
from server.replay import Replayed, replay
from streaming.events import Abort
from streaming.fakes import ScriptedEngine, ScriptedReply

LONG = ScriptedReply(" ".join(["word"] * 400))
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
]
REPLY_KINDS = {
    "response.output_item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.done",
}


@pytest.fixture
def connect(start, dial):
    """A client of a server with the real conversation; `connect(replies, transcripts, **dial)`."""

    async def connect_client(replies=(), transcripts=("What is a tortoise?",), **arguments):
        engine = ScriptedEngine(replies or [ScriptedReply("A tortoise is a slow animal.")], transcripts)
        served = await start(engine, factory=Conversation)
        client = await dial(served, **arguments)
        client.engine = engine
        return client

    return connect_client


async def speak(client, speech, milliseconds: int = 800, silence: int = 900) -> None:
    """A turn: a tone, then silence, in 100 ms appends."""
    sound = np.concatenate((speech(milliseconds), np.zeros(24 * silence, np.int16)))
    for start in range(0, len(sound), 2400):
        await client.append(sound[start : start + 2400])


async def write(client, text: str, **item: object) -> None:
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await client.send(type="conversation.item.create", item=message | item)


def order(client, *kinds: str) -> bool:
    """Whether these came in this order (others between them)."""
    remaining = iter(event["type"] for event in client.got)
    return all(kind in remaining for kind in kinds)


async def test_a_turn_with_server_vad(connect, speech) -> None:
    client = await connect()
    update = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    await client.send(type="session.update", session=update)
    await client.until("session.updated")
    await speak(client, speech)
    done = await client.until("response.done")
    assert order(client, *TURN)
    assert set(client.kinds()) >= REPLY_KINDS
    assert done["response"]["status"] == "completed"
    assert done["response"]["output"][0]["content"] == [{"type": "output_audio", "transcript": "A tortoise is a slow animal."}]
    assert len(client.audio()) == 6 * 60 * 24 * 2
    if not any(event["type"].endswith("transcription.completed") for event in client.got):
        await client.until("conversation.item.input_audio_transcription.completed")
    (completed,) = [event for event in client.got if event["type"].endswith("transcription.completed")]
    assert completed["transcript"] == "What is a tortoise?"


async def test_semantic_vad_takes_the_turn_too(connect, speech) -> None:
    client = await connect()
    await client.send(type="session.update", session={"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}})
    await speak(client, speech)
    await client.until("response.done")
    assert order(client, *TURN)


async def test_every_event_id_is_unique_and_ids_agree(connect, speech) -> None:
    client = await connect()
    await speak(client, speech)
    await client.until("response.done")
    ids = [event["event_id"] for event in client.got]
    assert len(set(ids)) == len(ids)
    started = next(event for event in client.got if event["type"] == "input_audio_buffer.speech_started")
    committed = next(event for event in client.got if event["type"] == "input_audio_buffer.committed")
    assert started["item_id"] == committed["item_id"]
    known = set()
    for event in client.got:
        if event["type"] == "response.output_item.added":
            known.add(event["item"]["id"])
        assert not event["type"].endswith(".delta") or "transcription" in event["type"] or event["item_id"] in known


async def test_push_to_talk(connect, speech) -> None:
    client = await connect()
    await client.send(type="session.update", session={"audio": {"input": {"turn_detection": None}}})
    await client.until("session.updated")
    await client.append(speech(500))
    await client.send(type="input_audio_buffer.commit")
    await client.until("conversation.item.done")
    await client.send(type="response.create")
    await client.until("response.done")
    assert "input_audio_buffer.speech_started" not in client.kinds()
    assert order(client, "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done", "response.created")


async def test_an_almost_empty_commit_is_refused(connect, speech) -> None:
    client = await connect()
    await client.send(type="session.update", session={"audio": {"input": {"turn_detection": None}}})
    await client.append(speech(90))
    await client.send(type="input_audio_buffer.commit")
    assert (await client.until("error"))["error"]["code"] == "input_audio_buffer_commit_empty"
    await client.append(speech(10))
    await client.send(type="input_audio_buffer.commit")
    await client.until("input_audio_buffer.committed")


async def test_text_in_text_out(connect) -> None:
    client = await connect()
    await client.send(type="session.update", session={"output_modalities": ["text"]})
    await write(client, "What is a tortoise?")
    await client.send(type="response.create")
    done = await client.until("response.done")
    assert order(client, "conversation.item.added", "response.created", "response.content_part.added", "response.output_text.delta")
    assert done["response"]["output"][0]["content"] == [{"type": "output_text", "text": "A tortoise is a slow animal."}]
    assert client.audio() == b""


async def test_the_beta_dialect_end_to_end(connect) -> None:
    client = await connect(additional_headers={"OpenAI-Beta": "realtime=v1"})
    await write(client, "What is a tortoise?")
    await client.send(type="response.create", response={"modalities": ["text", "audio"]})
    done = await client.until("response.done")
    assert {"conversation.item.created", "response.audio.delta", "response.audio_transcript.delta"} <= set(client.kinds())
    assert not any("output_audio" in str(kind) or kind == "conversation.item.added" for kind in client.kinds())
    assert done["response"]["output"][0]["content"][0]["type"] == "audio"


async def test_metadata_is_echoed(connect) -> None:
    client = await connect()
    await client.send(type="response.create", response={"metadata": {"client_event_id": "x"}})
    assert (await client.until("response.created"))["response"]["metadata"] == {"client_event_id": "x"}
    assert (await client.until("response.done"))["response"]["metadata"] == {"client_event_id": "x"}


async def test_out_of_band(connect) -> None:
    client = await connect()
    await client.send(type="response.create", response={"conversation": "none", "output_modalities": ["text"], "input": []})
    done = await client.until("response.done")
    assert done["response"]["conversation_id"] is None
    assert not any(str(kind).startswith("conversation.item") for kind in client.kinds())


async def test_a_function_call_and_its_answer(connect) -> None:
    call = ScriptedReply("", tool_calls=(("get_weather", '{"city": "Bern"}'),))
    client = await connect([call, ScriptedReply("It rains.")])
    tools = [{"type": "function", "name": "get_weather", "parameters": {"type": "object"}}]
    await client.send(type="session.update", session={"tools": tools})
    await write(client, "How is the weather?")
    await client.send(type="response.create")
    done = await client.until("response.function_call_arguments.done")
    assert (done["name"], done["arguments"]) == ("get_weather", '{"city": "Bern"}')
    item = (await client.until("response.output_item.done"))["item"]
    assert (item["type"], item["status"], item["call_id"]) == ("function_call", "completed", done["call_id"])
    await client.until("response.done")
    await client.send(type="conversation.item.create", item={"type": "function_call_output", "call_id": item["call_id"], "output": "Rain"})
    await client.send(type="response.create")
    final = await client.until("response.done")
    assert final["response"]["output"][0]["content"][0]["transcript"] == "It rains."


async def test_an_interruption_cuts_the_sound_and_says_so(connect, speech) -> None:
    client = await connect([LONG, ScriptedReply("Yes?")])
    await speak(client, speech)
    await client.until("response.output_audio.delta")
    await asyncio.sleep(0.3)
    await speak(client, speech, 1_000, 0)
    done = await client.until("response.done")
    assert (done["response"]["status"], done["response"]["status_details"]["reason"]) == ("cancelled", "turn_detected")
    heard = len(client.audio())
    cancelled = done["response"]["id"]
    await speak(client, speech, 0, 1_000)
    await client.until("response.done")
    stale = [event for event in client.got if event["type"] == "response.output_audio.delta" and event["response_id"] == cancelled]
    assert sum(len(event["delta"]) for event in stale) <= heard * 4 / 3 + 4 * len(stale)
    position = client.got.index(done)
    assert not any(event.get("response_id") == cancelled for event in client.got[position + 1 :])
    assert any(isinstance(order_, Abort) for _, order_ in client.engine.orders)


async def test_truncate_keeps_what_was_heard(connect) -> None:
    client = await connect()
    await client.send(type="response.create")
    done = await client.until("response.done")
    item_id = done["response"]["output"][0]["id"]
    await client.send(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=125)
    truncated = await client.until("conversation.item.truncated")
    assert (truncated["item_id"], truncated["audio_end_ms"]) == (item_id, 125)
    await client.send(type="conversation.item.retrieve", item_id=item_id)
    item = (await client.until("conversation.item.retrieved"))["item"]
    assert item["content"][0].get("transcript", "") in ("A tortoise", "A tortoise ")
    await client.send(type="response.create")
    await client.until("response.done")
    told = client.engine.contexts[-1][-1]
    assert (told.text.strip(), told.complete) == ("A tortoise", False)


async def test_cancel_by_the_client(connect) -> None:
    client = await connect([LONG])
    await client.send(type="response.create")
    await client.until("response.output_audio.delta")
    await client.send(type="response.cancel")
    done = await client.until("response.done")
    assert done["response"]["status_details"]["reason"] == "client_cancelled"
    await client.send(type="response.cancel", event_id="again")
    error = (await client.until("error"))["error"]
    assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "again")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "conversation.item.retrieve", "item_id": "none"}, "item_retrieve_invalid_item_id"),
        ({"type": "conversation.item.delete", "item_id": "none"}, "item_delete_invalid_item_id"),
        ({"type": "conversation.item.truncate", "item_id": "none", "audio_end_ms": 5}, "item_truncate_invalid_item_id"),
        (
            {"type": "conversation.item.create", "previous_item_id": "none", "item": {"type": "message", "role": "user", "content": []}},
            "item_create_invalid_previous_item_id",
        ),
    ],
)
async def test_error_codes(connect, message, code) -> None:
    client = await connect()
    await client.send(**message)
    assert (await client.until("error"))["error"]["code"] == code


async def test_a_transcription_session_answers_nothing(connect, speech) -> None:
    client = await connect()
    await client.send(type="session.update", session={"type": "transcription", "audio": {"input": {"transcription": {"model": "any"}}}})
    await speak(client, speech)
    completed = await client.until("conversation.item.input_audio_transcription.completed")
    assert (completed["transcript"], completed["usage"]["type"]) == ("What is a tortoise?", "duration")
    assert not any(str(kind).startswith("response.") for kind in client.kinds())


async def test_a_recorded_session_replays_to_the_same_commands(start, dial, speech, tmp_path) -> None:
    ordered = []

    class Watched(Conversation):
        def handle(self, event: Event, now: int) -> list[Command]:
            commands = super().handle(event, now)
            ordered.append(tuple(commands))
            return commands

    served = await start(ScriptedEngine([LONG], ["What is it?"]), factory=Watched, record=tmp_path / "own")
    client = await dial(served)
    await speak(client, speech)
    await client.until("response.output_audio.delta")
    await client.send(type="response.cancel")
    await client.until("response.done")
    served.stop.set()
    await asyncio.wait_for(asyncio.shield(served.task), 10)
    (path,) = (tmp_path / "own").iterdir()
    steps = [line for line in replay(path) if isinstance(line, Replayed)]
    assert all(step.exact for step in steps)
    assert [step.ordered for step in steps] == ordered
    times = [step.told.now for step in steps]
    assert times == sorted(times)


async def test_the_ledger_of_a_spoken_turn(connect, speech) -> None:
    client = await connect()
    await client.send(type="session.update", session={"vivavoce": {"ledger": True}})
    await speak(client, speech)
    ledger = await client.until("vivavoce.ledger")
    assert sum(ledger["stages_ms"].values()) == ledger["total_ms"]
    assert ledger["total_ms"] > 0


async def test_when_the_answer_is_heard_is_told_as_the_client_reports_it(connect, speech) -> None:
    client = await connect()
    await client.send(type="session.update", session={"vivavoce": {"ledger": True, "playback": True}})
    await speak(client, speech)
    ledger = await client.until("vivavoce.ledger")
    await client.send(type="vivavoce.playback", response_id=ledger["response_id"], played_ms=0)
    await client.send(type="vivavoce.playback", response_id=ledger["response_id"], played_ms=1)
    heard = await client.until("vivavoce.ledger.played")
    assert [heard[name] for name in ("item_id", "response_id", "reported")] == [ledger["item_id"], ledger["response_id"], True]
    assert heard["total_ms"] == ledger["total_ms"] + heard["played_ms"] > ledger["total_ms"]


async def test_when_the_answer_is_heard_is_estimated_of_a_client_that_does_not_report(connect, speech) -> None:
    client = await connect()
    await client.send(type="session.update", session={"vivavoce": {"ledger": True}})
    await speak(client, speech)
    heard = await client.until("vivavoce.ledger.played")
    assert (heard["played_ms"], heard["reported"]) == (60.0, False)
