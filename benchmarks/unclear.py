"""How often a turn is asked back for being unclear: clean speech must not be, noise and drowned speech must.

    python -m benchmarks.unclear [--data ../shared/data] [--whisper FOLDER] [--clips 100] [--threads 2] [--json FILE]

The real recogniser hears whole clips, as at the end of a turn, and `agent.prompt.is_unclear` decides. Speakers and noises are halved by a
fixed seed: the threshold was chosen on the half `tune`, which is printed as a sweep; the rates are of the half `report`, with n and
Wilson's 95 % interval. Speech of `barista` and `speechocean762` is mixed with a recording of ESC-10, repeated over its length, at the named
ratio of speech power to noise power. `wrong` is the share of words that differ from what the same recogniser heard in the clean clip: where
it is high, an answer would have been invented. `questions.txt` is reported whole; none of its clips is in `tune`.
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.progress import track

from agent.prompt import UNCLEAR, is_unclear
from benchmarks.transcript import load
from server.eval.intervals import share
from server.eval.words import english_normaliser, word_distance
from streaming.audio import Samples
from streaming.batching import completed
from streaming.bundle import default_places
from streaming.recogniser import Recogniser, load_recogniser
from streaming.transcriber import Transcriber

_SEED: Final = 4
_RATIOS: Final = (10, 0, -10)
"""Speech to noise in dB: a busy room, as loud as the speaker, drowned."""
_SWEEP: Final = (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)


@dataclass(frozen=True)
class Turn:
    """What was heard of one turn: `condition` names what it was made of, `wrong` is the share of words that differ from the clean text."""

    half: str
    condition: str
    clip: str
    text: str
    confidence: float
    wrong: float


def halves(names: Sequence[str]) -> dict[str, str]:
    """Names to `tune` and `report`, by the fixed seed."""
    shuffled = sorted(set(names))
    random.Random(_SEED).shuffle(shuffled)
    return {name: ("tune", "report")[index % 2] for index, name in enumerate(shuffled)}


def drowned(speech: Samples, noise: Samples, ratio: int) -> Samples:
    """Speech in noise at `ratio` dB, shape (n,) both; the sum is scaled to the peak of the speech."""
    repeated = np.resize(noise, len(speech))
    power = float(np.mean(speech**2)), max(float(np.mean(repeated**2)), 1e-10)
    mixed = speech + repeated * math.sqrt(power[0] / power[1] / 10 ** (ratio / 10))
    scaled: Samples = (mixed * (np.abs(speech).max() / np.abs(mixed).max())).astype(np.float32)
    return scaled


def heard(recogniser: Recogniser, pcm: Samples) -> tuple[str, float]:
    """The text of a turn, and how sure the recogniser is."""
    transcriber = Transcriber(recogniser)
    transcriber.push(pcm)
    transcript = completed(transcriber.finish())
    return transcript.text, transcript.confidence


def listen(recogniser: Recogniser, data: Path, most: int) -> list[Turn]:
    """Every turn of every condition; at most `most` clips of speech in each half."""
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["part"] == "dev"]
    questions = (data / "questions.txt").read_text(encoding="utf-8").split()
    spoken = [line for line in lines if line["set"] in ("barista", "speechocean762") and line["path"] not in questions]
    noises = [line for line in lines if line["set"] == "esc10"]
    half_of = halves([line["speaker"] for line in spoken]) | halves([line["path"] for line in noises])
    random.Random(_SEED).shuffle(spoken)
    normalise = english_normaliser()
    turns = []
    for half in ("tune", "report"):
        ours = [line for line in noises if half_of[line["path"]] == half]
        sounds = [load(data / line["path"], line).pcm for line in ours]
        for line, pcm in track(list(zip(ours, sounds, strict=True)), f"{half}, noise", transient=True):
            turns.append(Turn(half, "noise alone", line["path"], *heard(recogniser, pcm), 1.0))
        clips = [line for line in spoken if half_of[line["speaker"]] == half][:most]
        for index, line in enumerate(track(clips, half, transient=True)):
            clip = load(data / line["path"], line).pcm
            clean, confidence = heard(recogniser, clip)
            turns.append(Turn(half, "clean", line["path"], clean, confidence, 0.0))
            for ratio in _RATIOS:
                text, confidence = heard(recogniser, drowned(clip, sounds[index % len(sounds)], ratio))
                reference = normalise(clean).split()
                wrong = word_distance(normalise(text).split(), reference) / max(1, len(reference))
                turns.append(Turn(half, f"{ratio:+d} dB", line["path"], text, confidence, wrong))
    turns += [
        Turn("report", "questions.txt", path, *heard(recogniser, load(data / path, {}).pcm), 0.0)
        for path in track(questions, "questions.txt", transient=True)
    ]
    return turns


def asked(turns: Sequence[Turn]) -> str:
    """How many are asked back."""
    return share(sum(is_unclear(turn.text, turn.confidence) for turn in turns), len(turns))


def print_sweep(turns: Sequence[Turn]) -> None:
    """On `tune`: asked back at each threshold, by condition."""
    conditions = list(dict.fromkeys(turn.condition for turn in turns))
    print("tune: asked back, in %, by threshold of confidence\n" + " " * 9 + "".join(f"{name:>14}" for name in conditions))
    for threshold in _SWEEP:
        rows = [[not turn.text or turn.confidence < threshold for turn in turns if turn.condition == name] for name in conditions]
        print(f"{threshold:9.2f}" + "".join(f"{100 * sum(row) / max(1, len(row)):14.1f}" for row in rows))


def print_rates(turns: Sequence[Turn]) -> None:
    """On `report`: asked back, and whether that was right."""
    print(f"report: asked back at {UNCLEAR}, by condition")
    for name in dict.fromkeys(turn.condition for turn in turns):
        mine = [turn for turn in turns if turn.condition == name]
        print(f"  {name:14} {asked(mine)}")
    mixed = [turn for turn in turns if turn.condition.endswith("dB")]
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, math.inf)):
        mine = [turn for turn in mixed if low <= turn.wrong < high]
        print(f"  in noise, {100 * low:.0f} % of words wrong or more: {asked(mine)}")


def main() -> None:
    """Hear, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--whisper", type=Path, default=default_places().cache / "parts" / "whisper-base")
    parser.add_argument("--clips", type=int, default=100, help="clips of speech in each half, at most")
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--json", type=Path, help="where the turns go too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    turns = listen(load_recogniser(options.whisper), options.data, options.clips)
    if options.json:
        options.json.write_text(json.dumps([asdict(turn) for turn in turns], indent=1))
    print_sweep([turn for turn in turns if turn.half == "tune"])
    print_rates([turn for turn in turns if turn.half == "report"])


if __name__ == "__main__":
    main()
