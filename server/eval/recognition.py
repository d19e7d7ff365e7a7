"""Word error of a recogniser as the engine runs it, in this process: by set, by group of speakers, and with the sound made worse.

`streaming` is the transcript of a turn that is heard block by block, as the engine commits it; `whole` the same weights over the whole clip
at once, where the recogniser is a Whisper. Against the truth only where a person wrote the text; `differ` compares the two with each other
on any text. Words are compared after Whisper's English normaliser. Intervals by drawing clips anew.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import torch
from rich.console import Console
from rich.table import Table

from server.eval.clips import Clip, load_clip
from server.eval.damage import on_the_telephone, with_noise
from server.eval.intervals import Rate, resampled
from server.eval.words import Normaliser, english_normaliser, word_distance
from streaming.audio import Samples
from streaming.batching import completed
from streaming.recognition import LONGEST_WINDOW, WordRecogniser
from streaming.transcriber import Transcriber

__all__ = ["CONDITIONS", "Spoken", "WholeClip", "as_json", "group_of", "report_words", "transcribe_all"]

CONDITIONS: Final = ("clean", "20 dB", "10 dB", "5 dB", "0 dB", "8 kHz")
"""Noise of the given ratio, or a telephone's line (8 kHz, mu-law)."""

_CHILD: Final = 15
"""Years below which a speaker is a child: their voices are higher, and recognisers know few of them."""

WholeClip = Callable[[Samples], str]
"""Whisper as published, over a whole clip."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One clip under one condition. Counts are in words; `reference` 0 where no person wrote the text; `whole` None where it was not
    heard whole."""

    clip: str
    group: str
    condition: str
    streaming: str
    whole: str | None
    reference: int
    streaming_errors: int
    whole_errors: int
    whole_words: int
    differ: int


def group_of(clip: Clip) -> str:
    """The set; with the accent, and children apart, where the manifest says."""
    parts = [clip.field("set") or "all", clip.field("accent")]
    age = clip.fields.get("age")
    if isinstance(age, int):
        parts.append("children" if age < _CHILD else "adults")
    return ", ".join(part for part in parts if part)


def transcribe_all(
    recogniser: WordRecogniser,
    whole: WholeClip | None,
    clips: Sequence[Clip],
    conditions: Sequence[str],
    noises: Sequence[Samples],
    done: Callable[[], object],
) -> list[Spoken]:
    """Every clip under every condition; noise number i of `noises` goes with clip number i. Raises EvalError."""
    normalise = english_normaliser()
    found = []
    for number, clip in enumerate(clips):
        pcm = load_clip(clip)
        for condition in conditions:
            heard = _worsened(pcm, condition, noises[number % len(noises)] if noises else None, number)
            found.append(_compared(recogniser, whole, clip, condition, heard, normalise))
            done()
    return found


@torch.inference_mode()
def _compared(
    recogniser: WordRecogniser, whole: WholeClip | None, clip: Clip, condition: str, pcm: Samples, normalise: Normaliser
) -> Spoken:
    transcriber = Transcriber(recogniser)
    transcriber.push(pcm)
    text = completed(transcriber.finish()).text
    other = None if whole is None or len(pcm) > LONGEST_WINDOW else whole(pcm)
    said, all_at_once = normalise(text).split(), normalise(other or "").split()
    truth = normalise(clip.text).split() if clip.human and clip.text else []
    return Spoken(
        clip=clip.name,
        group=group_of(clip),
        condition=condition,
        streaming=text,
        whole=other,
        reference=len(truth),
        streaming_errors=word_distance(said, truth) if truth else 0,
        whole_errors=word_distance(all_at_once, truth) if truth and other is not None else 0,
        whole_words=len(all_at_once),
        differ=0 if other is None else word_distance(said, all_at_once),
    )


def _worsened(pcm: Samples, condition: str, noise: Samples | None, seed: int) -> Samples:
    if condition == "8 kHz":
        return on_the_telephone(pcm)
    if condition == "clean" or noise is None:
        return pcm
    return with_noise(pcm, noise, float(condition.removesuffix(" dB")), seed)


def report_words(spoken: Sequence[Spoken], console: Console) -> None:
    """A line a group and condition."""
    table = Table()
    for column in ("group", "condition", "clips", "words", "error streaming", "error whole", "differ"):
        table.add_column(column, justify="left" if column in ("group", "condition") else "right")
    rows: defaultdict[tuple[str, str], list[Spoken]] = defaultdict(list)
    for one in spoken:
        rows[one.group, one.condition].append(one)
    for (group, condition), mine in rows.items():
        heard_whole = [one for one in mine if one.whole is not None]
        table.add_row(
            group,
            condition,
            str(len(mine)),
            str(sum(one.reference for one in mine)),
            _rate(resampled([one.streaming_errors for one in mine], [one.reference for one in mine])),
            _rate(resampled([one.whole_errors for one in heard_whole], [one.reference for one in heard_whole])),
            _rate(resampled([one.differ for one in heard_whole], [one.whole_words for one in heard_whole])),
        )
    console.print(table)


def _rate(rate: Rate) -> str:
    return "" if rate.value != rate.value else f"{100 * rate.value:.1f} % ({100 * rate.low:.1f}-{100 * rate.high:.1f})"


def as_json(spoken: Sequence[Spoken]) -> dict[str, object]:
    """Every transcript."""
    return {"clips": [asdict(one) for one in spoken]}
