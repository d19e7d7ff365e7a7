"""Trains the change of Whisper base's encoder that lets it hear in small blocks, `streaming/models/streaming_encoder.safetensors`.

    python -m training.streaming_encoder [--data ../shared/data] [--out FILE] [--config FILE] [--steps N]

Self-distillation: the encoder that sees a whole clip is the teacher; the same one with low-rank changes, under the mask of the streaming
encoder (`training.block_mask`), learns to give the same frames. No words are needed. The state is kept every 50 steps: a run that was
stopped goes on where it was, with the examples it would have heard. Seeded. What it is worth is what `python -m benchmarks.blocks` prints.
"""

import argparse
import hashlib
import json
import math
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streaming.bundle import default_places
from streaming.encoder import AFTER, BEFORE, FRAME_MEL, FRAME_SAMPLES, BlockPlan
from streaming.features import SILENCE, LogMel
from streaming.models.linear import usual_dtype
from streaming.models.low_rank import STREAMING_ENCODER, Adaptation, fingerprint, write_adaptation
from streaming.models.whisper_weights import load_whisper, whisper_file
from streaming.recogniser import THIN
from training.block_mask import Block, planned
from training.distillation import Distillation, LossWeights, LowRank, adapted
from training.heard_speech import HeardSpeech

_CONFIGURATION: Final = Path(__file__).with_suffix(".toml")
_RECIPE: Final = 1
"""To be raised where this script or what it imports of `training` make something else of the same configuration."""
_KEPT_EVERY: Final = 50
"""Steps between two states kept, and two reports of the loss."""
_MOST_ROWS: Final = 2_200
"""Of a run; what is longer is cut. Time and memory go with its square."""


