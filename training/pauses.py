"""Pauses to learn from: where callers of the `train` recordings and synthetic ones pause, what the end-of-turn model hears there, and
whether they go on.

Each pause is heard as the server hears it: through the Ear, which asks for a score at its own marks. A recording is a turn: a pause inside
it is not the end. It goes on in digital silence behind its last sample, which would tell; so its own end counts only where it has 100 ms of
the room's own sound behind the last word.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.dialogues.sources import list_of, read_recording
from benchmarks.evidence import HOLD_MS
from benchmarks.kokoro import Kokoro
from streaming.audio import AudioFrame, Samples, resample_clause
from streaming.ear import Ear, Ears
from streaming.events import SAMPLE_RATE, EndOfTurnScore, SpeechStarted, SpeechStopped
from streaming.turn import TurnEncoder
from streaming.vad import SileroVad, silero_model
from training.sentences import Sentence, sentences

__all__ = ["Clip", "Listener", "Pauses", "Source"]

_MS: Final = SAMPLE_RATE // 1_000
_TAIL: Final = 100 * _MS
_LEAD, _SILENCE = 300 * _MS, 2_500 * _MS
_MARKS: Final = 2
"""Of the Ear's marks in a pause, those learned from: 96 and 192 ms. Later ones come when most turns have been decided."""
_FRAME: Final = SAMPLE_RATE // 50


@dataclass(frozen=True, slots=True)
class Clip:
    """Something a caller says: `words` renders or reads it, float32 (n,) at 16 kHz. `finished` is whether its last pause ends the turn;
    None where the recording's tail decides."""

    source: str
    speaker: str
    words: Callable[[], Samples]
    finished: bool | None


@dataclass(frozen=True, slots=True, eq=False)
class Pauses:
    """`features` float32 (n, FEATURES), `ends` bool (n,), and of each the source and the speaker."""

    features: Samples
    ends: np.ndarray[tuple[int], np.dtype[np.bool_]]
    sources: Sequence[str]
    speakers: Sequence[str]

    @classmethod
    def joined(cls, parts: Sequence["Pauses"]) -> "Pauses":
        """All of them, in order."""
        return cls(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.ends for part in parts]),
            [source for part in parts for source in part.sources],
            [speaker for part in parts for speaker in part.speakers],
        )


class Source:
    """The clips, in an order that the seed gives. Raises FileNotFoundError without the recordings."""

    def __init__(self, data: Path, wanted: Mapping[str, int], seed: int) -> None:
        manifest = data / "manifest.jsonl"
        if not manifest.is_file():
            raise FileNotFoundError(f"{manifest} is missing: --data names the folder of the recordings")
        self._data = data
        self._wanted = wanted
        self._rng = random.Random(seed)
        self._clips = [clip for clip in map(json.loads, manifest.read_text().splitlines()) if clip["part"] == "train"]

    @cached_property
    def noises(self) -> list[str]:
        """Paths of the noises of the `train` part."""
        return [str(clip["path"]) for clip in self._clips if clip["kind"] == "noise"]

    def read(self, path: str) -> Samples:
        """A recording, float32 (n,) at 16 kHz."""
        return read_recording(self._data / path)

    def clips(self) -> list[Clip]:
        """People first, then synthetic callers."""
        found: list[Clip] = []
        for name, count in self._wanted.items():
            if name == "synthetic":
                found.extend(self._synthetic(count))
                continue
            of_set = [clip for clip in self._clips if clip["set"] == name]
            self._rng.shuffle(of_set)
            found.extend(self._recorded(clip) for clip in of_set[:count])
        return found

    def _recorded(self, clip: Mapping[str, object]) -> Clip:
        path = str(clip["path"])
        return Clip(str(clip["set"]), str(clip.get("speaker") or clip["set"]), lambda: self.read(path), finished=None)

    def _synthetic(self, count: int) -> Iterator[Clip]:
        kokoro, voices = Kokoro.load(), list_of("tune")["voices"]
        for sentence in sentences(count, self._rng):
            yield self._spoken(kokoro, sentence, self._rng.choice(voices), self._rng.choice((0.9, 1.0, 1.0, 1.1)))

    def _spoken(self, kokoro: Kokoro, sentence: Sentence, voice: str, speed: float) -> Clip:
        return Clip("synthetic", voice, lambda: kokoro.speak(sentence.text, voice, speed), sentence.finished)


