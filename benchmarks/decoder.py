"""What the language model costs and says: prefill and decode rates by the way its weights are held, agreement, and spoken answers.

    python -m benchmarks.decoder [--model FILE.gguf] [--rounds 12] [--threads 1 2]
    python -m benchmarks.decoder --samples [--temperature 0.3] [--top-p 0.9] [--repetition-penalty 1.1] [--seed 1]

Rows of one run take turns, round by round, so that a busy machine is as busy for all: compare rows, not runs. `prefill` computes 40 tokens
behind 200 held ones, as at the end of a spoken question; `decode` one token more. Milliseconds: median (10th to 90th percentile), and the
best. `agreement`: the share of positions of a passage where the likeliest next word is float32's, decoded token by token.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from streaming.batching import completed
from streaming.bundle import default_places
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel
from streaming.events import ContextMessage
from streaming.models.gguf import load_gguf
from streaming.models.linear import Packing
from streaming.models.llama import Llama
from streaming.sampling import Sampler, Sampling
from streaming.text import ClauseCutter, TextDecoder

DEFAULT_MODEL: Final = default_places().cache / "parts" / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"

_HELD: Final = 200
_PREFILL: Final = 40
_STEPS: Final = 10
"""Decode steps a round."""

_PASSAGE: Final = (
    "The lighthouse keeper had lived on the island for twenty years. Every evening he climbed the stairs, lit the lamp and wrote down the "
    "weather: wind from the west, clear sky, two ships on the horizon. In winter the supply boat came once a month, and he would ask the "
    "captain for news of the town. People often wondered whether he was lonely, but he always said that the sea was good company. One day "
    "a young woman arrived with a telescope and asked if she could stay to study the stars, because the nights were darker here than "
    "anywhere else she knew. He thought about it for a moment and gave her the key to the upper room."
)

QUESTIONS: Final = (
    "What is the capital of France?",
    "How many days are there in a week?",
    "Why is the sky blue?",
    "Can you tell me a short joke?",
    "What should I cook for dinner tonight?",
    "How do I boil an egg?",
    "What is a tortoise?",
    "Who wrote Romeo and Juliet?",
    "I feel a bit sad today.",
    "What is the best way to learn a language?",
    "Hello, how are you?",
    "What can you do?",
    "How far away is the moon?",
    "What is two plus three?",
    "Give me a tip for sleeping better.",
    "Is it safe to eat raw chicken?",
    "What is the difference between a cat and a dog?",
    "Tell me something interesting about the ocean.",
    "What should I wear when it rains?",
    "Thank you, goodbye.",
)
"""What a caller might say first."""


def spread(milliseconds: Sequence[float]) -> str:
    """Median (10th to 90th percentile), best."""
    ordered = sorted(milliseconds)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    return f"{statistics.median(ordered):7.1f} ({low:.1f} to {high:.1f}), best {ordered[0]:.1f}"


def load(path: Path) -> dict[str, Llama]:
    """The same weights held in different ways."""
    return {
        "float32": load_gguf(path, torch.float32)[0],
        "usual": load_gguf(path, packing=Packing.NONE)[0],
        "usual, few rows 8 bits": load_gguf(path, packing=Packing.EIGHT_BITS)[0],
        "usual, few rows 4 bits": load_gguf(path)[0],
    }


def measure(models: dict[str, Llama], rounds: int) -> None:
    """Print a table of times, `rounds` prefills and ten times as many steps each."""
    caches = {name: model.new_cache(512) for name, model in models.items()}
    prefills: dict[str, list[float]] = {name: [] for name in models}
    steps: dict[str, list[float]] = {name: [] for name in models}
    for name, model in models.items():
        model.logits(list(range(300, 300 + _HELD)), 0, caches[name])
    for _ in range(rounds):
        for name, model in models.items():
            begun = time.perf_counter()
            model.logits(list(range(600, 600 + _PREFILL)), _HELD, caches[name])
            prefills[name].append(1000 * (time.perf_counter() - begun))
            for step in range(_STEPS):
                begun = time.perf_counter()
                model.logits([700 + step], _HELD + _PREFILL + step, caches[name])
                steps[name].append(1000 * (time.perf_counter() - begun))
    for name in models:
        rate = 1000 / statistics.median(steps[name])
        print(f"  {name:24s} prefill {spread(prefills[name])}; decode {spread(steps[name])} ms, {rate:.0f} tokens/s")


def agree(models: dict[str, Llama], tokens: list[int]) -> None:
    """Print how often each model's likeliest next token is float32's."""
    chosen: dict[str, list[int]] = {}
    for name, model in models.items():
        cache = model.new_cache(len(tokens))
        chosen[name] = [int(model.logits([token], position, cache).argmax()) for position, token in enumerate(tokens)]
    for name, choices in chosen.items():
        same = sum(a == b for a, b in zip(choices, chosen["float32"], strict=True))
        print(f"  {name:24s} {same} of {len(tokens)}, {100 * same / len(tokens):.1f} %")


def answer(model: LlamaLanguageModel, question: str, sampling: Sampling, seed: int) -> tuple[str, str, int]:
    """The reply, its first clause and its tokens."""
    sequence, sampler = model.sequence(), Sampler(seed)
    cutter, decoder = ClauseCutter(), TextDecoder(model.token_texts())
    prompt = ChatTemplate(model).reply_prompt((ContextMessage("user", "question", question),), {}, model.context)
    completed(model.sync(sequence, prompt))
    said: list[int] = []
    text, clauses = "", []
    while len(said) < 160:
        assert sequence.logits is not None
        token = sampler.choose(sequence.logits, said, sampling)
        if token in model.end_tokens:
            break
        said.append(token)
        piece = decoder.push(token)
        text += piece
        clauses += cutter.push(piece)
        completed(model.append(sequence, token))
    clauses += cutter.flush()
    return text, clauses[0].spoken if clauses else "", len(said)


def main() -> None:
    """Times and agreement, or samples."""
    default = Sampling()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--samples", action="store_true", help="answer 20 spoken questions instead")
    parser.add_argument("--temperature", type=float, default=default.temperature)
    parser.add_argument("--top-p", type=float, default=default.top_p)
    parser.add_argument("--repetition-penalty", type=float, default=default.repetition_penalty)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads[0])
    language_model = LlamaLanguageModel.load(options.model)
    if options.samples:
        sampling = Sampling(options.temperature, options.top_p, options.repetition_penalty)
        for question in QUESTIONS:
            text, first, count = answer(language_model, question, sampling, options.seed)
            print(f"Q {question}\nA {text}\n  ({count} tokens, first clause:{'' if first[:1] == ' ' else ' '}{first})")
        return
    models = load(options.model)
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(
            f"{threads} thread(s), {options.rounds} prefills of {_PREFILL} tokens and {options.rounds * _STEPS} steps each, milliseconds:"
        )
        measure(models, options.rounds)
    print("agreement with float32:")
    agree(models, language_model.encode(_PASSAGE))


if __name__ == "__main__":
    main()
