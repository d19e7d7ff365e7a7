"""Writes the projector's weights as `streaming.models.pocket_projector` reads them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from streaming.models.pocket_projector import ProjectorNetwork
from training.pocket.pieces import PieceTable

__all__ = ["export"]


def export(
    path: Path, network: ProjectorNetwork, sounds: Tensor, table: PieceTable, metadata: Mapping[str, str], extra: Mapping[str, Tensor]
) -> str:
    """Write `path` in half precision, whole or not at all; gives its SHA-256. `extra` are other tensors to keep, as they are."""
    numbers = {"tokens": table.tokens, "first": table.first, "behind_stop": table.behind_stop}
    tensors = {
        **{f"network.{name}": tensor.detach().half().cpu().contiguous() for name, tensor in network.state_dict().items()},
        **{f"pieces.{name}": torch.tensor(values, dtype=torch.int32) for name, values in numbers.items()},
        "pieces.stops": torch.tensor(table.stops),
        "pieces.sounds": sounds.detach().half().cpu().contiguous(),
        **extra,
    }
    if bad := sorted(name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())):
        raise ValueError(f"{bad[0]} has numbers that are none: nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        save_file(tensors, part, {"shape": json.dumps(asdict(network.shape)), **metadata})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()
