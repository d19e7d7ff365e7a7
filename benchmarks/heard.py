"""How far what the model believes it said is from what was heard, by who owns playback.

    python -m benchmarks.heard [--dialogues 100] [--down 5 150] [--up 5 150] [--truncate 0 2000] [--sound-card 40] [--seed 0]

Seeded random dialogues with the scripted engine run through a real session (`benchmarks.simulated_call`): the caller speaks over replies,
stops them, writes; both ways of the network delay in order, between the stated bounds in milliseconds. For each reply that was thrown away
before it had been played out, what the model is told of it in the end is compared with the words that had sounded in whole on the client's
loudspeaker: as the server knows by itself, or as the client's `conversation.item.truncate` says. Milliseconds are of speech: between the
ends of the last word believed and the last word heard.

A client that truncates may throw sound away by hand while the server still believes that it plays: until the truncation comes nobody could
know, so only what is believed after it is printed.
"""

import argparse
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from agent.settings import PlaybackOwner
from benchmarks.said_reply import RATE, SaidReply
from benchmarks.simulated_call import Act, Caller, Quiet, SimulatedCall
from benchmarks.virtual_time import run_in_leaps
from streaming.fakes import ScriptedEngine, ScriptedReply

__all__ = ["HeardError", "Situation", "heard_errors", "random_acts", "random_engine", "summary"]

_ACTS: Final = 10
"""Of a dialogue, drawn from these."""
_KINDS: Final = ("speak", "speak", "speak", "wait", "wait", "write", "stop", "settle")


@dataclass(frozen=True, slots=True)
class Situation:
    """Who owns playback, and bounds of the delays in ms. `truncate_ms` None: the client never truncates."""

    owner: PlaybackOwner
    down_ms: tuple[float, float] = (5, 150)
    up_ms: tuple[float, float] = (5, 150)
    truncate_ms: tuple[float, float] | None = (0, 2_000)
    sound_card_ms: float = 40

    def caller(self, draw: random.Random) -> Caller:
        """A client in this situation. Nothing is delayed where the server owns playback."""
        if self.owner is PlaybackOwner.SERVER:
            return Caller(self.owner, lambda: 0.0, lambda: 0.0)
        truncate = None if self.truncate_ms is None else partial(draw.uniform, *self.truncate_ms)
        return Caller(self.owner, partial(draw.uniform, *self.down_ms), partial(draw.uniform, *self.up_ms), truncate, self.sound_card_ms)


@dataclass(frozen=True, slots=True)
class HeardError:
    """Of one reply that was cut: milliseconds of speech and words that are believed too much (below 0: too little). `truncated` says
    whether the client told how much it had played."""

    ms: float
    words: int
    truncated: bool


def random_acts(draw: random.Random) -> list[Act]:
    """What a restless caller does."""
    return [Act(draw.choice(_KINDS), draw.randint(40, 1_500)) for _ in range(_ACTS)]


def random_engine(draw: random.Random) -> ScriptedEngine:
    """Replies of 1 to 60 words, spoken as fast or as slowly as one reply is."""
    texts = (" ".join(f"w{n}" + "." * (draw.random() < 0.1) for n in range(draw.randint(1, 60))) for _ in range(_ACTS + 1))
    return ScriptedEngine(
        [ScriptedReply(text) for text in texts], word_ms=draw.choice((60, 120, 200, 330)), chunk_ms=draw.choice((None, 50, 200))
    )


def heard_errors(situation: Situation, seed: int) -> list[HeardError]:
    """One seeded dialogue: the error of each reply that was cut."""
    draw = random.Random(seed)
    last: list[Quiet] = []
    call = SimulatedCall(situation.caller(draw), random_engine(draw), on_quiet=last.append)
    run_in_leaps(call.run(random_acts(draw)))
    return [_error(reply, last[-1].now) for reply in last[-1].replies if reply.flushed]


def _error(reply: SaidReply, now: float) -> HeardError:
    heard, believed = reply.words_within(reply.heard_samples(now)), reply.believed
    milliseconds = (reply.sound_of(believed) - reply.sound_of(heard)) * 1_000 / RATE
    return HeardError(milliseconds, len(believed.split()) - len(heard.split()), reply.truncated)


def summary(errors: Sequence[HeardError], of: Callable[[HeardError], float]) -> tuple[float, float, float]:
    """Mean, 95th percentile and greatest of the absolute values; zeros where there are none."""
    sizes = sorted(abs(of(error)) for error in errors) or [0.0]
    return sum(sizes) / len(sizes), sizes[math.ceil(0.95 * len(sizes)) - 1], sizes[-1]


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=100)
    parser.add_argument("--down", type=float, nargs=2, default=(5, 150))
    parser.add_argument("--up", type=float, nargs=2, default=(5, 150))
    parser.add_argument("--truncate", type=float, nargs=2, default=(0, 2_000))
    parser.add_argument("--sound-card", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("replies cut short             n   ms mean    p95    max   words mean    p95    max")
    for owner in (PlaybackOwner.SERVER, PlaybackOwner.ACKED, PlaybackOwner.CLIENT):
        for truncates in (False, True) if owner is not PlaybackOwner.SERVER else (False,):
            bounds = tuple(options.truncate) if truncates else None
            situation = Situation(owner, tuple(options.down), tuple(options.up), bounds, options.sound_card)
            errors = [error for n in range(options.dialogues) for error in heard_errors(situation, options.seed + n)]
            counted = [error for error in errors if error.truncated is truncates]
            ms, words = summary(counted, lambda error: error.ms), summary(counted, lambda error: error.words)
            name = f"{owner.name.lower()}, {'truncates' if truncates else 'never truncates'}"
            print(f"{name:25} {len(counted):5} {ms[0]:9.1f} {ms[1]:6.0f} {ms[2]:6.0f} {words[0]:12.2f} {words[1]:6.0f} {words[2]:6.0f}")


if __name__ == "__main__":
    main()
