"""What the streaming transcript costs in words and in time, beside Whisper on the whole clip with the same weights.

    python -m benchmarks.transcript [--data ../shared/data] [--whisper FOLDER] [--clips 10] [--threads 2] [--json FILE]

Every clip is pushed in frames of 20 ms with a pass whenever one is due (640 ms), then finished. Columns:

- differ: words in which the streaming transcript differs from the full-context one (insertions, deletions, substitutions over the words of
  the latter). Full context is Whisper as published: the clip's own loudness floor, padded to 30 s, encoded at once, decoded greedily.
- error: the same against the human text, streaming and full context, where the text is a person's; other texts are a recogniser's.
- settled: words that had settled before the final pass; revised: settled words that the final text did not keep.
- pass, final: mean milliseconds of a hypothesis and of the final pass; piece: the longest time that one step of either held the model;
  full: encoding and decoding the whole clip at once, in the same run.

Words are compared after Whisper's own English normaliser (case, punctuation, numbers, contractions). `long` joins clips into turns of over
a minute without marking pauses, so that every window is cut by force; full context there is clip by clip. Noise should give no text.
Timings of one run compare with each other, not with another run's.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from server.eval.words import Normaliser, english_normaliser, word_distance
from streaming.audio import Samples, resample_clause
from streaming.batching import Work, completed
from streaming.bundle import default_places
from streaming.events import SAMPLE_RATE
from streaming.recogniser import Recogniser, load_recogniser
from streaming.transcriber import Transcriber
from streaming.whole_clip import full_context

_FRAME: Final = SAMPLE_RATE // 50
"""Samples pushed at once: 20 ms."""

_SETS: Final = (
    "librispeech_train100",
    "barista",
    "azure",
    "watson",
    "kyutai",
    "azure_customspeech",
    "mfa",
    "spoken_qa_synth",
)
"""What the target of 5 % is about."""

_APART: Final = ("asterisk_en", "speechocean762")
"""Short prompts, and hard accented speech: human text, printed below the total."""

_LONGEST: Final = 28.0
"""Seconds of a clip that full context can hear at once, a little silence included."""

_LONG_CLIPS: Final = 6
_LONG_TURNS: Final = 3

_Result = TypeVar("_Result")


@dataclass
class Row:
    """Sums over the clips of one set."""

    name: str
    clips: int = 0
    seconds: float = 0.0
    full_words: int = 0
    differ: int = 0
    human_words: int = 0
    streaming_errors: int = 0
    full_errors: int = 0
    settled: int = 0
    revised: int = 0
    pass_ms: list[float] = field(default_factory=list)
    final_ms: list[float] = field(default_factory=list)
    full_ms: list[float] = field(default_factory=list)
    longest_piece_ms: float = 0.0

    def add(self, other: "Row") -> None:
        """Sum another row into this one."""
        for name, value in asdict(other).items():
            if name == "longest_piece_ms":
                self.longest_piece_ms = max(self.longest_piece_ms, value)
            elif name != "name":
                setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Clip:
    """A recording at 16 kHz and its human text, where it has one."""

    pcm: Samples
    text: str | None


class Stopwatch:
    """Times a pass piece by piece."""

    def __init__(self) -> None:
        self.milliseconds = 0.0
        self.longest = 0.0

    def run(self, work: Work[_Result]) -> _Result:
        """The pass's result."""
        while True:
            begun = time.perf_counter()
            try:
                call = next(work)
                call.station.run([call])
            except StopIteration as stop:
                result: _Result = stop.value
                return result
            finally:
                piece = (time.perf_counter() - begun) * 1000
                self.milliseconds += piece
                self.longest = max(self.longest, piece)


def load(path: Path, line: dict[str, object]) -> Clip:
    """A line of the manifest as a clip; of several channels the first."""
    pcm, rate = soundfile.read(path, dtype="float32", always_2d=True)
    text = str(line["text"]) if line.get("text") and line.get("text_source") == "human" else None
    return Clip(resample_clause(np.ascontiguousarray(pcm[:, 0]), rate, SAMPLE_RATE), text)


def clips_of(data: Path, name: str, most: int) -> list[Clip]:
    """English speech of a set that full context can hear at once, chosen by a fixed seed."""
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    mine = [line for line in lines if line["set"] == name and line["part"] == "dev" and 1 < line["seconds"] < _LONGEST and line.get("text")]
    english = [line for line in mine if str(line.get("language") or "en").startswith("en")]
    return [load(data / line["path"], line) for line in random.Random(0).sample(english, min(most, len(english)))]


