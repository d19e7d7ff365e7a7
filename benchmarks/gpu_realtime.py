"""Voxtral Realtime of the exact sizes that were published, with random weights, and the Qwen3 4B that answers in its bundle.

It is the model of `streaming.models.voxtral_realtime` behind the recogniser of the server (`streaming.realtime_words`): the causal
encoder's row each 80 ms, and its decoder's step at each. What random weights write is nothing, so a word is put at every fourth step in the
place of what they found: three tokens a second, about as often as English has them. It is put over silence too, so what comes behind the
last sample is dearer here by a few runs than it would be with the real weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from benchmarks.gpu_models import Language, decoder, random_weight, tiny_language, weight_bytes
from streaming.audio import Samples
from streaming.batching import Call, Work
from streaming.causal import CausalStream
from streaming.models.causal_encoder import CausalEncoder, CausalShape, CausalWeights
from streaming.models.linear import Dense
from streaming.models.llama import LlamaLayer, LlamaShape
from streaming.models.projectors import StackedProjector
from streaming.models.rope import Rope
from streaming.models.tekken import Tekken
from streaming.models.voxtral_realtime import VoxtralRealtime
from streaming.realtime_words import Follow, RealtimeRecogniser
from streaming.scheduler import Job, Urgency, choose, run

__all__ = ["REALTIME", "PublishedRealtime", "Reader", "Reading", "recogniser", "row_bytes", "tiny_realtime", "together"]

_BEGIN, _END, _PAD, _WORD = 1, 2, 3, 4
_EVERY: Final = 4
"""Steps between words."""

_LEAD: Final = 32
_DELAY: Final = 6
"""Steps of silence before a sound, and of a word behind its sound: those of the published `tekken.json`."""


@dataclass(frozen=True, slots=True)
class PublishedRealtime:
    """Sizes: `stack` frames of the encoder make a row of the language model that `writes`; another one `answers`."""

    name: str
    encoder: CausalShape
    stack: int
    writes: Language
    answers: Language


REALTIME: Final = PublishedRealtime(
    "voxtral-realtime-4b",
    CausalShape(
        mels=128, width=1_280, hidden=5_120, heads=32, head_width=64, layers=32, window=750, rope=Rope(64), rope_base=1e6, norm_epsilon=1e-5
    ),
    4,
    Language(LlamaShape(131_072, 26, 3_072, 9_216, 32, 8, 128, 1_024, 1e6, windows=(8_192,) * 26), tied=True),
    Language(LlamaShape(151_936, 36, 2_560, 9_728, 32, 8, 128, 8_192, 5e6, head_norm=True), tied=True),
)
"""mistralai/Voxtral-Mini-4B-Realtime-2602 and Qwen/Qwen3-4B-Instruct-2507."""


def tiny_realtime(model: PublishedRealtime) -> PublishedRealtime:
    """The same, as small as a test wants it."""
    encoder = replace(model.encoder, width=16, hidden=24, heads=2, head_width=8, layers=1, rope=Rope(8))
    return replace(model, encoder=encoder, writes=tiny_language(model.writes), answers=tiny_language(model.answers))


def row_bytes(model: PublishedRealtime) -> int:
    """What a row and its step read of bfloat16 weights: encoder, projector, decoder."""
    shape, width = model.encoder, model.writes.shape.width
    layer = 4 * shape.heads * shape.head_width * shape.width + 3 * shape.width * shape.hidden
    stem = 3 * shape.width * (shape.mels + shape.width)
    return 2 * (stem + shape.layers * layer + width * (model.stack * shape.width + width)) + weight_bytes(model.writes.shape)


class Reading(RealtimeRecogniser):
    """Computes what any model computes, and writes a word at every fourth step."""

    def run(self, calls: Sequence[Call]) -> None:
        super().run(calls)
        for call in calls:
            if isinstance(call, Follow):
                call.tokens_after = [_PAD if step % _EVERY else _WORD for step in range(call.start, call.start + call.rows)]
                call.logs_after = [0.0] * call.rows


@torch.inference_mode()
def recogniser(model: PublishedRealtime, device: torch.device) -> Reading:
    """The recogniser."""
    shape, width = model.writes.shape, model.encoder.width
    pieces = [b""] * shape.vocabulary
    pieces[_WORD] = b" Yes."
    vocabulary = Tekken(tuple(pieces), {"<s>": _BEGIN, "</s>": _END, "[STREAMING_PAD]": _PAD}, "", _LEAD, _DELAY)
    projector = StackedProjector(
        random_weight(device, shape.width, model.stack * width), random_weight(device, shape.width, shape.width), model.stack
    )
    encoder = CausalEncoder(model.encoder, _encoder_weights(model.encoder, device))
    return Reading(VoxtralRealtime(encoder, projector, decoder(model.writes, device, slots=0), vocabulary, _DELAY))


def _encoder_weights(shape: CausalShape, device: torch.device) -> CausalWeights:
    def weight(*sizes: int) -> torch.Tensor:
        return random_weight(device, *sizes)

    width, mixed = shape.width, shape.heads * shape.head_width
    layers = tuple(
        LlamaLayer(
            attention_norm=torch.ones_like(weight(width)),
            qkv=Dense(weight(3 * mixed, width), weight(3 * mixed)),
            attention_out=Dense(weight(width, mixed), weight(width)),
            feed_forward_norm=torch.ones_like(weight(width)),
            gate_up=Dense(weight(2 * shape.hidden, width)),
            down=Dense(weight(width, shape.hidden), weight(width)),
        )
        for _ in range(shape.layers)
    )
    first, second = ((weight(width, inputs, 3), weight(width)) for inputs in (shape.mels, width))
    return CausalWeights(first, second, layers, torch.ones_like(weight(width)))


class Reader:
    """One stream that is heard as it comes: a row and a step each 80 ms, and nothing provisional."""

    def __init__(self, recogniser: RealtimeRecogniser) -> None:
        self._recogniser = recogniser
        self._stream = CausalStream(recogniser.encoder, len(recogniser.prompt))
        self._stream.push(recogniser.lead)
        self._cache = recogniser.decoder.new_cache(recogniser.steps)
        self._last = _PAD
        self.steps = 0

    def push(self, pcm: Samples) -> None:
        """Take the sound that follows."""
        self._stream.push(pcm)

    def read(self) -> Work[None]:
        """The rows that are complete, and their steps."""
        while (rows := (yield from self._stream.commit())) is not None:
            written, _ = yield from self._recogniser.follow(rows, self.steps, self._last, self._cache)
            self._last = written[-1][0]
            self.steps += len(rows)


def together(works: Iterable[Work[None]]) -> None:
    """Work of several sessions to its end, in batches as the engine makes them."""
    jobs = [Job(work, Urgency.LISTENING, 0.0) for work in works]
    for job in jobs:
        job.advance()
    while batch := choose(jobs):
        run(batch)
