"""How well turns are taken: when the caller's turn is believed over, and what becomes of speech over the agent's own.

    python -m benchmarks.turn_taking [--data ../shared/data] [--list report] [--only ends|overlaps [--kind noise]] [--every 1]
    python -m benchmarks.turn_taking --fit          # the figures of agent/endpointing.py, from the `tune` list

Mixed dialogues (`benchmarks.dialogues`) go through the real Ear, engine, conversation and playout in virtual time (`benchmarks.call`), so
nothing depends on the machine's load. Times are positions of the input, the models' lateness included as stated there.

Ends of turns are measured as eot-bench does (github.com/livekit/eot-bench): a hold is a pause of 200 ms and more after which the caller
goes on, and is falsely cut off if the turn is taken in it; latency is the mean time from the turn's last audible sample to the decision;
the cost of cutting in and the least wait are swept. They are chosen on `tune` for a budget, and then judged on the list that is asked for:
for whole turns (fewest cut, latency of whole turns within the budget), and as eot-bench does for all (fewest holds cut, latency of all).
Learners who read aloud, some word by word, are judged apart, and nothing is chosen by them.

Overlaps: a false interruption is a reply that was cut. Stop: from the onset to the last audible sample (-40 dBFS) before the reply is
silent; duck: from the onset to the first lowered sample; both where the server owns playback. Resume is right where every sample of the
reply was played once and in order. Heard-text error: what the history says was heard against the samples that sounded. Intervals are
Wilson's, 95 %; where n is under 100 a rate is a figure, not a target.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch

from agent.endpointing import CUT_COST_MS, LEAST_MS, LONGEST_MS
from agent.settings import Eagerness, PlaybackOwner
from benchmarks.call import Call
from benchmarks.dialogues import Kind, load
from benchmarks.evidence import HeardTurn, decided_after, fit, hear_turn
from benchmarks.line import RecordedVoice
from benchmarks.overlaps import Outcome, judge
from server.eval.intervals import share
from streaming.bundle import default_places
from streaming.engine import Parts
from streaming.events import SAMPLE_RATE
from streaming.load import EngineFiles, load_parts

ListName = Literal["tune", "report"]

_BUDGETS_MS: Final = (200, 300, 500)
_COSTS_MS: Final = tuple(float(cost) for cost in np.geomspace(20, 60_000, 60))
Policy = tuple[float, Eagerness]
"""What cutting in costs in ms, and the eagerness whose bounds it has."""

_OVERLAP_KINDS: Final[tuple[Kind, ...]] = ("interruption", "backchannel", "noise", "others", "echo")


@dataclass(frozen=True, slots=True)
class Point:
    """What one policy makes of turns."""

    latency_ms: float
    latencies: tuple[float, ...]
    holds: int
    held_cut: int
    turns: int
    turns_cut: int


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--list", choices=get_args(ListName), default="report", help="what is judged")
    parser.add_argument("--only", choices=("ends", "overlaps"), help="one half of it")
    parser.add_argument("--owner", choices=[owner.name.lower() for owner in PlaybackOwner], help="of overlaps, one owner of playback only")
    parser.add_argument("--kind", choices=_OVERLAP_KINDS, action="append", help="of overlaps, this kind only; may be given again")
    parser.add_argument("--every", type=int, default=1, help="take every n-th dialogue: a quick look")
    parser.add_argument("--fit", action="store_true", help="fit the figures of agent/endpointing.py on `tune` and print them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    voice = RecordedVoice()
    parts = replace(pocket_parts(), voice=voice)
    if options.fit:
        for name, value in fit([*_turns(parts, "tune", "turn", options), *_turns(parts, "tune", "pause", options)]).items():
            print(f"{name:20} {value:6.2f}")
        return
    if options.only != "overlaps":
        _report_ends(parts, options)
    if options.only != "ends":
        for owner in (PlaybackOwner.SERVER, PlaybackOwner.CLIENT) if options.owner is None else (PlaybackOwner[options.owner.upper()],):
            _report_overlaps(parts, voice, owner, options)


def pocket_parts(*, answers: bool = True) -> Parts:
    """The pocket bundle's models, as `vivavoce pull pocket` leaves them; without the language model where nothing `answers`."""
    folder = default_places().cache / "parts"
    try:
        files = EngineFiles(
            folder / "whisper-base",
            next((folder / "smollm2-135m-instruct").glob("*.gguf")) if answers else None,
            folder / "piper-en-us-joe",
            next((folder / "smart-turn-v3.2").glob("*.onnx")),
            threads=1,
            sounds=folder / "yamnet",
        )
        return load_parts(files)
    except (OSError, StopIteration) as error:
        raise SystemExit(f"the models are not there ({error}): run `vivavoce pull pocket`") from error


