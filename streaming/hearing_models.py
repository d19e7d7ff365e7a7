"""Audio language models as the engine uses them: a language model, and the path of sound into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch

from streaming.audio_path import AudioPath
from streaming.decoder import CONTEXT, LlamaLanguageModel
from streaming.encoder import EncoderStation, Ending, hear_silence
from streaming.markup import Markup, markup_of
from streaming.models.audio_language import load_audio_language
from streaming.models.chat_hints import folder_hints
from streaming.models.ctranslate2 import WeightsError
from streaming.models.whisper import Silence
from streaming.projected import ProjectedEncoder

__all__ = ["load_hearing_model"]


@dataclass(frozen=True, slots=True)
class _Manner:
    """What stands around a sound in a message, and what its rows end with. A model whose rows go on to the end of the clip was trained with
    silence behind the sound; others saw nothing there."""

    before: str
    after: str
    ending: Ending


_MANNERS: Final[Mapping[str, _Manner]] = MappingProxyType(
    {
        "qwen2_audio": _Manner("Audio {number}: <|audio_bos|>", "<|audio_eos|>\n", Ending.SOUND),
        "voxtral": _Manner("[BEGIN_AUDIO]", "", Ending.CLIP),
        "ultravox": _Manner("", "", Ending.SOUND),
    }
)
"""As each family's own processor writes it, by `model_type`."""


def load_hearing_model(
    folder: Path, dtype: torch.dtype | None = None, context: int = CONTEXT, device: str = "cpu"
) -> tuple[LlamaLanguageModel, AudioPath]:
    """The model in a folder of `streaming.models.audio_language.KINDS`. Raises WeightsError, naming file and tensor, for what is no such
    model, and OSError where it can't be read."""
    loaded = load_audio_language(folder, dtype, device, context)
    tokenizer, manner = loaded.tokenizer, _MANNERS[loaded.kind]
    hints = folder_hints(folder)
    try:
        markup = markup_of(lambda name: tokenizer.token_to_id(name) is not None, hints.template)
        model = LlamaLanguageModel(loaded.decoder, tokenizer, markup, hints.ends, context)
        for text in (manner.before, manner.after):
            Markup.tokens(model, text)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    silence = Silence(hear_silence(loaded.encoder)[0]) if manner.ending is Ending.CLIP else None
    encoder = ProjectedEncoder(EncoderStation(loaded.encoder, silence), loaded.projector, manner.ending)
    return model, AudioPath(encoder, manner.before, manner.after)
