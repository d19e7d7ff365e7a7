"""`vivavoce eval`: how well a server, or the models of a bundle, understand what is said."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.eval.local_commands import noise, one_line, questions, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from server.eval.benchmarks.task import Task
    from server.eval.run import TaskResult

__all__ = ["evaluate"]

evaluate = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="How well speech is understood: the field's benchmarks from data on disk, and measures of our own. "
    "Needs `pip install 'vivavoce[eval]'`.",
)

_Data = Annotated[Path, typer.Argument(metavar="FOLDER", help="The data set on disk, as it is published on Hugging Face.")]
_Subset = Annotated[str, typer.Option(metavar="NAME", help="Only this part of the set. [default: all that are there]")]
_Split = Annotated[str, typer.Option(metavar="NAME", help="The split; '' takes every file.")]
_Text = Annotated[bool, typer.Option("--text", help="VoiceBench: ask in text, what the language model can do at best.")]
_Url = Annotated[
    str | None, typer.Option(metavar="URL", help="A server with chat completions, its `/v1` included. [default: start `vivavoce serve`]")
]
_Key = Annotated[str | None, typer.Option(envvar="VIVAVOCE_EVAL_API_KEY", metavar="KEY", help="The server's key, if it has one.")]
_Model = Annotated[str, typer.Option(metavar="NAME", help="The model to name to the server.")]
_Serve = Annotated[
    str, typer.Option(metavar="FLAGS", help="Flags for the server that is started, as in `--serve '--bundle my.toml'`; not with --url.")
]
_Items = Annotated[int | None, typer.Option(min=1, help="At most so many items of each part, drawn with a fixed seed. [default: all]")]
_AtOnce = Annotated[int, typer.Option(min=1, max=64, help="Requests at a time.")]
_Answers = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Keep every answer here as JSON lines; a run that was stopped goes on with what is here."),
]
_Heard = Annotated[bool, typer.Option("--heard", help="Recognition: score the words the server has heard, not what its model answers.")]
_JudgeUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="A judge: any chat completions endpoint, its `/v1` included; key in `VIVAVOCE_JUDGE_KEY`.")
]
_JudgeModel = Annotated[str, typer.Option(metavar="NAME", help="The judging model there.")]
_Json = Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write the figures here.")]


@dataclass(frozen=True, slots=True)
class _Options:
    """What a benchmark's command was told."""

    data: Path
    subset: str
    split: str
    text: bool
    url: str | None
    api_key: str | None
    model: str
    serve: str
    items: int | None
    at_once: int
    answers: Path | None
    heard: bool
    judge_url: str | None
    judge_model: str
    to_json: Path | None


def _add(name: str, tasks: "Callable[[_Options], Sequence[Task]]", about: str) -> None:
    """A command for a benchmark; all take the same options."""

    def command(
        data: _Data, subset: _Subset = "", split: _Split = "test", text: _Text = False, heard: _Heard = False,
        url: _Url = None, api_key: _Key = None, model: _Model = "pocket", serve: _Serve = "",
        items: _Items = None, at_once: _AtOnce = 2, answers: _Answers = None,
        judge_url: _JudgeUrl = None, judge_model: _JudgeModel = "", to_json: _Json = None,
    ) -> None:  # fmt: skip
        _run(
            tasks,
            _Options(
                data, subset, split, text, url, api_key, model, serve, items, at_once, answers, heard, judge_url, judge_model, to_json
            ),
        )

    evaluate.command(name, help=about)(command)


def _voicebench(options: _Options) -> "Sequence[Task]":
    from server.eval.benchmarks.voicebench import voicebench

    return voicebench(options.data, options.subset, options.split, text=options.text)


def _audiobench(options: _Options) -> "Sequence[Task]":
    from server.eval.benchmarks.audiobench import audiobench

    return audiobench(options.data, options.subset, options.split)


def _superb(options: _Options) -> "Sequence[Task]":
    from server.eval.benchmarks.superb import superb

    return superb(options.data, options.subset, options.split)


def _dynamic_superb(options: _Options) -> "Sequence[Task]":
    from server.eval.benchmarks.dynamic_superb import dynamic_superb

    return dynamic_superb(options.data, options.subset, options.split, judged=options.judge_url is not None)


_add(
    "voicebench",
    _voicebench,
    """VoiceBench: alpacaeval, commoneval, wildvoice, sd-qa (a judge's), openbookqa, mmsu, bbh, ifeval, advbench.

Each subset has the benchmark's own measure; docs/eval.md says where ours departs from it.

Examples:

    vivavoce eval voicebench voicebench/ --subset openbookqa
    vivavoce eval voicebench voicebench/ --subset sd-qa --split usa --judge-url http://localhost:8000/v1 --judge-model llama-3-70b
    vivavoce eval voicebench voicebench/ --subset advbench --url http://127.0.0.1:8765/v1 --items 50 --answers answers/
""",
)
_add(
    "audiobench",
    _audiobench,
    """AudioBench: recognition (word error), translation (BLEU), MMAU (words), everything else by a judge.

A set is known by its folder's name, as it is published.

Examples:

    vivavoce eval audiobench AudioLLMs/ --subset librispeech_test_clean_v2 --heard --items 200
    vivavoce eval audiobench AudioLLMs/clotho_aqa_test --judge-url http://localhost:5000/v1 --judge-model llama-3-70b
""",
)
_add(
    "superb",
    _superb,
    """SUPERB's tasks that can be asked in words: asr, ks, ic, er, si, sf. No heads are trained: not comparable with its table.

Labels that are to be chosen from are those of the set on disk.

Examples:

    vivavoce eval superb superb/ --subset asr --heard
    vivavoce eval superb superb/ --subset ks --items 200 --json ks.json
""",
)
_add(
    "dynamic-superb",
    _dynamic_superb,
    """Dynamic-SUPERB: an instruction about sound and a label; accuracy by the exact label, by a judge too where there is one.

An instance is a folder, as it is published; without --subset all that are there are asked.

Examples:

    vivavoce eval dynamic-superb DynamicSuperb/ --items 50
    vivavoce eval dynamic-superb DynamicSuperb/SpeechTextMatching_LJSpeech --judge-url http://localhost:8000/v1 --judge-model gpt-4o
""",
)

for _command in (words, questions, noise):
    evaluate.command()(_command)


def _run(tasks: "Callable[[_Options], Sequence[Task]]", options: _Options) -> None:
    with one_line():
        import asyncio

        from rich.console import Console

        from server.eval.errors import EvalError
        from server.eval.run import report_tasks, write_tasks

        if options.text and tasks is not _voicebench:
            raise EvalError("--text is for voicebench: the others' sets are about sound")
        if options.judge_url is not None and not options.judge_model:
            raise EvalError("name the judging model with --judge-model")
        results = asyncio.run(_results(tasks(options), options))
        report_tasks(results, Console(width=140))
        write_tasks(results, options.to_json)


async def _results(tasks: "Sequence[Task]", options: _Options) -> "list[TaskResult]":
    import os
    import shlex
    from contextlib import AsyncExitStack

    from server.eval.ask import open_asker
    from server.eval.run import RunOptions, run_tasks

    async with AsyncExitStack() as stack:
        judge = None
        if options.judge_url is not None:
            key = os.environ.get("VIVAVOCE_JUDGE_KEY")
            judge = await stack.enter_async_context(open_asker(options.judge_url, key, options.judge_model))
        asker = await stack.enter_async_context(open_asker(options.url, options.api_key, options.model, shlex.split(options.serve)))
        return await run_tasks(asker, tasks, RunOptions(options.items, options.at_once, options.answers, options.heard, judge))
