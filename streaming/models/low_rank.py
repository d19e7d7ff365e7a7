"""Low-rank changes of linear layers (Hu et al. 2021, LoRA) in a file of their own, and the weights they are added to.

A file belongs to one encoder: it names the SHA-256 of the weights it was made for (`fingerprint`), and says in which blocks the encoder is
to be used with it. Made by `training/streaming_encoder.py`.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streaming.models.ctranslate2 import WeightsError

__all__ = ["STREAMING_ENCODER", "Adaptation", "fingerprint", "merged", "read_adaptation", "write_adaptation"]

STREAMING_ENCODER: Final = Path(__file__).parent / "streaming_encoder.safetensors"
"""The change of Whisper base's encoder that comes with vivavoce."""

_FORMAT: Final = "vivavoce low rank 1"

_PLAN: Final = ("first", "block", "lookahead", "silence")
"""The numbers of a `streaming.encoder.BlockPlan`."""

_SIDES: Final = ("down", "up")
"""The two factors of a layer: (rank, inputs) and (outputs, rank); what is added to its weight is up @ down."""


@dataclass(frozen=True, slots=True, eq=False)
class Adaptation:
    """`factors`: by the name of a linear layer, its `down` and its `up`. `base` is the fingerprint of the weights it was made for, `plan`
    the numbers of the encoder's blocks it is meant for, in audio frames, and `recipe` how it was trained."""

    base: str
    factors: Mapping[str, tuple[Tensor, Tensor]]
    plan: Mapping[str, int]
    recipe: str


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values in float16, in which Whisper was published: the same for every layout that holds the same
    model."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to(device="cpu", dtype=torch.float16).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()


def merged(path: Path, adaptation: Adaptation, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights`, by name, with what the file at `path` adds to them; those it changes are float32. Raises WeightsError, naming file and
    tensor, where it changes what is not there or has another shape."""
    changed = dict(weights)
    for name, (down, up) in adaptation.factors.items():
        weight = weights.get(f"{name}.weight")
        if weight is None or weight.dim() != 2:
            raise WeightsError(f"{path}: it changes {name}, which the encoder does not have")
        if (up.shape[0], down.shape[1]) != weight.shape:
            raise WeightsError(f"{path}: it changes {name} by {up.shape[0]} x {down.shape[1]}, which is {tuple(weight.shape)}")
        changed[f"{name}.weight"] = weight.float() + up.to(weight.device).float() @ down.to(weight.device).float()
    return changed


def read_adaptation(path: Path) -> Adaptation:
    """The change in a file. Raises WeightsError, naming file and tensor, for what is not that, and OSError where it can't be read."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors, or is cut short ({error})") from error
    if said.get("format") != _FORMAT:
        raise WeightsError(f"{path}: its format is {said.get('format')!r}, not {_FORMAT!r}")
    base, recipe = said.get("base"), said.get("recipe")
    if base is None or recipe is None:
        raise WeightsError(f"{path}: it does not say which weights it was made for, or how (base, recipe)")
    return Adaptation(base, _pairs(path, tensors), _plan(path, said.get("plan", "")), recipe)


def write_adaptation(path: Path, adaptation: Adaptation) -> None:
    """Write the file, its factors in bfloat16: whole or not at all. Raises OSError."""
    tensors = {
        f"{name}.{side}": factor.detach().to(torch.bfloat16).contiguous()
        for name, pair in adaptation.factors.items()
        for side, factor in zip(_SIDES, pair, strict=True)
    }
    said = {"format": _FORMAT, "base": adaptation.base, "recipe": adaptation.recipe, "plan": json.dumps(dict(adaptation.plan))}
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(tensors, part, said)
        os.replace(part, path)
    except SafetensorError as error:  # what the library makes of a full disk
        raise OSError(f"{path} could not be written ({error})") from error
    finally:
        part.unlink(missing_ok=True)


def _pairs(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors of each layer. Both are there, of one rank, and numbers."""
    layers = sorted({name.rpartition(".")[0] for name in tensors})
    expected = {f"{layer}.{side}" for layer in layers for side in _SIDES}
    if odd := sorted(expected ^ set(tensors)):
        raise WeightsError(f"{path}: {odd[0]} is {'missing' if odd[0] in expected else 'no factor of a layer'}")
    if not layers:
        raise WeightsError(f"{path}: it changes nothing")
    pairs = {layer: (tensors[f"{layer}.down"], tensors[f"{layer}.up"]) for layer in layers}
    for layer, (down, up) in pairs.items():
        if down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1]:
            raise WeightsError(f"{path}: the factors of {layer} are {tuple(down.shape)} and {tuple(up.shape)}, which have no product")
        if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
            raise WeightsError(f"{path}: the factors of {layer} are not all numbers")
    return pairs


def _plan(path: Path, text: str) -> dict[str, int]:
    try:
        plan = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{path}: its plan is not JSON ({error})") from error
    if not isinstance(plan, dict) or sorted(plan) != sorted(_PLAN) or not all(type(value) is int for value in plan.values()):
        raise WeightsError(f"{path}: its plan is {text}, not whole numbers for {', '.join(_PLAN)}")
    return plan
