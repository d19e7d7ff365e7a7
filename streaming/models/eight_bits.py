"""Matrix products with weights of 8 bits and one scale a row, kept as a file has them: half the memory of bfloat16, and nothing beside it.

`linear.Packed` is for speed and keeps bfloat16 weights as well; this is for machines where they don't fit. A few rows are multiplied by
PyTorch's own kernel, where there is one. For more the levels become a matrix of the rows' type for the time of the product: they are whole
numbers up to 127, which every float type has exactly, and scales are applied to what comes out, so no weight is ever rounded.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from streaming.models.linear import can_pack

__all__ = ["EightBits", "eight_bits_only"]

_FEW_ROWS: Final = 16
"""Up to here the kernel is not slower than turning the levels into floats first (AVX-512 with bf16 instructions, 768 inputs)."""


@dataclass(frozen=True, slots=True, eq=False)
class EightBits:
    """A `Linear`: `levels` int8 [outputs, inputs], `scales` float32 [outputs], a weight being `level * scale`, and `bias` [outputs]."""

    levels: Tensor
    scales: Tensor
    bias: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        scales = self.scales.to(rows.dtype)
        if rows.shape[0] <= _FEW_ROWS and self._kernel(rows):
            product: Tensor = torch.ops.aten._weight_int8pack_mm(rows, self.levels, torch.ones_like(scales))
        else:
            product = functional.linear(rows, self.levels.to(rows.dtype))
        scaled = product * scales
        return scaled if self.bias is None else scaled + self.bias

    def _kernel(self, rows: Tensor) -> bool:
        """Whether PyTorch has the product for these rows here; asked of a matrix of the right shape that takes no memory. It has it in
        bf16 only."""
        return rows.dtype is torch.bfloat16 and can_pack(rows.new_empty(1).expand(self.levels.shape))


def eight_bits_only(weight: Tensor, bias: Tensor | None = None) -> EightBits:
    """The product with `weight` [outputs, inputs], each of its rows rounded to 255 levels."""
    scales = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127
    return EightBits((weight.float() / scales[:, None]).round().to(torch.int8), scales, bias)
