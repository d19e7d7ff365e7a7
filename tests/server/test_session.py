"""A session without a socket: how it ends, and what it holds while a client does not read."""

import asyncio
import base64
import json
from collections.abc import Callable

import numpy as np
import pytest

from agent.conversation import Conversation
from agent.events import EndRequested, WordsOffered
from agent.settings import SessionSettings
from server.doors import ChannelClosedError
from server.echo import EchoNews
from server.limits import Limits
from server.outbox import Outbox
from server.realtime.codec import Codec
from server.realtime.dialect import Dialect
from server.session import Session, SessionEnd, SessionParts
from streaming import echo_canceller
from streaming.audio import AudioFrame, Samples
from streaming.doors import SynthesisedAudio
from streaming.events import (
    Adopt,
    AudioReady,
    Drop,
    EngineFailed,
    FinishReason,
    Listened,
    ResponseFinished,
    Say,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    TranscriptProvisional,
)


class Link:
    """An engine that only notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.orders: list[object] = []
        self.fed: list[AudioFrame] = []
        self.sink = None

    def open(self, _session_id: str, _spec: object, sink: object) -> None:
        self.calls.append("open")
        self.sink = sink

    def order(self, _session_id: str, order: object) -> None:
        self.calls.append(type(order).__name__)
        self.orders.append(order)

    def last(self, kind: type) -> object:
        return next(order for order in reversed(self.orders) if isinstance(order, kind))

    def feed(self, _session_id: str, frame: AudioFrame) -> None:
        self.calls.append("feed")
        self.fed.append(frame)

    def close(self, _session_id: str) -> None:
        self.calls.append("close")


class Channel:
    """A client that says what the test puts, and reads only while `reading` is set."""

    def __init__(self, *, reading: bool = True, gone: bool = False) -> None:
        self.said: asyncio.Queue[str | None] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.gone = gone
        self.got: list[dict[str, object]] = []
        if reading:
            self.reading.set()

    async def accept(self) -> None:
        if self.gone:
            raise ChannelClosedError

    async def receive(self) -> str | None:
        return await self.said.get()

    async def send(self, text: str) -> None:
        await self.reading.wait()
        self.got.append(json.loads(text))


async def turns_until(condition: Callable[[], bool]) -> None:
    """Turns of the event loop, until `condition()` holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to it")


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def make(plain, link):
    """`make(limits)` gives a session."""

    def make_session(limits: Limits | None = None, conversation: type[Conversation] = plain, **others: object) -> Session:
        limits = limits or Limits()
        codec = Codec("sess_1", Dialect.GA, limits, 0)
        clock = asyncio.get_running_loop().time
        return Session(
            SessionParts(
                "sess_1",
                1,
                SessionSettings(),
                conversation("sess_1", 1),
                codec,
                link,
                limits,
                clock,
                lambda _turn: None,
                lambda _adopted, _tokens: None,
                **others,
            )
        )

    return make_session


async def test_a_client_that_leaves_ends_the_session(make, link) -> None:
    channel = Channel()
    channel.said.put_nowait(None)
    assert await make().run(channel) == SessionEnd(None)
    assert (link.calls[0], link.calls[-1]) == ("open", "close")


async def test_a_client_that_is_gone_before_it_began_costs_nothing(make, link) -> None:
    assert await make().run(Channel(gone=True)) == SessionEnd(None)
    assert link.calls == []


async def test_a_client_that_does_not_read_holds_a_bounded_number_of_bytes(make, link, monkeypatch) -> None:
    held: list[int] = []
    put = Outbox.put

    def watched(self: Outbox, text: str, audio_of: str | None = None) -> None:
        put(self, text, audio_of)
        held.append(self.waiting_bytes)

    monkeypatch.setattr(Outbox, "put", watched)
    channel = Channel(reading=False)
    for _ in range(1_000):
        channel.said.put_nowait('{"type": "nonsense"}')
    end = await asyncio.wait_for(make(Limits(max_outbox_bytes=20_000)).run(channel), 10)
    assert end.code == 1013
    assert 15_000 < max(held) <= 20_000
    assert link.calls[-1] == "close"


