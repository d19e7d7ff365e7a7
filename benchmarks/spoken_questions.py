"""Spoken questions with known answers, as a folder for `vivavoce eval questions`: one voice after another asks, voices that nothing was
trained or tuned on (Kokoro's of the list `report`).

    python -m benchmarks.spoken_questions FOLDER
"""

import argparse
import json
import random
import tomllib
from pathlib import Path
from typing import Final

import soundfile
from rich.progress import track

from benchmarks.dialogues.sources import list_of
from benchmarks.kokoro import Kokoro
from streaming.events import SAMPLE_RATE

__all__ = ["Question", "questions"]

Question = tuple[str, tuple[str, ...]]
"""What is asked, and words of which one must be in the answer."""

_SEED: Final = 6


def questions() -> list[Question]:
    """All of them, in order."""
    lists = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["questions"]
    return [(text, tuple(answers)) for text, *answers in lists]


def main() -> None:
    """Speak them; what has been spoken before is not spoken again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    kokoro, chance, lines = Kokoro.load(), random.Random(_SEED), []
    voices = list_of("report")["voices"]
    for number, (text, answers) in enumerate(track(questions(), "speaking")):
        voice, speed = voices[number % len(voices)], round(chance.uniform(0.9, 1.15), 2)
        name = f"{number:03d}-{voice}.flac"
        soundfile.write(folder / name, kokoro.speak(text, voice, speed), SAMPLE_RATE)
        lines.append({"path": name, "text": text, "answers": answers, "speaker": voice, "set": "spoken_questions", "text_source": "human"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
