"""The cache: what is written is there, growth keeps it, capacity is a bound."""

import pytest
import torch

from streaming.kv import KeyValueCache, SharedPrefixes


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
    assert cache.bytes == 0
    cache.reserve(1)
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


def test_memory_given_back_can_be_taken_again() -> None:
    cache = _cache(64)
    cache.reserve(10)
    cache.release()
    assert cache.bytes == 0
    cache.reserve(3)
    assert torch.equal(cache.write(1, 0, _pairs(3, 5.0)), _pairs(3, 5.0))


def test_a_prefix_is_copied_into_another_sequence() -> None:
    one, other, prefixes = _cache(64), _cache(64), SharedPrefixes()
    one.reserve(20)
    for layer in (0, 1):
        one.write(layer, 0, _pairs(20, 1.0 + layer))
    prefixes.keep(range(20), one)
    assert prefixes.find(range(19)) is None
    held = prefixes.find(range(20))
    assert held is not None
    other.restore(held)
    one.write(0, 0, _pairs(20, 9.0))
    assert torch.equal(other.write(0, 20, _pairs(1, 3.0))[:, :, :20], _pairs(20, 1.0))


def test_shared_prefixes_are_bounded_and_the_least_used_goes_first() -> None:
    cache = _cache(64)
    cache.reserve(20)
    size = sum(layer.nbytes for layer in cache.snapshot(20))
    prefixes = SharedPrefixes(2 * size)
    for start in (0, 100):
        prefixes.keep(range(start, start + 20), cache)
    assert prefixes.find(range(20)) is not None
    prefixes.keep(range(200, 220), cache)
    assert prefixes.find(range(100, 120)) is None
    assert prefixes.find(range(20)) is not None
    assert prefixes.bytes == 2 * size
    prefixes.keep(range(300, 308), cache)  # as quick to compute
    assert prefixes.find(range(300, 308)) is None
