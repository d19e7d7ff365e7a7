"""What it costs to hear a turn for words, for rows of the language model, and for both: CPU seconds, and the work that a pause waits for.

    python -m benchmarks.hearing [--projector FILE] [--data ../shared/data] [--recordings 10] [--json FILE]

The pocket bundle's Whisper on one thread, each recording as the engine hears it: a window of the Ear at a time, a pass over the words at
every 640 ms of new sound, what of the sound can be committed whenever there is some. `words` is the transcript alone. `two encoders` adds
rows by a projector with an encoder stream of its own, `one encoder` by the same projector on the frames that the transcript needs anyway:
what the engine does. `listening` is CPU seconds for a second of sound, `pause` milliseconds from the last window to the words and the rows
of the whole turn. The three take turns, recording by recording; medians, and the middle half. Without `--projector` it is the bundle's; a
file that is not for these models is refused.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from server.caller_audio import CALLER_RATE, load_recording
from streaming.audio import Samples, resample_clause
from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.bundle import ensure_bundle
from streaming.decoder import LlamaLanguageModel
from streaming.events import SAMPLE_RATE
from streaming.hearing_models import load_frame_rows
from streaming.manifest import load_manifest
from streaming.recogniser import load_recogniser
from streaming.recognition import WordRecogniser
from streaming.transcriber import Transcriber
from streaming.vad import WINDOW

Way = Callable[[WordRecogniser, AudioPath], tuple[Transcriber, Sound | None, Transcriber | None]]
"""A turn: its words, its rows, and the sound that those are made of where it is not the words' own."""


def _words(recogniser: WordRecogniser, _: AudioPath) -> tuple[Transcriber, Sound | None, Transcriber | None]:
    return Transcriber(recogniser), None, None


def _two(recogniser: WordRecogniser, path: AudioPath) -> tuple[Transcriber, Sound | None, Transcriber | None]:
    own = Transcriber(recogniser)
    return Transcriber(recogniser), Sound(path.stream(own), count(-1, -1), 1), own


def _one(recogniser: WordRecogniser, path: AudioPath) -> tuple[Transcriber, Sound | None, Transcriber | None]:
    transcriber = Transcriber(recogniser)
    return transcriber, Sound(path.stream(transcriber), count(-1, -1), 1), None


_WAYS: Final[dict[str, Way]] = {"words": _words, "two encoders": _two, "one encoder": _one}


@dataclass(frozen=True, slots=True)
class Row:
    """One way, over all recordings: medians and the middle half."""

    way: str
    n: int
    listening: tuple[float, float, float]
    pause: tuple[float, float, float]


def hear(way: Way, recogniser: WordRecogniser, path: AudioPath, pcm: Samples) -> tuple[float, float]:
    """CPU seconds for a second of sound while it comes, and milliseconds of work at its end."""
    transcriber, sound, own = way(recogniser, path)
    begun = time.process_time()
    for start in range(0, len(pcm), WINDOW):
        for each in (transcriber, own, sound):
            if each is not None:
                each.push(pcm[start : start + WINDOW])
        if transcriber.due():
            completed(transcriber.hypothesise())
        if sound is not None:
            completed(sound.commit())
    listened = time.process_time()
    completed(transcriber.finish())
    if sound is not None:
        completed(sound.conclude())
    return (listened - begun) / (len(pcm) / SAMPLE_RATE), 1_000 * (time.process_time() - listened)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, and where the middle half begins and ends."""
    first, middle, third = statistics.quantiles(values, n=4)
    return middle, first, third


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projector", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--recordings", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = ensure_bundle(load_manifest("pocket"))
    recogniser = load_recogniser(bundle.part("transcript"))
    model = LlamaLanguageModel.load(next(bundle.part("language_model").glob("*.gguf")))
    file = options.projector or next(bundle.part("projector").glob("*.safetensors"))
    path = AudioPath(load_frame_rows(file, recogniser, model))
    names = [line for line in (options.data / "questions.txt").read_text(encoding="utf-8").split("\n") if line.strip()]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in _WAYS}
    for number, name in enumerate(names[: options.recordings]):
        recording = load_recording(options.data / name)
        pcm = resample_clause(recording.pcm.astype(np.float32) / 32_768, CALLER_RATE, SAMPLE_RATE)
        if not number:  # what runs for the first time runs slower
            hear(_one, recogniser, path, pcm)
        for label, way in _WAYS.items():
            found[label].append(hear(way, recogniser, path, pcm))
    rows = [Row(label, len(each), spread([a for a, _ in each]), spread([b for _, b in each])) for label, each in found.items()]
    table = Table("way", "n", "listening, CPU s per s", "pause, ms")
    for row in rows:
        cells = (f"{row.listening[0]:.3f} ({row.listening[1]:.3f} to {row.listening[2]:.3f})",)
        table.add_row(row.way, str(row.n), *cells, f"{row.pause[0]:.0f} ({row.pause[1]:.0f} to {row.pause[2]:.0f})")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
