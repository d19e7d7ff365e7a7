"""Models that `transformers` runs for us, from Hugging Face's layout: found, loaded whole or not at all.

`transformers` is an optional dependency, and it loads what it can of a folder and warns about the rest; here a tensor that is missing or
left over is an error.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from streaming.models.ctranslate2 import WeightsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_pretrained", "model_type", "need_transformers"]


def need_transformers(what: str) -> None:
    """Raises WeightsError, saying how to install it, where `transformers` is absent. `what` needs it."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise WeightsError(f"{what} needs the package transformers: install it with `pip install 'vivavoce[transformers]'`") from error


def model_type(folder: Path) -> str | None:
    """What `config.json` says the folder holds ("whisper", "mimi"); None where it says nothing."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else None


def load_pretrained(
    folder: Path, reference: "type[PreTrainedModel]", spare: tuple[str, ...], dtype: torch.dtype, device: str
) -> "PreTrainedModel":
    """The model, ready to run. Tensors whose names begin with one of `spare`, after the model's own prefix, may be missing or left over:
    training or another head uses them. Raises WeightsError, naming folder and tensor, for a checkpoint that is damaged or another's, and
    OSError where a file is missing."""
    try:
        loaded = reference.from_pretrained(folder, local_files_only=True, dtype=dtype, output_loading_info=True)
    except OSError:
        raise
    except Exception as error:  # each kind of damaged file has its own, of three libraries
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise WeightsError(f"{folder}: the weights can't be loaded, damaged or of other sizes than config.json ({first})") from error
    model, report = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    prefix = f"{model.base_model_prefix}."
    for what, found in (("has no", report["missing_keys"]), ("should not have", report["unexpected_keys"])):
        names = sorted(name for name in found if not name.removeprefix(prefix).startswith(spare))
        if names:
            raise WeightsError(f"{folder}: it {what} {names[0]} ({len(names)} tensors)")
    module: nn.Module = model
    module.to(device).eval().requires_grad_(False)
    return model
