"""What the CPU waits for while models run on a GPU, counted without one: on the device `meta`, which has shapes and no numbers, where a
copy is as visible as on a GPU and a look at a number fails. A step waits once, for its result, and what is captured in a graph never
does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import streaming.causal
import streaming.encoder
import streaming.models.causal_encoder
import streaming.models.llama
import streaming.models.slots
import streaming.realtime_words
from streaming.batching import completed
from streaming.causal import CausalStation, CausalStream
from streaming.encoder import EncoderStation, SoundStream, hear_silence
from streaming.models.causal_encoder import CausalEncoder, CausalShape, CausalWeights
from streaming.models.linear import Dense
from streaming.models.llama import Llama, LlamaLayer, LlamaShape, LlamaWeights, Stretch
from streaming.models.projectors import StackedProjector
from streaming.models.rope import Rope
from streaming.models.slots import SlottedLlama
from streaming.models.tekken import Tekken
from streaming.models.voxtral_realtime import VoxtralRealtime
from streaming.models.whisper import Silence, WhisperEncoder, WhisperShape
from streaming.realtime_words import Follow, RealtimeRecogniser

T = TypeVar("T")
META = torch.device("meta")
SHAPE = LlamaShape(
    vocabulary=64, layers=2, width=32, hidden=48, heads=4, kv_heads=2, head_width=8, context=2_048, windows=(None, 20), head_norm=True
)
SENDERS = (streaming.models.llama, streaming.models.slots, streaming.models.causal_encoder, streaming.causal, streaming.encoder)


class Waits(TorchDispatchMode):
    """Counts what is sent to the device and what is fetched from it, as `streaming.transfer` does both. Any other copy between devices, any
    look at a number, and any mask in the place of an index, whose length has to be known, is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = self.fetched = 0
        # Within `sent` or `fetched_together`.
        self._passing = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        tensors = [argument for argument in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(argument, Tensor)]
        assert name not in {"_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal"}, name
        if name.startswith("index"):
            assert not [tensor for tensor in tensors[1:] if tensor.dtype in (torch.bool, torch.uint8)], f"a mask in {name}"
        found = func(*args, **(kwargs or {}))
        results = [result for result in torch.utils._pytree.tree_leaves(found) if isinstance(result, Tensor)]
        # A number of no dimensions goes with the launch.
        places = {tensor.device.type for tensor in (*tensors, *results) if tensor.dim() or tensor.device == META}
        assert self._passing or len(places) < 2, f"{name} between {places}"
        return found

    def send(self, tensor: Tensor, device: torch.device) -> Tensor:
        """In the place of `sent`."""
        self.sent += 1
        return self._pass(lambda: tensor.to(device))

    def fetch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """In the place of `fetched_together`."""
        self.fetched += any(tensor.numel() for tensor in tensors)
        return self._pass(lambda: [torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in tensors])

    def _pass(self, work: Callable[[], T]) -> T:
        self._passing = True
        try:
            return work()
        finally:
            self._passing = False


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    counting = Waits()
    for module in (*SENDERS, streaming.realtime_words):
        monkeypatch.setattr(module, "sent", counting.send)
    monkeypatch.setattr(streaming.models.slots, "fetched_together", counting.fetch)
    for module in (streaming.models.llama, streaming.realtime_words):
        monkeypatch.setattr(module, "fetched", lambda tensor: counting.fetch([tensor])[0])
    return counting


def weights(shape: LlamaShape) -> LlamaWeights:
    def dense(outputs: int, inputs: int) -> Dense:
        return Dense(empty(outputs, inputs), empty(outputs))

    heads, width = shape.heads + 2 * shape.kv_heads, shape.width
    layer = LlamaLayer(
        attention_norm=empty(width),
        qkv=dense(heads * shape.head_width, width),
        attention_out=dense(width, shape.heads * shape.head_width),
        feed_forward_norm=empty(width),
        gate_up=dense(2 * shape.hidden, width),
        down=dense(width, shape.hidden),
        head_norm=empty(shape.heads + shape.kv_heads, shape.head_width) if shape.head_norm else None,
    )
    return LlamaWeights(empty(shape.vocabulary, width), (layer,) * shape.layers, empty(width), dense(shape.vocabulary, width))


def empty(*sizes: int) -> Tensor:
    return torch.empty(sizes, dtype=torch.bfloat16, device=META)


