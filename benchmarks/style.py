"""What is said of how a turn was spoken (`agent.style`), on recordings in which people hesitate and on read speech.

    python -m benchmarks.style [--data ../shared/data] [--clips 40] [--show]

Clips are parted into speech and pauses by the VAD and transcribed whole by the bundle's recogniser. `hesitations` is the share of clips
with a hesitation in the transcript, `long pause` of those with a pause of 500 ms and more inside, `either` of those with one or the other.
The set `mfa` has clips made to hesitate (um, uh, a search for words, a long pause); in read speech a reader's pause between sentences
counts as well. Pace is the median of words a second of speech. Intervals are Wilson's, 95 %.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.progress import track

from agent.style import SpokenWatch, TurnStyle, style_of
from benchmarks.no_speech import manifest
from benchmarks.transcript import load
from server.eval.intervals import share
from streaming.audio import Samples
from streaming.batching import completed
from streaming.bundle import default_places
from streaming.events import SAMPLE_RATE, SpeechStarted, SpeechStopped
from streaming.recogniser import Recogniser, load_recogniser
from streaming.transcriber import Transcriber
from streaming.vad import WINDOW, SileroVad, SpeechGate, VadState, silero_model

_LONG_MS: Final = 500
_READ: Final = ("librispeech_train100", "barista")


def heard(recogniser: Recogniser, vad: SileroVad, pcm: Samples) -> tuple[str, TurnStyle]:
    """The words of a clip, and how they were spoken."""
    padded = np.concatenate((pcm, np.zeros(SAMPLE_RATE, np.float32)))
    watch, gate, state = SpokenWatch(), SpeechGate(), VadState.initial()
    for start in range(0, len(padded) - WINDOW + 1, WINDOW):
        (probability,), (state,) = vad.step(padded[None, start : start + WINDOW], [state])
        match gate.push(probability, start):
            case SpeechStarted(at=at):
                watch.started(at)
            case SpeechStopped(at=at):
                watch.stopped(at)
            case _:
                pass
    transcriber = Transcriber(recogniser, "en")
    transcriber.push(pcm)
    text = completed(transcriber.finish()).text
    return text, style_of(watch.take(0, len(padded)), text)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--clips", type=int, default=40, help="clips of each set of read speech, at most")
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    parser.add_argument("--show", action="store_true", help="print what was heard")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recogniser, vad = load_recogniser(default_places().cache / "parts" / "whisper-base"), SileroVad(silero_model())
    lines = manifest(options.data, "dev")
    groups = {"mfa, hesitating": [line for line in lines if line["set"] == "mfa" and line["kind"] == "hesitation"]}
    groups |= {name: [line for line in lines if line["set"] == name][: options.clips] for name in _READ}
    for name, clips in groups.items():
        rows = [(line, *heard(recogniser, vad, load(options.data / line["path"], line).pcm)) for line in track(clips, name, transient=True)]
        if options.show:
            for line, text, style in rows:
                print(f"  {Path(line['path']).stem}: {text!r} {style}")
        said, paused = [bool(style.hesitations) for *_, style in rows], [style.longest_pause_ms >= _LONG_MS for *_, style in rows]
        either = sum(one or other for one, other in zip(said, paused, strict=True))
        shares = [share(count, len(rows)) for count in (sum(said), sum(paused), either)]
        paces = [style.words_per_second for *_, style in rows if style.words_per_second is not None]
        print(f"{name:22} hesitations {shares[0]}   long pause {shares[1]}   either {shares[2]}   pace {np.median(paces):.1f}")


if __name__ == "__main__":
    main()
