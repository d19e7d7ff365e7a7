"""Words from noise, music and silence, and speech that is taken for them: what `streaming.no_speech` decides, and what it costs.

    python -m benchmarks.no_speech [--data ../shared/data] [--clips 40] [--threads 1] [--json FILE]
    python -m benchmarks.no_speech --fit          # the weights of streaming/no_speech.py, from the part `train`

Recordings without speech are heard in two ways. `call`: by the real Ear, engine and conversation in virtual time (`benchmarks.call`), so
that a word counts if it ends up in an item of the caller's; of the turns that come of it, how many are answered, asked back, and dropped.
`committed`: whole, as by a client that commits its buffer itself, with the recogniser's own rule alone, and with the decision. Songs are
printed apart: their words are sung by somebody. Silence is digital, and white noise at -50 and -70 dBFS.

Speech is parted into turns by the VAD, alone and with a recording of ESC-10 at 10, 5 and 0 dB (power of the speech to that of the noise);
`words lost` are those that the recogniser wrote and the decision took away, which is right where they are wrong: of those that stand in
the human text `true words lost` counts. `nobody` are turns that would be dropped without a word; the others without words are asked back.
The part is `dev`; weights are fitted on `train`, whose speakers and sounds are others. Intervals are Wilson's, 95 %.
"""

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.progress import track

from agent.commands import InputCommitted
from agent.prompt import NOBODY
from agent.settings import PlaybackOwner
from benchmarks.call import Call
from benchmarks.dialogues import Dialogue
from benchmarks.line import RecordedVoice
from benchmarks.transcript import load
from benchmarks.turn_taking import pocket_parts
from server.eval.intervals import share
from server.eval.words import english_normaliser
from streaming.audio import AudioFrame, Samples
from streaming.batching import completed
from streaming.engine import Parts
from streaming.events import SAMPLE_RATE, DiscardTurn, Respond, Say, SpeechStarted, SpeechStopped, TranscriptDone
from streaming.input_ring import InputRing
from streaming.no_speech import SpeechJudge, probability_of
from streaming.recognition import LONGEST_WINDOW, Decoding
from streaming.transcriber import Transcriber
from streaming.vad import WINDOW, SpeechGate, VadState

_SEED: Final = 7
_RATIOS: Final = (None, 10, 5, 0)
"""Speech to noise in dB; None is without."""
_PRE_ROLL: Final = 3 * SAMPLE_RATE // 10
_PAUSE: Final = SAMPLE_RATE // 2
"""Silence that ends a turn here, in samples."""
_AROUND: Final = SAMPLE_RATE // 2
"""Silence before and after a clip of speech."""
_SPOKEN: Final = 0.5
_SILENT_SECONDS: Final = 60
_SPEECH: Final = ("fsdd", "moonshine_alnum", "barista", "librispeech_train100", "speechocean762", "dctts_reader")
"""Short answers, commands, readings, learners. Not all have clips in both parts."""
_KINDS: Final = {"noise": "noise", "ambience": "noise", "multi_mic": "noise", "music": "music", "hold_music": "music", "song": "song"}


@dataclass(frozen=True)
class Sound:
    """A recording without speech (or a song)."""

    kind: str
    name: str
    pcm: Samples

    @property
    def minutes(self) -> float:
        return len(self.pcm) / SAMPLE_RATE / 60


@dataclass(frozen=True)
class Turn:
    """What was heard of a stretch, and on what evidence it was judged; `said` is the human text of the clip, "" where there is none."""

    condition: str
    clip: str
    said: str
    text: str
    decided: bool
    evidence: tuple[float, ...]

    @property
    def speech(self) -> float:
        return probability_of(self.evidence)


def manifest(data: Path, part: str) -> list[dict[str, str]]:
    """The lines of a part."""
    lines = (json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["part"] == part]


def sounds_of(data: Path, part: str) -> list[Sound]:
    """Everything without speech."""
    found = [
        Sound(_KINDS[line["kind"]], line["path"], load(data / line["path"], line).pcm)
        for line in manifest(data, part)
        if line["kind"] in _KINDS and "multimic_speech" not in line["path"]
    ]
    chance = np.random.default_rng(_SEED)
    count = _SILENT_SECONDS * SAMPLE_RATE
    hiss = ((level, (chance.standard_normal(count) * 10 ** (level / 20)).astype(np.float32)) for level in (-50, -70))
    return [
        *found,
        Sound("silence", "digital", np.zeros(count, np.float32)),
        *(Sound("silence", f"{level} dBFS", pcm) for level, pcm in hiss),
    ]


