"""Packed products beside the plain one."""

import pytest
import torch

from streaming.models.eight_bits import eight_bits_only
from streaming.models.linear import GROUP, Dense, FourBits, Packed, can_be_four_bits, can_pack, four_bits_only, packed_eight, packed_four


def _four_bits(outputs: int, inputs: int) -> tuple[Dense, FourBits]:
    random = torch.Generator().manual_seed(5)
    levels = torch.randint(0, 16, (outputs, inputs), generator=random, dtype=torch.uint8)
    scales = torch.rand(outputs, inputs // GROUP, generator=random) * 0.02 + 0.01
    zeros = -8 * scales + torch.randn(outputs, inputs // GROUP, generator=random) * 0.01
    values = levels.view(outputs, -1, GROUP) * scales[..., None] + zeros[..., None]
    bias = torch.randn(outputs, generator=random).to(torch.bfloat16)
    return Dense(values.view(outputs, inputs).to(torch.bfloat16), bias), FourBits(levels, scales, zeros)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 40])
def test_packed_weights_give_the_product_of_the_plain_ones(rows: int) -> None:
    dense, bits = _four_bits(128, 96)
    inputs = torch.randn(rows, 96, generator=torch.Generator().manual_seed(rows)).to(torch.bfloat16)
    expected = dense(inputs).float()
    for packed in (packed_four(dense, bits), packed_eight(dense)):
        found = packed(inputs).float()
        assert found.shape == (rows, 128)
        assert (found - expected).norm() / expected.norm() < 0.02


def test_what_cannot_be_packed_stays_plain() -> None:
    dense, bits = _four_bits(128, 96)
    assert isinstance(packed_eight(dense), Packed) == can_pack(dense.weight)
    exact = Dense(dense.weight.double())
    assert packed_eight(exact) is exact
    assert packed_four(exact, bits) is exact
    odd = Dense(dense.weight[:100])
    assert packed_eight(odd) is odd


@pytest.mark.parametrize("rows", [1, 3, 17, 200])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_without_a_first_copy_give_the_product_too(rows: int, dtype: torch.dtype) -> None:
    dense, bits = _four_bits(128, 96)
    assert dense.bias is not None
    exact = (bits.levels.view(128, -1, GROUP) * bits.scales[..., None] + bits.zeros[..., None]).view(128, 96)
    inputs = torch.randn(rows, 96, generator=torch.Generator().manual_seed(rows)).to(dtype)
    expected = inputs.float() @ exact.T + dense.bias.float()
    assert can_be_four_bits(bits) == can_pack(dense.weight)
    products = [eight_bits_only(exact, dense.bias.to(dtype))]
    if can_be_four_bits(bits):
        four = four_bits_only(bits, dense.bias.to(dtype))
        assert four.levels.nbytes + four.factors.nbytes == 128 * 96 // 2 + 128 * 96 // GROUP * 4
        products.append(four)
    for product in products:
        found = product(inputs)
        assert (found.dtype, found.shape) == (dtype, (rows, 128))
        assert (found.float() - expected).norm() / expected.norm() < 0.02
