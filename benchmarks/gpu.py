"""What audio language models of the published sizes cost on a GPU, with random weights and without a network: the parts, then whole turns.

    python -m benchmarks.gpu                               # on a CUDA machine: all models, tables, benchmarks/results/gpu-NAME.json
    python -m benchmarks.gpu --models ultravox-8b --calls 1 8 32 --rounds 20
    python -m benchmarks.gpu --tiny                        # at tiny sizes on a CPU, turns of the last model only: shows that it runs

- first token, of a model that hears: from the last sample of a turn of so many seconds to the logits of the reply's first token.
  `incremental` committed the sound while it came, `whole` begins when it has ended. The decision that it has ended is not in it.
- last word, of a model that writes what it hears (Voxtral Realtime): from the last sample of a turn to its transcript, as the server makes
  it. `incremental` made passes while it came, `whole` none.
- row and step: what each 80 ms of so many calls cost Voxtral Realtime: a row of the encoder, a step of its language model.
- decode: one step of so many calls, 200 positions behind each, in fixed slots; of Voxtral Realtime's bundle the model that answers.
- roofline, beside both: the bytes of weights that a step reads over the bandwidth measured in this run (a copy, read and written); keys
  and values are not in it.
- listening: work on a second of one caller's sound, in ms: encoder, projector, prefill, or the passes of the transcript.
- voice: the first chunk and the whole of a clause of ten words, on the CPU, and on the GPU where onnxruntime-gpu is installed.
- voice to voice: last speech sample to first audible one as a client of the real server hears it (`server.bench.load`), with the real VAD,
  end-of-turn model, voice and, but for Voxtral Realtime, recogniser of the pocket bundle, the decision included. A level is held while
  every call is answered and p95 is below 500 ms. The callers run in this process: `lag` says how late it was.

Every figure: median (10th to 90th percentile) and n. The models: `benchmarks.gpu_models`, `benchmarks.gpu_realtime`.
"""

import argparse
import asyncio
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_models import HEARING, Published, tiny
from benchmarks.gpu_parts import Figure, Plan, forget, measure_parts, measure_voice
from benchmarks.gpu_realtime import REALTIME, PublishedRealtime, tiny_realtime
from benchmarks.gpu_turns import LIMIT_MS, measure_turns
from server.bench.load import Level
from server.bench.recordings import choose_recordings
from server.bench.results import write_results
from server.wiring import engine_files
from streaming.bundle import ensure_bundle
from streaming.device import choose_device
from streaming.manifest import load_manifest

__all__ = ["PUBLISHED", "main", "report"]

PUBLISHED: Final = (HEARING[0], REALTIME, *HEARING[1:])
"""In order of size."""


def _shrunk(model: Published | PublishedRealtime) -> Published | PublishedRealtime:
    return tiny(model) if isinstance(model, Published) else tiny_realtime(model)


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
            held = "yes" if level.held(LIMIT_MS) else "no"
            whole.add_row(name, str(level.sessions), str(answered), *quantiles, *map(str, lost), f"{level.lag_ms:.0f}", held)
    console.print(whole)
    for name, levels in turns.items():
        most = max((level.sessions for level in takewhile(lambda level: level.held(LIMIT_MS), levels)), default=0)
        console.print(f"{name}: {most} calls held at p95 below {LIMIT_MS:.0f} ms")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [model.name for model in PUBLISHED]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--device", default=None, help="cuda, cuda:1 or cpu [default: cuda, with --tiny cpu]")
    parser.add_argument("--calls", type=int, nargs="+", default=None, help="levels of calls at once")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--recordings", type=Path, nargs="+", default=[Path("tests/golden/weather_question.flac")])
    parser.add_argument("--no-turns", action="store_true", help="the models' parts only: no server, no voice, no pocket bundle")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args(arguments)
    before, device = os.getloadavg()[0], choose_device(given.device or ("cpu" if given.tiny else "cuda"), 0)
    plan = Plan(device, rounds=given.rounds)
    if given.tiny:
        plan = Plan(device, seconds=(3, 30), batches=(1, 3), calls=(1,), rounds=1, tiny=True)
    plan = plan if given.calls is None else Plan(device, plan.seconds, plan.batches, tuple(given.calls), plan.rounds, plan.tiny)
    bundle = None if given.no_turns else ensure_bundle(load_manifest("pocket"))
    figures = [] if bundle is None else measure_voice(plan, bundle.part("voice"))
    turns: dict[str, list[Level]] = {}
    chosen = [model for model in PUBLISHED if model.name in given.models]
    for published in chosen:
        model = _shrunk(published) if plan.tiny else published
        figures += measure_parts(model, plan)
        forget(plan)
        if bundle is not None and (not plan.tiny or published is chosen[-1]):
            files = engine_files(bundle, 1, str(device))
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


if __name__ == "__main__":
    main()