def measure(recogniser: Recogniser, published: Recogniser, clip: Clip, parts: list[Samples], normalise: Normaliser) -> Row:
    """One turn, streaming, beside full context, as `published`, of its `parts` (the clip itself, or what a long turn was joined from)."""
    row = Row("", clips=1, seconds=len(clip.pcm) / SAMPLE_RATE)
    transcriber = Transcriber(recogniser)
    for start in range(0, len(clip.pcm), _FRAME):
        transcriber.push(clip.pcm[start : start + _FRAME])
        if transcriber.due():
            watch = Stopwatch()
            row.settled += len(watch.run(transcriber.hypothesise()).settled_new.split())
            row.pass_ms.append(watch.milliseconds)
            row.longest_piece_ms = max(row.longest_piece_ms, watch.longest)
    watch = Stopwatch()
    transcript = watch.run(transcriber.finish())
    row.revised = transcript.revised
    row.final_ms.append(watch.milliseconds)
    row.longest_piece_ms = max(row.longest_piece_ms, watch.longest)

    begun = time.perf_counter()
    full = " ".join(full_context(published, part)[0] for part in parts)
    row.full_ms.append((time.perf_counter() - begun) * 1000)
    words, reference = normalise(transcript.text).split(), normalise(full).split()
    row.full_words, row.differ = len(reference), word_distance(words, reference)
    if clip.text is not None:
        human = normalise(clip.text).split()
        row.human_words = len(human)
        row.streaming_errors, row.full_errors = word_distance(words, human), word_distance(reference, human)
    return row


def long_turns(data: Path) -> Iterator[tuple[Clip, list[Samples]]]:
    """Turns joined from read speech."""
    clips = clips_of(data, "librispeech_train100", _LONG_CLIPS * _LONG_TURNS)
    for start in range(0, len(clips) - _LONG_CLIPS + 1, _LONG_CLIPS):
        parts = [clip.pcm for clip in clips[start : start + _LONG_CLIPS]]
        yield Clip(np.concatenate(parts), None), parts


def words_on_noise(recogniser: Recogniser, data: Path) -> tuple[list[str], int]:
    """The texts heard in recordings without speech, and how many recordings there were."""
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    sounds = [load(data / line["path"], line).pcm for line in lines if line["part"] == "dev" and line["set"] == "esc10"]
    chance = np.random.default_rng(0)
    sounds += [(chance.standard_normal(10 * SAMPLE_RATE) * loud).astype(np.float32) for loud in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)]
    sounds.append(np.zeros(10 * SAMPLE_RATE, np.float32))
    texts = []
    for pcm in track(sounds, "noise", transient=True):
        transcriber = Transcriber(recogniser)
        transcriber.push(pcm)
        texts.append(completed(transcriber.finish()).text)
    return [text for text in texts if text], len(sounds)


def table_of(rows: list[Row]) -> Table:
    """The rows as a person reads them."""
    table = Table()
    for title in ("set", "clips", "minutes", "words", "differ", "error streaming", "error full", "settled", "revised"):
        table.add_column(title, justify="left" if title == "set" else "right")
    for title in ("pass ms", "final ms", "piece ms", "full ms"):
        table.add_column(title, justify="right")
    for row in rows:
        against = [
            f"{100 * errors / row.human_words:.1f} %" if row.human_words else "" for errors in (row.streaming_errors, row.full_errors)
        ]
        table.add_row(
            row.name,
            str(row.clips),
            f"{row.seconds / 60:.1f}",
            str(row.full_words),
            f"{row.differ} ({100 * row.differ / max(1, row.full_words):.1f} %)",
            *against,
            f"{100 * row.settled / max(1, row.full_words):.0f} %",
            f"{row.revised} ({100 * row.revised / max(1, row.settled):.1f} %)",
            *(f"{np.mean(times):.0f}" if times else "" for times in (row.pass_ms, row.final_ms)),
            f"{row.longest_piece_ms:.0f}",
            f"{np.mean(row.full_ms):.0f}" if row.full_ms else "",
            end_section=row.name == "all" or row.name == _SETS[-1],
        )
    return table


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    dtype = arguments.dtype and getattr(torch, arguments.dtype)
    published = load_recogniser(arguments.whisper, dtype, adaptation=None)
    recogniser = published if arguments.published else load_recogniser(arguments.whisper, dtype)
    normalise = english_normaliser()
    rows = []
    for name in (*_SETS, *_APART, "long"):
        row = Row(name)
        turns = long_turns(arguments.data) if name == "long" else ((c, [c.pcm]) for c in clips_of(arguments.data, name, arguments.clips))
        for clip, parts in track(list(turns), name, transient=True):
            row.add(measure(recogniser, published, clip, parts, normalise))
        rows.append(row)
        if name == _SETS[-1]:
            rows.append(Row("all"))
            for earlier in rows[:-1]:
                rows[-1].add(earlier)
    noise, sounds = words_on_noise(recogniser, arguments.data)
    console = Console(width=160)
    console.print(table_of(rows))
    console.print(f"Words on {len(noise)} of {sounds} recordings without speech: {noise}", markup=False)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "noise": noise, "sounds": sounds}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--whisper", type=Path, default=default_places().cache / "parts" / "whisper-base")
    parser.add_argument("--clips", type=int, default=10, help="clips of each set, at most")
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="exactly these numbers, nothing packed")
    parser.add_argument("--published", action="store_true", help="Whisper's own weights and blocks, for streaming too")
    parser.add_argument("--json", type=Path, help="where the figures go too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
