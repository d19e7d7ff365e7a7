"""Writes dialogues as WAV files, to be listened to, and prints how many there are of each kind."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Final

import soundfile

from benchmarks.dialogues.recipe import KINDS, load
from streaming.events import SAMPLE_RATE

_LISTS: Final = ("tune", "report")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dialogues", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--list", choices=_LISTS, default="report")
    parser.add_argument("--kind", choices=KINDS, help="one kind only")
    parser.add_argument("--count", type=int, default=5, help="dialogues of a kind to write")
    parser.add_argument("--write", type=Path, help="folder for the WAV files; without it only counts are printed")
    options = parser.parse_args()
    for kind in KINDS if options.kind is None else (options.kind,):
        dialogues = load(options.list, kind, options.data)
        if options.write is None:
            print(f"{options.list} {kind:13} {sum(1 for _ in dialogues):4}", flush=True)
            continue
        options.write.mkdir(parents=True, exist_ok=True)
        for dialogue in islice(dialogues, options.count):
            path = options.write / f"{options.list}-{dialogue.id.replace('/', '-')}.wav"
            soundfile.write(path, dialogue.pcm, SAMPLE_RATE)
            print(f"{path}  {dialogue.text}")


if __name__ == "__main__":
    main()