def _progress(what: Iterator[object], label: str) -> Iterator[object]:
    for number, one in enumerate(what, 1):
        print(f"\r{label} {number}  ", end="", file=sys.stderr, flush=True)
        yield one
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------------- ends


def _turns(parts: Parts, name: ListName, kind: Kind, options: argparse.Namespace) -> list[HeardTurn]:
    heard = (hear_turn(parts, dialogue) for dialogue in islice(load(name, kind, options.data), 0, None, options.every))
    return [turn for turn in _progress(heard, f"{name} {kind}") if isinstance(turn, HeardTurn)]


def _point(turns: Sequence[HeardTurn], decide: Callable[[HeardTurn, int], float | None]) -> Point:
    """What a policy makes of them: `decide` gives the ms of silence after which it takes the n-th pause of a turn."""
    latencies, holds, held_cut, turns_cut = [], 0, 0, 0
    for turn in turns:
        cut = False
        for number, pause in enumerate(turn.pauses):
            after = decide(turn, number)
            if pause.lasts is None:
                latencies.append((after or 0.0) + turn.late)
            elif pause in turn.holds:
                holds += 1
                held_cut += after is not None
                cut |= after is not None
        turns_cut += cut
    return Point(float(np.mean(latencies)), tuple(latencies), holds, held_cut, len(turns), turns_cut)


def _semantic(cost: float, eagerness: Eagerness = Eagerness.AUTO) -> Callable[[HeardTurn, int], float | None]:
    least, longest = LEAST_MS[eagerness], LONGEST_MS[eagerness]
    return lambda turn, number: decided_after(turn.pauses[number], cost, least, longest)


def _silence(milliseconds: float) -> Callable[[HeardTurn, int], float | None]:
    def decide(turn: HeardTurn, number: int) -> float | None:
        lasts = turn.pauses[number].lasts
        return milliseconds if lasts is None or milliseconds < lasts else None

    return decide


def _report_ends(parts: Parts, options: argparse.Namespace) -> None:
    kinds: tuple[Kind, ...] = ("turn", "pause")
    tune = {kind: _turns(parts, "tune", kind, options) for kind in kinds}
    judged = {kind: _turns(parts, options.list, kind, options) for kind in (*kinds, "read")} if options.list != "tune" else tune
    policies = [(cost, eagerness) for cost in _COSTS_MS for eagerness in (Eagerness.HIGH, Eagerness.AUTO, Eagerness.LOW)]
    whole = [(policy, _point(tune["turn"], _semantic(*policy))) for policy in policies]
    every = [(policy, _point([*tune["turn"], *tune["pause"]], _semantic(*policy))) for policy in policies]
    counts = ", ".join(f"{len(turns)} {kind}" for kind, turns in judged.items())
    print(f"\nEnds of turns, list {options.list}: {counts}; latencies in ms, mean p50 p95")
    print(f"  {'policy':50} {'whole turns':14} {'cut':25} {'hesitation':14} {'cut':25} {'holds cut, of both':27} read aloud, cut")
    for budget in _BUDGETS_MS:
        _row(f"whole turns within {budget} ms", judged, _fewest(whole, budget, lambda point: (point.turns_cut, point.held_cut)))
    for budget in _BUDGETS_MS:
        _row(f"all within {budget} ms (eot-bench)", judged, _fewest(every, budget, lambda point: (point.held_cut,)))
    few = [(point.latency_ms, policy) for policy, point in every if point.held_cut <= 0.05 * point.holds]
    _row("5 % of holds cut on tune", judged, min(few, key=lambda one: one[0])[1] if few else None)
    for eagerness in (Eagerness.LOW, Eagerness.AUTO, Eagerness.HIGH):
        _row(f"semantic_vad {eagerness.value}", judged, (CUT_COST_MS[eagerness], eagerness))
    for milliseconds in (200, 300, 500, 800):
        _print_row(f"server_vad {milliseconds} ms (silence alone)", judged, _silence(milliseconds))
    human = [turn for turn in judged["turn"] if turn.dialogue.human]
    late = np.mean([turn.late for kind in kinds for turn in judged[kind]])
    print(f"  whole turns of people: {len(human)}; the VAD let go {late:.0f} ms after the true end (mean)")


