"""What the voice costs: milliseconds to the first chunk of a clause and to its last, beside the same clause synthesised at once.

    python -m benchmarks.voice [--voice FOLDER] [--rounds 20] [--threads 1] [--rate 24000]
    python -m benchmarks.voice --bundle pocket-kokoro [--rounds 20] [--threads 2] [--rate 24000]

The second is of any bundle's voice, Kokoro's too: for each clause, as the first of a reply, milliseconds to its first chunk, seconds
computed for a second of sound (`real time`; above 1 no dialogue is possible), and the longest that a listener waits in the middle of it
(`gap`), for whom each chunk plays as soon as it is there. The rest of this is about the first, a Piper voice in a folder.

Each round speaks other clauses, each of them both ways, so that a busy moment falls on both: compare columns of one run, not runs. Median
and the 10th to 90th percentile. `first` is how long the first chunk takes, `all` the whole clause in chunks, `at once` the reference;
`first/ref` and `all/ref` are medians of each clause's ratio. `slack` is the least time by which a chunk was ready before those before it
had been played, in any clause. `onset` is the near silence (below -40 dBFS) the first chunk begins with. Then what the time of the first
chunk is made of: pronunciation (gruut's lexicon, tagger and guesses), the network's front, its flow and decoder, and the rest
(normalisation, mastering).

Cold is the very first clause, which a server never speaks to a caller: `PhonemeVoice.load` ends with clauses of its own.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from streaming.audio import Pcm16
from streaming.bundle import default_places, ensure_bundle
from streaming.manifest import load_manifest
from streaming.models.piper import WHOLE, PiperModel, Stretches, Utterance
from streaming.phonemes import EnglishPhonemes
from streaming.tts import PhonemeVoice

_NOUNS: Final = ("garden", "river", "doctor", "winter", "engine", "village", "teacher", "window", "market", "kitchen", "letter", "station")
_VERBS: Final = ("finds", "remembers", "watches", "carries", "follows", "describes", "paints", "opens", "leaves", "visits")
_ADJECTIVES: Final = ("quiet", "golden", "early", "careful", "famous", "heavy", "curious", "narrow", "gentle", "broken")

_LENGTHS: Final = (1, 3, 6, 12, 24)
"""Words a clause. The first clause of a reply has about three to six."""

_AUDIBLE: Final = 0.01 * 32_768
"""-40 dBFS."""

_T = TypeVar("_T")


@dataclass(slots=True)
class Stopwatch:
    """Adds up the seconds spent in pronunciation, the network's front, and its flow and decoder."""

    words: float = 0.0
    front: float = 0.0
    decoder: float = 0.0

    def watch(self, model: PiperModel, phonemes: EnglishPhonemes) -> None:
        """Times what these do from now on."""
        phonemes.pronounce = self._pronounce(phonemes.pronounce)  # type: ignore[method-assign]
        model.stream = self._stream(model.stream)  # type: ignore[method-assign]

    def _pronounce(self, work: Callable[[Sequence[str]], list[str]]) -> Callable[[Sequence[str]], list[str]]:
        def timed(words: Sequence[str]) -> list[str]:
            begun = time.perf_counter()
            sounds = work(words)
            self.words += time.perf_counter() - begun
            return sounds

        return timed

    def _stream(
        self, work: Callable[[Sequence[str], float, Stretches], Utterance]
    ) -> Callable[[Sequence[str], float, Stretches], Utterance]:
        def timed(symbols: Sequence[str], length_scale: float, stretches: Stretches) -> Utterance:
            begun = time.perf_counter()
            utterance = work(symbols, length_scale, stretches)
            self.front += time.perf_counter() - begun
            return replace(utterance, stretches=self._decode(utterance.stretches))

        return timed

    def _decode(self, stretches: Iterator[_T]) -> Iterator[_T]:
        while True:
            begun = time.perf_counter()
            stretch = next(stretches, None)
            self.decoder += time.perf_counter() - begun
            if stretch is None:
                return
            yield stretch


@dataclass(slots=True)
class Row:
    """Clauses of one length. Milliseconds, except `seconds` of sound."""

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    chunked: list[float] = field(default_factory=list)
    at_once: list[float] = field(default_factory=list)
    slack: list[float] = field(default_factory=list)
    onset: list[float] = field(default_factory=list)
    # Of the first chunk: words, front, decoder, rest.
    parts: list[tuple[float, float, float, float]] = field(default_factory=list)

    def print(self, words: int) -> None:
        """As a line of the table."""
        first_ratio, all_ratio = (
            statistics.median(one / other for one, other in zip(taken, self.at_once, strict=True)) for taken in (self.first, self.chunked)
        )
        parts = "  ".join(f"{statistics.median(column):6.1f}" for column in zip(*self.parts, strict=True))
        slack = f"{min(self.slack):6.0f}" if self.slack else "     -"
        print(
            f"{words:5} {statistics.median(self.seconds):7.2f}  {spread(self.first):24} {spread(self.chunked):24} {spread(self.at_once):24}"
            f"{first_ratio:9.2f} {all_ratio:8.2f}  {slack} {statistics.median(self.onset):6.1f}   {parts}"
        )


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
    return f"{statistics.median(ordered):6.1f} ({low:.1f} to {high:.1f})"


