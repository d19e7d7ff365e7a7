"""`vivavoce bench`: the benches as commands."""

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench", "latency", "load"]

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Measure a server: any that speaks the OpenAI Realtime protocol, or one of ours, started for the run.",
)

_Recordings = Annotated[
    list[Path],
    typer.Argument(metavar="FILE|FOLDER|LIST.txt...", help="Spoken questions, WAV or FLAC; a list has a file a line."),
]
_Url = Annotated[str | None, typer.Option(metavar="WS", help="A server that is running. [default: start `vivavoce serve`]")]
_Key = Annotated[str | None, typer.Option(envvar="VIVAVOCE_TALK_API_KEY", metavar="KEY", help="The server's key, if it has one.")]
_Json = Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write every answer here.")]
_Picture = Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the result here.")]


@bench.command()
def latency(
    recordings: _Recordings,
    questions: Annotated[int, typer.Option(min=1, help="At most this many of the recordings.")] = 30,
    setting: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this row; may be given again.")] = None,
    url: _Url = None,
    against: Annotated[str | None, typer.Option(metavar="WS", help="Another server, asked the same by turns: prints the ratio.")] = None,
    against_api_key: Annotated[str | None, typer.Option(metavar="KEY", help="That server's key, if it has one.")] = None,
    api_key: _Key = None,
    to_json: _Json = None,
    picture: _Picture = None,
) -> None:
    """How soon an answer is heard after the caller's last word, where the time goes, and how often a caller is cut off.

    Rows: `semantic_vad`, `no speculation` (the same without replies prepared in pauses), `server_vad 500 ms` (the reference).

    Examples:

        vivavoce bench latency recordings/
        vivavoce bench latency questions.txt --questions 10 --picture latency.svg --json latency.json
        vivavoce bench latency questions.txt --against ws://127.0.0.1:9000/v1/realtime
        vivavoce bench latency question.wav --url wss://example.org/v1/realtime --api-key KEY --setting "server_vad 500 ms"
    """
    import asyncio

    from rich.console import Console

    from server.bench.latency import SETTINGS, bench_latency, report, write_answers
    from server.bench.recordings import BenchError, choose_recordings
    from server.caller_wire import CallError

    load = os.getloadavg()[0]
    names = setting or list(SETTINGS)
    if unknown := [name for name in names if name not in SETTINGS]:
        raise _fail(f"there is no setting {unknown[0]!r}: choose from {', '.join(SETTINGS)}")
    try:
        spoken = choose_recordings(recordings, questions)
        answers = asyncio.run(bench_latency(url, api_key, spoken, names, against, against_api_key))
    except (BenchError, CallError) as error:
        raise _fail(str(error)) from None
    console = Console(width=140)
    report(answers, console)
    console.print(f"{len(spoken)} questions; load of this machine before the run {load:.1f}, {os.cpu_count()} cores")
    write_answers(answers, load, to_json, picture)


@bench.command()
def load(
    recordings: _Recordings,
    sessions: Annotated[int, typer.Option(min=1, help="The most calls at once.")] = 8,
    first: Annotated[int, typer.Option("--from", min=1, help="Begin with this many.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Questions each caller asks at each level, none twice.")] = 3,
    limit: Annotated[float, typer.Option(metavar="SECONDS", help="A level is held while p95 is below this.")] = 1.5,
    to_the_end: Annotated[bool, typer.Option("--to-the-end", help="Go on after the first level that is not held.")] = False,
    url: _Url = None,
    api_key: _Key = None,
    to_json: _Json = None,
    picture: _Picture = None,
) -> None:
    """How many calls at once a server holds: callers ask, listen to the whole answer and ask again, one caller more at each level.

    Examples:

        vivavoce bench load recordings/ --sessions 8
        vivavoce bench load recordings/ --sessions 20 --from 4 --picture load.svg --json load.json
        vivavoce bench load question.wav --sessions 4 --url ws://10.0.0.5:8765/v1/realtime --api-key KEY
    """
    import asyncio

    from rich.console import Console

    from server.bench.load import bench_load, report, write_levels
    from server.bench.recordings import BenchError, choose_recordings
    from server.caller_wire import CallError

    before = os.getloadavg()[0]
    if first > sessions:
        raise _fail(f"--from {first} is beyond --sessions {sessions}: give --sessions at least {first}")
    try:
        spoken = choose_recordings(recordings, 1_000)
        rounds = min(rounds, len(spoken))
        levels = asyncio.run(bench_load(url, api_key, spoken, range(first, sessions + 1), rounds, limit * 1000, on=to_the_end))
    except (BenchError, CallError) as error:
        raise _fail(str(error)) from None
    console = Console(width=140)
    report(levels, limit * 1000, console)
    console.print(f"{rounds} questions a caller and level; load of this machine before the run {before:.1f}, {os.cpu_count()} cores")
    write_levels(levels, limit * 1000, before, to_json, picture)


def _fail(message: str) -> typer.Exit:
    typer.echo(f"vivavoce: {' '.join(message.split())}", err=True)
    return typer.Exit(1)
