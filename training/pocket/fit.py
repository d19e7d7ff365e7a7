"""Fits the projector to what was heard (`training.pocket.frames`). Seeded; a run that was stopped goes on from its last checkpoint, as it
would have gone. A checkpoint of other settings or other data is refused by name, and so is a loss that is no number."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.pocket.frames import Heard
from training.pocket.learner import Batch, Learner, batch_of

__all__ = ["Example", "FitError", "fit"]

_FRAMES: Final = 50
"""Of a second."""
_SAVED: Final = 60.0
"""Seconds between two checkpoints."""
_SHOWN: Final = 25
"""Steps between two lines of progress."""
_CLIPPED: Final = 1.0
"""Norm of the gradient, at most."""


class FitError(RuntimeError):
    """Training that can't go on; the message says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A clip, and its pieces and phonemes as numbers."""

    heard: Heard
    pieces: Sequence[int]
    phonemes: Sequence[int]


def fit(
    learner: Learner,
    examples: Sequence[Example],
    settings: Mapping[str, Any],
    seed: int,
    checkpoint: Path,
    recipe: str,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> None:
    """Train `learner` in place. `checkpoint` is where its state is kept, `recipe` names settings and data. Raises FitError."""
    learner.to(device).train()
    optimiser = torch.optim.AdamW(learner.parameters(), settings["learning_rate"], betas=(0.9, 0.98), weight_decay=settings["weight_decay"])
    steps = _steps(examples, settings, seed)
    done = _restored(learner, optimiser, checkpoint, recipe, device)
    if done:
        say(f"going on from step {done} of {steps}")
    begun = saved = time.monotonic()
    kept: list[tuple[float, float]] = []
    for step, batch in enumerate(_batches(examples, settings, seed, learner.network.shape.stack)):
        if step < done:
            continue
        for group in optimiser.param_groups:
            group["lr"] = settings["learning_rate"] * _pace(step, steps, settings["warm_up"])
        kept.append(_step(learner, optimiser, batch(), settings, seed + step, device))
        if step % _SHOWN == _SHOWN - 1:
            pieces, phonemes = np.mean(kept, axis=0)
            spent = time.monotonic() - begun
            left = spent / (step + 1 - done) * (steps - step - 1) / 60
            say(f"step {step + 1} of {steps}: pieces {pieces:.3f} phonemes {phonemes:.3f}, {left:.0f} min to go")
            kept.clear()
        if time.monotonic() - saved > _SAVED:
            saved = time.monotonic()
            _save(learner, optimiser, checkpoint, recipe, step + 1)
    _save(learner, optimiser, checkpoint, recipe, steps)


def _step(
    learner: Learner, optimiser: torch.optim.Optimizer, batch: Batch, settings: Mapping[str, Any], seed: int, device: str
) -> tuple[float, float]:
    """One step; the two losses. What is drawn by chance in it depends on `seed` alone."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        pieces, phonemes = learner(_on(batch, device), generator)
    loss = (1 - settings["phonemes"]) * pieces + settings["phonemes"] * phonemes
    if not torch.isfinite(loss):
        raise FitError("the loss is not a number: lower learning_rate in the stage's configuration, and start again from the checkpoint")
    loss.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), _CLIPPED)
    optimiser.step()
    return float(pieces.detach()), float(phonemes.detach())


def _on(batch: Batch, device: str) -> Batch:
    return batch if device == "cpu" else Batch(*(getattr(batch, name).to(device) for name in batch.__slots__))


def _pace(step: int, steps: int, warm_up: int) -> float:
    """Of the learning rate: up in a line, then down in half a cosine."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _epoch(examples: Sequence[Example], seconds: float, rng: random.Random) -> list[list[int]]:
    """Batches of clips of about the same length, in another order each time."""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].heard.frames) * rng.uniform(0.9, 1.1))
    batches: list[list[int]] = [[]]
    for index in order:
        longest = len(examples[index].heard.frames)
        if batches[-1] and (len(batches[-1]) + 1) * longest > seconds * _FRAMES:
            batches.append([])
        batches[-1].append(index)
    rng.shuffle(batches)
    return batches


def _steps(examples: Sequence[Example], settings: Mapping[str, Any], seed: int) -> int:
    return sum(len(_epoch(examples, settings["seconds"], random.Random(f"{seed} {epoch}"))) for epoch in range(settings["epochs"]))


def _batches(examples: Sequence[Example], settings: Mapping[str, Any], seed: int, stack: int) -> Iterator[Callable[[], Batch]]:
    """What makes each step's batch: those of a run that goes on are not made again."""
    for epoch in range(settings["epochs"]):
        for number, chosen in enumerate(_epoch(examples, settings["seconds"], random.Random(f"{seed} {epoch}"))):
            yield lambda chosen=chosen, seeds=(seed, epoch, number): batch_of(
                [
                    (
                        _changed(examples[index].heard.frames, settings, np.random.default_rng([*seeds, index])),
                        examples[index].pieces,
                        examples[index].phonemes,
                    )
                    for index in chosen
                ],
                stack,
            )


def _changed(frames: np.ndarray[Any, np.dtype[np.float16]], settings: Mapping[str, Any], rng: np.random.Generator) -> Tensor:
    """Frames (n, width) with some stretches of time gone (Park et al. 2019), at another pace, and with some noise in them."""
    shown = torch.from_numpy(frames.astype(np.float32))
    for _ in range(int(rng.integers(settings["stretches"] + 1))):
        length = int(rng.uniform(0, settings["hidden"] / settings["stretches"]) * len(shown))
        start = int(rng.integers(max(1, len(shown) - length)))
        shown[start : start + length] = 0
    slower = float(rng.uniform(*settings["slower"]))
    shown = functional.interpolate(shown.T[None], size=max(1, int(len(shown) * slower)), mode="linear")[0].T
    noise = torch.from_numpy(rng.standard_normal(shown.shape).astype(np.float32))
    return shown + noise * (float(rng.uniform(0, settings["noise"])) * shown.std())


def _save(learner: Learner, optimiser: torch.optim.Optimizer, path: Path, recipe: str, step: int) -> None:
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"recipe": recipe, "step": step, "learner": learner.state_dict(), "optimiser": optimiser.state_dict()}, part)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError for a full disk
        part.unlink(missing_ok=True)
        raise FitError(f"{path} can't be written ({error}): make room and start again, it goes on from the last checkpoint") from error


def _restored(learner: Learner, optimiser: torch.optim.Optimizer, path: Path, recipe: str, device: str) -> int:
    """The steps that were done; 0 where there is no checkpoint."""
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        found, step = state["recipe"], int(state["step"])
    except Exception as error:  # torch.load raises what its readers do
        raise FitError(f"{path} is no checkpoint of ours ({error}): delete it to begin anew") from error
    if found != recipe:
        raise FitError(f"{path} is of other settings or other data ({found}, not {recipe}): delete it to begin anew, or put them back")
    learner.load_state_dict(state["learner"])
    optimiser.load_state_dict(state["optimiser"])
    return step
