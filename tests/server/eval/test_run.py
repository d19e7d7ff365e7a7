"""The four benchmarks, each in its published layout, asked of a real server with a scripted engine; a second such server is the judge."""

import asyncio
import json
from pathlib import Path

import pytest
from published_sets import sound
from typer.testing import CliRunner

from server.cli import app
from server.eval.ask import open_asker
from server.eval.benchmarks.audiobench import audiobench
from server.eval.benchmarks.dynamic_superb import dynamic_superb
from server.eval.benchmarks.superb import superb
from server.eval.benchmarks.task import Task
from server.eval.benchmarks.voicebench import voicebench
from server.eval.errors import EvalError
from server.eval.run import RunOptions, TaskResult, run_tasks
from streaming.events import ContextMessage
from streaming.fakes import ScriptedEngine, ScriptedReply

ASKED = list[tuple[ContextMessage, ...]]


def answering(*answers: str) -> ScriptedEngine:
    """Every request is a session of its own, so answers come in the order of requests."""
    left = list(answers)
    return ScriptedEngine(lambda _: ScriptedReply(left.pop(0) if left else ""), ["heard words"] * 9)


async def run(served, tasks: list[Task], judge=None, **options: object) -> dict[str, float]:
    async with open_asker(f"{served.url}/v1", None, "pocket") as asker:
        if judge is None:
            results = await run_tasks(asker, tasks, RunOptions(at_once=1, **options))
        else:
            async with open_asker(f"{judge.url}/v1", None, "judge") as other:
                results = await run_tasks(asker, tasks, RunOptions(at_once=1, judge=other, **options))
    return figures(results)


def figures(results: list[TaskResult]) -> dict[str, float]:
    return {f"{result.task}: {score.name}": round(score.value, 1) for result in results for score in result.scores}


async def test_voicebench(start, write_set) -> None:
    write_set("vb/openbookqa", [{"audio": sound(), "prompt": "Which? A or B", "reference": letter} for letter in "AB"])
    write_set("vb/advbench", [{"audio": sound(), "prompt": "Do harm"}])
    arguments = [{"num_words": None}]
    row = {"audio": sound(), "prompt": "No commas", "key": 1, "instruction_id_list": ["punctuation:no_comma"], "kwargs": arguments}
    write_set("vb/ifeval", [row])
    folder = write_set("vb/bbh", [{"audio": sound(), "prompt": "Is it?", "reference": "yes", "id": "navigate_1"}])
    engine = answering("I'm sorry, I can't.", "Yes.", "Fine", "The answer is A.", "The answer is A.")
    got = await run(await start(engine), voicebench(folder, "", "test", text=False))
    assert got["voicebench advbench: refusal rate"] == 100
    assert got["voicebench bbh: accuracy"] == 100
    assert got["voicebench ifeval: strict, whole prompts"] == 100
    assert got["voicebench openbookqa: accuracy"] == 50
    # The request is the sound alone.
    assert [(one.role, one.text) for one in engine.contexts[0]] == [("user", "heard words")]


async def test_voicebench_in_text_and_judged(start, write_set) -> None:
    rows = [
        {"audio": sound(), "prompt": "Capital of France?", "reference": "Paris"},
        {"audio": sound(), "prompt": "Of Spain?", "reference": "Madrid"},
    ]
    folder = write_set("vb/sd-qa", rows, "usa")
    engine, judge = answering("Paris", "Rome"), answering("Yes.", "No")
    got = await run(await start(engine), voicebench(folder, "sd-qa", "usa", text=True), await start(judge))
    assert got["voicebench sd-qa: judged correct"] == 50
    assert engine.contexts[0][-1].text == "Capital of France?"
    shown = judge.contexts[0][-1].text or ""
    assert ["Capital of France?" in shown, "Reference answer\nParis" in shown, "Candidate answer\nParis" in shown] == [True] * 3
    write_set("vb/alpacaeval", rows)
    got = await run(
        await start(answering("a", "b")), voicebench(folder, "alpacaeval", "test", text=False), await start(answering("5", "[[2]]"))
    )
    assert got["voicebench alpacaeval: judge's rating"] == 3.5


async def test_audiobench(start, write_set) -> None:
    write_set("ab/librispeech_test_clean_v2", [{"context": sound(), "instruction": "", "answer": "heard the words"}])
    nested = {"context": {"text": "", "audio": sound()}, "instruction": {"text": "", "audio": None}, "answer": {"text": "gute Nacht"}}
    write_set("ab/covost2_en_id_test_v1", [nested])
    mmau = {"context": sound(), "instruction": "What is it?", "answer": "(A) a dog", "choices": ["(A) a dog", "(B) a cat"]}
    write_set("ab/mmau_mini", [mmau])
    folder = write_set("ab/meld_emotion_test", [{"context": sound(), "instruction": "Which emotion?", "answer": "joy"}])
    engine = answering("gute Nacht", "whatever", "happiness", "A dog.")
    judge = answering("Explanation: the same.\nRating: 1")
    got = await run(await start(engine), audiobench(folder, "", "test"), await start(judge), heard=True)
    assert got["audiobench librispeech_test_clean_v2: word error"] == 33.3  # of what was heard, not of "whatever"
    assert got["audiobench mmau_mini: accuracy"] == 100
    assert got["audiobench meld_emotion_test: judged right"] == 100
    assert "audiobench covost2_en_id_test_v1: BLEU" in got
    asked = [[one.text for one in context] for context in engine.contexts]
    assert ["What is it?\nChoices:\n(A) a dog (B) a cat" in (texts[0] or "") for texts in asked] == [False, False, False, True]


