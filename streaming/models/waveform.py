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
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from streaming.audio import Samples
from streaming.events import SAMPLE_RATE
from streaming.models.ctranslate2 import WeightsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["KINDS", "WaveformModel", "load_waveform", "need_transformers", "waveform_kind"]

KINDS: Final = ("wav2vec2", "hubert")
"""What `model_type` may be."""

_UNUSED: Final = ("quantizer.", "project_q.", "project_hid.", "lm_head.", "masked_spec_embed", "dropout_features.")
"""Begins the names of tensors that training, or another head, left in a checkpoint: not needed, not missed."""

_SMALLEST: Final = 1e-7
"""Added to the variance of the sound, as the reference does."""


def need_transformers(what: str) -> None:
    """Raises WeightsError, saying how to install it, where `transformers` is absent. `what` needs it."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise WeightsError(f"{what} needs the package transformers: install it with `pip install 'vivavoce[transformers]'`") from error


def waveform_kind(folder: Path) -> str | None:
    """The `model_type` of a folder that is one of `KINDS`; None for any other folder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if kind in KINDS else None


class WaveformModel:
    """A model and what is done to the sound before it. Holds nothing of a session."""

    def __init__(self, model: "PreTrainedModel", *, normalised: bool, ctc: bool) -> None:
        """`normalised`: the sound is brought to zero mean and unit variance, stretch by stretch. `ctc`: the rows are logits."""
        self._model = model
        self._normalised = normalised
        self._ctc = ctc
        config = model.config
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
    try:
        loaded = classes[kind, ctc].from_pretrained(folder, local_files_only=True, dtype=dtype, output_loading_info=True)
    except OSError:
        raise
    except Exception as error:  # each kind of damaged file has its own, of three libraries
        raise WeightsError(f"{folder}: the weights can't be loaded, damaged or of other sizes than config.json ({_line(error)})") from error
    model, report = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    wrong = {
        "has no": [name for name in report["missing_keys"] if not _base(name, kind).startswith("masked_spec_embed")],
        "should not have": [name for name in report["unexpected_keys"] if not _base(name, kind).startswith(_UNUSED)],
    }
    for what, names in wrong.items():
        if names:
            raise WeightsError(f"{folder}: it {what} {sorted(names)[0]} ({len(names)} tensors)")
    module: nn.Module = model
    module.to(device).eval().requires_grad_(False)
    return WaveformModel(model, normalised=normalised, ctc=ctc)


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


def _base(name: str, kind: str) -> str:
    return name.removeprefix(f"{kind}.")


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
