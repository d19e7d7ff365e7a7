"""What the voice costs: milliseconds a clause by its length, the share of text and sound work around the graph, cold and warm.

    python -m benchmarks.voice [--voice FOLDER] [--rounds 20] [--threads 1] [--rate 24000]

Real-time factor: time to speak over the time of what was spoken; below 1 the voice keeps ahead of the listener. `words` is pronunciation
(gruut's lexicon, tagger and guesses), `graph` the network, `rest` normalisation, trimming, levelling and resampling. Each round speaks
other clauses. Median and the 10th to 90th percentile; on a busy machine compare rows of one run, not runs. Cold is the very first clause,
which a server never speaks to a caller: `PiperVoice.load` ends with a clause of its own.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from streaming.models.piper import PiperModel, Utterance
from streaming.phonemes import EnglishPhonemes
from streaming.tts import PiperVoice

_NOUNS: Final = ("garden", "river", "doctor", "winter", "engine", "village", "teacher", "window", "market", "kitchen", "letter", "station")
_VERBS: Final = ("finds", "remembers", "watches", "carries", "follows", "describes", "paints", "opens", "leaves", "visits")
_ADJECTIVES: Final = ("quiet", "golden", "early", "careful", "famous", "heavy", "curious", "narrow", "gentle", "broken")

_LENGTHS: Final = (1, 3, 6, 12, 24)
"""Words a clause. The first clause of a reply has about three to six."""


class Stopwatch:
    """Adds up the time spent in the calls it wraps."""

    def __init__(self) -> None:
        self.spent = 0.0

    def pronounce(self, work: Callable[[Sequence[str]], list[str]]) -> Callable[[Sequence[str]], list[str]]:
        """`EnglishPhonemes.pronounce`, timed."""

        def timed(words: Sequence[str]) -> list[str]:
            begun = time.perf_counter()
            try:
                return work(words)
            finally:
                self.spent += time.perf_counter() - begun

        return timed

    def synthesise(self, work: Callable[[Sequence[str], float], Utterance]) -> Callable[[Sequence[str], float], Utterance]:
        """`PiperModel.synthesise`, timed."""

        def timed(symbols: Sequence[str], length_scale: float) -> Utterance:
            begun = time.perf_counter()
            try:
                return work(symbols, length_scale)
            finally:
                self.spent += time.perf_counter() - begun

        return timed


def clause(words: int, chance: random.Random) -> str:
    """So many words, an unknown one now and then, and a full stop."""
    kinds = (_ADJECTIVES, _NOUNS, _VERBS)
    chosen = [chance.choice(kinds[index % 3]) for index in range(words)]
    if chance.random() < 0.2:
        chosen[-1] = chance.choice(_NOUNS).capitalize() + chance.choice("bdglmnprst") + chance.choice(("ova", "ick", "umi", "eldt"))
    return " ".join(chosen) + "."


def spread(milliseconds: Sequence[float]) -> str:
    """Median (10th to 90th percentile)."""
    ordered = sorted(milliseconds)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    return f"{statistics.median(ordered):7.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    """Load, speak the first clause cold, then each length in turn, and print a table."""
    arguments = _arguments()
    chance = random.Random(1)
    model_path = next(arguments.voice.glob("*.onnx"))
    begun = time.perf_counter()
    model = PiperModel.load(model_path, arguments.threads)
    graph_loaded = time.perf_counter()
    phonemes = EnglishPhonemes.load()
    loaded = time.perf_counter()
    print(f"load: graph {(graph_loaded - begun) * 1000:.0f} ms, lexicon and gruut {(loaded - graph_loaded) * 1000:.0f} ms")
    text, graph = Stopwatch(), Stopwatch()
    phonemes.pronounce = text.pronounce(phonemes.pronounce)  # type: ignore[method-assign, assignment]
    model.synthesise = graph.synthesise(model.synthesise)  # type: ignore[method-assign, assignment]
    voice = PiperVoice(model, phonemes)
    begun = time.perf_counter()
    voice.speak(clause(4, chance), arguments.rate)
    print(f"first clause of 4 words, cold: {(time.perf_counter() - begun) * 1000:.1f} ms (words {text.spent * 1000:.1f})")
    print(f"n = {arguments.rounds} clauses a row, {arguments.threads} thread(s), {arguments.rate} Hz; ms: median (10th to 90th percentile)")
    print("words   seconds   total ms                   words ms               graph ms                  rest ms   real-time factor")
    # Lengths alternate, so that a busy moment falls on all of them.
    rows: dict[int, list[tuple[float, float, float, float]]] = {length: [] for length in _LENGTHS}
    for _ in range(arguments.rounds):
        for length in _LENGTHS:
            text.spent = graph.spent = 0.0
            begun = time.perf_counter()
            speech = voice.speak(clause(length, chance), arguments.rate)
            taken_seconds = time.perf_counter() - begun
            rows[length].append((len(speech.pcm) / arguments.rate, taken_seconds, text.spent, graph.spent))
    for length, taken in rows.items():
        seconds = statistics.median(row[0] for row in taken)
        total, words, network = ([row[column] * 1000 for row in taken] for column in (1, 2, 3))
        rest = statistics.median(1000 * (row[1] - row[2] - row[3]) for row in taken)
        factor = statistics.median(row[1] / row[0] for row in taken)
        print(f"{length:5} {seconds:9.2f}   {spread(total):25}  {spread(words):21}  {spread(network):24}  {rest:7.1f}  {factor:8.3f}")


def _arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, default=cache / "vivavoce" / "parts" / "piper-en-us-joe")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=int, default=24_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
