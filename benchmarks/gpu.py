"""What audio language models of the published sizes cost on a GPU, with random weights and without a network: the parts, then whole turns.

    python -m benchmarks.gpu                               # on a CUDA machine: all models, tables, benchmarks/results/gpu-NAME.json
    python -m benchmarks.gpu --models ultravox-8b --calls 1 8 32 --rounds 20
    python -m benchmarks.gpu --tiny                        # at tiny sizes on a CPU, turns of the last model only: shows that it runs

- first token: from the last sample of a turn of so many seconds to the logits of the reply's first token. `incremental` committed the sound
  while it came, `whole` begins when it has ended. The decision that it has ended is not in it.
- decode: one step of so many calls, 200 positions behind each, in fixed slots. Beside it the roofline: the bytes of weights that a step
  reads over the bandwidth measured in this run (a copy, read and written); keys and values are not in it.
- listening: work on a second of one caller's sound, in ms: encoder, projector, prefill.
- voice to voice: last speech sample to first audible one as a client of the real server hears it (`server.bench.load`), with the real VAD,
  end-of-turn model, recogniser and voice of the pocket bundle, the decision included. A level is held while every call is answered and p95
  is below 500 ms. The callers run in this process: `lag` says how late it was.

Every figure: median (10th to 90th percentile) and n. The models: `benchmarks.gpu_models`.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import re
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from agent.conversation import Conversation
from agent.settings import SessionSettings
from benchmarks.gpu_models import PUBLISHED, Published, Reciting, decoder, hearing, language_model, tiny, weight_bytes
from server.bench.load import Level, bench_load
from server.bench.recordings import choose_recordings
from server.bench.results import write_results
from server.caller_audio import Recording
from server.engine_process import ProcessEngineLink
from server.limits import Limits
from server.serve import ServeOptions, serve
from server.wiring import engine_files
from streaming.audio import Samples
from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.bundle import ensure_bundle
from streaming.chat import ChatTemplate
from streaming.decoder import Extend
from streaming.device import choose_device
from streaming.doors import EngineOutput
from streaming.engine import Parts, SpeechEngine
from streaming.events import SAMPLE_RATE, ContextMessage
from streaming.load import EngineFiles, load_words, warm_up
from streaming.manifest import load_manifest
from streaming.models.llama import Stretch
from streaming.replying import Writer
from streaming.sampling import Sampling
from streaming.tts import PhonemeVoice
from streaming.turn import SmartTurn
from streaming.vad import SileroVad, silero_model

__all__ = ["Figure", "Plan", "main", "measure_parts", "measure_turns"]

_LIMIT_MS: Final = 500.0
_HELD: Final = 200
_TURN: Final = (ContextMessage("user", "turn", None),)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, and where."""

    device: torch.device
    seconds: tuple[int, ...] = (3, 10, 30, 60)
    batches: tuple[int, ...] = (1, 16, 64)
    calls: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rounds: int = 20
    tiny: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured: milliseconds, one a time. `roofline` is what they could be at best, where that is known."""

    model: str
    what: str
    size: str
    ms: tuple[float, ...]
    roofline: float | None = None

    @property
    def spread(self) -> str:
        """Median (10th to 90th percentile)."""
        low, high = np.percentile(self.ms, (10, 90))
        return f"{statistics.median(self.ms):.2f} ({low:.2f} to {high:.2f})"


@contextlib.contextmanager
def timed(plan: Plan, into: list[float]) -> Iterator[None]:
    """Adds the milliseconds of the block, up to the end of all that it started on the device."""
    _finish(plan)
    begun = time.perf_counter()
    yield
    _finish(plan)
    into.append(1000 * (time.perf_counter() - begun))


def _finish(plan: Plan) -> None:
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)


# -------------------------------------------------------------------------------------------------------------- the parts


def measure_parts(model: Published, plan: Plan) -> list[Figure]:
    """First tokens, listening, and decode steps."""
    heard = _measure_hearing(model, plan)
    _forget(plan)
    return [*heard, *_measure_decoding(model, plan)]


@torch.inference_mode()
def _measure_hearing(model: Published, plan: Plan) -> list[Figure]:
    language, path = language_model(decoder(model, plan.device)), hearing(model, plan.device)
    template = ChatTemplate(language, path=path)
    numbers = count(-1, -1)
    figures = []
    for seconds in plan.seconds:
        pcm = (np.random.default_rng(seconds).standard_normal(seconds * SAMPLE_RATE) * 0.05).astype(np.float32)
        times: dict[str, list[float]] = {"incremental": [], "whole": [], "listening": []}
        for _ in range(plan.rounds + 1):  # the first is not counted
            listened = _answer(plan, language, template, path, numbers, np.split(pcm, seconds), times["incremental"])
            times["listening"].append(listened / seconds)
            _answer(plan, language, template, path, numbers, [pcm], times["whole"])
        figures += [Figure(model.name, f"first token, {how}", f"{seconds} s", tuple(times[how][1:])) for how in ("incremental", "whole")]
        figures.append(Figure(model.name, "listening, a second of sound", f"{seconds} s", tuple(times["listening"][1:])))
    return figures


def _answer(
    plan: Plan,
    language: Reciting,
    template: ChatTemplate,
    path: AudioPath,
    numbers: Iterator[int],
    pieces: Sequence[Samples],
    into: list[float],
) -> float:
    """A turn that comes in these pieces: the time from its last sample to the first token goes `into`, that of listening before is given.
    The last piece's blocks are committed as they would have been by then, unless it is the only one."""
    sequence, sound, listened = language.sequence(), Sound(path.encoder.stream(), numbers, 1), list[float]()
    budget = language.context - 64
    completed(language.sync(sequence, template.listening_prompt((), {}, sound, budget)))
    for piece in pieces:
        sound.push(piece)
        if len(pieces) > 1:
            with timed(plan, listened):
                completed(sound.commit())
                completed(language.sync(sequence, template.listening_prompt((), {}, sound, budget)))
    with timed(plan, into):
        completed(sound.conclude())
        completed(language.sync(sequence, template.reply_prompt(_TURN, {}, budget, {"turn": sound})))
    return sum(listened)


