"""How soon a turn's end is decided, and how often a caller who only paused is cut off.

    python -m benchmarks.endpointing [--data ../shared/data] [--model .../smart-turn-v3.2-cpu.onnx] [--most 120]

Recordings go through the real path (24 kHz PCM16 on the wire, 20 ms a message, resampler, VAD, end-of-turn model), followed by digital
silence. The evidence is gathered once a clip and every setting decides from it; nothing is committed, so each pause of a clip is judged.

- Delay: from the last speech sample (by loudness, `server.caller_audio.speech_end`) to the position at which the decision is known. It
  is a matter of positions: the model's own time, printed apart, comes on top where a score is what decides.
- A false cut-off is a decision in a pause after which the caller goes on. Pauses are what the VAD calls so (96 ms and more). In read
  prose and monologues most pauses close a sentence, where a listener might take the turn too: they are printed apart.
- `turn_pairs`: in each long version the caller goes on, without a break, where the short one ends: a decision there is a false cut-off.

Intervals are Wilson's, 95 %.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from agent.endpointing import Endpointer
from agent.settings import Eagerness, SemanticVad, ServerVad, TurnDetection
from server.caller_audio import CALLER_RATE, load_recording
from streaming.audio import Samples, WireDecoder, encode_pcm16
from streaming.bundle import default_places
from streaming.ear import Ear, Ears
from streaming.events import SAMPLE_RATE, EarEvent, EndOfTurnScore, EngineFailed, Listened, SpeechStarted, SpeechStopped
from streaming.turn import SmartTurn
from streaming.vad import SileroVad, silero_model

_MESSAGE: Final = CALLER_RATE // 50
"""Samples a message of the caller: 20 ms."""

_SILENCE_SECONDS: Final = 5
"""Sent after each clip: longer than the longest wait of any setting."""

_HESITANT: Final = ("mfa", "speechocean762", "barista")
_PROSE: Final = ("librispeech_train100", "kyutai", "azure")
_GROUPS: Final = ("questions", "pairs, short", "pairs, long", "hesitant", "prose")

_SETTINGS: Final[dict[str, TurnDetection]] = {
    "semantic_vad low": SemanticVad(Eagerness.LOW),
    "semantic_vad auto": SemanticVad(Eagerness.AUTO),
    "semantic_vad high": SemanticVad(Eagerness.HIGH),
    "server_vad 200 ms": ServerVad(silence_duration_ms=200),
    "server_vad 300 ms": ServerVad(silence_duration_ms=300),
    "server_vad 500 ms": ServerVad(silence_duration_ms=500),
    "server_vad 800 ms": ServerVad(silence_duration_ms=800),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording and which of `_GROUPS` it counts in."""

    path: Path
    group: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The Ear's evidence of a clip; `speech_end` is the reference, in 16 kHz samples."""

    group: str
    events: tuple[EarEvent, ...]
    speech_end: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one setting made of one clip: pauses after which the caller went on, how many of them it cut, and the delay of its last
    decision in ms (None if the end was never decided)."""

    pauses: int
    cut: int
    delay: float | None


class TimedTurns:
    """The end-of-turn model with a stopwatch."""

    def __init__(self, model: SmartTurn) -> None:
        self._model = model
        self.seconds: list[float] = []

    def score(self, pcm: Samples) -> float:
        start = time.perf_counter()
        score = self._model.score(pcm)
        self.seconds.append(time.perf_counter() - start)
        return score


def choose(data: Path, most: int) -> list[Clip]:
    """The clips, at most `most` of each set, chosen by a fixed seed."""
    questions = (data / "questions.txt").read_text().split()
    clips = [Clip(data / path, "questions") for path in questions]
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    usable = [line for line in lines if line["part"] == "dev" and line["path"] not in questions and line["seconds"] < 60]
    for name, group in (("turn_pairs", "pairs"), *((s, "hesitant") for s in _HESITANT), *((s, "prose") for s in _PROSE)):
        # Laughs and coughs are no turns; 8 kHz telephone lines are another matter.
        mine = [line for line in usable if line["set"] == name and line["kind"] != "paralinguistic" and line["rate"] == SAMPLE_RATE]
        picked = random.Random(0).sample(mine, min(most, len(mine)))
        clips += [Clip(data / line["path"], f"pairs, {line['size']}" if group == "pairs" else group) for line in picked]
    return clips


def listen(clip: Clip, vad: SileroVad, turns: TimedTurns) -> Heard:
    """Play a clip into a fresh Ear."""
    recording = load_recording(clip.path)
    pcm = np.concatenate((recording.pcm, np.zeros(_SILENCE_SECONDS * CALLER_RATE, np.int16)))
    decoder, ears = WireDecoder("pcm16", CALLER_RATE), Ears(vad, turns)
    ears.open("s")
    events: list[EarEvent] = []
    for start in range(0, len(pcm), _MESSAGE):
        frame = decoder.push(encode_pcm16(pcm[start : start + _MESSAGE]))
        if frame:
            ears.tell("s", Ear.push, frame)
        while ears.pending:
            for _, event in (*ears.judge(), *ears.score()):
                if isinstance(event, EngineFailed):
                    raise RuntimeError(f"{clip.path}: {event.error}")
                events.append(event)
    return Heard(clip.group, tuple(events), recording.speech_end * SAMPLE_RATE // CALLER_RATE)


def judge(heard: Heard, detection: TurnDetection) -> Outcome:
    """Replay the evidence under one setting."""
    endpointer = Endpointer(detection)
    pauses = cut = 0
    # When the present pause was decided, if it was.
    decided: int | None = None
    stopped = False
    for event in heard.events:
        match event:
            case SpeechStarted(at=at):
                pauses += stopped
                cut += decided is not None
                stopped, decided = False, None
                endpointer.speech_started(at)
            case SpeechStopped(at=at):
                stopped = True
                endpointer.speech_stopped(at)
            case EndOfTurnScore(at=at, probability=probability):
                endpointer.scored(at, probability)
            case Listened(at=at):
                if endpointer.decide(at) is not None:
                    decided = at
            case _:
                pass
    delay = None if decided is None else (decided - heard.speech_end) * 1000 / SAMPLE_RATE
    return Outcome(pauses, cut, delay)


def share(count: int, of: int) -> str:
    """A rate with its Wilson interval."""
    if not of:
        return "      -          n=0"
    p, z = count / of, 1.96
    centre = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return f"{100 * p:5.1f} % ({100 * max(0.0, centre - half):4.1f}-{100 * min(1.0, centre + half):4.1f}) n={of}"


def delays(outcomes: Sequence[Outcome]) -> str:
    known = [o.delay for o in outcomes if o.delay is not None]
    if not known:
        return "undecided"
    late = f", {len(outcomes) - len(known)} undecided" if len(known) < len(outcomes) else ""
    return f"p50 {np.percentile(known, 50):5.0f}  p95 {np.percentile(known, 95):5.0f}{late}"


def report(all_heard: Sequence[Heard]) -> None:
    """One table a group, one row a setting."""
    for group in _GROUPS:
        mine = [heard for heard in all_heard if heard.group == group]
        print(f"\n{group} ({len(mine)} turns)")
        print(f"  {'':18} {'delay after the last sample, ms':32} {'pauses cut':32} turns cut")
        for name, detection in _SETTINGS.items():
            outcomes = [judge(heard, detection) for heard in mine]
            by_pause = share(sum(o.cut for o in outcomes), sum(o.pauses for o in outcomes))
            by_turn = share(sum(o.cut > 0 for o in outcomes), len(outcomes))
            print(f"  {name:18} {delays(outcomes):32} {by_pause:32} {by_turn}")


def report_marks(all_heard: Sequence[Heard]) -> None:
    """What a score is worth at each mark: how often it is above 0.8 at a turn's end and in a pause."""
    scores: dict[tuple[int, bool], list[float]] = {}
    for heard in all_heard:
        if heard.group != "prose":
            for mark, final, probability in marks(heard.events):
                scores.setdefault((mark, final), []).append(probability)
    print("\nscores above 0.8 (all but prose)")
    for mark in sorted({mark for mark, _ in scores}):
        ended, paused = (np.array(scores.get((mark, final), [])) for final in (True, False))
        at_end, in_pause = share(int(np.sum(ended > 0.8)), len(ended)), share(int(np.sum(paused > 0.8)), len(paused))
        print(f"  after {mark:5} ms   at the end {at_end:32} in a pause {in_pause}")


