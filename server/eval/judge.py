"""A language model as judge, any that speaks OpenAI's chat completions.

The prompts ask for what the benchmarks' own ask for, in our words; what the metric reads from the answer (a number from 1 to 5, yes or no,
a last line `Rating: N`) and what is shown to the judge (question, reference, answer) are theirs exactly. Scores of another judge, or by
another prompt, compare with each other and not with a leaderboard.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from server.eval.ask import Asker
from server.eval.errors import EvalError
from server.eval.intervals import resampled, wilson
from server.eval.metrics import Score
from server.eval.records import Record

__all__ = ["CORRECT", "GRADED", "RATED", "RIGHT", "Rubric", "judged"]


@dataclass(frozen=True, slots=True)
class Rubric:
    """How a judge is asked: `prompt` has places for {prompt}, {reference} and {response}; `read` finds the score in what it says, None
    where there is none; a mean score is multiplied by `scale`. `shares` says that the scores are 0 or 1."""

    name: str
    prompt: str
    read: Callable[[str], float | None]
    scale: float = 1.0
    unit: str = "%"
    shares: bool = False


def _number(text: str) -> float | None:
    """A number from 1 to 5, alone, in double brackets, or the first there is."""
    found = re.search(r"\[\[(\d+(?:\.\d+)?)\]\]", text) or re.search(r"\b([1-5](?:\.\d+)?)\b", text)
    return float(found.group(1)) if found else None


def _yes(text: str) -> float | None:
    found = re.search(r"\b(yes|no)\b", text.lower())
    return None if found is None else float(found.group(1) == "yes")


def _rating(text: str) -> float | None:
    """The number at the end of the last line, after `Rating:`."""
    found = re.findall(r"[Rr]ating\W*(\d+(?:\.\d+)?)", text) or re.findall(r"(\d+(?:\.\d+)?)\s*$", text)
    return float(found[-1]) if found else None


RATED: Final = Rubric(
    "judge's rating",
    "A voice assistant was asked something by speech and answered by speech. Rate its answer, given the words of the request and of the "
    "answer, from 1 to 5.\n"
    "1: mostly irrelevant or wrong, or it does not answer the request.\n"
    "2: somewhat relevant, but inaccurate or incomplete, answering only in part or with things that don't belong.\n"
    "3: relevant and mostly accurate, but not concise, or with details the request does not need.\n"
    "4: relevant, accurate and concise: a clear answer without needless elaboration.\n"
    "5: exceptionally relevant, accurate and to the point: exactly the information that is needed, given effectively.\n\n"
    "### [Instruction]: {prompt}\n### [Response]: {response}\n\n"
    "Output the score only, without an explanation.",
    _number,
    unit="of 5",
)
"""VoiceBench: alpacaeval, commoneval, wildvoice; published with gpt-4o-mini."""

CORRECT: Final = Rubric(
    "judged correct",
    "### Question\n{prompt}\n\n### Reference answer\n{reference}\n\n### Candidate answer\n{response}\n\n"
    "By the question and the reference answer, is the candidate answer correct? Output a single Yes or No and nothing else.",
    _yes,
    scale=100,
    shares=True,
)
"""VoiceBench: sd-qa (its other half, PEDANT, is a classifier that is not run here)."""

_RATED_BY_REFERENCE: Final = (
    "[Reference Answer]\n{reference}\n\n[Model Answer]\n{response}\n\n[Question]\n{prompt}\n\n[Task]\n"
    "Rate how well the model's answer agrees with the reference answer in content, accuracy and relevance. Be critical about details.\n"
)
_FORM: Final = "\nAnswer in this form:\nExplanation: (a short comparison of the two answers)\nRating: (int)"

GRADED: Final = Rubric(
    "judge's score",
    _RATED_BY_REFERENCE + "Score0: disagrees completely; wrong or irrelevant beside the reference.\n"
    "Score1: agrees minimally; misunderstands, or tells what has nothing to do with the reference.\n"
    "Score2: has the topic, but differs much from the reference in accuracy or relevance.\n"
    "Score3: agrees in general, but lacks detail or is not exact in places.\n"
    "Score4: mostly accurate and relevant, close to the reference, but could be clearer or more detailed.\n"
    "Score5: highly accurate and detailed; agrees with the reference perfectly." + _FORM,
    _rating,
    scale=20,
    unit="of 100",
)
"""AudioBench's judge of 0 to 5, times 20; published with Llama-3-70B-Instruct."""

RIGHT: Final = Rubric(
    "judged right",
    _RATED_BY_REFERENCE + "Give 0 or 1.\nScore0: the answer is wrong, or irrelevant beside the reference.\n"
    "Score1: the answer is right: it has, or covers, the reference's meaning." + _FORM,
    _rating,
    scale=100,
    shares=True,
)
"""AudioBench's judge of 0 or 1."""

_TOKENS: Final = 512


async def judged(judge: Asker, rubric: Rubric, records: Sequence[Record], done: Callable[[], None]) -> list[Score]:
    """Every record before the judge, one after another; `done` is called after each. What the judge says no score for counts 0, as in the
    benchmarks' own harnesses. Raises EvalError where it can't be reached at all."""
    scores: list[float | None] = []
    for record in records:
        answer = await judge.complete([{"role": "user", "content": _filled(rubric.prompt, record)}], _TOKENS)
        if answer.error and not any(score is not None for score in scores):
            raise EvalError(f"the judge can't be asked: {answer.error}")
        scores.append(rubric.read(answer.text))
        done()
    values = [score or 0.0 for score in scores]
    unread = wilson(scores.count(None), len(scores))
    rate = wilson(sum(value > 0 for value in values), len(values)) if rubric.shares else resampled(values, np.ones(len(values)).tolist())
    return [
        Score(rubric.name, rubric.scale * rate.value, len(values), rubric.scale * rate.low, rubric.scale * rate.high, rubric.unit),
        Score("no score by the judge", 100 * unread.value, len(values), 100 * unread.low, 100 * unread.high),
    ]


def _filled(prompt: str, record: Record) -> str:
    """In one pass: an answer may hold a place's name."""
    shown = {"prompt": record.prompt, "reference": record.reference, "response": record.response}
    return re.sub(r"\{(prompt|reference|response)\}", lambda place: shown[place.group(1)], prompt)
