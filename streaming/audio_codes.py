"""Sound as tokens of the language model's own vocabulary (AudioPaLM, Rubenstein et al. 2023): Mimi's codes, appended behind the text.

Code `c` of codebook `q` is token `base + q * size + c`. A language model trained so has an embedding row for each; here those are looked
up, and what comes out goes into its keys and values like any other encoder's rows. Exactly incremental: a frame is 80 ms, it is final as
soon as it has been heard, and it is what the encoder gives for the whole.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from streaming.audio import Samples, StreamResampler
from streaming.batching import Call, Work
from streaming.events import SAMPLE_RATE
from streaming.models.ctranslate2 import WeightsError
from streaming.models.mimi import Mimi, MimiState

__all__ = ["AudioVocabulary", "CodeFrame", "CodeStation", "CodeStream", "TokenEncoder", "TokenStream"]

_ROWS_AT_ONCE: Final = 4
"""Frames of one batch: each runs alone, 10 to 20 ms on one core at the published size."""


@dataclass(frozen=True, slots=True)
class AudioVocabulary:
    """Where codes stand in a vocabulary: `codebooks` of `size` values from token `base` on, which is the number of text tokens."""

    base: int
    codebooks: int
    size: int

    @property
    def end(self) -> int:
        """The number of tokens of the vocabulary, audio included."""
        return self.base + self.codebooks * self.size

    def tokens(self, codes: Tensor) -> Tensor:
        """int64 [frames, codebooks] to the tokens of the frames, one frame's codebooks after another: int64 [frames * codebooks]."""
        return (codes + self.base + self.size * torch.arange(self.codebooks)).flatten()


@dataclass(slots=True, eq=False)
class CodeFrame:
    """A `Call`: whole frames of sound behind `state`; afterwards their `codes`, int64 [frames, codebooks], and the state `after` them."""

    station: "CodeStation"
    pcm: Samples
    state: MimiState
    codes: Tensor | None = None
    after: MimiState | None = None

    @property
    def rows(self) -> int:
        """Frames."""
        return len(self.pcm) // self.station.model.frame_samples


class CodeStation:
    """Mimi as a `Station`."""

    def __init__(self, model: Mimi, codebooks: int) -> None:
        """Of the model's codebooks the first `codebooks`. Raises ValueError for more than it has, or none."""
        if not 1 <= codebooks <= model.codebooks:
            raise ValueError(f"{codebooks} codebooks were asked for: this Mimi has 1 to {model.codebooks}")
        self.model: Final = model
        self.codebooks: Final = codebooks

    @property
    def rows_at_once(self) -> int:
        """See `Station`."""
        return _ROWS_AT_ONCE

    def run(self, calls: Sequence[Call]) -> None:
        """See `Station`."""
        frames = [call for call in calls if isinstance(call, CodeFrame)]
        found = [self.model.step(frame.pcm, frame.state, self.codebooks) for frame in frames]
        for frame, (codes, after) in zip(frames, found, strict=True):
            frame.codes, frame.after = codes, after


class CodeStream:
    """An `AudioStream` of codes, int64 [frames, codebooks], a frame at a time: the arithmetic never depends on how the sound came."""

    def __init__(self, station: CodeStation) -> None:
        self._station = station
        self._resampler = StreamResampler(SAMPLE_RATE, station.model.rate)
        # Sound at the model's rate, behind the last committed frame.
        self._pcm: Samples = np.zeros(0, np.float32)
        self._state = MimiState()
        self._committed = 0

    @property
    def committed(self) -> int:
        """See `AudioStream`: frames."""
        return self._committed

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`."""
        self._pcm = np.concatenate((self._pcm, self._resampler.push(pcm)))

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: the next frame's codes, int64 [1, codebooks]."""
        size = self._station.model.frame_samples
        if len(self._pcm) < size:
            return None
        call = CodeFrame(self._station, self._pcm[:size], self._state)
        yield call
        assert call.codes is not None
        assert call.after is not None
        self._state, self._pcm = call.after, self._pcm[size:]
        self._committed += 1
        return call.codes

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`: what a frame began with, silence for the rest of it; int64 [0 to 1, codebooks] where everything that could be
        has been committed."""
        size = self._station.model.frame_samples
        held = np.concatenate((self._pcm, copy.deepcopy(self._resampler).flush()))
        state, codes = self._state, [torch.zeros(0, self._station.codebooks, dtype=torch.int64)]
        for start in range(0, len(held), size):
            frame = held[start : start + size]
            call = CodeFrame(self._station, np.pad(frame, (0, size - len(frame))), state)
            yield call
            assert call.codes is not None
            assert call.after is not None
            state = call.after
            codes.append(call.codes)
        return torch.cat(codes)


class TokenStream:
    """An `AudioStream` of a language model's embeddings, [frames * codebooks, width]."""

    def __init__(self, codes: CodeStream, vocabulary: AudioVocabulary, embeddings: Tensor) -> None:
        self._codes = codes
        self._vocabulary = vocabulary
        self._embeddings = embeddings

    @property
    def committed(self) -> int:
        """See `AudioStream`."""
        return self._codes.committed * self._vocabulary.codebooks

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`."""
        self._codes.push(pcm)

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`."""
        codes = yield from self._codes.commit()
        return None if codes is None else self._rows(codes)

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`."""
        return self._rows((yield from self._codes.provisional()))

    def _rows(self, codes: Tensor) -> Tensor:
        return self._embeddings[self._vocabulary.tokens(codes)].float()


class TokenEncoder:
    """An `AudioEncoder` for a language model whose vocabulary ends with audio."""

    def __init__(self, model: Mimi, vocabulary: AudioVocabulary, embeddings: Tensor) -> None:
        """`embeddings` are all of the language model's, [tokens, width]. Raises WeightsError where the vocabulary is not Mimi's, or the
        language model has no rows for it."""
        if vocabulary.size != model.codebook_size:
            raise WeightsError(f"the vocabulary has {vocabulary.size} tokens a codebook and this Mimi {model.codebook_size} codes")
        if len(embeddings) < vocabulary.end:
            raise WeightsError(
                f"the language model has {len(embeddings)} tokens: {vocabulary.end} are needed for {vocabulary.codebooks} codebooks of "
                f"{vocabulary.size} behind {vocabulary.base} of text"
            )
        self._station = CodeStation(model, vocabulary.codebooks)
        self._vocabulary = vocabulary
        self._embeddings = embeddings

    @property
    def width(self) -> int:
        """See `AudioEncoder`."""
        return self._embeddings.shape[1]

    @property
    def row_samples(self) -> int:
        """See `AudioEncoder`: the mean, for a frame's tokens stand for one stretch of sound."""
        model = self._station.model
        return model.frame_samples * SAMPLE_RATE // model.rate // self._vocabulary.codebooks

    def stream(self) -> TokenStream:
        """See `AudioEncoder`."""
        return TokenStream(CodeStream(self._station), self._vocabulary, self._embeddings)
