"""How numbers get to a device and back: a step sends what it needs without waiting, and waits once, for its result."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fetched", "fetched_together", "sent"]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` of the CPU on `device`. To a GPU it goes through pinned memory, and nobody waits but what is computed there next."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensor: Tensor) -> Tensor:
    """`tensor` on the CPU. From a GPU it comes through pinned memory, four times as fast, and the wait for it is the step's only one."""
    (result,) = fetched_together([tensor])
    return result


def fetched_together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`tensors` of one device on the CPU, for one wait; where all of them are empty for none."""
    if not tensors or tensors[0].device.type == "cpu":
        return list(tensors)
    results = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.numel() > 0) for tensor in tensors]
    if any(tensor.numel() for tensor in tensors):
        for result, tensor in zip(results, tensors, strict=True):
            result.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(tensors[0].device).synchronize()
    return results