def speak(voice: PhonemeVoice, text: str, rate: int, watch: Stopwatch, row: Row) -> None:
    """A clause in chunks, timed."""
    watch.words = watch.front = watch.decoder = 0.0
    begun = time.perf_counter()
    # Milliseconds at which each chunk was there, and of sound in it.
    ready: list[float] = []
    sound: list[float] = []
    for chunk in voice.speak(text, rate, prompt=True):
        ready.append((time.perf_counter() - begun) * 1000)
        if not sound:
            parts = [1000 * part for part in (watch.words, watch.front, watch.decoder)]
            row.parts.append((parts[0], parts[1], parts[2], ready[0] - sum(parts)))
            row.onset.append(1000 * onset(chunk.pcm) / rate)
        else:
            row.slack.append(ready[0] + sum(sound) - ready[-1])
        sound.append(1000 * len(chunk.pcm) / rate)
    row.first.append(ready[0])
    row.chunked.append(ready[-1])
    row.seconds.append(sum(sound) / 1000)


def speak_at_once(voice: PhonemeVoice, text: str, rate: int, row: Row) -> None:
    """The reference, timed."""
    begun = time.perf_counter()
    for _ in voice.speak(text, rate):
        pass
    row.at_once.append((time.perf_counter() - begun) * 1000)


def onset(pcm: Pcm16) -> int:
    """The first audible sample; how many there are where none is."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > _AUDIBLE)
    return int(loud[0]) if len(loud) else len(pcm)


def bundle_table(bundle: str, rounds: int, threads: int | None, rate: int) -> None:
    """How the voice of a bundle begins a reply, by the words of its first clause."""
    voice = PhonemeVoice.load(ensure_bundle(load_manifest(bundle)).part("voice"), threads)
    chance = random.Random(1)
    rows: dict[int, list[tuple[float, float, float]]] = {length: [] for length in _LENGTHS}
    for _ in range(rounds):
        for length, row in rows.items():
            row.append(begin_reply(voice, clause(length, chance), rate))
    threading = "the usual threads" if threads is None else f"{threads} thread(s)"
    print(f"{bundle}: n = {rounds} clauses a row, {threading}, {rate} Hz; median (10th to 90th percentile)")
    print("words  first ms                 real time              gap ms")
    for length, row in rows.items():
        first, pace, gap = zip(*row, strict=True)
        paces = sorted(pace)
        between = f"{statistics.median(pace):.2f} ({paces[rounds // 10]:.2f} to {paces[-1 - rounds // 10]:.2f})"
        print(f"{length:5}  {spread(first):24} {between:22} {spread(gap)}")


def begin_reply(voice: PhonemeVoice, text: str, rate: int) -> tuple[float, float, float]:
    """Milliseconds to the first chunk, seconds computed for a second of sound, and the longest gap in ms."""
    begun = time.perf_counter()
    first = played_until = gap = sound = 0.0
    for chunk in voice.speak(text, rate, prompt=True):
        now = 1000 * (time.perf_counter() - begun)
        first = first or now
        gap = max(gap, now - played_until) if played_until else 0.0
        played_until = max(now, played_until) + 1000 * len(chunk.pcm) / rate
        sound += len(chunk.pcm) / rate
    return first, (time.perf_counter() - begun) / sound, gap


def main() -> None:
    """Load, speak the first clause cold, then each length in turn, and print a table."""
    arguments = _arguments()
    if arguments.bundle is not None:
        bundle_table(arguments.bundle, arguments.rounds, arguments.threads, arguments.rate)
        return
    arguments.threads = arguments.threads or 1
    chance = random.Random(1)
    begun = time.perf_counter()
    model = PiperModel.load(next(arguments.voice.glob("*.onnx")), arguments.threads)
    graph_loaded = time.perf_counter()
    phonemes = EnglishPhonemes.load()
    loaded = time.perf_counter()
    print(f"load: graph {(graph_loaded - begun) * 1000:.0f} ms, lexicon and gruut {(loaded - graph_loaded) * 1000:.0f} ms")
    watch, rows = Stopwatch(), {length: Row() for length in _LENGTHS}
    watch.watch(model, phonemes)
    # Each with its own pronunciations, for words are only guessed once.
    voice, reference = PhonemeVoice(model, phonemes), PhonemeVoice(model, EnglishPhonemes.load(), stretches=WHOLE)
    cold = Row()
    speak(voice, clause(4, chance), arguments.rate, watch, cold)
    print(f"first clause of 4 words, cold: first chunk {cold.first[0]:.1f} ms (words {cold.parts[0][0]:.1f})")
    for number in range(arguments.rounds):
        # Lengths alternate, and which way is first.
        for length, row in rows.items():
            text = clause(length, chance)
            if number % 2:
                speak(voice, text, arguments.rate, watch, row)
                speak_at_once(reference, text, arguments.rate, row)
            else:
                speak_at_once(reference, text, arguments.rate, row)
                speak(voice, text, arguments.rate, watch, row)
    print(f"n = {arguments.rounds} clauses a row, {arguments.threads} thread(s), {arguments.rate} Hz; ms: median (10th to 90th percentile)")
    print(
        "words seconds  first                    all                      at once                 first/ref  all/ref   slack  onset"
        "    words   front decoder    rest"
    )
    for length, row in rows.items():
        row.print(length)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", type=Path, default=default_places().cache / "parts" / "piper-en-us-joe")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, help="the voice's own number where it is not given")
    parser.add_argument("--bundle", help="this bundle's voice instead")
    parser.add_argument("--rate", type=int, default=24_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
