"""Spoken questions: what a language model answers to the sound of one, beside what it answers to the text of it.

Two figures, each with n and a 95 % interval:

- accuracy, of questions whose answer is known (`answers` in the manifest): one of the words or phrases stands in the answer, compared
without
  case, punctuation and articles. Each path's accuracy is over all questions; its `share of the text path's` is the ratio of the two, with
  an interval by drawing questions anew. The target of 95 % is judged on this.
- agreement, of all recordings: the answer beside the one to the text on paper. The same words; F1 of the words (SQuAD's); whether the first
  token is the same; the Kullback-Leibler divergence of the first token's distribution from the text path's, in nats.

And of orders with slots (`slots` in the manifest, where `slots_in_text` is true): whether every slot's words stand in the words that were
heard, and in an answer that was asked to repeat the order.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from server.eval.clips import Clip, load_clip
from server.eval.intervals import Rate, resampled, share
from server.eval.understanding import Path, Understanding, divergence
from server.eval.words import plain_words, token_f1
from streaming.normalise import normalise

__all__ = ["Asked", "as_json", "ask_questions", "holds", "report_questions", "summary"]

_REPEAT: Final = "Repeat the order of the customer, word for word. Say nothing else."


@dataclass(frozen=True, slots=True)
class Asked:
    """One recording by one path. `right` None where no answer is known, `slots` (all of them repeated) None where there are none; so is
    `slots_heard` (all of them in the transcript), and by other paths than that."""

    clip: str
    set: str
    path: Path
    answer: str
    heard: str
    same: bool
    f1: float
    same_first: bool
    divergence: float
    right: bool | None = None
    slots: bool | None = None
    slots_heard: bool | None = None


def ask_questions(models: Understanding, clips: Sequence[Clip], done: Callable[[], object], most_tokens: int = 32) -> list[Asked]:
    """Every recording by every path the model has. Raises EvalError."""
    found: list[Asked] = []
    for clip in clips:
        heard = models.hear(load_clip(clip))
        on_paper = models.answer("text", None, clip.text, most_tokens=most_tokens)
        slots = _slots(clip)
        for path in models.paths:
            reply = on_paper if path == "text" else models.answer(path, heard, clip.text, most_tokens=most_tokens)
            repeated = models.answer(path, heard, clip.text, system=_REPEAT, most_tokens=most_tokens).text if slots else ""
            found.append(
                Asked(
                    clip=clip.name,
                    set=clip.field("set"),
                    path=path,
                    answer=reply.text,
                    heard=heard.words,
                    same=plain_words(reply.text) == plain_words(on_paper.text),
                    f1=token_f1(reply.text, on_paper.text),
                    same_first=reply.first_token == on_paper.first_token,
                    divergence=divergence(on_paper.first, reply.first),
                    right=_right(clip, reply.text),
                    slots=all(holds(repeated, [slot]) for slot in slots) if slots else None,
                    slots_heard=all(holds(heard.words, [slot]) for slot in slots) if slots and path == "words" else None,
                )
            )
        done()
    return found


def holds(text: str, answers: Iterable[str]) -> bool:
    """Whether one of the `answers` stands in the text, word for word, numbers spelled as words in both."""
    said = f" {' '.join(_spelled(text))} "
    return any(f" {' '.join(words)} " in said for answer in answers if (words := _spelled(answer)))


def _spelled(text: str) -> list[str]:
    """The words as they are spoken: "24" is "twenty four"."""
    return plain_words(" ".join(word for token in normalise(text) for word in token.words))


def _right(clip: Clip, answer: str) -> bool | None:
    answers = clip.fields.get("answers")
    return holds(answer, map(str, answers)) if isinstance(answers, list) else None


def _slots(clip: Clip) -> list[str]:
    slots = clip.fields.get("slots")
    if not isinstance(slots, dict) or clip.fields.get("slots_in_text") is not True:
        return []
    return [str(value) for value in slots.values()]


# ------------------------------------------------------------------------------------------------------------- report


def summary(asked: Sequence[Asked]) -> dict[str, dict[str, object]]:
    """The figures of each path, as they are printed."""
    by_path: defaultdict[Path, list[Asked]] = defaultdict(list)
    for one in asked:
        by_path[one.path].append(one)
    right_on_paper = {one.clip: one.right for one in by_path["text"]}
    return {path: _figures(mine, right_on_paper) for path, mine in by_path.items()}


def _figures(mine: Sequence[Asked], on_paper: dict[str, bool | None]) -> dict[str, object]:
    known = [one for one in mine if one.right is not None]
    slotted = [one.slots for one in mine if one.slots is not None]
    caught = [one.slots_heard for one in mine if one.slots_heard is not None]
    ratio = resampled([float(bool(one.right)) for one in known], [float(bool(on_paper[one.clip])) for one in known])
    return {
        "accuracy": share(sum(bool(one.right) for one in known), len(known)),
        "of the text path's": _rate(ratio),
        "same words": share(sum(one.same for one in mine), len(mine)),
        "F1": f"{np.mean([one.f1 for one in mine]):.3f}",
        "same first token": share(sum(one.same_first for one in mine), len(mine)),
        "KL, nats": f"{np.mean([one.divergence for one in mine]):.3f} (median {np.median([one.divergence for one in mine]):.3f})",
        "all slots heard": share(sum(caught), len(caught)),
        "all slots repeated": share(sum(slotted), len(slotted)),
    }


def _rate(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} % ({100 * rate.low:.1f}-{100 * rate.high:.1f}) n={rate.n}"


def report_questions(asked: Sequence[Asked], console: Console) -> None:
    """A table a set, and one of all."""
    sets = list(dict.fromkeys(one.set for one in asked))
    for name in [*sets, *(["all"] if len(sets) > 1 else [])]:
        mine = [one for one in asked if name in (one.set, "all")]
        figures = summary(mine)
        table = Table(title=f"{name}: {len({one.clip for one in mine})} recordings")
        table.add_column("path")
        for column in next(iter(figures.values())):
            table.add_column(column, justify="right")
        for path, row in figures.items():
            table.add_row(path, *map(str, row.values()))
        console.print(table)


def as_json(asked: Sequence[Asked]) -> dict[str, object]:
    """Every answer and the figures."""
    return {"figures": summary(asked), "answers": [asdict(one) for one in asked]}
