"""Matrix products as decoders use them: as they are, or with a second, smaller copy of the weights for one or two rows.

A decode step reads every weight once for a single row: its time is the bytes read. A prefill of many rows is arithmetic, and bf16 is
the fastest arithmetic of a CPU. So `Packed` keeps both: bf16 for many rows, and for a few rows 8 bits a weight with one scale a row, or the
4 bits a quantised file came with, which lose nothing. Weights only; activations and sums are never quantised.

The kernels are PyTorch's own, those its compiler would choose (`aten::_weight_int8pack_mm`, `aten::_weight_int4pack_mm_for_cpu`, and
oneDNN's for many rows). Where this PyTorch or this processor has none, or the weights are not on a CPU, `Dense` is used.

A CPU without AVX-512 has no arithmetic for bf16: there models run in float32 (`usual_dtype`), for one float32 product takes an eighth of
the time of the same in bf16. The kernels for few rows still take bf16, whose weights are theirs, and so they get their rows rounded to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "GROUP",
    "OUTPUTS",
    "Dense",
    "FourBits",
    "FourBitsOnly",
    "Linear",
    "Packed",
    "Packing",
    "can_be_four_bits",
    "can_pack",
    "four_bits_only",
    "packed_eight",
    "packed_four",
    "usual_dtype",
]

GROUP: Final = 32
"""Weights of a row that share a scale and a zero in `FourBits`: ggml's Q4_0 and Q4_1 blocks."""

OUTPUTS: Final = 64
"""The packed kernels make so many outputs at a time."""

_FEW_ROWS: Final = 3
"""Up to here the packed weights are faster, measured on an AVX-512 machine with bf16 instructions; beyond it the bf16 product is."""

_AMPERE: Final = (8, 0)
"""The compute capability of the first GPUs with arithmetic for bf16."""

_MANY_ROWS: Final = 64
"""What the order of weights is chosen for: a piece of a prefill."""


class Packing(Enum):
    """Which second copy of the weights few rows are multiplied with, and whether there is a first."""

    NONE = "none"
    EIGHT_BITS = "eight bits"
    # Four bits where the file has them, else eight.
    SMALLEST = "smallest"
    # The same, but in place of the weights and not beside them: half to a quarter of the memory, slower for many rows.
    ALONE = "alone"


Linear = Callable[[Tensor], Tensor]
"""[rows, inputs] to [rows, outputs]."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A product with `weight` [outputs, inputs], plus `bias` [outputs]."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class FourBits:
    """Weights as files carry them: `levels` uint8 [outputs, inputs] from 0 to 15, `scales` and `zeros` float32 [outputs, inputs / GROUP];
    a weight is `level * scale + zero`."""

    levels: Tensor
    scales: Tensor
    zeros: Tensor

    def values(self) -> Tensor:
        """The weights, float32 [outputs, inputs]."""
        values = self.levels.view(*self.scales.shape, GROUP) * self.scales[..., None] + self.zeros[..., None]
        return values.view(self.levels.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A product that reads `few` for up to three rows and `many` for more."""

    many: Linear
    few: Linear

    def __call__(self, rows: Tensor) -> Tensor:
        return self.few(rows) if rows.shape[0] <= _FEW_ROWS else self.many(rows)


def usual_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """In what numbers a model runs where nobody asks for others: bf16, or float32 on a CPU and float16 on a GPU that have no arithmetic for
    it."""
    place = torch.device(device)
    if place.type == "cuda":
        # PyTorch calls bf16 supported where it converts every number, which is slower than float32.
        return torch.bfloat16 if torch.cuda.get_device_capability(place) >= _AMPERE else torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def can_pack(weight: Tensor) -> bool:
    """Whether `weight` [outputs, inputs] may be packed here."""
    return (
        (weight.dtype is torch.bfloat16 or weight.dtype is usual_dtype())
        and weight.device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")
        and weight.shape[0] % OUTPUTS == 0
        and weight.shape[1] % GROUP == 0
    )


def packed_eight(dense: Dense, *, shared: bool = False) -> Linear:
    """`dense` with an 8-bit copy for few rows, where that is possible. Weights that are `shared` with an embedding are not reordered for
    many rows, which would be a third copy of them."""
    if not can_pack(dense.weight):
        return dense
    # The kernel's scales are bf16: rounded up by at most one step before the levels are, they add no error of their own.
    scales = (dense.weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127 * (1 + 2**-8)).to(torch.bfloat16)  # [outputs]
    levels = (dense.weight.float() / scales[:, None].float()).round().to(torch.int8)

    def few(rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.aten._weight_int8pack_mm(rows.to(torch.bfloat16), levels, scales)
        return product.to(rows.dtype)

    return Packed(dense if shared else _reordered(dense), _biased(few, dense.bias))


@dataclass(frozen=True, slots=True, eq=False)
class FourBitsOnly:
    """A product with weights of 4 bits and nothing beside them. `levels` uint8 [outputs, inputs / 2] in the kernel's order, `factors` bf16
    [inputs / GROUP, outputs, 2]: scale, and zero as the kernel counts it, from level 8. They and the rows in bf16 are all the rounding
    there is, 0.2 % of a product. `bias` [outputs]."""

    levels: Tensor
    factors: Tensor
    bias: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows.to(torch.bfloat16), self.levels, GROUP, self.factors)
        product = product.to(rows.dtype)
        return product if self.bias is None else product + self.bias


def can_be_four_bits(bits: FourBits) -> bool:
    """Whether the kernel is there and takes weights of this shape; asked of a matrix that takes no memory."""
    return can_pack(torch.empty(1, dtype=torch.bfloat16).expand(bits.levels.shape))


def four_bits_only(bits: FourBits, bias: Tensor | None = None) -> FourBitsOnly:
    """The product with these weights."""
    levels = torch.ops.aten._convert_weight_to_int4pack_for_cpu(bits.levels.to(torch.int32), 1)
    factors = torch.stack((bits.scales, bits.zeros + 8 * bits.scales), dim=-1).transpose(0, 1).to(torch.bfloat16).contiguous()
    return FourBitsOnly(levels, factors, bias)


def packed_four(dense: Dense, bits: FourBits) -> Linear:
    """`dense`, whose weights are `bits`, with those 4 bits for few rows, where that is possible."""
    return Packed(_reordered(dense), four_bits_only(bits, dense.bias)) if can_pack(dense.weight) else dense


def _reordered(dense: Dense) -> Linear:
    """The same product with the weights in the order oneDNN computes in, which it would otherwise bring them into at every call."""
    # oneDNN has float32, and bf16 where the processor has.
    foreign = dense.weight.dtype not in (torch.float32, usual_dtype())
    if foreign or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return dense
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(dense.weight, _MANY_ROWS), dense.bias

    def many(rows: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")  # type: ignore[no-any-return]

    return many


def _biased(product: Linear, bias: Tensor | None) -> Linear:
    return product if bias is None else lambda rows: product(rows) + bias
