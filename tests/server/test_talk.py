"""`vivavoce talk` and the caller under it, against a scripted server of the Realtime protocol on a loopback socket."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from websockets.asyncio.server import Request, Response, Server, ServerConnection, serve
from websockets.datastructures import Headers

from agent.conversation import Conversation
from server.caller import call
from server.caller_audio import CALLER_RATE, Recording
from server.caller_wire import CallError
from server.talk import talk
from streaming.fakes import ScriptedEngine, ScriptedReply


def tone(seconds: float, peak: int = 8_000) -> np.ndarray:
    return np.rint(peak * np.sin(np.arange(round(seconds * CALLER_RATE)) * 0.1)).astype(np.int16)


def recording(seconds: float = 0.3) -> Recording:
    return Recording("clip", tone(seconds), round(seconds * CALLER_RATE))


def wav(folder: Path, name: str = "question.wav", seconds: float = 0.3) -> Path:
    path = folder / name
    soundfile.write(path, tone(seconds), CALLER_RATE)
    return path


@dataclass
class Peer:
    """The server's end of one connection: events in and out, and the caller's sound."""

    socket: ServerConnection
    received: list[dict] = field(default_factory=list)
    # Loud and silent samples heard since the last turn began.
    heard: int = 0
    silent: int = 0

    async def send(self, kind: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"type": kind, "event_id": "event_1", **fields}))

    async def open(self) -> None:
        """The handshake."""
        await self.send("session.created", session={})
        while True:
            event = await self.next()
            if event["type"] == "session.update":
                await self.send("session.updated", session=event["session"])
                return

    async def next(self) -> dict:
        event = json.loads(await self.socket.recv())
        self.received.append(event)
        if event["type"] == "input_audio_buffer.append":
            pcm = np.frombuffer(base64.b64decode(event["audio"]), "<i2")
            assert len(pcm) == CALLER_RATE // 50
            self.silent = 0 if pcm.any() else self.silent + len(pcm)
            self.heard += len(pcm) if pcm.any() else 0
        return event

    async def hear_turn(self) -> int:
        """Until speech and 100 ms of silence after it; its samples."""
        while not (self.heard and self.silent >= CALLER_RATE // 10):
            await self.next()
        heard, self.heard = self.heard, 0
        return heard

    async def commit(self, item: str, transcript: str) -> None:
        await self.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id=item)
        await self.send("input_audio_buffer.committed", item_id=item)
        await self.send("conversation.item.input_audio_transcription.delta", item_id=item, delta=transcript.split()[0])
        await self.send("conversation.item.input_audio_transcription.completed", item_id=item, transcript=transcript)

    async def begin(self, response: str) -> None:
        await self.send("response.created", response={"id": response, "status": "in_progress"})
        await self.send("response.output_item.added", response_id=response, item={"type": "message", "id": f"item_{response}"})

    async def say(self, response: str, text: str, pcm: np.ndarray) -> None:
        await self.send("response.output_audio_transcript.delta", response_id=response, delta=text)
        await self.send("response.output_audio.delta", response_id=response, delta=base64.b64encode(pcm.astype("<i2").tobytes()).decode())

    async def end(self, response: str, status: str = "completed", **details: object) -> None:
        await self.send("response.done", response={"id": response, "status": status, "status_details": details})

    async def answer(self, response: str, text: str, pcm: np.ndarray) -> None:
        await self.begin(response)
        await self.say(response, text, pcm)
        await self.end(response)

    async def listen(self) -> None:
        """Take what comes until the caller hangs up."""
        while True:
            await self.next()


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def server(script: Script) -> AsyncIterator[tuple[str, list[Peer]]]:
    """A server that runs `script` for every connection: its address, and whoever has called."""
    peers: list[Peer] = []

    async def handle(socket: ServerConnection) -> None:
        peers.append(Peer(socket))
        await script(peers[-1])

    async with serve(handle, "127.0.0.1", 0) as listening:
        yield address(listening), peers


def address(listening: Server) -> str:
    return f"ws://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}/v1/realtime"


async def one_turn(peer: Peer) -> None:
    await peer.open()
    await peer.hear_turn()
    await peer.commit("u1", "What is a tortoise?")
    await peer.answer("r1", "A slow animal.", np.concatenate((np.zeros(240, np.int16), tone(0.2))))
    await peer.send("vivavoce.ledger", response_id="r1", stages_ms={"turn": 210.0, "voice": 45.5}, total_ms=255.5)
    await peer.listen()


def plain() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, highlight=False), text


# -------------------------------------------------------------------------------------------------------------- caller


async def test_a_turn_is_spoken_at_pace_and_accounted_for() -> None:
    async with server(one_turn) as (url, peers), call(url) as caller:
        kinds = [arrival.kind async for arrival in caller.speak(recording())]
        turn = caller.turns[0]
    assert kinds == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.committed",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
        "response.output_item.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.done",
        "vivavoce.ledger",
    ]
    assert (turn.transcript, turn.reply, turn.response_id, turn.false_starts) == ("What is a tortoise?", "A slow animal.", "r1", 0)
    assert ([(stage.name, stage.ms) for stage in turn.stages], turn.ledger_ms) == ([("turn", 210.0), ("voice", 45.5)], 255.5)
    # 100 ms of silence, then the answer with 10 ms of it: less would be a clock error.
    assert turn.latency_ms is not None
    assert turn.latency_ms >= 109
    assert len(caller.speaker.parts[0].pcm) == 240 + 4_800
    session = next(event["session"] for event in peers[0].received if event["type"] == "session.update")
    assert session["audio"]["input"]["turn_detection"] == {"type": "semantic_vad"}
    assert session["vivavoce"] == {"playback": True, "ledger": True, "speculation": True}


async def test_the_microphone_goes_on_between_turns_and_playback_is_reported() -> None:
    async def two_turns(peer: Peer) -> None:
        await peer.open()
        for number in (1, 2):
            assert await peer.hear_turn() == 7_200
            await peer.commit(f"u{number}", f"Question {number}.")
            await peer.answer(f"r{number}", f"Answer {number}.", tone(0.3))
        await peer.listen()

    async with server(two_turns) as (url, peers), call(url) as caller:
        for _ in range(2):
            async for _ in caller.speak(recording()):
                pass
    assert [turn.transcript for turn in caller.turns] == ["Question 1.", "Question 2."]
    assert [turn.reply for turn in caller.turns] == ["Answer 1.", "Answer 2."]
    reports = [event for event in peers[0].received if event["type"] == "vivavoce.playback"]
    assert next(report for report in reports if report["played_ms"] == 300)["response_id"] == "r1"
    assert {report["response_id"] for report in reports} == {"r1", "r2"}
    assert all(0 <= report["played_ms"] <= 300 for report in reports)


async def test_being_heard_over_the_agent_stops_it_and_truncates_at_what_was_heard() -> None:
    """The server takes a pause for the end: the caller goes on, the false start is cut, the second answer counts."""

    async def false_start(peer: Peer) -> None:
        await peer.open()
        while not peer.heard:
            await peer.next()
        await peer.commit("u1", "Well,")
        await peer.begin("r1")
        await peer.say("r1", "Yes?", tone(5.0))
        heard = peer.heard
        while peer.heard < heard + CALLER_RATE // 5:
            await peer.next()
        await peer.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="u2")
        await peer.end("r1", "cancelled", reason="turn_detected")
        await peer.hear_turn()
        await peer.commit("u2", "what is it?")
        await peer.answer("r2", "A bell.", tone(0.1))
        await peer.listen()

    async with server(false_start) as (url, peers), call(url) as caller:
        async for _ in caller.speak(recording(0.8)):
            pass
    turn = caller.turns[0]
    assert (turn.transcript, turn.reply, turn.response_id, turn.false_starts) == ("Well, what is it?", "A bell.", "r2", 1)
    (truncate,) = [event for event in peers[0].received if event["type"] == "conversation.item.truncate"]
    assert (truncate["item_id"], truncate["content_index"]) == ("item_r1", 0)
    heard = sum(len(part.pcm) for part in caller.speaker.parts if part.response_id == "r1")
    assert truncate["audio_end_ms"] == heard * 1000 // CALLER_RATE
    assert 0 < heard < CALLER_RATE * 5


async def test_errors_of_the_server_end_the_turn() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.open()
        await peer.send("error", error={"type": "server_error", "code": "engine_failed", "message": "The engine died."})
        await peer.listen()

    async def fail(peer: Peer) -> None:
        await peer.open()
        await peer.begin("r1")
        await peer.end("r1", "failed", error={"message": "out of memory"})
        await peer.listen()

    async def hang_up(peer: Peer) -> None:
        await peer.open()
        await peer.socket.close(1012, "restarting")

    async def babble(peer: Peer) -> None:
        await peer.open()
        await peer.socket.send("[1]")
        await peer.listen()

    for script, message in (
        (refuse, r"^the server reports an error: The engine died\. \(engine_failed\)$"),
        (fail, "^the server could not answer: out of memory$"),
        (hang_up, r"^the connection was lost \(1012 restarting\)$"),
        (babble, "^the server sent a frame that is not an event"),
    ):
        async with server(script) as (url, _), call(url) as caller:
            with pytest.raises(CallError, match=message):
                async for _ in caller.speak(recording()):
                    pass


async def test_a_session_that_is_refused_or_never_agreed_is_no_call() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.send("error", error={"code": "session_expired", "message": "Too late."})
        await peer.listen()

    async with server(refuse) as (url, _):
        with pytest.raises(CallError, match=r"refuses the session: Too late\. \(session_expired\)"):
            async with call(url):
                pass


# ---------------------------------------------------------------------------------------------------------------- talk


async def test_talk_prints_both_sides_and_writes_the_answer(tmp_path: Path) -> None:
    console, text = plain()
    answer = tmp_path / "answer.wav"
    async with server(one_turn) as (url, _):
        assert await talk([wav(tmp_path)], answer, url, None, console) == 0
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("you (")
    assert lines[0].endswith("question.wav): What is a tortoise?")
    assert lines[1] == "agent: A slow animal."
    assert lines[2].startswith("latency: ")
    assert lines[2].endswith("(server 256: turn 210, voice 46)")
    assert lines[3].startswith(f"wrote {answer}")
    pcm, rate = soundfile.read(answer, dtype="int16")
    assert (rate, soundfile.info(answer).subtype, soundfile.info(answer).channels) == (CALLER_RATE, "PCM_16", 1)
    first = int(np.flatnonzero(pcm)[0])
    # The pause before the answer is in the file: 100 ms of silence at the least.
    assert first >= CALLER_RATE // 10
    np.testing.assert_array_equal(pcm[first : first + 4_000], tone(0.2)[1:4_001])


async def test_talk_on_a_terminal_replaces_settled_words_by_the_transcript(tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, highlight=False, legacy_windows=False, color_system=None)
    async with server(one_turn) as (url, _):
        assert await talk([wav(tmp_path)], None, url, None, console) == 0
    assert "speaking" in text.getvalue()
    last = text.getvalue().rsplit("\x1b[2K", 1)[-1]
    assert "What is a tortoise?" in last
    assert "A slow animal." in text.getvalue()
    assert "latency: " in text.getvalue()


async def test_talk_names_files_it_cannot_use_before_calling(tmp_path: Path) -> None:
    for files, output, message in (
        ([tmp_path / "none.wav"], None, "none.wav: no such file"),
        ([wav(tmp_path)], tmp_path / "no" / "a.wav", "a.wav: no such folder"),
    ):
        console, text = plain()
        assert await talk(files, output, "ws://127.0.0.1:9/v1/realtime", None, console) == 2
        assert text.getvalue().startswith("vivavoce talk: ")
        assert text.getvalue().rstrip().endswith(message)
        assert text.getvalue().count("\n") == 1


async def test_talk_says_how_to_start_a_server(tmp_path: Path, unused_tcp_port: int) -> None:
    console, text = plain()
    url = f"ws://127.0.0.1:{unused_tcp_port}/v1/realtime"
    assert await talk([wav(tmp_path)], None, url, None, console) == 1
    assert text.getvalue() == f"vivavoce talk: no server answers at {url}: start one with `vivavoce serve`\n"


async def test_talk_says_what_was_wrong_with_the_address_or_the_key(tmp_path: Path) -> None:
    seen: list[Request] = []

    def refuse(_: ServerConnection, request: Request) -> Response:
        seen.append(request)
        if request.headers.get("Authorization") == "Bearer right":
            body = json.dumps({"error": {"message": "All lines are busy."}}).encode()
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, "busy", Headers({"Content-Length": str(len(body))}), body)
        return Response(HTTPStatus.UNAUTHORIZED, "no", Headers({"Content-Length": "0"}), b"")

    async def nobody(socket: ServerConnection) -> None:
        raise AssertionError("no call gets through")

    file = wav(tmp_path)
    async with serve(nobody, "127.0.0.1", 0, process_request=refuse) as listening:
        for key, message in ((None, "give it one with --api-key KEY"), ("right", "HTTP 503: All lines are busy.")):
            console, text = plain()
            assert await talk([file], None, address(listening), key, console) == 1
            assert message in text.getvalue()
        plain_address = address(listening).removesuffix("/v1/realtime")
        for url in (plain_address, f"{plain_address}/", f"{plain_address}/other?model=mine"):
            assert await talk([file], None, url, None, plain()[0]) == 1
    paths = [request.path for request in seen]
    assert paths == [*["/v1/realtime?model=pocket"] * 4, "/other?model=mine"]
    console, text = plain()
    assert await talk([file], None, "nonsense", None, console) == 1
    assert "nonsense is not an address" in text.getvalue()


async def test_hanging_up_leaves_no_task(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with server(one_turn) as (url, _):
        async with call(url) as caller:
            async for _ in caller.speak(recording()):
                break
        await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if "caller" in task.get_name()} == set()


# ----------------------------------------------------------------------------------------------------- the real server


async def test_two_turns_with_the_real_server(start: Callable, tmp_path: Path) -> None:
    """A scripted engine behind it: two recordings are one conversation, and the model is told what was said and heard before."""
    engine = ScriptedEngine([ScriptedReply("Bern is the capital. It lies on the Aare."), ScriptedReply("Very.")], ["Where?", "Is it old?"])
    served = await start(engine, factory=Conversation)
    console, text = plain()
    answer = tmp_path / "answer.wav"
    assert await talk([wav(tmp_path, "1.wav", 0.6), wav(tmp_path, "2.wav", 0.5)], answer, served.ws, None, console) == 0
    lines = text.getvalue().splitlines()
    assert [line.partition(": ")[2] for line in lines if line.startswith(("you", "agent"))] == [
        "Where?",
        "Bern is the capital. It lies on the Aare.",
        "Is it old?",
        "Very.",
    ]
    assert sum(line.startswith("latency: ") and "silence" in line for line in lines) == 2
    told = [(message.role, message.text) for message in engine.contexts[1] if message.role != "system"]
    assert told == [("user", "Where?"), ("assistant", "Bern is the capital. It lies on the Aare."), ("user", "Is it old?")]
    pcm, _ = soundfile.read(answer, dtype="int16")
    # Nine words and one, 60 ms each; a tone passes zero, so not every sample of it counts.
    assert 0.98 * 10 * 1_440 <= np.count_nonzero(pcm) <= 10 * 1_440


async def test_a_long_pause_that_was_no_end_is_a_false_start(start: Callable) -> None:
    """The caller goes on over the answer: it is cut, the rest is a turn of its own, and both are in the account."""
    engine = ScriptedEngine([ScriptedReply(" ".join(["word"] * 60)), ScriptedReply("Now I see.")], ["I wanted to", "ask you something."])
    served = await start(engine, factory=Conversation)
    clip = np.concatenate((tone(0.6), np.zeros(CALLER_RATE, np.int16), tone(1.0)))
    async with call(served.ws) as caller:
        async for _ in caller.speak(Recording("clip", clip, len(clip))):
            pass
    turn = caller.turns[0]
    assert (turn.transcript, turn.reply.strip(), turn.false_starts) == ("I wanted to ask you something.", "Now I see.", 1)
    heard = next(message.text for message in engine.contexts[1] if message.role == "assistant")
    assert heard is not None
    assert 0 < len(heard.split()) < 60


async def test_a_server_with_keys_wants_one(start: Callable, tmp_path: Path) -> None:
    served = await start(ScriptedEngine(), factory=Conversation, api_keys=("a-key-1234567890",))
    for key, code in ((None, 1), ("another", 1), ("a-key-1234567890", 0)):
        console, text = plain()
        assert await talk([wav(tmp_path)], None, served.ws, key, console) == code
        assert ("--api-key" in text.getvalue()) == (code == 1)