def marks(events: Iterable[EarEvent]) -> list[tuple[int, bool, float]]:
    """(ms of silence, whether the turn had ended, probability) of every score."""
    found: list[tuple[int, bool, float]] = []
    pause: list[tuple[int, float]] = []
    stopped = 0
    for event in events:
        match event:
            case SpeechStarted():
                found += [(ms, False, p) for ms, p in pause]
                pause = []
            case SpeechStopped(at=at):
                stopped = at
            case EndOfTurnScore(at=at, probability=p):
                pause.append(((at - stopped) * 1000 // SAMPLE_RATE, p))
            case _:
                pass
    return found + [(ms, True, p) for ms, p in pause]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl and questions.txt")
    parser.add_argument("--model", type=Path, default=default_places().cache / "parts/smart-turn-v3.2/smart-turn-v3.2-cpu.onnx")
    parser.add_argument("--most", type=int, default=120, help="clips of each set")
    options = parser.parse_args()
    vad, turns = SileroVad(silero_model()), TimedTurns(SmartTurn(options.model))
    clips = choose(options.data, options.most)
    start = time.perf_counter()
    all_heard = []
    for number, clip in enumerate(clips, 1):
        all_heard.append(listen(clip, vad, turns))
        print(f"\r{number}/{len(clips)}", end="", flush=True)
    windows = sum(isinstance(event, Listened) for heard in all_heard for event in heard.events)
    rest = (time.perf_counter() - start - sum(turns.seconds)) / windows
    print(f"\r{len(clips)} clips; a score took {1000 * np.median(turns.seconds):.0f} ms (median of {len(turns.seconds)}), ", end="")
    print(f"everything else {1000 * rest:.2f} ms a window of 32 ms")
    report(all_heard)
    report_marks(all_heard)


if __name__ == "__main__":
    main()
