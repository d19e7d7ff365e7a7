"""Whole spoken turns through the real server, with one of the random models in its engine's process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

import torch

from agent.conversation import Conversation
from agent.settings import SessionSettings
from benchmarks.gpu_models import Language, Published, decoder, hearing, language_model
from benchmarks.gpu_parts import Plan
from benchmarks.gpu_realtime import PublishedRealtime, recogniser
from server.bench.load import Level, bench_load
from server.caller_audio import Recording
from server.engine_process import ProcessEngineLink
from server.limits import Limits
from server.serve import ServeOptions, serve
from streaming.audio_path import AudioPath
from streaming.chat import ChatTemplate
from streaming.device import choose_device
from streaming.doors import EngineOutput
from streaming.engine import Parts, SpeechEngine
from streaming.load import EngineFiles, load_words, warm_up
from streaming.recognition import WordRecogniser
from streaming.replying import Writer
from streaming.sampling import Sampling
from streaming.turn import SmartTurn
from streaming.vad import SileroVad, silero_model
from streaming.voice_device import load_voice

__all__ = ["LIMIT_MS", "load_random_engine", "measure_turns"]

LIMIT_MS: Final = 500.0
"""What p95 of the answers is below where a level of calls is held."""


def load_random_engine(model: Published | PublishedRealtime, files: EngineFiles, early: Callable[[EngineOutput], None]) -> SpeechEngine:
    """A warm engine of the pocket bundle's parts and, of random weights, a language model that hears, or a recogniser and the language
    model that answers. In the engine's process."""
    torch.set_num_threads(files.threads)
    device = choose_device(files.device, 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    reads, path, answers = _models(model, files, device)
    language = language_model(decoder(answers, device))
    parts = Parts(
        vad=SileroVad(silero_model()),
        end_of_turn=SmartTurn(files.end_of_turn),
        recogniser=reads,
        writer=Writer(language, ChatTemplate(language, path=path), Sampling()),
        voice=load_voice(files.voice, device, files.voice_device),
    )
    warm_up(parts)
    return SpeechEngine(parts, early)


def _models(
    model: Published | PublishedRealtime, files: EngineFiles, device: torch.device
) -> tuple[WordRecogniser, AudioPath | None, Language]:
    """What recognises words, how the language model hears, where it does, and the language model."""
    if isinstance(model, Published):
        return load_words(files.recogniser, files.language, device), hearing(model, device), model.language
    return recogniser(model, device), None, model.answers


@contextlib.asynccontextmanager
async def served(model: Published | PublishedRealtime, files: EngineFiles, most: int) -> AsyncIterator[str]:
    """The address of the real server with this model in its engine's process, for so many calls."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    # The limit on the engine's business is left out: the level is what is asked for.
    limits = Limits(max_sessions=most + 1, max_engine_busy=100.0)
    options = ServeOptions(port=0, limits=limits, defaults=SessionSettings(model_hears=isinstance(model, Published)), drain_seconds=0.0)
    link = ProcessEngineLink(partial(load_random_engine, model, files))
    serving = asyncio.create_task(serve(options, link, Conversation, stop=stop, announce=ready.set_result))
    await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
    try:
        if ready.done():
            yield ready.result().replace("http", "ws", 1) + "/v1/realtime"
    finally:
        stop.set()
        await serving


async def measure_turns(
    model: Published | PublishedRealtime, plan: Plan, files: EngineFiles, recordings: Sequence[Recording]
) -> list[Level]:
    """Levels of calls, up to the first that is not held."""
    async with served(model, files, max(plan.calls)) as url:
        return await bench_load(url, None, recordings, plan.calls, min(3, len(recordings)), LIMIT_MS, on=False)
