"""Mimi (Défossez et al. 2024, Moshi) through `transformers`: sound to codes, 12.5 frames a second, the first code of each for the words.

The encoder is causal: convolutions reach back only, and so does attention, over a window. So it runs frame by frame with what the
convolutions and the attention keep of the past, and gives what it gives for the whole: `tests/streaming/test_audio_codes.py`. Needs the
extra `transformers`; the folder is Hugging Face's (`kyutai/mimi`).
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.models.ctranslate2 import WeightsError
from streaming.models.pretrained import load_pretrained, model_type, need_transformers

if TYPE_CHECKING:
    from transformers import Cache, MimiModel
    from transformers.models.mimi.modeling_mimi import MimiConv1dPaddingCache

__all__ = ["Mimi", "MimiState", "load_mimi"]


@dataclass(frozen=True, slots=True, eq=False)
class MimiState:
    """What the encoder keeps of the past; None of both at the beginning. Never changed: each frame makes another."""

    attention: "Cache | None" = None
    convolutions: "MimiConv1dPaddingCache | None" = None

    def branch(self) -> "MimiState":
        """One that `transformers` may change: tensors are replaced, not written to, so those are shared."""
        attention, convolutions = copy.copy(self.attention), copy.copy(self.convolutions)
        if attention is not None:
            attention.layers = [copy.copy(layer) for layer in attention.layers]
        if convolutions is not None:
            convolutions.padding_cache = list(convolutions.padding_cache)
        return MimiState(attention, convolutions)


class Mimi:
    """The encoder and its codebooks. Holds nothing of a session."""

    def __init__(self, model: "MimiModel") -> None:
        """Raises WeightsError for a model that is not causal."""
        config = model.config
        if not config.use_causal_conv:
            raise WeightsError("it looks ahead (use_causal_conv is false), so it can't run frame by frame")
        self._model = model
        # Samples a second, samples a frame, codes a frame and values of a code: 24,000, 1,920, 32 and 2,048 for `kyutai/mimi`.
        self.rate: Final[int] = config.sampling_rate
        self.frame_samples: Final[int] = config.frame_size
        self.codebooks: Final[int] = config.num_quantizers
        self.codebook_size: Final[int] = config.codebook_size

    @torch.inference_mode()
    def step(self, pcm: Samples, state: MimiState, codebooks: int) -> tuple[Tensor, MimiState]:
        """The codes of whole frames, float32 (n * frame_samples,) at `rate`, that follow what `state` has heard: int64 [n, codebooks]
        on the CPU, the first of the semantic codebook; with the state after them."""
        kept = state.branch()
        values = torch.from_numpy(np.ascontiguousarray(pcm, np.float32))[None, None].to(self._model.device)
        found = self._model.encode(
            values,
            num_quantizers=codebooks,
            encoder_past_key_values=kept.attention,
            padding_cache=kept.convolutions,
            use_streaming=True,
        )
        codes = cast("Tensor", found.audio_codes)[0].T.cpu()
        return codes, MimiState(found.encoder_past_key_values, found.padding_cache)


def load_mimi(folder: Path, device: str = "cpu") -> Mimi:
    """Read the folder, in float32: the nearest entry of a codebook is another one for the smallest of errors. Raises WeightsError for what
    is no Mimi or is damaged, and without `transformers`; OSError where a file is missing."""
    kind = model_type(folder)
    if kind != "mimi":
        raise WeightsError(f"{folder / 'config.json'} is the config of {kind!r}, not of a Mimi")
    need_transformers(f"{folder.name} (mimi)")
    from transformers import MimiModel

    model = cast("MimiModel", load_pretrained(folder, MimiModel, (), torch.float32, device))
    model.decoder = None  # what makes sound of codes
    try:
        return Mimi(model)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error
