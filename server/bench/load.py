"""How many calls a server holds: callers that ask, listen and ask again, more and more of them at once.

At each level every caller is one call that asks several questions, each at microphone pace, and hears each answer (of at most 80 tokens)
to its end; they begin at random (seeded) moments, so that they overlap as calls do. A level is held if all calls were taken, every question
was answered, and the 95th percentile of the latency (last speech sample to first audible sample, as in `server.bench.latency`) is within
the limit.

- Gaps: moments inside an answer at which the caller's loudspeaker had nothing to play, and how long they were altogether.
- Lag: how late this process, which plays all callers, woke up (p99); beyond 20 ms it measures itself.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from server.bench.recordings import server_at, short_name
from server.bench.results import write_results
from server.caller import Caller, call
from server.caller_audio import Recording
from server.caller_wire import CallError
from server.picture import draw_load

__all__ = ["Asked", "Level", "bench_load", "report", "write_levels"]

_STAGGER_SECONDS: Final = 6.0
"""Callers begin within this time: about half of a question and its answer."""

_ANSWER_TOKENS: Final = 80
"""Of each answer, about 20 s of speech: a question that asks for a story would hold its caller, and the level, for minutes."""

_TICK_SECONDS: Final = 0.01
_LAG_LIMIT_MS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of one caller; times in ms. `error` says why there was no answer, in the server's words where it has any."""

    caller: int
    clip: str
    latency: float | None
    cut_off: bool = False
    gaps: int = 0
    gap_ms: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """One number of calls at once. `refusals` are the words refused callers were told."""

    sessions: int
    asked: tuple[Asked, ...]
    refusals: tuple[str, ...]
    lag_ms: float

    def percentile(self, share: float) -> float:
        """Of the latency, in ms; infinite where nothing was answered."""
        times = [asked.latency for asked in self.asked if asked.latency is not None]
        return float(np.percentile(times, share)) if times else float("inf")

    def held(self, limit: float) -> bool:
        """Whether every call was taken and answered in time."""
        return not self.refusals and all(asked.latency is not None for asked in self.asked) and self.percentile(95) <= limit


async def bench_load(
    url: str | None, api_key: str | None, recordings: Sequence[Recording], sessions: Sequence[int], rounds: int, limit: float, *, on: bool
) -> list[Level]:
    """The levels, in order, up to the first that is not held, or all of them where the bench is to go `on`."""
    levels: list[Level] = []
    async with server_at(url) as address:
        with Progress(console=Console(stderr=True)) as progress:
            await _warm_up(address, api_key, recordings[0])
            for count in sessions:
                task = progress.add_task(f"{count} calls", total=count * rounds)
                crowd = _Crowd(address, api_key, recordings, rounds, partial(progress.advance, task))
                levels.append(await _level(crowd, count))
                if not on and not levels[-1].held(limit):
                    break
    return levels


async def _warm_up(url: str, api_key: str | None, recording: Recording) -> None:
    async with call(url, api_key, max_output_tokens=_ANSWER_TOKENS) as caller:
        async for _ in caller.speak(recording):
            pass


@dataclass(frozen=True, slots=True)
class _Crowd:
    """What the callers of a run share. `done` is called after each question."""

    url: str
    api_key: str | None
    recordings: Sequence[Recording]
    rounds: int
    done: Callable[[], None]


async def _level(crowd: _Crowd, count: int) -> Level:
    chance = random.Random(count)
    lags: list[float] = []
    watch = asyncio.create_task(_watch(lags))
    try:
        found = await asyncio.gather(*(_call(crowd, number, random.Random(chance.random()), count) for number in range(count)))
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
    refusals = tuple(refusal for _, refusal in found if refusal)
    return Level(count, tuple(asked for mine, _ in found for asked in mine), refusals, float(np.percentile(lags, 99)) if lags else 0.0)


async def _call(crowd: _Crowd, number: int, chance: random.Random, count: int) -> tuple[list[Asked], str]:
    """One caller: what was asked, and why the call was refused, if it was."""
    questions = chance.sample(list(crowd.recordings), crowd.rounds)
    await asyncio.sleep(chance.uniform(0, _STAGGER_SECONDS) if count > 1 else 0.0)
    asked: list[Asked] = []
    try:
        async with call(crowd.url, crowd.api_key, max_output_tokens=_ANSWER_TOKENS) as caller:
            for recording in questions:
                async for _ in caller.speak(recording):
                    pass
                asked.append(_account(number, recording, caller))
                crowd.done()
    except CallError as error:
        if not asked and "HTTP" in str(error):
            return [], str(error)
        asked.append(Asked(number, short_name(questions[len(asked)]), None, error=str(error)))
    return asked, ""


def _account(number: int, recording: Recording, caller: Caller) -> Asked:
    turn = caller.turns[-1]
    parts = [part for part in caller.speaker.parts if part.response_id == turn.response_id]
    gaps = [(after.at - before.end) * 1000 for before, after in pairwise(parts) if after.at - before.end > 0.001]
    return Asked(number, short_name(recording), turn.latency_ms, turn.false_starts > 0, len(gaps), sum(gaps))


async def _watch(lags: list[float]) -> None:
    """Notes how late this process wakes up, in ms."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        lags.append((loop.time() - due) * 1000)


def report(levels: Sequence[Level], limit: float, console: Console) -> None:
    """The table, how many calls were held, and what the refused were told."""
    table = Table(title="last speech sample to first audible sample, ms, against calls at once")
    for column in ("calls", "n", "p50", "p95", "p99", "max", "cut off", "no answer", "refused", "gaps", "gap ms", "lag p99"):
        table.add_column(column, justify="right")
    for level in levels:
        times = [asked.latency for asked in level.asked if asked.latency is not None]
        quantiles = [f"{level.percentile(share):.0f}" if times else "-" for share in (50, 95, 99, 100)]
        counts = (sum(asked.cut_off for asked in level.asked), len(level.asked) - len(times), len(level.refusals))
        gaps = (sum(asked.gaps for asked in level.asked), round(sum(asked.gap_ms for asked in level.asked)))
        table.add_row(str(level.sessions), str(len(times)), *quantiles, *map(str, (*counts, *gaps)), f"{level.lag_ms:.0f}")
    console.print(table)
    held = max((level.sessions for level in takewhile(lambda level: level.held(limit), levels)), default=0)
    first, last = levels[0].sessions, levels[-1].sessions
    words = f"fewer than {first}" if not held and first > 1 else f"{held} or more" if held == last else str(held)
    console.print(f"calls held at p95 below {limit / 1000:g} s: {words}")
    for words in dict.fromkeys(refusal for level in levels for refusal in level.refusals):
        console.print(f"a refused caller was told: {words}")
    for words in dict.fromkeys(asked.error for level in levels for asked in level.asked if asked.error):
        console.print(f"no answer: {words}")
    if any(level.lag_ms > _LAG_LIMIT_MS for level in levels):
        console.print("[yellow]the callers' own process was late: run them on another machine, or believe less[/yellow]")


def write_levels(levels: Sequence[Level], limit: float, load_before: float, to_json: Path | None, to_picture: Path | None) -> None:
    """Every question as JSON; the curve as a picture."""
    if to_json is not None:
        write_results(to_json, load_before, {"limit_ms": limit, "levels": [asdict(level) for level in levels]})
    answered = [level for level in levels if any(asked.latency is not None for asked in level.asked)]
    if to_picture is not None and answered:
        points = [(level.sessions, level.percentile(50), level.percentile(95)) for level in answered]
        draw_load(to_picture, "From the caller's last word to the first sound of the answer, ms", points, limit)