def _measure_decoding(model: Published, plan: Plan) -> list[Figure]:
    llama = decoder(model, plan.device, slots=max(plan.batches))
    language = language_model(llama)
    best = 1000 * weight_bytes(model.decoder) / bandwidth(plan)
    figures = []
    for batch in plan.batches:
        sequences = [language.sequence() for _ in range(batch)]
        for sequence in sequences:
            llama.forward([Stretch([5] * _HELD, 0, sequence.cache)])
            sequence.tokens.extend([5] * _HELD)
        times: list[float] = []
        for _ in range(5 * plan.rounds + 1):
            with timed(plan, times):
                language.run([Extend(language, sequence, [7], scored=True) for sequence in sequences])
        figures.append(Figure(model.name, "decode step", f"{batch} calls", tuple(times[1:]), best))
        del sequences, sequence
    return figures


def bandwidth(plan: Plan) -> float:
    """Bytes a second that are read or written by a large copy; the best of several."""
    source = torch.empty((1 << 22) if plan.tiny else (1 << 31), dtype=torch.int8, device=plan.device)
    target, times = torch.empty_like(source), list[float]()
    for _ in range(10):
        with timed(plan, times):
            target.copy_(source)
    return 2 * source.nbytes / (min(times) / 1000)


# ------------------------------------------------------------------------------------------------------------ whole turns


