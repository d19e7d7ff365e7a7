"""The cache: what is written is there, growth keeps it, capacity is a bound."""

import pytest
import torch

from streaming.kv import KeyValueCache


def _cache(capacity: int) -> KeyValueCache:
    return KeyValueCache(2, 3, 4, capacity, torch.float32, torch.device("cpu"))


def _pairs(n: int, value: float) -> torch.Tensor:
    return torch.full((2, 3, n, 4), value)


def test_writes_are_read_back_and_overwritten_after_a_rewind() -> None:
    cache = _cache(64)
    cache.reserve(10)
    cache.write(0, 0, _pairs(10, 1.0))
    held = cache.write(0, 4, _pairs(2, 2.0))
    assert held.shape == (2, 3, 6, 4)
    assert torch.equal(held[:, :, :4], _pairs(4, 1.0))
    assert torch.equal(held[:, :, 4:], _pairs(2, 2.0))


def test_growth_keeps_what_is_held() -> None:
    cache = _cache(2_000)
    before = cache.bytes
    cache.reserve(512)
    assert cache.bytes == before
    cache.write(1, 0, _pairs(512, 3.0))
    cache.reserve(513)
    assert cache.bytes == 2 * before
    held = cache.write(1, 512, _pairs(1, 4.0))
    assert torch.equal(held[:, :, :512], _pairs(512, 3.0))
    cache.reserve(2_000)
    assert cache.bytes == before // 512 * 2_000


def test_capacity_is_a_bound() -> None:
    with pytest.raises(ValueError, match="beyond the 64"):
        _cache(64).reserve(65)
    with pytest.raises(ValueError, match="at least one"):
        _cache(0)
