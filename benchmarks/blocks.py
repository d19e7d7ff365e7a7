"""What the transcript loses where the encoder hears in blocks, with and without the weights that were trained for it.

    python -m benchmarks.blocks [--data ../shared/data] [--clips 4] [--block 16 32 ...] [--lookahead 0 8 ...] [--json FILE]

Every clip is encoded by one stream, block by block as in a call, and decoded once at its end; so the words are those of the final pass.
Blocks and lookaheads are in audio frames of 20 ms; the first block is as long as the others unless --first says more. Columns, published
weights | adapted ones:

- differ: words in which the text differs from that of full context (Whisper as published: the clip's own loudness floor, padded to 30 s,
  encoded at once), of recordings of speech with any text.
- error: words in which it differs from the human text, where there is one; those of speechocean762 (learners of English, half of them
  children) apart.
- encoder: its processor time per second of sound, lookaheads included, but for the last run (with --passes also the provisional frames
  that a call's hypotheses take every 640 ms); end: that of the last run, which a caller who has finished waits for.

`whole` is everything in one run; `before` the blocks of weights as published, `BlockPlan()`. No speaker here was trained on
(`tests/training`). Intervals of the differences between rows come from the clips: at a thousand words one point is within chance.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.transcript import Clip, clips_of
from server.eval.words import english_normaliser, word_distance
from streaming.batching import completed
from streaming.bundle import default_places
from streaming.encoder import BlockPlan, SoundStream
from streaming.events import SAMPLE_RATE
from streaming.models.low_rank import STREAMING_ENCODER
from streaming.recogniser import Recogniser, load_recogniser
from streaming.whole_clip import full_context

_SETS: Final = ("librispeech_train100", "barista", "azure", "watson", "kyutai", "azure_customspeech", "mfa", "moonshine_alnum")
_WEIGHTS: Final = ("published", "adapted")
_APART: Final = "speechocean762"
_SCALE: Final = {_APART: 6, "librispeech_train100": 3, "barista": 3, "azure_customspeech": 2}
"""Sets of which so many times as many clips are heard: those that are most like a call, and those that have a person's text."""


_PASS: Final = 64 * SAMPLE_RATE // 100
"""Sound between two hypotheses of a call."""


@dataclass
class Row:
    """Sums over clips of what one plan makes of them."""

    plan: str
    weights: str
    words: int = 0
    differ: int = 0
    human_words: int = 0
    errors: int = 0
    full_errors: int = 0
    apart_words: int = 0
    apart_errors: int = 0
    apart_full_errors: int = 0
    seconds: float = 0.0
    clips: int = 0
    encoder_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True)
class Reference:
    """A clip, and what full context makes of it."""

    name: str
    clip: Clip
    text: str
    tokens: tuple[int, ...]


def references(recogniser: Recogniser, data: Path, clips: int) -> list[Reference]:
    """The clips of every set."""
    found = [(name, clip) for name in (*_SETS, _APART) for clip in clips_of(data, name, clips * _SCALE.get(name, 1))]
    return [Reference(name, clip, *full_context(recogniser, clip.pcm)) for name, clip in track(found, "full context", transient=True)]


def measure(recogniser: Recogniser, plan: BlockPlan, references: Sequence[Reference], row: Row, step: int | None = None) -> None:
    """Add to the row what `plan` makes of the clips; every `step` samples what is provisional is encoded too."""
    normalise = english_normaliser()
    for reference in references:
        words, full = normalise(_text(recogniser, plan, reference, row, step)).split(), normalise(reference.text).split()
        row.clips += 1
        row.seconds += len(reference.clip.pcm) / SAMPLE_RATE
        human = normalise(reference.clip.text).split() if reference.clip.text is not None else []
        if reference.name == _APART:
            row.apart_words += len(human)
            row.apart_errors += word_distance(words, human)
            row.apart_full_errors += word_distance(full, human)
            continue
        row.words += len(full)
        row.differ += word_distance(words, full)
        if human:
            row.human_words += len(human)
            row.errors += word_distance(words, human)
            row.full_errors += word_distance(full, human)