def _fewest(curve: Sequence[tuple[Policy, Point]], budget: float, cut: Callable[[Point], tuple[int, ...]]) -> Policy | None:
    """The policy within the budget that cuts the fewest, the quickest of those; None where there is none."""
    within = [((*cut(point), point.latency_ms), policy) for policy, point in curve if point.latency_ms <= budget]
    return min(within, key=lambda one: one[0])[1] if within else None


def _row(name: str, judged: dict[Kind, list[HeardTurn]], policy: Policy | None) -> None:
    if policy is None:
        print(f"  {name:50} none")
        return
    cost, eagerness = policy
    _print_row(f"{name} (cost {cost:.0f}, least {LEAST_MS[eagerness]})", judged, _semantic(cost, eagerness))


def _print_row(name: str, judged: dict[Kind, list[HeardTurn]], decide: Callable[[HeardTurn, int], float | None]) -> None:
    points = {kind: _point(turns, decide) for kind, turns in judged.items()}
    columns = [f"  {name:50}"]
    for kind in ("turn", "pause"):
        latencies = points[kind].latencies
        columns.append(f"{np.mean(latencies):4.0f} {np.median(latencies):4.0f} {np.percentile(latencies, 95):4.0f}")
        columns.append(f"{share(points[kind].turns_cut, points[kind].turns):25}")
    columns.append(f"{share(points['turn'].held_cut + points['pause'].held_cut, points['turn'].holds + points['pause'].holds):27}")
    if "read" in points:
        columns.append(share(points["read"].turns_cut, points["read"].turns))
    print(" ".join(columns))


# ----------------------------------------------------------------------------------------------------------- overlaps


def _report_overlaps(parts: Parts, voice: RecordedVoice, owner: PlaybackOwner, options: argparse.Namespace) -> None:
    print(f"\nSpeech over the agent's, list {options.list}, playback owned by the {owner.name.lower()}")
    columns = ("cut", 30), ("after, ms: p50  p95", 20), ("stop p50  p95", 16), ("duck p50  p95", 16), ("held", 30), ("for, ms", 8)
    heads = " ".join(f"{name:{width}}" for name, width in columns)
    print(f"  {'kind':13} {heads} {'resumed right':30} heard error, ms")
    for kind in options.kind or _OVERLAP_KINDS:
        outcomes = []
        for dialogue in islice(load(options.list, kind, options.data), 0, None, options.every):
            call = Call(parts, voice, dialogue, owner)
            call.run()
            if (outcome := judge(call)) is not None:
                outcomes.append(outcome)
            print(f"\r{kind} {len(outcomes)}  ", end="", file=sys.stderr, flush=True)
        print("\r" + " " * 30 + "\r", end="", file=sys.stderr, flush=True)
        _overlap_row(kind, outcomes)


def _overlap_row(kind: Kind, outcomes: Sequence[Outcome]) -> None:
    cut, held = [o for o in outcomes if o.cut_after is not None], [o for o in outcomes if o.held_ms]
    kept = [o for o in outcomes if o.cut_after is None]
    after = _spread([o.cut_after for o in cut])
    stop, duck = _spread([o.stop for o in cut]), _spread([o.duck for o in outcomes])
    errors = [abs(o.heard_error_ms) for o in cut if o.heard_error_ms is not None]
    error = f"mean {np.mean(errors):.0f} max {np.max(errors):.0f}" if errors else "-"
    held_for = f"{np.median([o.held_ms for o in held]):.0f}" if held else "-"
    resumed = share(sum(o.resumed for o in kept), len(kept))
    cut_share, held_share = share(len(cut), len(outcomes)), share(len(held), len(outcomes))
    print(f"  {kind:13} {cut_share:30} {after:20} {stop:16} {duck:16} {held_share:30} {held_for:8} {resumed:30} {error}")


def _spread(samples: Sequence[int | None]) -> str:
    known = [sample * 1_000 / SAMPLE_RATE for sample in samples if sample is not None]
    return f"{np.median(known):5.0f} {np.percentile(known, 95):5.0f}" if known else "    -"


if __name__ == "__main__":
    main()