WAITING: dict[str, Callable[[Tensor], object]] = {
    "mask": lambda numbers: numbers[numbers > 0],
    "copy there": lambda numbers: torch.ones(3).to(numbers.device),
    "copy back": lambda numbers: numbers.cpu(),
    "number": lambda numbers: float(numbers.sum()),
}


@pytest.mark.parametrize("way", WAITING)
def test_what_would_wait_is_found(waits: Waits, way: str) -> None:
    numbers = torch.zeros(3, device=META)
    with waits, pytest.raises((AssertionError, NotImplementedError)):
        WAITING[way](numbers)


@pytest.mark.parametrize(("rows", "reach"), [(1, 512), (4, 2_048)])
@torch.inference_mode()
def test_a_captured_step_waits_for_nothing(waits: Waits, rows: int, reach: int) -> None:
    llama = SlottedLlama(SHAPE, weights(SHAPE), slots=4)
    inputs = torch.tensor(llama._idle(rows)).to(META)
    with waits:
        logits = llama._decode(inputs, reach)
    assert logits.shape == (rows, SHAPE.vocabulary)
    assert (waits.sent, waits.fetched) == (0, 0)


def test_steps_and_prompts_of_a_batch_are_waited_for_once(waits: Waits) -> None:
    llama = SlottedLlama(SHAPE, weights(SHAPE), slots=2)
    caches = [llama.new_cache(1_000) for _ in range(4)]
    prompts = [Stretch([1, 2, 3], 0, cache, scored=False) for cache in caches]
    # Two have slots, two have not; one of the prompts holds rows of sound.
    mixed = [Stretch([5], 3, cache) for cache in caches[:3]]
    heard = Stretch([7, -1, -2, 8], 3, caches[3], embedded=empty(2, SHAPE.width))
    with waits:
        assert llama.forward(prompts) == [None] * 4
        assert waits.fetched == 0
        logits = llama.forward([*mixed, heard])
    assert [row.shape for row in logits if row is not None] == [(SHAPE.vocabulary,)] * 4
    assert waits.fetched == 1


CAUSAL = CausalShape(128, 32, 48, 4, 8, 2, 20, Rope(8), 1e4, 1e-5)


def causal() -> CausalStation:
    layer = replace(weights(replace(SHAPE, kv_heads=4, head_norm=False)).layers[0])
    convolutions = (empty(32, 128, 3), empty(32)), (empty(32, 32, 3), empty(32))
    encoder = CausalEncoder(CAUSAL, CausalWeights(*convolutions, (layer, layer), empty(32)))
    return CausalStation(encoder, StackedProjector(empty(32, 128), empty(32, 32), 4))


def test_rows_of_a_causal_encoder_are_waited_for_by_nobody(waits: Waits) -> None:
    stream = CausalStream(causal())
    with waits:
        for _ in range(3):
            stream.push(np.zeros(16_000, np.float32))
            while completed(stream.commit()) is not None:
                pass
            completed(stream.provisional())
    assert stream.committed == 37
    assert waits.fetched == 0


def test_steps_that_write_are_waited_for_once_a_run(waits: Waits) -> None:
    shape = replace(SHAPE, head_norm=False)
    vocabulary = Tekken((b"",) * 64, {"<s>": 1, "[STREAMING_PAD]": 2, "</s>": 3}, "", 4, 3)
    station = causal()
    recogniser = RealtimeRecogniser(VoxtralRealtime(station.model, station.projector, Llama(shape, weights(shape)), vocabulary, 3))
    follows = [Follow(recogniser, [1, 2, 2], empty(3, 32), 0, recogniser.decoder.new_cache(recogniser.steps)) for _ in range(2)]
    with waits:
        recogniser.run(follows)
    assert [len(follow.tokens_after) for follow in follows] == [3, 3]
    assert waits.fetched == 1


@torch.inference_mode()
def test_blocks_of_whispers_encoder_are_waited_for_by_nobody(waits: Waits) -> None:
    with META:
        encoder = WhisperEncoder(WhisperShape(80, 32, 4, 2, 0, 0, 1_500, 0))
    station = EncoderStation(encoder, Silence(hear_silence(encoder)[0], 8))
    stream = SoundStream(station)
    with waits:
        for _ in range(8):
            stream.push(np.zeros(16_000, np.float32))
            completed(stream.commit())
            completed(stream.provisional())
    assert stream.committed > 0
    assert waits.fetched == 0
