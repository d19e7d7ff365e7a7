"""How soon the caller hears an answer: last speech sample to first audible sample, and where the time goes.

    python -m benchmarks.latency [--url ws://HOST:PORT/v1/realtime] [--data ../shared/data] [--questions 30] [--json FILE]

Without `--url` it starts `vivavoce serve` on a free port of this machine, by itself on the pocket bundle. Each question is a call of
its own, played at microphone pace by a client that behaves like a person's (`server.caller`): the clip's last speech sample is found by
loudness, the first audible one is above -40 dBFS as received by the client. The same questions are asked under several settings of turn
detection in one run, in turns, so that the rows compare; `server_vad` waits exactly 500 ms by definition and is the reference.

- Cut off: a response was begun before the recording's last speech sample.
- Stages are the server's own ledger; they sum to its total, which lacks only the network and the voice's leading silence.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from server.caller import Turn, call
from server.caller_audio import Recording, load_recording
from server.caller_wire import CallError, JsonObject

_SETTINGS: Final[dict[str, JsonObject]] = {
    "semantic_vad auto": {"type": "semantic_vad"},
    "without speculation": {"type": "semantic_vad"},
    "server_vad 500 ms": {"type": "server_vad", "silence_duration_ms": 500},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One question asked under one setting. Times in ms."""

    setting: str
    clip: str
    latency: float | None
    stages: dict[str, float]
    cut_off: bool
    transcript: str
    error: str = ""


async def ask(url: str, recording: Recording, setting: str) -> Answer:
    """One call, left as soon as the answer is audible."""
    try:
        async with call(url, turn_detection=_SETTINGS[setting], speculation=setting != "without speculation") as caller:
            async with contextlib.aclosing(caller.speak(recording)) as arrivals:
                async for _ in arrivals:
                    turn = caller.turns[-1]
                    audible = caller.speaker.first_audible(turn.response_id)
                    if audible is not None and turn.stages and not turn.false_starts:
                        turn.answered = audible
                        break
            return _account(setting, recording, caller.turns[-1])
    except CallError as error:
        return Answer(setting, _short(recording), None, {}, False, "", str(error))


def _account(setting: str, recording: Recording, turn: Turn) -> Answer:
    stages = {stage.name: stage.ms for stage in turn.stages}
    return Answer(setting, _short(recording), turn.latency_ms, stages, turn.false_starts > 0, turn.transcript)


def _short(recording: Recording) -> str:
    """Part, set and file: where the data lies says nothing to others."""
    return "/".join(Path(recording.name).parts[-3:])


@contextlib.asynccontextmanager
async def server(url: str | None) -> AsyncIterator[str]:
    """The server's address; one of our own, stopped at the end, where none is given."""
    if url is not None:
        yield url
        return
    command = (sys.executable, "-m", "server", "serve", "--port", "0")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        while line := (await process.stdout.readline()).decode():
            if line.startswith("vivavoce ready on http"):
                yield line.split()[-1].replace("http", "ws", 1) + "/v1/realtime"
                return
        raise SystemExit("the server did not start")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def run(url: str, clips: Sequence[Path], settings: Sequence[str]) -> list[Answer]:
    """Every clip under every setting, the settings in turns; the first call is a warm-up and not counted."""
    await ask(url, load_recording(clips[0]), settings[0])
    answers: list[Answer] = []
    for clip in track(clips, "asking", console=Console(stderr=True)):
        recording = load_recording(clip)
        answers += [await ask(url, recording, setting) for setting in settings]
    return answers


def report(answers: Sequence[Answer], console: Console) -> None:
    """The tables."""
    latencies = Table(title="last speech sample to first audible sample, ms")
    for column in ("setting", "n", "p10", "p50", "p95", "max", "cut off", "no answer"):
        latencies.add_column(column, justify="left" if column == "setting" else "right")
    names = list(next((answer.stages for answer in answers if answer.stages), {}))
    stages = Table(title="the server's ledger: p50 (p95) of each stage, ms")
    for column in ("setting", *names):
        stages.add_column(column, justify="left" if column == "setting" else "right")
    for setting in _SETTINGS:
        rows = [answer for answer in answers if answer.setting == setting]
        times = [row.latency for row in rows if row.latency is not None]
        if times:
            cut, silent = sum(row.cut_off for row in rows), sum(row.latency is None for row in rows)
            quantiles = [f"{value:.0f}" for value in np.percentile(times, (10, 50, 95, 100))]
            latencies.add_row(setting, str(len(times)), *quantiles, f"{cut} of {len(rows)}", str(silent))
            stages.add_row(setting, *(_stage([row.stages[name] for row in rows if name in row.stages]) for name in names))
    console.print(latencies)
    console.print(stages)
    for answer in answers:
        if answer.error:
            console.print(f"{answer.setting}, {answer.clip}: {answer.error}")


def _stage(values: Sequence[float]) -> str:
    middle, high = np.percentile(values, (50, 95))
    return f"{middle:.0f} ({high:.0f})"


def main() -> None:
    """Ask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a server that is running already")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with questions.txt and the clips it names")
    parser.add_argument("--questions", type=int, default=30, help="how many of them")
    parser.add_argument("--setting", choices=_SETTINGS, action="append", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="write every answer here")
    options = parser.parse_args()
    clips = [options.data / line for line in (options.data / "questions.txt").read_text().split()][: options.questions]

    async def measure() -> list[Answer]:
        async with server(options.url) as url:
            return await run(url, clips, options.setting or list(_SETTINGS))

    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    answers = asyncio.run(measure())
    console = Console(width=140)
    report(answers, console)
    console.print(f"{len(clips)} questions; {cores} cores of {platform.machine()}, load {load:.1f} before the run")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"cores": cores, "load_before": load, "answers": [asdict(answer) for answer in answers]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
