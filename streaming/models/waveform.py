"""wav2vec 2.0 (Baevski et al. 2020) and HuBERT (Hsu et al. 2021) through `transformers`: a stretch of sound to states, or to CTC logits.

Whatever these models make of a sample depends on all of the stretch: the first convolution is normalised over time in the `group`
variant, the sound itself by its mean and variance where `preprocessor_config.json` says so, positions are a convolution over 128 frames
and attention sees everything. So nothing here is incremental; `streaming.windowed` makes a stream of stretches.

Needs the extra `transformers`. The folder is Hugging Face's: `config.json`, `preprocessor_config.json`, weights, and the vocabulary of a
CTC model.
"""

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE
from streaming.models.ctranslate2 import WeightsError
from streaming.models.pretrained import load_pretrained, model_type, need_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["KINDS", "WaveformModel", "load_waveform", "waveform_kind"]

KINDS: Final = ("wav2vec2", "hubert")
"""What `model_type` may be."""

_SPARE: Final = ("quantizer.", "project_q.", "project_hid.", "lm_head.", "masked_spec_embed", "dropout_features.")
"""Begins the names of tensors that training, or another head, left in a checkpoint: not needed, not missed."""

_SMALLEST: Final = 1e-7
"""Added to the variance of the sound, as the reference does."""


def waveform_kind(folder: Path) -> str | None:
    """The `model_type` of a folder that is one of `KINDS`; None for any other folder."""
    kind = model_type(folder)
    return kind if kind in KINDS else None


class WaveformModel:
    """A model and what is done to the sound before it. Holds nothing of a session."""

    def __init__(self, model: "PreTrainedModel", *, normalised: bool, ctc: bool) -> None:
        """`normalised`: the sound is brought to zero mean and unit variance, stretch by stretch. `ctc`: the rows are logits.
        Raises WeightsError for a model whose rows are no longer those of its convolutions."""
        self._model = model
        self._normalised = normalised
        self._ctc = ctc
        config = model.config
        if getattr(config, "add_adapter", False):
            raise WeightsError("it thins its rows behind the encoder (add_adapter), which no published model of speech recognition does")
        self.width: Final[int] = config.vocab_size if ctc else config.hidden_size
        # Samples between rows, and under one row: 320 and 400 for every published model.
        self.row_samples: Final[int] = prod(config.conv_stride)
        reach, step = 1, 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            reach, step = reach + (kernel - 1) * step, step * stride
        self.reach: Final[int] = reach

    def rows(self, samples: int) -> int:
        """How many rows a stretch of `samples` has."""
        return max(0, (samples - self.reach) // self.row_samples + 1)

    @torch.inference_mode()
    def run(self, pcm: Samples) -> Tensor:
        """Rows of a stretch, float32 (n,) at 16 kHz: float32 [rows(n), width] on the CPU."""
        if not self.rows(len(pcm)):
            return torch.zeros(0, self.width)
        if self._normalised:
            pcm = ((pcm - pcm.mean()) / np.sqrt(pcm.var() + _SMALLEST)).astype(np.float32)
        found = self._model(torch.from_numpy(np.ascontiguousarray(pcm))[None].to(self._model.device, self._model.dtype))
        rows: Tensor = (found.logits if self._ctc else found.last_hidden_state)[0]
        return rows.float().cpu()


def load_waveform(folder: Path, *, ctc: bool = False, dtype: torch.dtype = torch.float32, device: str = "cpu") -> WaveformModel:
    """The model in a folder, with its CTC head or without. Raises WeightsError, naming the file or tensor, for what is no such model,
    and without `transformers`; OSError."""
    kind = waveform_kind(folder)
    if kind is None:
        raise WeightsError(f"{folder / 'config.json'} is not the config of {' or '.join(KINDS)}")
    need_transformers(f"{folder.name} ({kind})")
    import transformers

    classes: dict[tuple[str, bool], type[PreTrainedModel]] = {
        ("wav2vec2", False): transformers.Wav2Vec2Model,
        ("wav2vec2", True): transformers.Wav2Vec2ForCTC,
        ("hubert", False): transformers.HubertModel,
        ("hubert", True): transformers.HubertForCTC,
    }
    normalised = _normalised(folder / "preprocessor_config.json")
    model = load_pretrained(folder, classes[kind, ctc], _SPARE, dtype, device)
    try:
        return WaveformModel(model, normalised=normalised, ctc=ctc)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error


def _normalised(path: Path) -> bool:
    """Whether the sound is to be normalised. It can't be told from the weights, and the wrong answer ruins them quietly."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error})") from error
    rate = settings.get("sampling_rate", SAMPLE_RATE) if isinstance(settings, dict) else None
    if rate != SAMPLE_RATE:
        raise WeightsError(f"{path} asks for a sampling rate of {rate!r}, not {SAMPLE_RATE}")
    value = settings.get("do_normalize", True)
    if not isinstance(value, bool):
        raise WeightsError(f"{path}: do_normalize is {value!r}, not true or false")
    return value
