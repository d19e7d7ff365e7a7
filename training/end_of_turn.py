"""Trains the classifier that judges whether a turn is over, `streaming/models/end_of_turn.safetensors`.

    python -m training.end_of_turn [--data ../shared/data] [--out streaming/models/end_of_turn.safetensors]

First it hears some 3,000 clips (recordings of the `train` part, and synthetic callers in Kokoro's voices) and keeps what the model makes of
their pauses, 50 clips a file, so that a run that was stopped goes on: some 40 minutes on two cores, most of it synthesis. Then it fits, in
a minute. Seeded; the same machine makes the same file. What it is worth is what `python -m benchmarks.turn_taking` prints.
"""

import argparse
import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.progress import track
from safetensors.numpy import save_file
from torch import nn

from streaming.audio import Samples
from streaming.bundle import default_places
from streaming.turn import CLASSIFIER, FEATURES, TurnEncoder
from training.pauses import Clip, Listener, Pauses, Source

_CONFIGURATION: Final = Path(__file__).with_suffix(".toml")
_CHUNK: Final = 50
_RECIPE: Final = 1
"""Of what is kept: to be raised where `training.pauses` or `training.sentences` make something else of the same configuration."""
_HELD_BACK: Final = 7
"""One speaker in so many is kept out of the fit, to choose the epoch and the try by."""


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m training.end_of_turn", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--out", type=Path, default=CLASSIFIER, help="the file to write")
    options = parser.parse_args()
    configuration = tomllib.loads(_CONFIGURATION.read_text())
    torch.set_num_threads(1)
    try:
        pauses = _gather(options.data, configuration)
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from error
    _fit(pauses, configuration, options.out)


def _gather(data: Path, configuration: Mapping[str, Any]) -> Pauses:
    """The pauses of all clips, from the cache where they are there."""
    wanted = dict(configuration["data"])
    noisy, telephone = wanted.pop("noisy"), wanted.pop("telephone")
    recipe = hashlib.sha256(json.dumps([_RECIPE, configuration["data"], configuration["seed"]]).encode()).hexdigest()[:12]
    folder = default_places().cache / "training" / f"end-of-turn-{recipe}"
    folder.mkdir(parents=True, exist_ok=True)
    source = Source(data, wanted, configuration["seed"])
    model = next((default_places().cache / "parts" / "smart-turn-v3.2").glob("*.onnx"), None)
    if model is None:
        raise FileNotFoundError("Smart Turn is not there: run `vivavoce pull pocket`")
    listener = Listener(TurnEncoder(model), source, noisy, telephone)
    clips = source.clips()
    starts = range(0, len(clips), _CHUNK)
    return Pauses.joined([_chunk(folder, listener, clips, start) for start in track(starts, f"hearing {len(clips)} clips")])


def _chunk(folder: Path, listener: Listener, clips: list[Clip], start: int) -> Pauses:
    path = folder / f"{start:05}.npz"
    if not path.is_file():
        heard = [listener.hear(clip, number) for number, clip in enumerate(clips[start : start + _CHUNK], start)]
        found = Pauses.joined([pauses for pauses in heard if len(pauses.ends)])
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as stream:
            np.savez(stream, features=found.features, ends=found.ends, sources=found.sources, speakers=found.speakers)
        os.replace(stream.name, path)
    with np.load(path) as kept:
        return Pauses(kept["features"], kept["ends"], kept["sources"].tolist(), kept["speakers"].tolist())


def _fit(pauses: Pauses, configuration: Mapping[str, Any], out: Path) -> None:
    settings = configuration["fit"]
    held = np.array([int(hashlib.sha256(speaker.encode()).hexdigest(), 16) % _HELD_BACK == 0 for speaker in pauses.speakers])
    mean = pauses.features[~held].mean(axis=0)
    spread = pauses.features[~held].std(axis=0) + 1e-3
    rows = torch.from_numpy((pauses.features - mean) / spread)
    ends = torch.from_numpy(pauses.ends.astype(np.float32))
    weights = torch.from_numpy(_weights(pauses))
    best: tuple[float, nn.Sequential] | None = None
    for attempt in range(settings["tries"]):
        torch.manual_seed(configuration["seed"] + attempt)
        model = nn.Sequential(
            nn.Dropout(settings["dropout"]),
            nn.Linear(FEATURES, settings["units"]),
            nn.ReLU(),
            nn.Dropout(settings["dropout"]),
            nn.Linear(settings["units"], 1),
        )
        _train(model, rows[~held], ends[~held], weights[~held], settings)
        with torch.no_grad():
            area = area_under_curve(model(rows[held])[:, 0].numpy(), pauses.ends[held])
        print(f"try {attempt + 1}: area under the curve on {int(held.sum())} scores of speakers held back {area:.3f}")
        if best is None or area > best[0]:
            best = area, model
    assert best is not None
    own = area_under_curve(pauses.features[held, -1], pauses.ends[held])
    print(f"kept {best[0]:.3f}; Smart Turn's own score on the same {own:.3f}")
    _export(best[1], mean, spread, out)


def _weights(pauses: Pauses) -> Samples:
    """Sources, and ends and holds of each, count alike; what is rare counts at most half as much again."""
    sources = np.array(pauses.sources)
    weights = np.zeros(len(sources), np.float32)
    names = sorted(set(pauses.sources))
    for name in names:
        for end in (False, True):
            chosen = (sources == name) & (pauses.ends == end)
            weights[chosen] = min(1.5, len(sources) / (2 * len(names) * max(1, int(chosen.sum()))))
    return weights


def _train(model: nn.Sequential, rows: torch.Tensor, ends: torch.Tensor, weights: torch.Tensor, settings: Mapping[str, Any]) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), settings["learning_rate"], weight_decay=settings["weight_decay"])
    for _ in range(settings["epochs"]):
        for batch in torch.randperm(len(rows)).split(settings["batch"]):
            optimiser.zero_grad()
            losses = nn.functional.binary_cross_entropy_with_logits(model(rows[batch])[:, 0], ends[batch], reduction="none")
            loss = (weights[batch] * losses).mean()
            if not torch.isfinite(loss):
                raise SystemExit("the loss is not a number: lower learning_rate in training/end_of_turn.toml")
            loss.backward()
            optimiser.step()
    model.eval()


def _export(model: nn.Sequential, mean: Samples, spread: Samples, out: Path) -> None:
    """Write the classifier with the features' mean and spread folded into its first layer."""
    first, last = model[1], model[4]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = (first.weight.detach().numpy() / spread).astype(np.float16)
    tensors = {
        "hidden": hidden,
        "hidden_bias": first.bias.detach().numpy() - hidden.astype(np.float32) @ mean,
        "out": np.ascontiguousarray(last.weight.detach().numpy()[0]),
        "out_bias": last.bias.detach().numpy(),
    }
    part = out.with_suffix(".part")
    save_file(tensors, part)
    part.replace(out)
    print(f"wrote {out}, {out.stat().st_size} bytes, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


def area_under_curve(scores: Samples, ends: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """The probability that an end scores higher than a hold (Mann and Whitney): 0.5 is chance."""
    order = np.argsort(scores)
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(len(scores))
    positive = int(ends.sum())
    return float((ranks[ends].sum() - positive * (positive - 1) / 2) / (positive * (len(ends) - positive)))


if __name__ == "__main__":
    main()