class Hearing:
    """The models, and what they make of a recording."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def judged(self, pcm: Samples) -> tuple[SpeechJudge, list[tuple[int, int]]]:
        """A judge that has heard all of it, and where the VAD finds turns."""
        ring = InputRing(len(pcm) // SAMPLE_RATE + 2)
        ring.append(AudioFrame(pcm, 0))
        judge, gate, state = SpeechJudge(ring, self.parts.sounds), SpeechGate(), VadState.initial()
        turns: list[tuple[int, int]] = []
        onset = 0
        for start in range(0, len(pcm) - WINDOW + 1, WINDOW):
            (probability,), (state,) = self.parts.vad.step(pcm[None, start : start + WINDOW], [state])
            judge.heard(start + WINDOW, probability)
            match gate.push(probability, start):
                case SpeechStarted(at=at):
                    onset = turns.pop()[0] if turns and at - turns[-1][1] < _PAUSE else at
                case SpeechStopped(at=at):
                    turns.append((onset, at))
        return judge, turns

    def decode(self, pcm: Samples) -> Decoding:
        """Up to 28 s at once."""
        window = self.parts.recogniser.window()
        window.push(pcm[:LONGEST_WINDOW])
        return completed(window.decode("en"))[0]

    def turns(self, condition: str, clip: str, said: str, pcm: Samples, *, whole: bool = False) -> list[Turn]:
        """The turns of a recording, or all of it in windows."""
        judge, found = self.judged(np.concatenate((pcm, np.zeros(SAMPLE_RATE, np.float32))))
        if whole:
            found = [(start, min(len(pcm), start + LONGEST_WINDOW)) for start in range(0, len(pcm), LONGEST_WINDOW)]
        turns = []
        for onset, stop in found:
            start, end = (onset, stop) if whole else (max(0, onset - _PRE_ROLL), stop + WINDOW)
            decoding = self.decode(pcm[start:end])
            evidence = judge.evidence(decoding, start, end, certain=2.0)
            assert evidence is not None
            turns.append(Turn(condition, clip, said, self.parts.recogniser.text(decoding.tokens), decoding.speech, evidence))
        return turns

    def committed(self, pcm: Samples, *, judged: bool) -> str:
        """The text of the whole recording."""
        judge = self.judged(pcm)[0] if judged else None
        transcriber = Transcriber(self.parts.recogniser, "en", judge.of_turn(0) if judge else None)
        transcriber.push(pcm)
        return completed(transcriber.finish()).text


def drowned(pcm: Samples, noise: Samples, ratio: int | None) -> Samples:
    """Speech with silence around it in noise at `ratio` dB, the noise over the silence too."""
    padded = np.pad(pcm, _AROUND)
    if ratio is None:
        return padded
    repeated = np.resize(noise, len(padded))
    power = float(np.mean(pcm**2)), max(float(np.mean(repeated**2)), 1e-10)
    mixed = padded + repeated * math.sqrt(power[0] / power[1] / 10 ** (ratio / 10))
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def spoken(hearing: Hearing, data: Path, part: str, most: int) -> Iterator[Turn]:
    """Turns of speech in every condition; at most `most` clips of a set."""
    lines = manifest(data, part)
    noises = [load(data / line["path"], line).pcm for line in lines if line["set"] == "esc10"]
    for name in _SPEECH:
        mine = [line for line in lines if line["set"] == name and float(line["seconds"]) < 20 and line.get("text")]
        random.Random(_SEED).shuffle(mine)
        for number, line in enumerate(track(mine[:most], f"{part} {name}", transient=True)):
            pcm = load(data / line["path"], line).pcm
            said = str(line["text"]) if line.get("text_source") == "human" else ""
            for ratio in _RATIOS:
                condition = f"{name}, {'clean' if ratio is None else f'{ratio} dB'}"
                turns = hearing.turns(condition, line["path"], said, drowned(pcm, noises[number % len(noises)], ratio))
                yield from turns or [Turn(condition, line["path"], said, "", decided=False, evidence=())]


# ---------------------------------------------------------------------------------------------------------- reporting


def in_call(hearing: Hearing, voice: RecordedVoice, pcm: Samples) -> Counter[str]:
    """What comes of a recording in a call."""
    heard = np.concatenate((pcm, np.zeros(3 * SAMPLE_RATE, np.float32)))
    call = Call(hearing.parts, voice, Dialogue("sound", "noise", heard, 0, human=False, text=""), PlaybackOwner.CLIENT)
    call.run()
    found: Counter[str] = Counter()
    for _, event in call.told:
        if isinstance(event, TranscriptDone):
            found["words"] += len(event.text.split())
    for _, command in call.ordered:
        for name, kind in (("turns", InputCommitted), ("answered", Respond), ("asked back", Say), ("dropped", DiscardTurn)):
            found[name] += isinstance(command, kind)
    return found


def report_sounds(hearing: Hearing, voice: RecordedVoice, sounds: Sequence[Sound]) -> dict[str, dict[str, float]]:
    """Words a minute, by kind."""
    rows: dict[str, Counter[str]] = {}
    minutes: Counter[str] = Counter()
    for sound in track(sounds, "without speech", transient=True):
        texts = {name: hearing.committed(sound.pcm, judged=judged) for name, judged in (("recogniser", False), ("committed", True))}
        found = in_call(hearing, voice, sound.pcm) + Counter({name: len(text.split()) for name, text in texts.items()})
        kinds = [sound.kind] if sound.kind == "song" else [sound.kind, "all"]
        for kind in kinds:
            rows[kind] = rows.get(kind, Counter()) + found
            minutes[kind] += sound.minutes
    print("words per minute of sound without speech: in a call; committed whole, decided; committed whole, by the recogniser's rule alone")
    for kind, found in rows.items():
        rates = [f"{found[name] / minutes[kind]:6.2f} ({found[name]})" for name in ("words", "committed", "recogniser")]
        turns = ", ".join(f"{found[name]} {name}" for name in ("turns", "answered", "asked back", "dropped"))
        print(f"  {kind:8} {minutes[kind]:5.1f} min  " + "  ".join(rates) + f"   {turns}")
    return {kind: {"minutes": minutes[kind], **found} for kind, found in rows.items()}


def report_speech(turns: Sequence[Turn]) -> None:
    """What is lost, by condition."""
    normalise = english_normaliser()
    print("speech: words lost, true words lost, turns that lose all words, turns taken for nobody's, clips in which the VAD hears nothing")
    for condition in dict.fromkeys(turn.condition for turn in turns):
        mine = [turn for turn in turns if turn.condition == condition]
        heard = [turn for turn in mine if turn.evidence]
        words = [(turn, word) for turn in heard for word in normalise(turn.text).split()]
        true = [(turn, word) for turn, word in words if word in normalise(turn.said).split()]
        lost = [share(sum(turn.speech < _SPOKEN for turn, _ in some), len(some)) for some in (words, true)]
        silent = share(sum(turn.speech < _SPOKEN for turn in heard), len(heard))
        nobody = share(sum(turn.speech < NOBODY for turn in heard), len(heard))
        unheard = share(len(mine) - len(heard), len({turn.clip for turn in mine}))
        print(f"  {condition:30} " + "   ".join((*lost, silent, nobody, unheard)))


# ------------------------------------------------------------------------------------------------------------ fitting


def fit(noise: Sequence[Turn], speech: Sequence[Turn]) -> None:
    """Print the weights, without the sound's evidence and with it; both sides weigh alike."""
    for with_sound in (False, True):
        rows = [(1.0, *(turn.evidence if with_sound else turn.evidence[:3])) for turn in (*noise, *speech)]
        x, y = np.array(rows), np.array([0.0] * len(noise) + [1.0] * len(speech))
        weights = np.where(y == 1, 0.5 / len(speech), 0.5 / len(noise)) * len(y)
        found = np.zeros(x.shape[1])
        for _ in range(60):
            p = 1 / (1 + np.exp(-x @ found))
            hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + 0.01 * np.eye(len(found))
            found = found - np.linalg.solve(hessian, x.T @ (weights * (p - y)) + 0.01 * found)
        p = 1 / (1 + np.exp(-x @ found))
        words = sum(len(turn.text.split()) for turn, one in zip(noise, p, strict=False) if one >= _SPOKEN)
        lost = share(int((p[len(noise) :] < _SPOKEN).sum()), len(speech))
        weights_found = tuple(round(float(weight), 2) for weight in found)
        print(f"with sound {with_sound}: {weights_found}; {words} words left of {len(noise)} sounds, turns lost {lost}")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--clips", type=int, default=40, help="clips of speech of each set, at most")
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    parser.add_argument("--without-sounds", action="store_true", help="as a bundle that can't name sounds")
    parser.add_argument("--fit", action="store_true", help="fit the weights on `train` and print them")
    parser.add_argument("--only", choices=("sounds", "speech"), help="one half of it")
    parser.add_argument("--json", type=Path, help="where the figures go too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    voice = RecordedVoice()
    parts = replace(pocket_parts(), voice=voice)
    hearing = Hearing(replace(parts, sounds=None) if options.without_sounds else parts)
    if options.fit:
        sounds = sounds_of(options.data, "train")
        turns = [hearing.turns(one.kind, one.name, "", one.pcm, whole=whole) for one in track(sounds, "train") for whole in (False, True)]
        speech = [turn for turn in spoken(hearing, options.data, "train", options.clips) if turn.evidence]
        fit([turn for some in turns for turn in some], speech)
        return
    figures: dict[str, object] = {}
    if options.only != "speech":
        figures["sounds"] = report_sounds(hearing, voice, sounds_of(options.data, "dev"))
    if options.only != "sounds":
        turns_heard = list(spoken(hearing, options.data, "dev", options.clips))
        figures["speech"] = [asdict(turn) for turn in turns_heard]
        report_speech(turns_heard)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
