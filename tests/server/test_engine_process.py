"""The engine's process, with real models: it loads, answers, is told apart when it can't load, and is replaced when it dies."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from server.engine_process import ProcessEngineLink
from streaming.doors import SynthesisedAudio
from streaming.events import EngineEvent, EngineFailed, FinishReason, RespondOptions, ResponseFinished, Say, SessionSpec
from streaming.load import EngineFiles, load_engine

Fact = EngineEvent | SynthesisedAudio


async def facts_until(kind: type[EngineEvent], facts: "asyncio.Queue[Fact]") -> list[Fact]:
    seen: list[Fact] = []
    while not seen or not isinstance(seen[-1], kind):
        seen.append(await asyncio.wait_for(facts.get(), 60))
    return seen


@pytest.mark.models
@pytest.mark.timeout(300)
async def test_it_speaks_dies_and_is_replaced(pocket: EngineFiles) -> None:
    link = ProcessEngineLink(partial(load_engine, pocket))
    await link.start()
    try:
        for _ in range(2):
            facts: asyncio.Queue[Fact] = asyncio.Queue()
            link.open("s", SessionSpec(seed=1), facts.put_nowait)
            link.order("s", Say("r", "Hello there.", RespondOptions(rate=24_000)))
            seen = await facts_until(ResponseFinished, facts)
            assert seen[-1] == ResponseFinished("r", FinishReason.STOP)
            assert sum(len(fact.pcm) for fact in seen if isinstance(fact, SynthesisedAudio)) > 12_000
            assert link._process is not None
            assert link._process.pid is not None
            os.kill(link._process.pid, signal.SIGKILL)
            assert (await facts_until(EngineFailed, facts))[-1] == EngineFailed("the engine process exited with -9")
            assert not link.running
            async with asyncio.timeout(120):
                while not link.running:  # noqa: ASYNC110 - the link tells nobody when it is back
                    await asyncio.sleep(0.05)
    finally:
        await link.stop()
    assert not link.running


async def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    nothing = EngineFiles(tmp_path, tmp_path / "model.gguf", tmp_path, tmp_path / "turn.onnx")
    with pytest.raises(RuntimeError, match=r"model\.gguf"):
        await ProcessEngineLink(partial(load_engine, nothing)).start()