def load_random_engine(model: Published, files: EngineFiles, early: Callable[[EngineOutput], None]) -> SpeechEngine:
    """A warm engine of the pocket bundle's parts and a language model that hears, of random weights. In the engine's process."""
    torch.set_num_threads(files.threads)
    device = choose_device(files.device, 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    language = language_model(decoder(model, device))
    parts = Parts(
        vad=SileroVad(silero_model()),
        end_of_turn=SmartTurn(files.end_of_turn),
        recogniser=load_words(files.recogniser, files.language, device),
        writer=Writer(language, ChatTemplate(language, path=hearing(model, device)), Sampling()),
        voice=PhonemeVoice.load(files.voice),
    )
    warm_up(parts)
    return SpeechEngine(parts, early)


@contextlib.asynccontextmanager
async def served(model: Published, files: EngineFiles, most: int) -> AsyncIterator[str]:
    """The address of the real server with this model in its engine's process, for so many calls."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    # The limit on the engine's business is left out: the level is what is asked for.
    limits = Limits(max_sessions=most + 1, max_engine_busy=100.0)
    options = ServeOptions(port=0, limits=limits, defaults=SessionSettings(model_hears=True), drain_seconds=0.0)
    link = ProcessEngineLink(partial(load_random_engine, model, files))
    serving = asyncio.create_task(serve(options, link, Conversation, stop=stop, announce=ready.set_result))
    await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
    try:
        if ready.done():
            yield ready.result().replace("http", "ws", 1) + "/v1/realtime"
    finally:
        stop.set()
        await serving


async def measure_turns(model: Published, plan: Plan, files: EngineFiles, recordings: Sequence[Recording]) -> list[Level]:
    """Levels of calls, up to the first that is not held."""
    async with served(model, files, max(plan.calls)) as url:
        return await bench_load(url, None, recordings, plan.calls, min(3, len(recordings)), _LIMIT_MS, on=False)


# ---------------------------------------------------------------------------------------------------------------- report


def report(figures: Sequence[Figure], turns: dict[str, list[Level]], console: Console) -> None:
    """The tables."""
    parts = Table(title="milliseconds: median (10th to 90th percentile)")
    for column in ("model", "what", "size", "n", "ms", "roofline", "times it"):
        parts.add_column(column, justify="left" if column in ("model", "what") else "right")
    for figure in figures:
        best = figure.roofline
        beside = ("", "") if best is None else (f"{best:.2f}", f"{statistics.median(figure.ms) / best:.1f}")
        parts.add_row(figure.model, figure.what, figure.size, str(len(figure.ms)), figure.spread, *beside)
    console.print(parts)
    whole = Table(title="voice to voice, ms: last speech sample to first audible sample, real server")
    for column in ("model", "calls", "n", "p50", "p95", "max", "no answer", "cut off", "lag p99", "held"):
        whole.add_column(column, justify="left" if column == "model" else "right")
    for name, levels in turns.items():
        for level in levels:
            answered = sum(asked.latency is not None for asked in level.asked)
            quantiles = [f"{level.percentile(share):.0f}" for share in (50, 95, 100)]
            lost = (len(level.asked) - answered + len(level.refusals), sum(asked.cut_off for asked in level.asked))
            held = "yes" if level.held(_LIMIT_MS) else "no"
            whole.add_row(name, str(level.sessions), str(answered), *quantiles, *map(str, lost), f"{level.lag_ms:.0f}", held)
    console.print(whole)
    for name, levels in turns.items():
        most = max((level.sessions for level in takewhile(lambda level: level.held(_LIMIT_MS), levels)), default=0)
        console.print(f"{name}: {most} calls held at p95 below {_LIMIT_MS:.0f} ms")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [model.name for model in PUBLISHED]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--device", default=None, help="cuda, cuda:1 or cpu [default: cuda, with --tiny cpu]")
    parser.add_argument("--calls", type=int, nargs="+", default=None, help="levels of calls at once")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--recordings", type=Path, nargs="+", default=[Path("tests/golden/weather_question.flac")])
    parser.add_argument("--no-turns", action="store_true", help="the parts only: no server, no pocket bundle")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args(arguments)
    before, device = os.getloadavg()[0], choose_device(given.device or ("cpu" if given.tiny else "cuda"), 0)
    plan = Plan(device, rounds=given.rounds)
    if given.tiny:
        plan = Plan(device, seconds=(3, 30), batches=(1, 3), calls=(1,), rounds=1, tiny=True)
    plan = plan if given.calls is None else Plan(device, plan.seconds, plan.batches, tuple(given.calls), plan.rounds, plan.tiny)
    figures: list[Figure] = []
    turns: dict[str, list[Level]] = {}
    chosen = [model for model in PUBLISHED if model.name in given.models]
    for published in chosen:
        model = tiny(published) if plan.tiny else published
        figures += measure_parts(model, plan)
        _forget(plan)
        if not given.no_turns and (not plan.tiny or published is chosen[-1]):
            files = engine_files(ensure_bundle(load_manifest("pocket")), 1, str(device))
            turns[model.name] = asyncio.run(measure_turns(model, plan, files, choose_recordings(given.recordings, 1_000)))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    console = Console(width=140)
    report(figures, turns, console)
    console.print(f"{name}, torch {torch.__version__}, load of this machine before the run {before:.1f}, {os.cpu_count()} cores")
    if plan.tiny:
        console.print("tiny sizes: the figures say nothing about the models")
    results = Path("benchmarks/results") / f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
    if given.json is not None or not plan.tiny:
        found = {model: [asdict(level) for level in levels] for model, levels in turns.items()}
        content = {"device": name, "torch": torch.__version__, "figures": [asdict(figure) for figure in figures], "turns": found}
        write_results(given.json or results, before, content)


def _forget(plan: Plan) -> None:
    """Give the GPU's memory back: the next model needs it, and the server's engine, which is another process."""
    gc.collect()
    if plan.device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
