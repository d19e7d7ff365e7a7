"""Decode steps of many calls at once: every sequence's attention by itself, or all of them in fixed slots (on a GPU, a CUDA graph).

    python -m benchmarks.slots [--device cuda] [--model FILE.gguf] [--rows 1 4 8 16] [--rounds 20]

First both decode the same sequences and are compared, token by token; then they take turns, round by round, in one run. Milliseconds of a
step: median (10th to 90th percentile), best. On a CPU the slots are there to be checked: what they save is what a GPU's launches cost.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks.decoder import DEFAULT_MODEL, spread
from streaming.models.gguf import load_gguf
from streaming.models.linear import Packing
from streaming.models.llama import Llama, Stretch
from streaming.models.slots import SlottedLlama

_HELD: Final = 200
"""Tokens each sequence begins with."""

_STEPS: Final = 10
"""Decode steps a round."""


class Calls:
    """Sequences of one decoder, each with a prompt of its own."""

    def __init__(self, model: Llama, rows: int) -> None:
        self._model = model
        self._caches = [model.new_cache(1_024) for _ in range(rows)]
        self._length = _HELD
        for row, cache in enumerate(self._caches):
            model.logits(list(range(300 + row, 300 + row + _HELD)), 0, cache)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """A token each: logits [rows, vocabulary]."""
        stretches = [Stretch([token], self._length, cache) for token, cache in zip(tokens, self._caches, strict=True)]
        self._length += 1
        return torch.stack([logits for logits in self._model.forward(stretches) if logits is not None])


def compare(plain: Llama, slotted: Llama, rows: int) -> None:
    """Print how often both think the same token the likeliest, and how far their logits are apart."""
    ours, reference = Calls(slotted, rows), Calls(plain, rows)
    tokens = list(range(700, 700 + rows))
    same, furthest = 0, 0.0
    for _ in range(50):
        got, expected = ours.step(tokens), reference.step(tokens)
        tokens = expected.argmax(1).tolist()
        same += int((got.argmax(1) == expected.argmax(1)).sum())
        furthest = max(furthest, float((got - expected).abs().max()))
    print(f"  {rows:3d} rows: the same likeliest token {same} of {50 * rows} times, logits at most {furthest:.2g} apart")


def measure(models: dict[str, Llama], rows: int, rounds: int) -> None:
    """Print a row of times for each."""
    calls = {name: Calls(model, rows) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, decoded in calls.items():
            for step in range(_STEPS):
                begun = time.perf_counter()
                decoded.step([700 + step + row for row in range(rows)])
                times[name].append(1000 * (time.perf_counter() - begun))
    for name, spent in times.items():
        print(f"  {rows:3d} rows, {name:8s} {spread(spent)}")


def main() -> None:
    """Check, then time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="a GGUF file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    loaded, _ = load_gguf(options.model, packing=Packing.NONE, device=options.device)
    models = {
        "alone": Llama(loaded.shape, loaded.weights),
        "slots": SlottedLlama(loaded.shape, loaded.weights, max(options.rows) * 2, 1_024),
    }
    print(f"{options.device}, {loaded.weights.embedding.dtype}, agreement:")
    for rows in options.rows:
        compare(models["alone"], models["slots"], rows)
    print(f"{options.rounds * _STEPS} steps behind {_HELD} tokens each, milliseconds:")
    for rows in options.rows:
        measure(models, rows, options.rounds)


if __name__ == "__main__":
    main()