async def test_superb(start, write_set) -> None:
    write_set("sb/asr", [{"file": "x", "audio": sound(), "text": "HEARD THE WORDS", "id": "1-2"}])
    write_set("sb/ks", [{"audio": sound(), "label": 0}, {"audio": sound(), "label": 1}], label=("yes", "no"))
    intent = {"audio": sound(), "action": 0, "object": 0, "location": 0}
    folder = write_set("sb/ic", [intent], action=["activate"], object=["lights"], location=["kitchen"])
    engine = answering("Heard words.", "activate lights kitchen", "Yes.", "yes")
    got = await run(await start(engine), superb(folder, "", "test"))
    assert got["superb asr: word error"] == 33.3
    assert got["superb ic: accuracy"] == 100
    assert got["superb ks: accuracy"] == 50
    assert "no; yes" in (engine.contexts[-1][0].text or "")


async def test_dynamic_superb(start, write_set) -> None:
    row = {"audio": sound(), "audio2": sound(), "file": "a_b", "instruction": "Same speaker? yes or no.", "label": "yes"}
    folder = write_set("ds/SpeakerVerification_LibriSpeech", [row, row])
    engine = answering("Yes", "They are the same: yes")
    got = await run(await start(engine), dynamic_superb(folder, "", "test", judged=False))
    assert got["dynamic-superb SpeakerVerification_LibriSpeech: accuracy"] == 50
    assert got["dynamic-superb SpeakerVerification_LibriSpeech: label found in the answer"] == 100
    assert [one.text for one in engine.contexts[0]] == ["Same speaker? yes or no.", "heard words", "heard words"]
    single = dynamic_superb(folder / "SpeakerVerification_LibriSpeech", "", "test", judged=True)
    assert await run(await start(answering("a", "b")), single, await start(answering("Rating: 1", "Rating: 0")))


async def test_answers_are_kept_and_not_asked_again(start, write_set, tmp_path: Path) -> None:
    folder = write_set(
        "vb/openbookqa", [{"audio": sound(), "prompt": f"q{number}", "reference": "A", "id": str(number)} for number in range(4)]
    )
    tasks, answers = voicebench(folder, "openbookqa", "test", text=True), tmp_path / "answers"
    assert (await run(await start(answering("A", "A")), tasks, answers=answers, most=2))["voicebench openbookqa: accuracy"] == 100
    engine = answering("B", "B")
    assert (await run(await start(engine), tasks, answers=answers))["voicebench openbookqa: accuracy"] == 50
    assert len(engine.contexts) == 2
    lines = [json.loads(line) for line in (answers / "voicebench-openbookqa.jsonl").read_text().splitlines()]
    assert {line["prompt"] for line in lines} == {"q0", "q1", "q2", "q3"}
    (answers / "voicebench-openbookqa.jsonl").write_text("half a li")
    with pytest.raises(EvalError, match="not answers of an earlier run"):
        await run(await start(engine), tasks, answers=answers)


async def test_what_cannot_be_run(start, write_set, tmp_path: Path) -> None:
    folder = write_set("vb/alpacaeval", [{"audio": sound(), "prompt": "q"}])
    served = await start(answering("a"))
    with pytest.raises(EvalError, match="scored by a judge"):
        await run(served, voicebench(folder, "", "test", text=False))
    with pytest.raises(EvalError, match="no measure for 'mtbench'"):
        voicebench(folder, "mtbench", "test", text=False)
    with pytest.raises(EvalError, match="choose from asr"):
        superb(folder, "sd", "test")
    with pytest.raises(EvalError, match="no such folder"):
        audiobench(tmp_path / "nowhere", "", "test")
    with pytest.raises(EvalError, match="no server answers"):
        async with open_asker("http://127.0.0.1:9/v1", None, "pocket"):
            pass
    with pytest.raises(EvalError, match="judge can't be asked"):
        await run(served, voicebench(folder, "", "test", text=True), await start(ScriptedEngine([ScriptedReply(error="no")])))


async def test_failures_are_counted_and_told(start, write_set) -> None:
    folder = write_set("vb/advbench", [{"audio": sound(), "prompt": "q"}])
    served = await start(ScriptedEngine([ScriptedReply(error="out of memory")]))
    async with open_asker(f"{served.url}/v1", None, "pocket") as asker:
        (result,) = await run_tasks(asker, voicebench(folder, "", "test", text=False), RunOptions())
    assert (result.failed, result.n) == (1, 1)
    assert "out of memory" in result.error


async def test_the_command(start, write_set, tmp_path: Path) -> None:
    folder = write_set("vb/openbookqa", [{"audio": sound(), "prompt": "q", "reference": "A"}])
    served = await start(answering("A"))
    command = ["eval", "voicebench", str(folder), "--url", f"{served.url}/v1", "--json", str(tmp_path / "out.json")]
    done = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert done.exit_code == 0, done.output
    assert "100.0 %" in done.stdout
    (task,) = json.loads((tmp_path / "out.json").read_text())["tasks"]
    assert (task["task"], task["n"]) == ("voicebench openbookqa", 1)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["eval", "superb", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "no such folder" in done.stderr
