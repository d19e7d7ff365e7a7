"""Audio language models of the exact sizes that were published, with random weights: what they say is nothing, what they cost is real.

Sizes are those of the published configurations. Here are those that answer what they hear: a Whisper's encoder, a projector, and our Llama,
which is what Ultravox and Qwen2-Audio are. Whisper base, stacked by eight, before SmolLM2-135M is how a projector for the pocket models
would be; the pocket bundle as it is is measured by `vivavoce bench latency` against `vivavoce serve --device cuda`. Voxtral Realtime, which
writes down what it hears for another to answer, is `benchmarks.gpu_realtime`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from torch.nn import functional

from streaming.audio import Samples
from streaming.audio_path import AudioPath
from streaming.batching import Call, Work
from streaming.decoder import Extend, LlamaLanguageModel
from streaming.encoder import FRAME_SAMPLES, BlockPlan, EncoderStation, SoundStream, hear_silence
from streaming.instructions import SPOKEN_INSTRUCTIONS
from streaming.models.linear import Packing
from streaming.models.llama import Llama, LlamaShape
from streaming.models.slots import SlottedLlama, decoder_of
from streaming.models.weights import Matrix, assemble
from streaming.models.whisper import Silence, WhisperEncoder, WhisperShape

__all__ = [
    "HEARING",
    "Language",
    "Published",
    "Reciting",
    "decoder",
    "hearing",
    "language_model",
    "random_weight",
    "tiny",
    "tiny_language",
    "weight_bytes",
]

_SCALE: Final = 0.02
"""Of random weights: that of the published ones' initialisation, so that no number overflows."""

_PLAN: Final = BlockPlan()
_LINE: Final = "Yes, of course. It is a fine day, and there is time for a walk."
"""What every reply says."""

_WINDOW: Final = _PLAN.first + 11 * _PLAN.block
"""Frames after which a sound goes on in another window, so that a turn may be longer than the encoder's 30 s: whole blocks, 24 s."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language model: `tied` where its head is its embedding, `biased` where queries, keys and values have a bias (Qwen2)."""

    shape: LlamaShape
    tied: bool = False
    biased: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """Sizes of one model. `stack` frames of 20 ms of the encoder make a row; the projector has an inner layer of `projected`, where that is
    0 it is one product."""

    name: str
    encoder: WhisperShape
    stack: int
    projected: int
    language: Language


def _encoder(width: int, heads: int, layers: int, mels: int = 128) -> WhisperShape:
    return WhisperShape(mels, width, heads, layers, 1, 51_866, 1_500, 448)


_LARGE: Final = _encoder(1_280, 20, 32)

HEARING: Final = (
    Published(
        "pocket",
        _encoder(512, 8, 6, 80),
        8,
        1_152,
        Language(LlamaShape(49_152, 30, 576, 1_536, 9, 3, 64, 8_192, 100_000.0), tied=True),
    ),
    Published("qwen2-audio-7b", _LARGE, 2, 0, Language(LlamaShape(156_032, 32, 4_096, 11_008, 32, 32, 128, 8_192), biased=True)),
    Published("ultravox-8b", _LARGE, 8, 4_096, Language(LlamaShape(128_256, 32, 4_096, 14_336, 32, 8, 128, 8_192, 500_000.0))),
)
"""In order of size. The context is what a benchmark needs of it."""


def tiny(model: Published) -> Published:
    """The same, as small as a test wants it."""
    encoder = replace(model.encoder, width=16, heads=2, encoder_layers=1)
    return replace(model, encoder=encoder, language=tiny_language(model.language), projected=min(model.projected, 24))


def tiny_language(model: Language) -> Language:
    """The same, small; the vocabulary has room for that of the tokenizer in use."""
    groups = model.shape.heads // model.shape.kv_heads
    small = replace(model.shape, vocabulary=512, layers=2, width=32, hidden=48, heads=2 * groups, kv_heads=2, head_width=8, windows=())
    return replace(model, shape=replace(small, context=min(small.context, 2_560)))


def random_weight(device: torch.device, *sizes: int) -> Tensor:
    """A tensor of bfloat16."""
    return torch.empty(sizes, device=device, dtype=torch.bfloat16).normal_(0, _SCALE)


def weight_bytes(shape: LlamaShape) -> int:
    """What a decode step reads of bfloat16 weights: every layer and the head, and of the embedding nothing to speak of."""
    attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_width * shape.width
    return 2 * (shape.layers * (attention + 3 * shape.width * shape.hidden) + shape.vocabulary * shape.width)


