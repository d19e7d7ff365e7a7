"""A Llama-shaped decoder for a GPU: sequences live in fixed slots of one piece of memory, so that a decode step of any of them has shapes
and addresses that never change and is replayed as a CUDA graph. Launching its kernels one by one costs more than running them.

Only steps of one token go this way. What comes in longer stretches (a prompt) is computed as everywhere else, into the same memory; so is
a sequence that finds no free slot, which then has memory of its own. Nothing here needs a GPU but the replaying: tests run the step on a
CPU."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from streaming.kv import KeyValueCache
from streaming.models.llama import Llama, LlamaShape, LlamaWeights, Stretch
from streaming.transfer import fetched_together, sent

__all__ = ["SlotCache", "SlottedLlama", "decoder_of", "slots_within"]

_SLOTS: Final = 32
"""Calls that are decoded at once, where there is memory for them: 32 with 4,096 positions of SmolLM2-135M take 3 GB, of Llama 3.1 8B 17."""

_SHARE: Final = 2
"""Slots take up to one in so many parts of the memory that is free: recogniser, graphs and calls without a slot need some too."""

_ROOM: Final = 4_096
"""Positions of a slot."""

_LEAST_REACH: Final = 512
"""A step attends to so many positions, or 2, 4, 8 ... times as many: the fewest that hold what the longest sequence of the step has."""


def decoder_of(shape: LlamaShape, weights: LlamaWeights) -> Llama:
    """The decoder that fits where the weights are."""
    device = weights.embedding.device
    if device.type != "cuda":
        return Llama(shape, weights)
    slots = slots_within(shape, weights.embedding.element_size(), torch.cuda.mem_get_info(device)[0] // _SHARE)
    return SlottedLlama(shape, weights, slots) if slots else Llama(shape, weights)


def slots_within(shape: LlamaShape, item_bytes: int, memory: int) -> int:
    """How many slots fit `memory` bytes, numbers of keys and values taking `item_bytes`; no more than are of use."""
    room = min(_ROOM, shape.context) + 1
    return min(_SLOTS, memory // (2 * item_bytes * shape.layers * shape.kv_heads * shape.head_width * room))


class _Slots:
    """The memory, a tensor a layer, and which slots of it are free."""

    def __init__(self, shape: LlamaShape, count: int, room: int, like: Tensor) -> None:
        self.room: Final = room
        self.count: Final = count
        self._free = set(range(count))
        # Keys, then values. A position more than a slot has: there a row without a sequence writes.
        sizes = (2, count, shape.kv_heads, room + 1, shape.head_width)
        self.layers: Final = [torch.zeros(sizes, dtype=like.dtype, device=like.device) for _ in range(shape.layers)]

    def take(self) -> int | None:
        """The lowest free slot, cleared: a position that is masked must still hold a number. None where all are taken."""
        if not self._free:
            return None
        slot = min(self._free)
        self._free.remove(slot)
        for layer in self.layers:
            layer[:, slot].zero_()
        return slot

    def give_back(self, slot: int) -> None:
        """`slot` is free again."""
        self._free.add(slot)

    def views(self, slot: int) -> list[Tensor]:
        """What a `KeyValueCache` holds: [2, heads, room, head_width] a layer."""
        return [layer[:, slot, :, : self.room] for layer in self.layers]


class SlotCache(KeyValueCache):
    """A cache that lies in a slot from its first position until it is released or dropped; in memory of its own where none is free. A slot
    is not memory of its own: to give it up would free nothing."""

    def __init__(self, slots: _Slots, shape: LlamaShape, capacity: int, like: Tensor) -> None:
        super().__init__(shape.layers, shape.kv_heads, shape.head_width, capacity, like.dtype, like.device)
        self._slots = slots
        self.slot: int | None = None
        self._leave: weakref.finalize[[int], SlotCache] | None = None

    @property
    def bytes(self) -> int:
        return super().bytes if self.slot is None else 0

    @torch.inference_mode()
    def reserve(self, end: int) -> None:
        if self.slot is None and not self.bytes and end <= self.capacity <= self._slots.room:
            self.slot = self._slots.take()
            if self.slot is not None:
                self._leave = weakref.finalize(self, self._slots.give_back, self.slot)
                self._layers = self._slots.views(self.slot)
        if self.slot is None or end > self.capacity:
            super().reserve(end)

    def release(self) -> None:
        super().release()
        if self._leave is not None:
            self._leave()
        self._leave = self.slot = None


class SlottedLlama(Llama):
    """A `Llama` whose decode steps are one fixed computation for all slots; on a GPU a graph, captured when it is made."""

    def __init__(self, shape: LlamaShape, weights: LlamaWeights, slots: int = _SLOTS, room: int = _ROOM) -> None:
        super().__init__(shape, weights)
        self._slots = _Slots(shape, slots, min(room, shape.context), weights.embedding)
        self._rows = _doublings(1, slots)
        self._reaches = _doublings(_LEAST_REACH, self._slots.room)
        self._graphs: dict[tuple[int, int], _Graph] = {}
        if self.device.type == "cuda":
            self._capture()

    def new_cache(self, capacity: int) -> KeyValueCache:
        return SlotCache(self._slots, self.shape, capacity, self.weights.embedding)

    def _compute(self, stretches: Sequence[Stretch]) -> list[Tensor | None]:
        slots = [_slot_of(stretch) for stretch in stretches]
        steps = {slot: stretch for slot, stretch in zip(slots, stretches, strict=True) if slot is not None}
        others = [stretch for slot, stretch in zip(slots, stretches, strict=True) if slot is None]
        # Both are launched before either is waited for.
        none = self.weights.embedding.new_empty(0)
        found = fetched_together([self._step(steps) if steps else none, self._scored(others) if others else none])
        stepped, computed = found[0], iter(found[1])
        scored = zip(slots, stretches, strict=True)
        return [None if not stretch.scored else next(computed) if slot is None else stepped[slot] for slot, stretch in scored]

    def _step(self, steps: Mapping[int, Stretch]) -> Tensor:
        """One token of each, by slot: logits float32 [rows, vocabulary] where the weights are, until the next step. Rows of other slots
        mean nothing."""
        rows = _fitting(self._rows, 1 + max(steps))
        reach = _fitting(self._reaches, max(stretch.end for stretch in steps.values()))
        filled = self._idle(rows)
        for slot, stretch in steps.items():
            filled[slot] = [stretch.tokens[0], stretch.start, stretch.start]
        inputs = sent(torch.tensor(filled), self.device)
        graph = self._graphs.get((rows, reach))
        return self._decode(inputs, reach) if graph is None else graph.replay(inputs)

    def _idle(self, rows: int) -> list[list[int]]:
        """Token, position, and where keys and values go, of rows without a sequence: they write where nobody reads."""
        return [[0, 0, self._slots.room] for _ in range(rows)]

    def _decode(self, inputs: Tensor, reach: int) -> Tensor:
        """The step itself: `inputs`, int64 [rows, 3], as `_idle` makes them, to logits [rows, vocabulary]. No shape and no
        address in it depends on a number."""
        shape = self.shape
        tokens, positions, places = inputs.unbind(1)
        count = len(inputs)
        row = torch.arange(count, device=inputs.device)
        ages = positions[:, None] - torch.arange(reach, device=inputs.device)  # [rows, reach]
        # What is added to the scores, made once: a mask of truth values would be made into that in every layer.
        closed = self.weights.embedding.new_full((), -torch.inf)
        windows = {shape.window(index) for index in range(shape.layers)}
        seen = {window: torch.where((ages >= 0) & (ages < (window or reach)), 0, closed).view(count, 1, 1, reach) for window in windows}

        def mix(index: int, heads: Tensor) -> Tensor:
            layer = self._slots.layers[index]
            layer[:, row, :, places] = heads[:, shape.heads :].view(count, 2, shape.kv_heads, shape.head_width)
            keys, values = layer[:, :count, :, :reach].unbind(0)
            queries = heads[:, : shape.heads].reshape(count, shape.kv_heads, -1, shape.head_width)
            return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen[shape.window(index)]).reshape(count, -1)

        hidden = self._layers(self.weights.embedding[tokens], self._cosines[positions], self._sines[positions], mix)
        return self._scores(hidden)

    @torch.inference_mode()
    def _capture(self) -> None:
        """Every graph there can be, the largest first: the others live in its memory."""
        capture = partial(torch.cuda.graph, pool=torch.cuda.graph_pool_handle())
        for rows in reversed(self._rows):
            for reach in reversed(self._reaches):
                inputs = torch.tensor(self._idle(rows), device=self.device)
                self._graphs[rows, reach] = _Graph(partial(self._decode, inputs, reach), inputs, capture)


class _Graph:
    """A captured computation and the tensor it reads."""

    def __init__(self, compute: Callable[[], Tensor], inputs: Tensor, capture: Callable[[torch.cuda.CUDAGraph], torch.cuda.graph]) -> None:
        self._inputs = inputs
        # Once outside of the graph, on a stream of its own: libraries allocate what they need when they are first used.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            compute()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with capture(self._graph):
            self._result = compute()

    def replay(self, inputs: Tensor) -> Tensor:
        """The result for these inputs, valid until the next replay of a graph of this pool."""
        self._inputs.copy_(inputs)
        self._graph.replay()
        return self._result


def _slot_of(stretch: Stretch) -> int | None:
    """The slot of a stretch that is one token of a sequence in a slot."""
    single = len(stretch.tokens) == 1 and stretch.embedded is None
    return stretch.cache.slot if single and isinstance(stretch.cache, SlotCache) else None


def _doublings(least: int, most: int) -> list[int]:
    """`least`, twice that and so on, and `most`."""
    sizes = []
    while least < most:
        sizes.append(least)
        least *= 2
    return [*sizes, most]


def _fitting(sizes: Sequence[int], wanted: int) -> int:
    return next(size for size in sizes if size >= wanted)
