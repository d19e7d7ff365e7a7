"""`vivavoce eval words`, `questions` and `noise`: measures of our own, on recordings with their texts."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.eval.clips import Clip
    from server.eval.recognition import WholeClip
    from streaming.engine import Parts

__all__ = ["noise", "one_line", "questions", "words"]

_Data = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="Recordings with their texts: a manifest.jsonl, a metadata.csv, or a .txt beside each."),
]
_Sets = Annotated[list[str] | None, typer.Option("--set", metavar="NAME", help="Only clips of this `set`; may be given again.")]
_Part = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Of a manifest with parts: clips of this one that share no speaker and no words with the part `train`."
    ),
]
_Clips = Annotated[int | None, typer.Option(min=1, help="At most so many clips of each set, drawn with a fixed seed. [default: all]")]
_Bundle = Annotated[str, typer.Option(metavar="NAME|FILE", help="The bundle whose models are measured.")]
_Threads = Annotated[int, typer.Option(min=1, help="torch's.")]
_Json = Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write every result here.")]


def words(
    data: _Data,
    sets: _Sets = None,
    part: _Part = "dev",
    clips: _Clips = None,
    condition: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="clean, '20 dB', '10 dB', '5 dB', '0 dB' or '8 kHz'; may be given again.")
    ] = None,
    noises: Annotated[
        Path | None, typer.Option("--noise", metavar="FOLDER", help="Noises. [default: the set esc10 of the recordings]", file_okay=False)
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Hear each clip whole too, as Whisper is published.")] = False,
    bundle: _Bundle = "pocket",
    threads: _Threads = 1,
    to_json: _Json = None,
) -> None:
    """Word error of the transcript: by set, accent and age, in noise and on the telephone.

    Models run in this process, as the engine runs them. Only texts that a person wrote count as the truth.

    Examples:

        vivavoce eval words recordings/
        vivavoce eval words ../shared/data --set fsdd --set speechocean762 --clips 60 --whole
        vivavoce eval words ../shared/data --set moonshine_alnum --condition clean --condition "5 dB" --json words.json
    """
    with one_line():
        from rich.console import Console

        from server.eval.clips import load_clip, read_clips
        from server.eval.errors import EvalError
        from server.eval.recognition import CONDITIONS, as_json, report_words, transcribe_all

        conditions = condition or ["clean"]
        if unknown := [name for name in conditions if name not in CONDITIONS]:
            raise EvalError(f"there is no condition {unknown[0]!r}: choose from {', '.join(CONDITIONS)}")
        chosen = [clip for clip in _clips(data, sets, part, clips) if clip.text and (clip.field("language") or "en").startswith("en")]
        noisy = any("dB" in name for name in conditions)
        sounds = [] if not noisy else read_clips(noises) if noises is not None else _clips(data, ["esc10"], part, None)
        parts = _parts(bundle, threads)
        with _progress("hearing", len(chosen) * len(conditions)) as done:
            spoken = transcribe_all(
                parts.recogniser, _whole(bundle) if whole else None, chosen, conditions, [load_clip(clip) for clip in sounds], done
            )
        report_words(spoken, Console(width=140))
        _write(to_json, as_json(spoken))


def questions(
    data: _Data,
    sets: _Sets = None,
    part: _Part = "dev",
    clips: _Clips = None,
    most_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 32,
    bundle: _Bundle = "pocket",
    projector: Annotated[Path | None, typer.Option(metavar="FILE", help="Another projector than the bundle's.", dir_okay=False)] = None,
    threads: _Threads = 1,
    to_json: _Json = None,
) -> None:
    """What the language model answers to the sound of a question, beside what it answers to its text.

    By every way the bundle has into its language model: text, transcript, sound, both. Accuracy where the manifest has `answers`.

    Examples:

        vivavoce eval questions questions/
        vivavoce eval questions ../shared/data --set barista --clips 40 --json answers.json
    """
    with one_line():
        from rich.console import Console

        from server.eval.questions import as_json, ask_questions, report_questions
        from server.eval.understanding import Understanding

        chosen = [clip for clip in _clips(data, sets, part, clips) if clip.text]
        models = Understanding(_parts(bundle, threads, projector))
        with _progress("asking", len(chosen)) as done:
            asked = ask_questions(models, chosen, done, most_tokens)
        report_questions(asked, Console(width=200))
        _write(to_json, as_json(asked))


def noise(
    data: _Data,
    sets: _Sets = None,
    part: _Part = "dev",
    clips: _Clips = None,
    silent: Annotated[int, typer.Option(min=0, help="Seconds of digital silence besides.")] = 60,
    url: Annotated[str | None, typer.Option(metavar="WS", help="A server that is running. [default: start `vivavoce serve`]")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="VIVAVOCE_EVAL_API_KEY", metavar="KEY", help="The server's key.")] = None,
    serve: Annotated[str, typer.Option(metavar="FLAGS", help="Flags for the server that is started; not with --url.")] = "",
    pace: Annotated[float, typer.Option(min=0.1, max=100, help="How many times faster than real time it is sent.")] = 4.0,
    to_json: _Json = None,
) -> None:
    """What a running server makes of sound in which nobody speaks: turns, words and answers a minute.

    Each recording is a call of its own over the Realtime protocol.

    Examples:

        vivavoce eval noise noises/
        vivavoce eval noise ../shared/data --set esc10 --set noise_misc --set asterisk_moh --url ws://127.0.0.1:8765/v1/realtime
    """
    with one_line():
        import asyncio
        import shlex

        from rich.console import Console

        from server.bench.recordings import server_at
        from server.eval.silence import Overheard, as_json, overhear, report_overheard

        with _silences(silent) as silences:
            chosen = [*_clips(data, sets, part, clips), *silences]

            async def listen() -> list[Overheard]:
                async with server_at(url, shlex.split(serve)) as address:
                    with _progress("sending", len(chosen)) as done:
                        return await overhear(address, api_key, chosen, pace, done)

            found = asyncio.run(listen())
        report_overheard(found, Console(width=140))
        _write(to_json, as_json(found))


@contextmanager
def one_line() -> Iterator[None]:
    """What can't be done is a line on stderr and exit code 1."""
    from server.bench.recordings import BenchError
    from server.eval.errors import EvalError
    from streaming.manifest import BundleError

    try:
        yield
    except (BenchError, BundleError, EvalError) as error:
        typer.echo(f"vivavoce: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None


def _clips(data: Path, sets: list[str] | None, part: str, most: int | None) -> "list[Clip]":
    """The clips of a folder, of these sets and this part where the manifest has such; at most so many of each set."""
    from server.eval.clips import chosen, read_clips, unseen
    from server.eval.errors import EvalError

    every = unseen(read_clips(data), part)
    names = sets or list(dict.fromkeys(clip.field("set") for clip in every))
    found = [clip for name in names for clip in chosen((clip for clip in every if clip.field("set") == name), most)]
    if not found:
        raise EvalError(f"{data}: no clips of {', '.join(sets or [part])}")
    return found


def _parts(bundle: str, threads: int, projector: Path | None = None) -> "Parts":
    """The bundle's models, fetched if need be, with every way they have into the language model. Raises EvalError where a file is bad."""
    from dataclasses import replace

    import torch

    from server.eval.errors import EvalError
    from server.wiring import engine_files
    from streaming.bundle import ensure_bundle
    from streaming.load import load_parts
    from streaming.manifest import load_manifest

    torch.set_num_threads(threads)
    files = engine_files(ensure_bundle(load_manifest(bundle)), threads, hears="words")
    try:
        return load_parts(replace(files, projector=projector or files.projector, hears="both"))
    except (OSError, ValueError) as error:
        raise EvalError(f"the models of {bundle} can't be loaded: {error}") from error


def _whole(bundle: str) -> "WholeClip":
    """Whisper over a whole clip, with the weights as they were published. Raises EvalError."""
    from server.eval.errors import EvalError
    from streaming.bundle import ensure_bundle
    from streaming.manifest import load_manifest
    from streaming.recogniser import load_recogniser
    from streaming.whole_clip import full_context

    try:
        published = load_recogniser(ensure_bundle(load_manifest(bundle)).part("transcript"), adaptation=None)
    except (OSError, ValueError) as error:
        raise EvalError(f"--whole is for Whisper: {error}") from error
    return lambda pcm: full_context(published, pcm)[0]


@contextmanager
def _silences(seconds: int) -> "Iterator[Sequence[Clip]]":
    """Digital silence as a clip, for as long as it is wanted."""
    import tempfile

    import numpy as np
    import soundfile

    from server.eval.clips import Clip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "silence.wav"
        soundfile.write(path, np.zeros(16_000 * seconds, np.int16), 16_000)
        yield [Clip("silence", path, fields={"kind": "silence"})] if seconds else []


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], object]]:
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        yield partial(progress.advance, progress.add_task(what, total=total))


def _write(path: Path | None, found: Mapping[str, object]) -> None:
    from server.bench.results import write_results

    if path is not None:
        write_results(path, os.getloadavg()[0], found)
