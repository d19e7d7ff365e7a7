"""How numbers get to a device and back: a step sends what it needs without waiting, and waits once, for its result."""

import torch
from torch import Tensor

__all__ = ["fetched", "sent"]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` of the CPU on `device`. To a GPU it goes through pinned memory, and nobody waits but what is computed there next."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensor: Tensor) -> Tensor:
    """`tensor` on the CPU. From a GPU it comes through pinned memory, four times as fast, and the wait for it is the step's only one."""
    if tensor.device.type == "cpu":
        return tensor
    result = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    result.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return result
