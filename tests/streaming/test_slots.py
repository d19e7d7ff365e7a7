"""Fixed slots: whatever the mixture of prompts and steps, the same logits as every sequence by itself."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.models.llama import Llama, LlamaShape, Stretch
from streaming.models.slots import SlotCache, SlottedLlama, decoder_of, slots_within
from streaming.models.weights import Matrix, assemble

SHAPE = LlamaShape(vocabulary=64, layers=2, width=32, hidden=48, heads=4, kv_heads=2, head_width=8, context=1_300)
SLOTS = 2


@pytest.fixture(scope="module")
def weights() -> Llama:
    generator = torch.Generator().manual_seed(3)
    sizes = {"embed_tokens": (64, 32), "q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
    sizes |= {"gate_proj": (48, 32), "up_proj": (48, 32), "down_proj": (32, 48)}

    def find(name: str) -> Matrix | None:
        kind = name.split(".")[-2]
        if name.endswith("bias") or kind == "lm_head":
            return None
        return Matrix(torch.randn(sizes.get(kind, (32,)), generator=generator) * 0.4)

    return Llama(SHAPE, assemble(SHAPE, find, torch.float32))


def slotted(plain: Llama) -> SlottedLlama:
    return SlottedLlama(SHAPE, plain.weights, SLOTS)


# Which sequence, and how many tokens are appended to it.
batches = st.lists(st.dictionaries(st.integers(0, 3), st.sampled_from([1, 1, 1, 2, 7, 600]), min_size=1), min_size=1, max_size=12)


@settings(deadline=None, max_examples=40)
@given(batches)
def test_any_mixture_gives_the_logits_of_every_sequence_alone(weights: Llama, batches: list[dict[int, int]]) -> None:
    ours = slotted(weights)
    tokens = torch.randint(0, SHAPE.vocabulary, (4, SHAPE.context), generator=torch.Generator().manual_seed(5)).tolist()
    lengths = [0] * 4
    caches = [ours.new_cache(SHAPE.context) for _ in range(4)]
    alone = [weights.new_cache(SHAPE.context) for _ in range(4)]
    for batch in batches:
        fitting = {row: count for row, count in batch.items() if lengths[row] + count <= SHAPE.context}
        stretches = [Stretch(tokens[row][lengths[row] : lengths[row] + count], lengths[row], caches[row]) for row, count in fitting.items()]
        if not stretches:
            continue
        for row, stretch, logits in zip(fitting, stretches, ours.forward(stretches), strict=True):
            assert logits is not None
            torch.testing.assert_close(logits, weights.logits(stretch.tokens, stretch.start, alone[row]), atol=1e-4, rtol=1e-4)
            lengths[row] = stretch.end


def test_a_rewound_sequence_goes_on_as_if_it_had_never_said_more(weights: Llama) -> None:
    ours = slotted(weights)
    cache, other = ours.new_cache(64), ours.new_cache(64)
    ours.forward([Stretch([1, 2, 3], 0, cache), Stretch([9, 8], 0, other)])
    ours.forward([Stretch([4], 3, cache), Stretch([7], 2, other)])
    (logits,) = ours.forward([Stretch([5], 3, cache)])
    assert logits is not None
    torch.testing.assert_close(logits, weights.logits([1, 2, 3, 5], 0, weights.new_cache(64)), atol=1e-4, rtol=1e-4)


def test_steps_nobody_scores_give_no_logits(weights: Llama) -> None:
    ours = slotted(weights)
    cache = ours.new_cache(64)
    assert ours.forward([Stretch([1], 0, cache, scored=False)]) == [None]
    (logits,) = ours.forward([Stretch([2], 1, cache)])
    assert logits is not None
    torch.testing.assert_close(logits, weights.logits([1, 2], 0, weights.new_cache(64)), atol=1e-4, rtol=1e-4)


def _slot(cache: object) -> int | None:
    assert isinstance(cache, SlotCache)
    return cache.slot


def test_slots_are_taken_when_needed_and_given_back(weights: Llama) -> None:
    ours = slotted(weights)
    first, second, third = (ours.new_cache(64) for _ in range(3))
    assert _slot(first) is None
    for cache in (first, second, third):
        ours.logits([1, 2], 0, cache)
    assert [_slot(cache) for cache in (first, second, third)] == [0, 1, None]
    first.release()
    assert not first.bytes
    third.release()
    ours.logits([3], 0, third)
    assert _slot(third) == 0
    del second
    gc.collect()
    ours.logits([4], 0, first)
    assert _slot(first) == 1


def test_a_slot_is_not_memory_that_a_sequence_could_give_back(weights: Llama) -> None:
    ours = slotted(weights)
    caches = [ours.new_cache(64) for _ in range(SLOTS + 1)]
    for cache in caches:
        ours.logits([1, 2], 0, cache)
    assert [cache.bytes > 0 for cache in caches] == [False] * SLOTS + [True]


def test_what_a_broken_call_left_in_a_slot_reaches_nobody(weights: Llama) -> None:
    ours = slotted(weights)
    broken = ours.new_cache(64)
    ours.logits([1, 2, 3, 4], 0, broken)
    held = broken.snapshot(4)
    broken.restore([torch.full_like(layer, torch.nan) for layer in held])
    broken.release()
    after = ours.new_cache(64)
    assert torch.isfinite(ours.logits([5], 0, after)).all()


def test_nothing_is_written_where_one_stretch_does_not_fit(weights: Llama) -> None:
    ours = slotted(weights)
    good, full = ours.new_cache(64), ours.new_cache(4)
    ours.logits([1, 2], 0, good)
    with pytest.raises(ValueError, match="beyond the 4"):
        ours.forward([Stretch([3], 2, good), Stretch([1], 4, full)])
    torch.testing.assert_close(ours.logits([6], 2, good), weights.logits([1, 2, 6], 0, weights.new_cache(64)), atol=1e-4, rtol=1e-4)


def test_only_a_gpu_gets_slots(weights: Llama) -> None:
    assert type(decoder_of(SHAPE, weights.weights)) is Llama


def test_as_many_slots_as_half_of_the_memory_holds() -> None:
    # Llama 3.1 8B: 0.54 GB a slot.
    eight = LlamaShape(vocabulary=128_256, layers=32, width=4_096, hidden=14_336, heads=32, kv_heads=8, head_width=128, context=131_072)
    assert [slots_within(eight, 2, memory << 30) for memory in (0, 2, 4, 32)] == [0, 3, 7, 32]


def test_sixteen_calls_come_and_go(weights: Llama) -> None:
    ours = SlottedLlama(SHAPE, weights.weights, 16)
    caches, alone = ([model.new_cache(128) for _ in range(16)] for model in (ours, weights))
    lengths = [1 + 3 * row for row in range(16)]
    ours.forward([Stretch([row] * length, 0, cache) for row, (length, cache) in enumerate(zip(lengths, caches, strict=True))])
    weights.forward([Stretch([row] * length, 0, cache) for row, (length, cache) in enumerate(zip(lengths, alone, strict=True))])
    for live in (range(16), (2, 9, 15), (4,), range(16)):
        for cache in (caches, alone):
            cache[7].release()  # evicted: it begins again, in a slot that may be another's
        lengths[7] = 0
        got = ours.forward([Stretch([row + 20], lengths[row], caches[row]) for row in live])
        expected = weights.forward([Stretch([row + 20], lengths[row], alone[row]) for row in live])
        for row, ours_after, alone_after in zip(live, got, expected, strict=True):
            assert ours_after is not None
            torch.testing.assert_close(ours_after, alone_after, atol=1e-4, rtol=1e-4)
            lengths[row] += 1
        lengths[2] -= 1 if 2 in live else 0  # rewound
