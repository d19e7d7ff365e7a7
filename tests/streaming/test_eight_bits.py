import pytest
import torch

from streaming.models.eight_bits import EightBits


def product(bias: bool) -> tuple[EightBits, torch.Tensor]:
    """A product, and the weights it stands for in double precision."""
    chance = torch.Generator().manual_seed(1)
    levels = torch.randint(-127, 128, (128, 96), dtype=torch.int8, generator=chance)
    scales = torch.rand(128, generator=chance) / 100
    return EightBits(levels, scales, torch.randn(128, generator=chance) if bias else None), levels.double() * scales.double()[:, None]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 60])
def test_it_is_the_product_with_the_weights(rows: int, bias: bool) -> None:
    ours, weight = product(bias)
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(2))
    expected = x.double() @ weight.T + (0 if ours.bias is None else ours.bias.double())
    torch.testing.assert_close(ours(x).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 16, 17, 60])
def test_in_bfloat16_few_rows_and_many_are_the_same(rows: int) -> None:
    ours, weight = product(bias=False)
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(2)).bfloat16()
    expected = x.double() @ weight.T
    # Weights are exact: what differs is the rounding of scales, sums and the result.
    torch.testing.assert_close(ours(x).double(), expected, atol=0.02, rtol=0.02)
    assert ours(x).dtype is torch.bfloat16