@torch.inference_mode()
def decoder(model: Language, device: torch.device, slots: int | None = None, room: int = 512) -> Llama:
    """The language model as it is loaded. With `slots` its sequences of at most `room` positions lie in so many, on a CPU too; with 0 in
    none, on a GPU too."""
    shape = model.shape
    turned = {"q_proj": shape.heads, "k_proj": shape.kv_heads, "v_proj": shape.kv_heads}
    sizes = {name: (heads * shape.head_width, shape.width) for name, heads in turned.items()}
    sizes |= {"o_proj": (shape.width, shape.heads * shape.head_width), "down_proj": (shape.width, shape.hidden)}
    sizes |= dict.fromkeys(("gate_proj", "up_proj"), (shape.hidden, shape.width))
    sizes |= dict.fromkeys(("embed_tokens", "lm_head"), (shape.vocabulary, shape.width))
    norms = {"q_norm": shape.head_width, "k_norm": shape.head_width}

    def find(name: str) -> Matrix | None:
        kind = name.split(".")[-2]
        if name.endswith(".bias"):
            return Matrix(random_weight(device, sizes[kind][0])) if model.biased and kind in turned else None
        if model.tied and kind == "lm_head":
            return None
        if kind not in sizes:
            return Matrix(torch.ones(norms.get(kind, shape.width), device=device))
        return Matrix(random_weight(device, *sizes[kind]))

    weights = assemble(shape, find, torch.bfloat16, Packing.NONE, device)
    if slots is None:
        return decoder_of(shape, weights)
    return SlottedLlama(shape, weights, slots, room) if slots else Llama(shape, weights)


class Reciting(LlamaLanguageModel):
    """Computes what any model computes and then says `line`, whatever came of it: random weights would never end, nor say what can be
    spoken."""

    def __init__(self, model: Llama, tokenizer: Tokenizer, line: str) -> None:
        super().__init__(model, tokenizer)
        self._line = [*self.encode(line), self.control(self.markup.end)]

    def run(self, calls: Sequence[Call]) -> None:
        super().run(calls)
        for call in calls:
            if isinstance(call, Extend) and call.sequence.logits is not None:
                call.sequence.logits[self._next(call.sequence.tokens)] = 1e4

    def _next(self, held: list[int]) -> int:
        """The token after the longest beginning of the line that stands at the end."""
        said = next(n for n in range(len(self._line) - 1, -1, -1) if held[len(held) - n :] == self._line[:n])
        return self._line[said]


def language_model(model: Llama) -> Reciting:
    """The model with a tokenizer of a few hundred tokens, in which a word of what it says is one."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_LINE] * 9 + [SPOKEN_INSTRUCTIONS], trainer)
    return Reciting(model, tokenizer, _LINE)


@torch.inference_mode()
def hearing(model: Published, device: torch.device) -> AudioPath:
    """How it hears: encoder, and projector."""
    with torch.device(device):
        encoder = WhisperEncoder(model.encoder)
    encoder.to(torch.bfloat16).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.normal_(0, _SCALE)
    station = EncoderStation(encoder, Silence(hear_silence(encoder)[0], 8))
    sizes = [model.encoder.width * model.stack, *([model.projected] if model.projected else []), model.language.shape.width]
    layers = [random_weight(device, after, before) for before, after in pairwise(sizes)]
    return AudioPath(_Projected(station, layers, model.stack))


class _Projected:
    """An `AudioEncoder`: frames of Whisper's encoder, stacked and projected."""

    def __init__(self, station: EncoderStation, layers: Sequence[Tensor], stack: int) -> None:
        self.station: Final = station
        self.width: Final = len(layers[-1])
        self.row_samples: Final = stack * FRAME_SAMPLES
        self._layers = layers
        self._stack = stack

    def stream(self) -> "_ProjectedStream":
        """See `AudioEncoder`."""
        return _ProjectedStream(self)

    @torch.inference_mode()
    def rows(self, frames: Tensor) -> Tensor:
        """Frames (n, width) to rows, the last filled up with nothing."""
        rows = functional.pad(frames, (0, 0, 0, -len(frames) % self._stack)).reshape(-1, self._stack * frames.shape[1])
        for layer in self._layers[:-1]:
            rows = functional.gelu(functional.linear(rows, layer))
        return functional.linear(rows, self._layers[-1])


class _ProjectedStream:
    """An `AudioStream` in windows."""

    def __init__(self, encoder: _Projected) -> None:
        self._encoder = encoder
        # Windows that are not committed whole, and how many samples the last has.
        self._windows = deque([SoundStream(encoder.station, _PLAN)])
        self._heard = 0
        self.committed = 0

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`."""
        for piece in np.split(pcm, range(_WINDOW * FRAME_SAMPLES - self._heard, len(pcm), _WINDOW * FRAME_SAMPLES)):
            if self._heard == _WINDOW * FRAME_SAMPLES:
                self._windows.append(SoundStream(self._encoder.station, _PLAN))
                self._heard = 0
            self._windows[-1].push(piece)
            self._heard += len(piece)

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: a block, or what a full window has behind its blocks."""
        window = self._windows[0]
        frames = yield from window.commit()
        if frames is None and len(self._windows) > 1:
            frames = (yield from window.provisional())[: _WINDOW - window.committed]
            self._windows.popleft()
        if frames is None:
            return None
        rows = self._encoder.rows(frames)
        self.committed += len(rows)
        return rows

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`; `commit` has given None."""
        return self._encoder.rows((yield from self._windows[0].provisional()))
