"""Audio language models as the engine uses them: a language model, and the path of sound into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from streaming.audio_codes import AudioVocabulary, TokenEncoder
from streaming.audio_path import AudioPath
from streaming.blocked import BlockedEncoder
from streaming.decoder import CONTEXT, LanguageModel, LlamaLanguageModel
from streaming.encoder import EncoderStation, Ending, hear_silence
from streaming.frame_rows import FrameRows
from streaming.markup import Markup, markup_of
from streaming.models.audio_language import audio_language_kind, load_audio_language
from streaming.models.chat_hints import folder_hints
from streaming.models.ctranslate2 import WeightsError
from streaming.models.fit import misfit
from streaming.models.llama import Llama
from streaming.models.mimi import load_mimi
from streaming.models.omni import OMNI
from streaming.models.pocket_projector import load_projector
from streaming.models.qwen_audio import QWEN_AUDIO
from streaming.models.qwen_tokenizer import AUDIO
from streaming.models.safetensors import json_object, load_safetensors
from streaming.models.whisper import Silence
from streaming.projected import ProjectedEncoder
from streaming.recogniser import Recogniser
from streaming.recognition import WordRecogniser

__all__ = ["hears", "load_frame_rows", "load_hearing_model"]

_AUDIO_TOKENS: Final = "audio_tokens.json"
"""Beside a language model in Hugging Face's layout: that its vocabulary ends with the codes of the Mimi in `codec`."""


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
        QWEN_AUDIO: _Manner(f"Audio {{number}}:{AUDIO[0]}", f"{AUDIO[1]}\n", Ending.WHOLE_FRAMES),
        "voxtral": _Manner("[BEGIN_AUDIO]", "", Ending.CLIP),
        "ultravox": _Manner("", "", Ending.SOUND),
        **dict.fromkeys(OMNI, _Manner("<|audio_bos|>", "<|audio_eos|>", Ending.SOUND)),
    }
)
"""As each family's own processor writes it, by `model_type`."""


def hears(path: Path) -> bool:
    """Whether the language model at `path` is told a caller's turn by its sound."""
    return path.is_dir() and (audio_language_kind(path) is not None or (path / _AUDIO_TOKENS).is_file())


def load_hearing_model(
    folder: Path, dtype: torch.dtype | None = None, context: int = CONTEXT, device: str = "cpu"
) -> tuple[LlamaLanguageModel, AudioPath]:
    """The model in a folder that `hears`: one of `streaming.models.audio_language.KINDS`, or one with sound in its vocabulary. Raises
    WeightsError, naming file and tensor, for what is no such model, and OSError where it can't be read."""
    if (folder / _AUDIO_TOKENS).is_file():
        return _with_audio_tokens(folder, dtype, context, device)
    loaded = load_audio_language(folder, dtype, device, context)
    manner = _MANNERS[loaded.kind]
    model = _language_model(folder, loaded.decoder, loaded.tokenizer, context, (manner.before, manner.after))
    if loaded.kind in OMNI:
        return model, AudioPath(BlockedEncoder(EncoderStation(loaded.encoder, None), loaded.projector), manner.before, manner.after)
    silence = Silence(hear_silence(loaded.encoder)[0]) if manner.ending is Ending.CLIP else None
    encoder = ProjectedEncoder(EncoderStation(loaded.encoder, silence), loaded.projector, manner.ending)
    return model, AudioPath(encoder, manner.before, manner.after)


def load_frame_rows(path: Path, recogniser: WordRecogniser, model: LanguageModel) -> FrameRows:
    """The projector in a file, between the encoder of `recogniser` and the language model that were loaded beside it. Raises WeightsError,
    naming the file, for what is none and where it is for others, and OSError where it can't be read."""
    advice = "take the part with the role projector out of the bundle's manifest, or"
    if not isinstance(recogniser, Recogniser):
        raise WeightsError(
            f"{path} makes rows of Whisper's frames, and the transcript is made by another kind of model: {advice} put Whisper there"
        )
    if not isinstance(model, LlamaLanguageModel):
        raise WeightsError(f"{path} makes rows for a language model that runs here, and there is none: {advice} put one there")
    projector = load_projector(path, model.embedding)
    with safe_open(path, framework="pt") as file:
        made_for = file.metadata() or {}
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    try:
        other = misfit(kept, recogniser.model.encoder, model.embedding)
    except KeyError as error:
        raise WeightsError(f"{path} does not say which models it is for: it has no {error}") from error
    if other is not None:
        meant = made_for.get(other.replace(" ", "_"), "another one")
        raise WeightsError(f"{path} is for the {other} {meant}, and the bundle has another: {advice} put that one there")
    return FrameRows(projector)


def _language_model(folder: Path, decoder: Llama, tokenizer: Tokenizer, context: int, around: tuple[str, str]) -> LlamaLanguageModel:
    """With the folder's markup. Raises WeightsError where the tokenizer lacks something of it, or of what stands `around` a sound."""
    hints = folder_hints(folder)
    try:
        markup = markup_of(lambda name: tokenizer.token_to_id(name) is not None, hints.template)
        model = LlamaLanguageModel(decoder, tokenizer, markup, hints.ends, context)
        for text in around:
            Markup.tokens(model, text)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    return model


def _with_audio_tokens(folder: Path, dtype: torch.dtype | None, context: int, device: str) -> tuple[LlamaLanguageModel, AudioPath]:
    path = folder / _AUDIO_TOKENS
    said = json_object(path)
    if unknown := said.keys() - {"base", "codebooks", "before", "after"}:
        raise WeightsError(f"{path}: there is no setting {min(unknown)!r}: base, codebooks, before and after are those there are")
    base, codebooks = said.get("base"), said.get("codebooks", 1)
    around = (said.get("before", ""), said.get("after", ""))
    if not isinstance(base, int) or isinstance(base, bool) or base < 1 or not isinstance(codebooks, int) or isinstance(codebooks, bool):
        raise WeightsError(f"{path}: base, the first audio token, is {base!r} and codebooks {codebooks!r}: both are whole numbers from 1")
    before, after = around
    if not isinstance(before, str) or not isinstance(after, str):
        raise WeightsError(f"{path}: what stands before and after a sound is text")
    decoder, tokenizer = load_safetensors(folder, dtype, device, context=context)
    model = _language_model(folder, decoder, tokenizer, context, (before, after))
    codec = load_mimi(folder / "codec", device)
    try:
        encoder = TokenEncoder(codec, AudioVocabulary(base, codebooks, codec.codebook_size), decoder.weights.embedding)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return model, AudioPath(encoder, before, after)