@torch.inference_mode()
def _text(recogniser: Recogniser, plan: BlockPlan, reference: Reference, row: Row, step: int | None) -> str:
    stream, decoder = SoundStream(recogniser.encoder, plan), recogniser.model.decoder
    audio, pcm = decoder.new_audio_cache(), reference.clip.pcm
    for at in range(0, len(pcm), step or len(pcm)):
        begun = time.process_time()
        if at:
            completed(stream.provisional())
        stream.push(pcm[at : at + (step or len(pcm))])
        start = stream.committed
        while (frames := completed(stream.commit())) is not None:
            row.encoder_s += time.process_time() - begun
            decoder.listen(frames, start, audio)
            start, begun = stream.committed, time.process_time()
        row.encoder_s += time.process_time() - begun
    begun = time.process_time()
    frames = completed(stream.provisional())
    row.end_s += time.process_time() - begun
    decoder.listen(frames, start, audio)
    # What full context said is expected: the decoding is the same, and costs one run where it is.
    decoding = completed(recogniser.decode(audio, start + len(frames), "en", reference.tokens))
    return recogniser.text(decoding.tokens) if decoding.speech else ""


def table_of(rows: Sequence[Row]) -> Table:
    """The rows as a person reads them: a line a plan."""
    table = Table()
    for title in ("blocks", "differ", "error", "speechocean762", "encoder ms/s", "end ms"):
        table.add_column(title, justify="left" if title == "blocks" else "right")
    for plan in dict.fromkeys(row.plan for row in rows):
        mine = [row for row in rows if row.plan == plan]
        cells = zip(*(_cells(row) for row in mine), strict=True)
        table.add_row(plan, *(" | ".join(cell) for cell in cells))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{100 * row.differ / max(1, row.words):.1f} %",
        f"{100 * row.errors / max(1, row.human_words):.1f} %",
        f"{100 * row.apart_errors / max(1, row.apart_words):.1f} %",
        f"{1000 * row.encoder_s / row.seconds:.0f}",
        f"{1000 * row.end_s / row.clips:.0f}",
    )


def plans_of(blocks: Sequence[int], lookaheads: Sequence[int], first: int | None, *, others: bool) -> dict[str, BlockPlan]:
    """The plans to measure, by what the table calls them."""
    plans = {"whole": BlockPlan(first=1_500), "before": BlockPlan()} if others else {}
    for block in blocks:
        for lookahead in lookaheads:
            begins = f", first {20 * first}" if first else ""
            plans[f"{20 * block} + {20 * lookahead} ms{begins}"] = BlockPlan(first=first or block, block=block, lookahead=lookahead)
    return plans


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    recognisers = {"published": load_recogniser(options.whisper, adaptation=None)}
    heard = references(recognisers["published"], options.data, options.clips)
    if "adapted" in options.weights:
        recognisers["adapted"] = load_recogniser(options.whisper, adaptation=options.adaptation)
        if recognisers["adapted"].model.adaptation is None:
            raise SystemExit(f"{options.adaptation} was not made for the Whisper in {options.whisper}")
    console = Console(width=160)
    rows = []
    plans = plans_of(options.block, options.lookahead, options.first, others=not options.grid)
    if options.passes:
        plans.pop("whole", None)
    for name, plan in plans.items():
        for weights in options.weights:
            rows.append(Row(name, weights))
            measure(recognisers[weights], plan, heard, rows[-1], _PASS if options.passes else None)
            console.print(name, weights, *_cells(rows[-1]), sep="  ")
    console.print(table_of(rows))
    full = rows[0]
    console.print(
        f"{full.clips} clips, {full.seconds / 60:.1f} minutes, {full.words} words of full context, which differs from {full.human_words} "
        f"human words by {100 * full.full_errors / max(1, full.human_words):.1f} % and from {full.apart_words} of {_APART} by "
        f"{100 * full.apart_full_errors / max(1, full.apart_words):.1f} %. Weights: {' | '.join(options.weights)}."
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--whisper", type=Path, default=default_places().cache / "parts" / "whisper-base")
    parser.add_argument("--adaptation", type=Path, default=STREAMING_ENCODER, help="the weights that were trained for blocks")
    parser.add_argument("--weights", choices=_WEIGHTS, nargs="+", default=_WEIGHTS, help="of the encoder")
    parser.add_argument("--clips", type=int, default=4, help="of a set, at most; of some sets several times as many")
    parser.add_argument("--block", type=int, nargs="*", default=[8, 16, 32, 50, 100], help="in frames of 20 ms")
    parser.add_argument("--lookahead", type=int, nargs="*", default=[0, 8, 16, 32], help="in frames of 20 ms")
    parser.add_argument(
        "--passes", action="store_true", help="with what a call costs beside, the provisional frames every 640 ms; not of `whole`"
    )
    parser.add_argument("--grid", action="store_true", help="these alone, neither `whole` nor `before`")
    parser.add_argument("--first", type=int, help="the first block, in frames of 20 ms; as long as the others if it is not given")
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--json", type=Path, help="where the figures go too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