async def test_a_client_that_takes_too_long_is_let_go(make) -> None:
    end = await asyncio.wait_for(make(Limits(send_timeout=0.05)).run(Channel(reading=False)), 10)
    assert end == SessionEnd(1013, "the client does not read")


async def test_sound_stays_in_playout_while_the_transport_is_slow_and_a_cut_takes_it_back(make, link) -> None:
    session, channel = make(), Channel()
    running = asyncio.create_task(session.run(channel))
    channel.said.put_nowait('{"type": "response.create"}')
    await turns_until(lambda: any(event["type"] == "response.created" for event in channel.got))
    channel.reading.clear()
    response_id = next(event["response"]["id"] for event in channel.got if event["type"] == "response.created")
    link.sink(SynthesisedAudio("sess_1", response_id, 0, np.zeros(24_000 * 5, np.int16)))
    link.sink(AudioReady(response_id, 0, 24_000 * 5, 10))
    for _ in range(50):
        await asyncio.sleep(0)
    assert session._playout.queued_samples >= 24_000 * 5 - 3 * 4_800
    channel.said.put_nowait('{"type": "response.cancel"}')
    for _ in range(50):
        await asyncio.sleep(0)
    channel.reading.set()
    await turns_until(lambda: any(event["type"] == "response.done" for event in channel.got))
    assert sum(event["type"] == "response.output_audio.delta" for event in channel.got) <= 1  # the one the transport already held
    channel.said.put_nowait(None)
    assert await running == SessionEnd(None)


async def test_endless_audio_ends_the_session_with_an_internal_error(make, link, caplog) -> None:
    channel = Channel()
    running = asyncio.create_task(make().run(channel))
    await turns_until(lambda: link.sink is not None)
    link.sink(SynthesisedAudio("sess_1", "resp", 0, np.zeros(24_000 * 1_201, np.int16)))
    assert (await asyncio.wait_for(running, 10)).code == 1011
    assert "has more than" in caplog.text


async def test_a_call_that_the_agent_ends_is_closed_when_all_that_was_said_has_been_played(make, link) -> None:
    session, channel = make(conversation=Conversation), Channel()
    running = asyncio.create_task(session.run(channel))
    await turns_until(lambda: link.sink is not None)
    link.sink(WordsOffered("Bye."))
    link.sink(EndRequested("é" * 100))
    await turns_until(lambda: "Say" in link.calls)
    response_id = link.last(Say).response_id
    link.sink(TextDelta(response_id, "Bye."))
    link.sink(SynthesisedAudio("sess_1", response_id, 0, np.zeros(240, np.int16)))
    link.sink(AudioReady(response_id, 0, 240, 4))
    await turns_until(lambda: any(event["type"] == "response.output_audio.delta" for event in channel.got))
    assert not running.done()
    link.sink(ResponseFinished(response_id, FinishReason.STOP))
    assert await asyncio.wait_for(running, 10) == SessionEnd(1000, "é" * 61)


async def test_a_session_whose_engine_dies_is_told_and_sent_to_a_new_one(make, link) -> None:
    channel = Channel()
    running = asyncio.create_task(make(conversation=Conversation).run(channel))
    await turns_until(lambda: link.sink is not None)
    link.sink(EngineFailed("the engine process exited with -9"))
    assert await asyncio.wait_for(running, 10) == SessionEnd(1012, "engine_failed")
    assert channel.got[-1]["type"] == "error"
    assert channel.got[-1]["error"]["message"] == "the engine process exited with -9"


async def prepared(make, link, channel: Channel, *, whole: bool) -> tuple[Session, asyncio.Task[SessionEnd], str]:
    """A session whose caller has paused: a reply of 10 ms has been prepared, and made to its end where it is `whole`."""
    session = make(conversation=Conversation)
    running = asyncio.create_task(session.run(channel))
    await turns_until(lambda: link.sink is not None)
    for fact in (SpeechStarted(0, 0.9), Listened(8_000), SpeechStopped(8_000, 0.1)):
        link.sink(fact)
    await turns_until(lambda: "StartTurn" in link.calls)
    link.sink(TranscriptProvisional(link.last(StartTurn).item_id, 8_000, "Tell me more.", 0.9))
    await turns_until(lambda: "Speculate" in link.calls)
    response_id = link.last(Speculate).response_id
    link.sink(TextDelta(response_id, "No."))
    link.sink(SynthesisedAudio("sess_1", response_id, 0, np.zeros(240, np.int16)))
    link.sink(AudioReady(response_id, 0, 240, 3))
    if whole:
        link.sink(ResponseFinished(response_id, FinishReason.STOP))
    await turns_until(lambda: not session._inbox)
    assert not any(event["type"].startswith("response.") for event in channel.got)
    return session, running, response_id


