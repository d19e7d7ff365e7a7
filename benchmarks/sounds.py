"""Which sounds are told of recordings whose sound is known, and of speech, where none should be.

    python -m benchmarks.sounds [--data ../shared/data] [--part dev]

Recordings go through the real Ear's patches and `streaming.sound_events` (without the VAD, which has no part in it). `told` is the share of
recordings of which the right kind was told at all, with Wilson's 95 % interval; `others` are kinds told besides it, by how many recordings.
ESC-10 names one sound a recording, of others the file's name does. Of speech every kind that is told counts as false, also where a
recording has more in it than speech. The last line is the processor's time for a patch, and what that is of a core
a call. Thresholds were chosen on the part `train`.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.progress import track

from benchmarks.transcript import load
from server.eval.intervals import share
from streaming.audio import AudioFrame, Samples
from streaming.bundle import default_places
from streaming.ear import Ear, Ears
from streaming.events import SAMPLE_RATE, SoundKind, SoundStarted
from streaming.models.yamnet import YamNet
from streaming.sound_events import HOP
from streaming.vad import VadState

_ESC_10: Final = {
    "Dog bark": SoundKind.DOG,
    "Rooster": SoundKind.BIRD,
    "Rain": SoundKind.WATER,
    "Sea waves": SoundKind.WATER,
    "Baby cry": SoundKind.CRYING,
    "Clock tick": SoundKind.CLOCK,
    "Person sneeze": SoundKind.SNEEZE,
    "Helicopter": SoundKind.TRAFFIC,
    "Chainsaw": SoundKind.TOOLS,
    "Fire crackling": SoundKind.FIRE,
}
_NAMED: Final = {
    "baby_crying": SoundKind.CRYING,
    "background_music": SoundKind.MUSIC,
    "keyboard-typing": SoundKind.TYPING,
    "car_horn": SoundKind.HORN,
    "dog_bark": SoundKind.DOG,
    "engine_idling": SoundKind.TRAFFIC,
    "ringing_phone": SoundKind.TELEPHONE,
}
_SOUNDS: Final = ("esc10", "noise_misc", "asterisk_moh", "librosa")
_MUSIC: Final = ("music", "hold_music", "song")
_SPEECH: Final = ("librispeech_train100", "barista", "azure_customspeech")
_SPEECH_CLIPS: Final = 40


class _NoSpeech:
    """A VAD that hears none."""

    def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
        return [0.0] * len(windows), list(states)


class _Timed:
    """A classifier that notes how much of the processor's time it takes."""

    def __init__(self, model: YamNet) -> None:
        self._model = model
        self.classes = model.classes
        self.milliseconds: list[float] = []

    def hear(self, patch: Samples) -> npt.NDArray[np.float32]:
        """See `SoundClassifier`."""
        begun = time.thread_time()
        probabilities = self._model.hear(patch)
        self.milliseconds.append((time.thread_time() - begun) * 1_000)
        return probabilities


def told(classifier: _Timed, pcm: Samples) -> list[SoundKind]:
    """The kinds that are told of a recording, in order, each as often as it began."""
    ears = Ears(_NoSpeech(), None, classifier)
    ears.open("bench")
    # Silence behind it, so that the last second is in a patch too.
    ears.tell("bench", Ear.push, AudioFrame(np.concatenate((pcm, np.zeros(SAMPLE_RATE, np.float32))), 0))
    kinds = []
    while ears.pending:
        ears.judge()
        kinds += [event.kind for _, event in ears.name_sounds(spare=True) if isinstance(event, SoundStarted)]
    return kinds


def kind_of(line: dict[str, str]) -> SoundKind | None:
    """What sounds in a recording; None where that is not known, or it is not one thing."""
    if line["set"] == "esc10":
        return _ESC_10[line["event"]]
    if line["kind"] in _MUSIC:
        return SoundKind.MUSIC
    return next((kind for name, kind in _NAMED.items() if name in line["path"]), None)


def report_sounds(lines: Iterable[dict[str, str]], data: Path, classifier: _Timed) -> None:
    """Right and other kinds, by the kind that sounds."""
    found: dict[SoundKind, list[set[SoundKind]]] = {}
    for line in track(list(lines), "sounds", transient=True):
        kind = kind_of(line)
        if kind is not None:
            found.setdefault(kind, []).append(set(told(classifier, load(data / line["path"], line).pcm)))
    for kind, rows in sorted(found.items(), key=lambda row: row[0].value):
        others = Counter(other.value for row in rows for other in row if other is not kind)
        print(f"{kind.value:10} told {share(sum(kind in row for row in rows), len(rows))}   others {dict(others)}")
    every = [(kind, row) for kind, rows in found.items() for row in rows]
    print(f"{'all':10} told {share(sum(kind in row for kind, row in every), len(every))}")
    print(f"{'all':10} nothing else told {share(sum(not row - {kind} for kind, row in every), len(every))}")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--part", choices=("dev", "train"), default="dev")
    options = parser.parse_args()
    classifier = _Timed(YamNet.load(default_places().cache / "parts" / "yamnet"))
    lines = [json.loads(line) for line in (options.data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["part"] == options.part]
    report_sounds(
        [line for line in lines if line["set"] == "esc10" or line["set"] in ("noise_misc", "asterisk_moh", "librosa")],
        options.data,
        classifier,
    )
    for name in _SPEECH:
        clips = [line for line in lines if line["set"] == name][:_SPEECH_CLIPS]
        kinds = Counter(kind.value for line in clips for kind in told(classifier, load(options.data / line["path"], line).pcm))
        minutes = sum(float(line["seconds"]) for line in clips) / 60
        if clips:
            print(f"speech, {name}: {kinds.total() / minutes:.2f} false a minute in {minutes:.1f} minutes {dict(kinds)}")
    patch = float(np.median(classifier.milliseconds))
    core = 100 * patch / (1_000 * HOP / SAMPLE_RATE)
    print(f"a patch {patch:.1f} ms (median of {len(classifier.milliseconds)}): {core:.2f} % of a core a call")


if __name__ == "__main__":
    main()
