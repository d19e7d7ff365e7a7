"""How soon the caller hears an answer: last speech sample to first audible sample, and where the time goes.

Each question is a call of its own, played at microphone pace by a client that behaves like a person's (`server.caller`): the clip's last
speech sample is found by loudness, the first audible one is above -40 dBFS as received by the client. The same questions are asked under
several settings in one run, in turns, so that the rows compare; `server_vad` waits exactly 500 ms by definition and is the reference.

- Cut off: a response was begun before the recording's last speech sample.
- Prepared: the answer had been begun in the pause, before the turn was known to be over (where the server says so).
- Stages are the server's own ledger, where it sends one; they sum to its total, which lacks only the network and the voice's onset.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from server.bench.recordings import server_at, short_name
from server.bench.results import write_results
from server.caller import Turn, call
from server.caller_audio import Recording
from server.caller_wire import ROOM_SECONDS, CallError, JsonObject
from server.picture import draw_stages

__all__ = ["AGAINST", "SETTINGS", "Answer", "Setting", "bench_latency", "ratios", "report", "write_answers"]

AGAINST: Final = ", against"
"""Behind the name of a setting under which the other server was asked."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a row's calls are set up."""

    turn_detection: JsonObject
    speculation: bool = True


SETTINGS: Final[dict[str, Setting]] = {
    "semantic_vad": Setting({"type": "semantic_vad"}),
    "no speculation": Setting({"type": "semantic_vad"}, speculation=False),
    "server_vad 500 ms": Setting({"type": "server_vad", "silence_duration_ms": 500}),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One question asked under one setting. Times in ms; `prepared` None where the server does not say."""

    setting: str
    clip: str
    latency: float | None
    stages: dict[str, float]
    cut_off: bool
    transcript: str
    prepared: bool | None = None
    error: str = ""


async def bench_latency(
    url: str | None,
    api_key: str | None,
    recordings: Sequence[Recording],
    settings: Sequence[str],
    against: str | None = None,
    against_key: str | None = None,
) -> list[Answer]:
    """Every question under every setting, the settings in turns; the first call is a warm-up and not counted. Another server, `against`,
    is asked the same, the one first that the last question came to second; its settings are named so. Raises CallError where a server does
    not even answer the first."""
    answers: list[Answer] = []
    async with server_at(url) as address:
        servers = [(address, api_key, "")] + ([(against, against_key, AGAINST)] if against else [])
        for server, key, _ in servers:
            first = await _ask(server, key, recordings[0], settings[0])
            if first.error:
                raise CallError(first.error)
        for recording in track(recordings, "asking", console=Console(stderr=True)):
            for setting in settings:
                for server, key, name in servers:
                    answer = await _ask(server, key, recording, setting)
                    answers.append(replace(answer, setting=f"{setting}{name}"))
            servers.reverse()
    return sorted(answers, key=lambda answer: answer.setting.endswith(AGAINST))


async def _ask(url: str, api_key: str | None, recording: Recording, name: str) -> Answer:
    """One call, left as soon as the answer is audible."""
    setting = SETTINGS[name]
    try:
        async with call(
            url, api_key, turn_detection=setting.turn_detection, speculation=setting.speculation, patience=ROOM_SECONDS
        ) as caller:
            async with contextlib.aclosing(caller.speak(recording)) as arrivals:  # type: ignore[type-var]
                async for _ in arrivals:
                    turn = caller.turns[-1]
                    audible = caller.speaker.first_audible(turn.response_id)
                    # Our ledger comes with the first audio; another server sends none, and nothing is waited for.
                    if audible is not None and not turn.false_starts and (turn.stages or not caller.extended):
                        turn.answered = audible
                        break
            return _account(name, recording, caller.turns[-1])
    except CallError as error:
        return Answer(name, short_name(recording), None, {}, False, "", error=str(error))


def _account(setting: str, recording: Recording, turn: Turn) -> Answer:
    stages = {stage.name: stage.ms for stage in turn.stages}
    return Answer(setting, short_name(recording), turn.latency_ms, stages, turn.false_starts > 0, turn.transcript, turn.prepared)


def ratios(answers: Sequence[Answer], setting: str) -> list[float]:
    """Latency over that of the other server, of each question that both answered without cutting the caller off."""
    found = {(one.setting, one.clip): one.latency for one in answers if one.latency and not one.cut_off}
    here = [(latency, found.get((f"{setting}{AGAINST}", clip))) for (name, clip), latency in found.items() if name == setting]
    return [latency / other for latency, other in here if latency and other]


def report(answers: Sequence[Answer], console: Console) -> None:
    """The tables, and where two servers were asked the ratio of their latencies."""
    latencies = Table(title="last speech sample to first audible sample, ms")
    for column in ("setting", "n", "p10", "p50", "p95", "p99", "max", "cut off", "prepared", "no answer"):
        latencies.add_column(column, justify="left" if column == "setting" else "right")
    names = list(next((answer.stages for answer in answers if answer.stages), {}))
    stages = Table(title="the server's ledger: p50 (p95) of each stage, ms")
    for column in ("setting", *names):
        stages.add_column(column, justify="left" if column == "setting" else "right")
    for setting in dict.fromkeys(answer.setting for answer in answers):
        rows = [answer for answer in answers if answer.setting == setting]
        times = [row.latency for row in rows if row.latency is not None]
        cut, silent = sum(row.cut_off for row in rows), sum(row.latency is None for row in rows)
        known = [row.prepared for row in rows if row.prepared is not None]
        quantiles = [f"{value:.0f}" for value in np.percentile(times, (10, 50, 95, 99, 100))] if times else ["-"] * 5
        prepared = f"{sum(known)} of {len(known)}" if known else "-"
        latencies.add_row(setting, str(len(times)), *quantiles, f"{cut} of {len(rows)}", prepared, str(silent))
        if names:
            stages.add_row(setting, *(_stage([row.stages[name] for row in rows if name in row.stages]) for name in names))
    console.print(latencies)
    if names:
        console.print(stages)
    for setting in dict.fromkeys(answer.setting for answer in answers):
        if both := ratios(answers, setting):
            low, middle, high = np.percentile(both, (25, 50, 75))
            console.print(f"{setting}: {middle:.2f} times the other server's latency (middle half {low:.2f}-{high:.2f}, n = {len(both)})")
    for answer in answers:
        if answer.error:
            console.print(f"{answer.setting}, {answer.clip}: {answer.error}")


def _stage(values: Sequence[float]) -> str:
    return "{:.0f} ({:.0f})".format(*np.percentile(values, (50, 95))) if values else "-"


def write_answers(answers: Sequence[Answer], load_before: float, to_json: Path | None, to_picture: Path | None) -> None:
    """Every answer as JSON; the medians as a picture."""
    if to_json is not None:
        write_results(to_json, load_before, {"answers": [asdict(answer) for answer in answers]})
    if to_picture is None:
        return
    rows: dict[str, dict[str, float]] = {}
    ends: dict[str, tuple[float, float]] = {}
    for setting in dict.fromkeys(answer.setting for answer in answers):
        mine = [answer for answer in answers if answer.setting == setting and answer.latency is not None]
        if mine:
            names = list(mine[0].stages)
            rows[setting] = {name: float(np.mean([answer.stages.get(name, 0.0) for answer in mine])) for name in names}
            middle, high = np.percentile([answer.latency for answer in mine if answer.latency is not None], (50, 95))
            ends[setting] = (float(middle), float(high))
    draw_stages(to_picture, "From the caller's last word to the first sound of the answer (mean of each stage, ms)", rows, ends)