@pytest.mark.parametrize("whole", [True, False])
async def test_a_prepared_reply_is_sent_when_the_turn_ends_and_waited_for_when_the_server_does(make, link, whole: bool) -> None:
    channel = Channel()
    session, running, response_id = await prepared(make, link, channel, whole=whole)
    link.sink(Listened(16_000))
    await turns_until(lambda: any(event["type"] == "response.output_audio.delta" for event in channel.got))
    assert link.last(Adopt) == Adopt(response_id)
    assert "Respond" not in link.calls
    session.drain(60)
    if not whole:
        await asyncio.sleep(0)
        assert not running.done()
        link.sink(ResponseFinished(response_id, FinishReason.STOP))
    assert await asyncio.wait_for(running, 10) == SessionEnd(1012, "session_expired")
    assert any(event["type"] == "response.done" for event in channel.got)


async def test_a_dropped_reply_is_neither_heard_nor_waited_for(make, link) -> None:
    channel = Channel()
    session, running, response_id = await prepared(make, link, channel, whole=False)
    link.sink(SpeechStarted(12_000, 0.9))
    await turns_until(lambda: link.orders[-1] == Drop(response_id))
    assert session._playout.silent
    session.drain(60)
    assert await asyncio.wait_for(running, 10) == SessionEnd(1012, "session_expired")
    assert not any(event["type"].startswith("response.") for event in channel.got)


class FailingCanceller:
    """Silences what it hears, a few times, then fails."""

    delay = 128

    def __init__(self) -> None:
        self.left = 20

    def push(self, heard: Samples, played: Samples) -> Samples:  # noqa: ARG002 - named by the protocol
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("no such handle")
        return np.zeros_like(heard)


async def test_echo_cancellation_is_asked_for_and_the_call_survives_its_end(make, link, monkeypatch) -> None:
    monkeypatch.setattr(echo_canceller, "available", lambda: True)
    news: list[tuple[EchoNews, str]] = []
    session, channel = make(None, Conversation, new_canceller=FailingCanceller, on_echo=lambda *told: news.append(told)), Channel()
    running = asyncio.create_task(session.run(channel))
    wire = {"turn_detection": None, "echo_cancellation": {"type": "server_echo_cancellation"}}
    channel.said.put_nowait(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": {"input": wire}}}))
    channel.said.put_nowait('{"type": "response.create"}')
    await turns_until(lambda: any(event["type"] == "response.created" for event in channel.got))
    assert news == [(EchoNews.BEGUN, "")]
    response_id = next(event["response"]["id"] for event in channel.got if event["type"] == "response.created")
    link.sink(SynthesisedAudio("sess_1", response_id, 0, np.full(24_000, 1_000, np.int16)))
    link.sink(AudioReady(response_id, 0, 24_000, 10))
    await turns_until(lambda: any(event["type"] == "response.output_audio.delta" for event in channel.got))
    sound = base64.b64encode(np.full(2_400, 500, "<i2").tobytes()).decode()
    for _ in range(10):  # 100 ms each
        channel.said.put_nowait(json.dumps({"type": "input_audio_buffer.append", "audio": sound}))
    channel.said.put_nowait('{"type": "input_audio_buffer.commit"}')
    channel.said.put_nowait(None)
    await running
    assert news[1:] == [(EchoNews.FAILED, "RuntimeError: no such handle")]
    assert [frame.at for frame in link.fed[1:]] == [frame.at + len(frame.pcm) for frame in link.fed[:-1]]
    assert sum(len(frame.pcm) for frame in link.fed) == 16_000
    sound = np.concatenate([frame.pcm for frame in link.fed])
    assert not sound.all()  # the filter's silence, where something of ours may be heard
    assert sound[-1_600:].all()  # and what came without it
