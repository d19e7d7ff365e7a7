"""Whether a projector stands between the models that it was made for: it keeps a few of their weights, and these are compared.

By their direction, so that the same model quantised, in another precision or a little fine-tuned passes, and another one of the same sizes
does not.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from streaming.models.whisper import WhisperEncoder

__all__ = ["fit_tensors", "misfit"]

_ENCODER: Final = "fit.encoder"
_EMBEDDING: Final = "fit.embedding"

_FILTERS: Final = 16
"""Filters of the encoder's first convolution that are kept: 8 kB for Whisper base."""

_ROWS: Final = 64
"""Rows of the embedding table that are kept, evenly over the vocabulary: 74 kB for SmolLM2-135M."""

_ALIKE: Final = 0.95
"""Cosine from which on weights are the same ones: 4 bits with a scale every 32 leave 0.99."""


def fit_tensors(encoder: WhisperEncoder, embedding: Tensor) -> dict[str, Tensor]:
    """What a projector's file keeps of the encoder that gives its frames, and of the `embedding` [vocabulary, width] of the language model
    that takes its rows; float16, by the names they have there."""
    rows = torch.arange(_ROWS, device=embedding.device) * len(embedding) // _ROWS
    kept = {_ENCODER: encoder.conv1.weight[:_FILTERS], _EMBEDDING: embedding[rows]}
    return {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in kept.items()}


def misfit(kept: Mapping[str, Tensor], encoder: WhisperEncoder, embedding: Tensor) -> str | None:
    """Which of the two is another model than that which `kept` (a file's tensors) is of: "encoder", "language model" or, as it should be,
    None. Raises KeyError where the file keeps neither."""
    here = fit_tensors(encoder, embedding)
    for name, what in ((_ENCODER, "encoder"), (_EMBEDDING, "language model")):
        if not _alike(kept[name], here[name]):
            return what
    return None


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return float(functional.cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0)) >= _ALIKE