@dataclass(slots=True, eq=False)
class Run:
    """What goes on from step to step."""

    layers: Mapping[str, LowRank]
    optimiser: torch.optim.AdamW
    # The configuration's digest: a state of another one is not gone on with.
    recipe: str
    step: int = 0
    # Since the last report, by kind of example.
    losses: dict[str, list[float]] = field(default_factory=dict)

    @property
    def factors(self) -> list[torch.nn.Parameter]:
        """What is learned."""
        return [factor for layer in self.layers.values() for factor in (layer.down, layer.up)]

    def learn(self, kind: str, loss: Tensor) -> None:
        """Add the loss's gradient to what the step will follow. Raises ValueError where the loss is not a number."""
        if not torch.isfinite(loss):
            raise ValueError(f"step {self.step}: the loss is not a number: lower learning_rate; the state kept last is whole")
        loss.backward()
        self.losses.setdefault(kind, []).append(loss.item())

    def report(self) -> str:
        """The mean loss since the last report, by kind of example."""
        said = ", ".join(f"{kind} {np.mean(losses):.4f} ({len(losses)})" for kind, losses in sorted(self.losses.items()))
        self.losses.clear()
        return said

    def save(self, path: Path) -> None:
        """Keep the state, whole or not at all. Raises OSError."""
        tensors = {}
        for name, layer in self.layers.items():
            for side, factor in (("down", layer.down), ("up", layer.up)):
                tensors[f"{name}.{side}"] = factor.detach()
                moments = self.optimiser.state[factor]
                tensors |= {f"{name}.{side}.{key}": moments[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        part = path.with_name(f"{path.name}.part")
        try:
            save_file(tensors, part, {"recipe": self.recipe, "step": str(self.step)})
            os.replace(part, path)
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(f"{path} could not be written ({error})") from error
        finally:
            part.unlink(missing_ok=True)

    def resume(self, path: Path) -> None:
        """Go on from a kept state. Raises ValueError, naming the file, for one of another configuration, or a damaged one."""
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): delete it to begin anew") from error
        if said.get("recipe") != self.recipe:
            raise ValueError(f"{path} is of another configuration: delete it, or name another --work")
        try:
            for name, layer in self.layers.items():
                for side, factor in (("down", layer.down), ("up", layer.up)):
                    with torch.no_grad():
                        factor.copy_(tensors[f"{name}.{side}"])
                    moments = {key: tensors[f"{name}.{side}.{key}"] for key in ("exp_avg", "exp_avg_sq", "step")}
                    moments |= {key: moments[key].to(factor.device) for key in ("exp_avg", "exp_avg_sq")}
                    self.optimiser.state[factor] = moments
            self.step = int(said["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path} does not hold this model's state ({error}): delete it to begin anew") from error


def main() -> None:
    """See the module's docstring."""
    options = _options()
    configuration = tomllib.loads(options.config.read_text(encoding="utf-8"))
    if options.steps is not None:
        configuration["fit"]["steps"] = options.steps
    torch.set_num_threads(options.threads)
    try:
        train(configuration, Places(options.data, options.whisper, options.work, options.out), so_far=options.so_far, device=options.device)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


@dataclass(frozen=True, slots=True)
class Places:
    """Folders: the recordings, the Whisper that is changed, and what is kept between runs; and the file that is written."""

    data: Path
    whisper: Path
    work: Path
    out: Path


def train(configuration: Mapping[str, Any], places: Places, *, so_far: bool = False, device: str = "cpu") -> None:
    """Train to the configured step, or take what has been learned `so_far`, and write the file. Raises OSError, ValueError."""
    settings, seed = configuration["fit"], configuration["seed"]
    source = HeardSpeech(places.data, configuration["data"], seed)
    base = fingerprint(load_whisper(whisper_file(places.whisper), torch.float32).encoder.state_dict())
    model = load_whisper(whisper_file(places.whisper), usual_dtype(device), device)
    student, layers = adapted(model.encoder, settings["rank"], seed)
    run = Run(layers, _optimiser(layers, settings), _digest(configuration))
    places.work.mkdir(parents=True, exist_ok=True)
    state = places.work / f"streaming-encoder-{run.recipe}.safetensors"
    if state.is_file():
        run.resume(state)
        print(f"going on from step {run.step} ({state})")
    if not so_far:
        distillation = Distillation(model, student, THIN, LossWeights(settings["frames"], settings["read"]))
        _fit(run, distillation, source, configuration, state)
    plan, strength = BlockPlan(**configuration["export"]["plan"]), configuration["export"]["strength"]
    factors = {name: (layer.down, layer.up.detach() * strength) for name, layer in layers.items()}
    recipe = f"{run.recipe}, step {run.step}, strength {strength}"
    write_adaptation(places.out, Adaptation(base, factors, asdict(plan), recipe))
    print(f"wrote {places.out}, {places.out.stat().st_size} bytes, sha256 {hashlib.sha256(places.out.read_bytes()).hexdigest()}")


def _fit(run: Run, distillation: Distillation, source: HeardSpeech, configuration: Mapping[str, Any], state: Path) -> None:
    settings = configuration["fit"]
    distillation.refresh()
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("distilling", total=settings["steps"], completed=run.step)
        while run.step < settings["steps"]:
            _step(run, distillation, source, configuration)
            progress.update(task, completed=run.step)
            if run.step % _KEPT_EVERY == 0 or run.step == settings["steps"]:
                run.save(state)
                progress.console.print(f"step {run.step}, {time.process_time():.0f} s of this run's processor time: {run.report()}")


def _step(run: Run, distillation: Distillation, source: HeardSpeech, configuration: Mapping[str, Any]) -> None:
    settings = configuration["fit"]
    for group in run.optimiser.param_groups:
        group["lr"] = _learning_rate(run.step, settings)
    run.optimiser.zero_grad()
    if run.step % settings["silence_every"] == 0:
        distillation.refresh()
        run.learn("silence", distillation.silence_loss())
    for number in range(run.step * settings["batch"], (run.step + 1) * settings["batch"]):
        kind, mel, blocks = _example(source, configuration, number)
        run.learn(kind, distillation.loss(mel, blocks) / settings["batch"])
    torch.nn.utils.clip_grad_norm_(run.factors, 1.0)
    run.optimiser.step()
    run.step += 1


def _example(source: HeardSpeech, configuration: Mapping[str, Any], number: int) -> tuple[str, Tensor, list[Block]]:
    """The kind of its blocks, its mel frames with what the convolutions reach around them, and the blocks."""
    rng = np.random.default_rng([configuration["seed"], number, 1])
    kind, plan = _plan(configuration["blocks"], rng)
    pcm = source.example(number)
    most = int(_MOST_ROWS / (1 + plan.lookahead / plan.block)) - plan.silence
    features = LogMel()
    pushed, tail = features.push(pcm[: most * FRAME_SAMPLES]), features.tail()
    blocks = planned(plan, len(pushed), len(tail))
    count = FRAME_MEL * sum(block.frames for block in blocks)
    mel = np.full((BEFORE + count + AFTER, pushed.shape[1]), SILENCE, np.float32)
    mel[:BEFORE] = 0
    heard = np.concatenate((pushed, tail))
    mel[BEFORE : BEFORE + len(heard)] = heard
    return kind, torch.from_numpy(mel), blocks


def _plan(settings: Mapping[str, Any], rng: np.random.Generator) -> tuple[str, BlockPlan]:
    """Some kind of blocks, and where they are cut."""
    draw = rng.random()
    if draw < settings["whole"]:
        return "whole", BlockPlan(first=1_500)  # more than there is
    small = draw < settings["whole"] + settings["small"]
    low, high = settings["small_block" if small else "block"]
    block = round(math.exp(rng.uniform(math.log(low), math.log(high))))
    low, high = settings["small_lookahead" if small else "lookahead"]
    lookahead = int(rng.integers(low, high + 1))
    first = int(rng.integers(block, 161)) if rng.random() < settings["long_first"] else block
    return "small" if small else "any", BlockPlan(first, block, lookahead)


def _optimiser(layers: Mapping[str, LowRank], settings: Mapping[str, Any]) -> torch.optim.AdamW:
    factors = [factor for layer in layers.values() for factor in (layer.down, layer.up)]
    return torch.optim.AdamW(factors, settings["learning_rate"], betas=(0.9, 0.99), weight_decay=settings["weight_decay"])


def _learning_rate(step: int, settings: Mapping[str, Any]) -> float:
    """Rises to its height, then falls to nothing along half a cosine."""
    peak: float = settings["learning_rate"]
    if step < settings["warm_up"]:
        return peak * (step + 1) / settings["warm_up"]
    done = (step - settings["warm_up"]) / max(1, settings["steps"] - settings["warm_up"])
    return peak * (1 + math.cos(math.pi * done)) / 2


def _digest(configuration: Mapping[str, Any]) -> str:
    """Of what a state depends on: all but what is made of it."""
    learned = {name: table for name, table in configuration.items() if name != "export"}
    return hashlib.sha256(json.dumps([_RECIPE, learned], sort_keys=True).encode()).hexdigest()[:12]


def _options() -> argparse.Namespace:
    places = default_places()
    parser = argparse.ArgumentParser(prog="python -m training.streaming_encoder", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument(
        "--whisper", type=Path, default=places.cache / "parts" / "whisper-base", help="folder of the encoder that is changed"
    )
    parser.add_argument("--config", type=Path, default=_CONFIGURATION, help="the configuration")
    parser.add_argument("--work", type=Path, default=places.cache / "training", help="folder of what is kept between runs")
    parser.add_argument("--out", type=Path, default=STREAMING_ENCODER, help="the file to write")
    parser.add_argument("--so-far", action="store_true", help="write what a run has learned that is still under way, and train nothing")
    parser.add_argument("--steps", type=int, help="instead of the configuration's")
    parser.add_argument("--device", default="cpu", help="torch's: cpu, cuda")
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
