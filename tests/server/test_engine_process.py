"""The engine's process: it loads, answers, is told apart when it can't load, and when it dies its sessions go on in another."""

import asyncio
import itertools
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from server.apology import APOLOGY
from server.engine_link import Fact
from server.engine_process import ProcessEngineLink
from server.restarts import RestartOptions
from streaming.audio import AudioFrame
from streaming.doors import SynthesisedAudio
from streaming.events import (
    AudioReady,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    EngineFailed,
    EngineLost,
    FinishReason,
    Listened,
    ReplyRestarted,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    SessionSpec,
    SetHistory,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    TranscriptDelta,
    TranscriptDone,
)
from streaming.fakes import ScriptedReply, load_scripted
from streaming.load import EngineFiles, load_engine

FRAME = 320
LONG = "one two three four five six seven eight nine ten"
STUCK = ScriptedReply(LONG, stall_after=0)
"""A reply of which nothing comes."""
WORDS_ONLY = ScriptedReply(LONG, stall_after=3)
"""One that stops before its first sound."""
HALF = ScriptedReply(LONG, stall_after=9)
"""One that stops after its first clause of eight words."""


class Call:
    """One session, and everything it was told."""

    def __init__(self, link: ProcessEngineLink, name: str = "s") -> None:
        self.link = link
        self.name = name
        self.facts: list[Fact] = []
        self.at = 0
        self._told = asyncio.Event()
        link.open(name, SessionSpec(seed=1), self._receive)
        self.order(ConfigureEar())

    def _receive(self, fact: Fact) -> None:
        self.facts.append(fact)
        self._told.set()

    def order(self, order: object) -> None:
        self.link.order(self.name, order)

    def hear(self, frames: int, loudness: float = 0.3) -> None:
        for _ in range(frames):
            self.link.feed(self.name, AudioFrame(np.full(FRAME, loudness, np.float32), self.at))
            self.at += FRAME

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):  # a busy machine takes long to load real models again
            while not condition():
                self._told.clear()
                await self._told.wait()

    async def heard(self) -> None:
        """Everything that was fed has been heard, to the window."""
        await self.until(lambda: self.of(Listened)[-1:] == [Listened(self.at // 512 * 512)])

    async def finished(self, response_id: str) -> ResponseFinished:
        await self.until(lambda: any(one.response_id == response_id for one in self.of(ResponseFinished)))
        return next(one for one in self.of(ResponseFinished) if one.response_id == response_id)

    def of(self, kind: type[object]) -> list[object]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def text(self, response_id: str) -> str:
        text = ""
        for fact in self.facts:
            match fact:
                case TextDelta(name, more) if name == response_id:
                    text += more
                case ReplyRestarted(name, end) if name == response_id:
                    text = text[:end]
        return text

    def check_sound(self, response_id: str) -> int:
        """The sound of a response is whole and its marks are in order. Returns its samples."""
        ready = [fact for fact in self.of(AudioReady) if fact.response_id == response_id]
        sound = [fact for fact in self.of(SynthesisedAudio) if fact.response_id == response_id]
        ends = [one.start + one.samples for one in ready]
        assert [one.start for one in ready] == [0, *ends[:-1]]
        assert [(one.start, len(one.pcm)) for one in sound] == [(one.start, one.samples) for one in ready]
        words = [word for one in ready for word in one.words]
        assert [word.end for word in words] == sorted(word.end for word in words)
        assert [word.text_end for word in words] == sorted({word.text_end for word in words})
        assert words[-1].end == ends[-1]
        return ends[-1]


async def die(link: ProcessEngineLink) -> None:
    """Kill the engine and wait until that is known."""
    assert link._process is not None
    assert link._process.pid is not None
    os.kill(link._process.pid, signal.SIGKILL)
    async with asyncio.timeout(120):  # a busy machine takes long to load real models again
        while link.running:  # noqa: ASYNC110 - the link tells only its sessions
            await asyncio.sleep(0)


async def back(link: ProcessEngineLink) -> None:
    async with asyncio.timeout(120):  # a busy machine takes long to load real models again
        while not link.running:  # noqa: ASYNC110 - the link tells nobody when it is back
            await asyncio.sleep(0.01)


@pytest.fixture
async def start(in_turn) -> AsyncIterator[Callable[..., object]]:
    """`await start(factory, ...)` gives a link whose processes are those factories', in turn."""
    links: list[ProcessEngineLink] = []

    async def start_link(*factories: object, restarts: RestartOptions | None = None) -> ProcessEngineLink:
        links.append(ProcessEngineLink(in_turn(*(factories or (partial(load_scripted),))), restarts))
        await links[-1].start()
        return links[-1]

    yield start_link
    for link in links:
        await link.stop()


async def answers(call: Call, name: str) -> None:
    """A whole question and its answer, in this session."""
    at, before = call.at, len(call.of(SpeechStarted))
    call.hear(30)
    await call.until(lambda: len(call.of(SpeechStarted)) > before)
    call.order(StartTurn(f"item_{name}", at))
    call.hear(15, 0.0)
    await call.heard()
    call.order(CommitTurn(f"item_{name}", at, call.at - 10 * FRAME))
    await call.until(lambda: any(one.item_id == f"item_{name}" for one in call.of(TranscriptDone)))
    call.order(SetHistory((ContextMessage("user", f"item_{name}", None),)))
    call.order(Respond(name, RespondOptions()))
    assert await call.finished(name) == call.of(ResponseFinished)[-1]
    assert call.of(ResponseFinished)[-1].reason is FinishReason.STOP
    call.check_sound(name)


def check_evidence(call: Call) -> None:
    """Every window was told of once, and speech began and stopped in turns."""
    positions = [one.at for one in call.of(Listened)]
    assert positions == list(range(512, positions[-1] + 1, 512))
    speech = [type(fact) for fact in call.facts if isinstance(fact, SpeechStarted | SpeechStopped)]
    assert all(one is not other for one, other in itertools.pairwise(speech))


async def test_a_quiet_session_goes_on(start) -> None:
    link = await start()
    call = Call(link)
    call.hear(20, 0.0)
    await call.heard()
    await die(link)
    await call.until(lambda: call.of(EngineLost) != [])
    call.hear(20, 0.0)  # nobody hears it yet
    await back(link)
    await answers(call, "r")
    check_evidence(call)
    assert call.of(EngineLost) == [EngineLost("the engine process exited with -9")]
    assert (call.of(EngineFailed), APOLOGY in call.text("r")) == ([], False)


async def test_a_turn_that_is_being_spoken_is_heard_to_its_end(start) -> None:
    link = await start(partial(load_scripted, transcripts=["What is it?"]))
    call = Call(link)
    call.hear(10, 0.0)
    call.hear(40)
    await call.until(lambda: call.of(SpeechStarted) != [])
    onset = call.of(SpeechStarted)[0].at
    call.order(StartTurn("item", onset))
    await call.heard()
    told = call.of(TranscriptDelta)
    await die(link)
    call.hear(5)
    call.hear(20, 0.0)
    await back(link)
    await call.heard()
    assert len(call.of(SpeechStarted)) == len(call.of(SpeechStopped)) == 1
    call.order(CommitTurn("item", onset, call.at))
    await call.until(lambda: call.of(TranscriptDone) != [])
    assert call.of(TranscriptDone) == [TranscriptDone("item", "What is it?", 0.9, "en")]
    assert call.of(TranscriptDelta) == told
    await answers(call, "r")
    check_evidence(call)


async def test_a_turn_that_awaits_its_transcript_gets_it(start) -> None:
    link = await start(partial(load_scripted, transcripts=[None]), partial(load_scripted, transcripts=["What is it?"]))
    call = Call(link)
    call.hear(30)
    call.order(StartTurn("item", 0))
    call.hear(20, 0.0)
    await call.heard()
    call.order(CommitTurn("item", 0, call.at))
    call.order(SetHistory((ContextMessage("user", "item", None),)))
    await die(link)
    call.order(Respond("r", RespondOptions()))
    await call.until(lambda: call.of(AudioReady) != [])
    assert not link.running  # and yet the caller hears something
    assert call.text("r") == f"{APOLOGY} "
    await call.finished("r")
    assert call.of(TranscriptDone) == [TranscriptDone("item", "What is it?", 0.9, "en")]
    assert call.text("r") == f"{APOLOGY} This is reply 1."
    call.check_sound("r")
    await answers(call, "next")
    check_evidence(call)


@pytest.mark.parametrize(("script", "begun"), [(STUCK, ""), (WORDS_ONLY, "one two three ")])
async def test_a_reply_without_sound_is_excused_and_made_again(start, script: ScriptedReply, begun: str) -> None:
    link = await start(partial(load_scripted, replies=[script]), partial(load_scripted, replies=[ScriptedReply("It is a tortoise.")]))
    call = Call(link)
    call.order(Respond("r", RespondOptions(rate=8_000)))
    await call.until(lambda: call.text("r") == begun)
    call.hear(16, 0.0)
    await call.heard()
    await die(link)
    assert await call.finished("r") == call.of(ResponseFinished)[-1]
    assert call.text("r") == f"{APOLOGY} It is a tortoise."
    assert call.of(ResponseFinished)[-1].reason is FinishReason.STOP
    assert call.check_sound("r") == 8 * 60 * 4 + 8 * 60 * 4
    await answers(call, "next")


async def test_a_reply_that_was_being_heard_is_not_repeated(start) -> None:
    link = await start(partial(load_scripted, replies=[HALF]), partial(load_scripted))
    call = Call(link)
    call.order(Respond("r", RespondOptions()))
    await call.until(lambda: call.of(AudioReady) != [])
    told = call.check_sound("r")
    await die(link)
    assert await call.finished("r") == ResponseFinished("r", FinishReason.ERROR, "the engine process exited with -9")
    await back(link)
    await answers(call, "next")
    assert (call.check_sound("r"), [one.response_id for one in call.of(ResponseFinished)]) == (told, ["r", "next"])


async def test_every_session_goes_on(start) -> None:
    link = await start(partial(load_scripted, replies=[STUCK]), partial(load_scripted))
    busy, idle = Call(link, "busy"), Call(link, "idle")
    busy.order(Respond("r", RespondOptions()))
    idle.hear(3)
    await die(link)
    await asyncio.gather(answers(idle, "i"), busy.finished("r"))
    await answers(busy, "b")
    check_evidence(idle)


async def test_a_start_that_fails_is_tried_again(start, caplog) -> None:
    unable = partial(len)  # of a function: a TypeError
    restarts = RestartOptions(first_wait=0.05)
    link = await start(partial(load_scripted), unable, unable, partial(load_scripted), restarts=restarts)
    call = Call(link)
    await die(link)
    call.order(Say("r", "Hello.", RespondOptions()))
    assert (await call.finished("r")).reason is FinishReason.STOP
    assert call.text("r") == f"{APOLOGY} Hello."
    assert caplog.text.count("could not be started again: TypeError") == 2


async def test_sessions_are_given_up_when_it_does_not_come_back(start) -> None:
    link = await start(partial(load_scripted), partial(len), restarts=RestartOptions(first_wait=0.01, patience=0.001))
    call = Call(link)
    await die(link)
    await call.until(lambda: call.of(EngineFailed) != [])
    assert "could not be started again" in call.facts[-1].error
    call.hear(1)
    call.order(Say("r", "Hello.", RespondOptions()))
    assert isinstance(call.facts[-1], EngineFailed)


async def test_sessions_are_given_up_when_it_hangs_while_it_loads(start) -> None:
    link = await start(partial(load_scripted), partial(load_scripted, seconds=60), restarts=RestartOptions(patience=0.5))
    call = Call(link)
    await die(link)
    await call.until(lambda: call.of(EngineFailed) != [])
    assert "not be started again in time" in call.facts[-1].error


async def test_more_input_than_may_wait_at_once_is_heard_again(start, monkeypatch) -> None:
    monkeypatch.setattr("server.engine_process._WRITE_LIMIT", 3_000_000)
    link = await start(partial(load_scripted, transcripts=[None]), partial(load_scripted))
    calls = [Call(link, f"s{n}") for n in range(6)]
    for call in calls:  # 20 s each, 1.3 MB: more than the bound together
        call.order(StartTurn("a", 0))
        for _ in range(10):
            call.hear(100, 0.0)
            await asyncio.sleep(0.01)
    await asyncio.gather(*(call.heard() for call in calls))
    await die(link)
    calls[0].hear(1)  # not for an engine that does not know the session yet
    await asyncio.gather(*(answers(call, "r") for call in calls))
    assert all(len(call.of(EngineLost)) == 1 for call in calls)


async def test_sessions_are_given_up_when_it_dies_again_and_again(start) -> None:
    link = await start(restarts=RestartOptions(first_wait=0.01))
    call = Call(link)
    for _ in range(3):
        await die(link)
        await back(link)
    assert [type(fact) for fact in call.facts] == [EngineLost, EngineLost, EngineFailed]
    await answers(Call(link, "new"), "r")


async def test_stopping_while_another_is_started(start) -> None:
    link = await start()
    await die(link)
    async with asyncio.timeout(120):  # a busy machine takes long to load real models again
        while not multiprocessing.active_children():  # noqa: ASYNC110 - the link tells nobody what it is at
            await asyncio.sleep(0)
    await link.stop()
    assert (link.running, multiprocessing.active_children()) == (False, [])


@pytest.mark.models
@pytest.mark.timeout(300)
async def test_with_real_models(start, pocket: EngineFiles) -> None:
    link = await start(partial(load_engine, pocket))
    call = Call(link)
    call.order(SetHistory((ContextMessage("user", "item", "What is a tortoise?"),)))
    call.order(Respond("r", RespondOptions(max_output_tokens=24)))
    await die(link)
    assert (await call.finished("r")).error is None
    assert call.text("r").startswith(f"{APOLOGY} ")
    assert call.check_sound("r") > 24_000
    assert len(call.text("r")) > len(APOLOGY) + 10


async def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    nothing = EngineFiles(tmp_path, tmp_path / "model.gguf", tmp_path, tmp_path / "turn.onnx")
    with pytest.raises(RuntimeError, match=r"holds no Whisper"):
        await ProcessEngineLink(partial(load_engine, nothing)).start()


async def test_an_engine_without_its_gpu_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    files = EngineFiles(tmp_path, None, tmp_path, tmp_path / "turn.onnx", device="cuda:99")
    with pytest.raises(RuntimeError, match="DeviceError: cuda:99: "):
        await ProcessEngineLink(partial(load_engine, files)).start()