class Listener:
    """Hears clips. `noisy` and `telephone` are shares of them."""

    def __init__(self, model: TurnEncoder, source: Source, noisy: float, telephone: float) -> None:
        self._vad = SileroVad(silero_model())
        self._model = model
        self._source = source
        self._noisy = noisy
        self._telephone = telephone

    def hear(self, clip: Clip, seed: int) -> Pauses:
        """The pauses of a clip as a microphone gives it."""
        rng = np.random.default_rng(seed)
        words = clip.words()
        pcm = self._at_the_microphone(words, rng)
        recorded = _LEAD + len(words)
        rows, ends = [], []
        for at, until, scored in self._pauses(pcm):
            if until is not None:
                end = False
                usable = until - at >= HOLD_MS * _MS
            else:
                end = True if clip.finished is None else clip.finished
                usable = clip.finished is not None or recorded - at >= _TAIL
            if usable:
                rows.extend(scored[:_MARKS])
                ends.extend([end] * len(scored[:_MARKS]))
        features = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
        return Pauses(features, np.array(ends, bool), [clip.source] * len(ends), [clip.speaker] * len(ends))

    def _at_the_microphone(self, words: Samples, rng: np.random.Generator) -> Samples:
        """At some level, with hiss, and with a noise behind it or through a telephone where the draw says so."""
        level = 10 ** (rng.uniform(-29, -17) / 20)
        pcm = np.concatenate((np.zeros(_LEAD, np.float32), words * np.float32(level / _rms(words)), np.zeros(_SILENCE, np.float32)))
        if rng.random() < self._telephone:
            pcm = resample_clause(resample_clause(pcm, SAMPLE_RATE, 8_000), 8_000, SAMPLE_RATE)
        pcm = pcm + rng.normal(0, 10 ** (-70 / 20), len(pcm)).astype(np.float32)
        if rng.random() < self._noisy:
            noise = np.resize(self._source.read(self._source.noises[rng.integers(len(self._source.noises))]), len(pcm))
            pcm = pcm + noise * np.float32(level * 10 ** (-rng.uniform(12, 35) / 20) / _rms(noise))
        return np.clip(pcm, -1, 1).astype(np.float32)

    def _pauses(self, pcm: Samples) -> list[tuple[int, int | None, list[Samples]]]:
        """Of each pause where speech stopped, where it went on (None: it did not), and the features at the Ear's marks."""
        kept = _Kept(self._model)
        ears = Ears(self._vad, kept)
        ears.open("clip")
        pauses: list[tuple[int, int | None, list[Samples]]] = []
        for start in range(0, len(pcm), _FRAME):
            ears.tell("clip", Ear.push, AudioFrame(pcm[start : start + _FRAME], start))
            while ears.pending:
                for _, event in (*ears.judge(), *ears.score()):
                    match event:
                        case SpeechStarted(at=at) if pauses and pauses[-1][1] is None:
                            pauses[-1] = (pauses[-1][0], at, pauses[-1][2])
                        case SpeechStopped(at=at):
                            pauses.append((at, None, []))
                        case EndOfTurnScore() if pauses:
                            pauses[-1][2].append(kept.features)
                        case _:
                            pass
        return pauses


class _Kept:
    """An end-of-turn model that keeps the features it last saw."""

    def __init__(self, model: TurnEncoder) -> None:
        self._model = model
        self.features: Samples = np.zeros(0, np.float32)

    def score(self, pcm: Samples) -> float:
        """See `EndOfTurnModel`; nobody asks what it is."""
        self.features = self._model.features(pcm)
        return 0.5


def _rms(pcm: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))) + 1e-9
