"""The vocabulary of the first Qwen, `qwen.tiktoken`: a line for each token, its bytes in base 64 and its rank. The file has no control
tokens and no pattern: both are of the code it was published with (QwenLM/Qwen-Audio, `tokenization_qwen.py`).
"""

import base64
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, normalizers

from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf_tokenizer import QWEN_WORDS
from streaming.models.ranked_tokenizer import ranked_tokenizer

__all__ = ["AUDIO", "qwen_audio_control", "qwen_tokenizer"]

AUDIO: Final = ("<audio>", "</audio>")
"""What stands around a sound."""

_LANGUAGES: Final = ("en", "zh", "de", "es", "ko", "fr", "ja", "it")
_TASKS: Final = ("startoftranscript", "startofanalysis", "translate", "transcribe", "caption", "keyword", "unknown")
_INSTRUCTIONS: Final = (
    "caption_audiocaps", "caption_clotho", "audioset_ontology", "caption_plain", "itn", "wo_itn", "startofentityvalue",
    "endofentityvalue", "startofentitytype", "endofentitytype", "named_entity_recognition", "audio_grounding", "startofword", "endofword",
    "delim", "emotion_recognition", "music_description", "note_analysis", "pitch",
)  # fmt: skip
_LABELS: Final = (
    "sonic", "instrument", "speaker_meta", "song_meta", "question", "answer", "choice", "scene", "event", "vocal_classification",
    "speech_understanding", "scenario", "action", "entities", "speech_edit",
)  # fmt: skip


def qwen_audio_control() -> list[str]:
    """The control tokens of Qwen-Audio, which follow the tokens of the file."""
    talk = ["endoftext", "im_start", "im_end", *(f"extra_{n}" for n in range(205))]
    times = ["notimestamps", "sil", "timestamps", *(f"{n * 0.01:.2f}" for n in range(3_001))]
    notes = [*(f"midi_pitch_{n}" for n in range(128)), "velocity", *(f"midi_velocity_{n}" for n in range(128))]
    sounds = [*_TASKS, *_LANGUAGES, "zh_tr", *times, *_INSTRUCTIONS, *notes, *_LABELS]
    return [*(f"<|{name}|>" for name in talk), "[[[AUDIO:modality]]]", *(f"<|{name}|>" for name in sounds), *AUDIO]


def qwen_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a Qwen-Audio with `vocabulary` tokens. Raises WeightsError, naming the file, for what is no such file, or has more
    tokens than the model, and OSError."""
    pieces, control = _pieces(path), qwen_audio_control()
    if len(pieces) + len(control) > vocabulary:
        raise WeightsError(f"{path} has {len(pieces) + len(control)} tokens with those of control, the model {vocabulary}")
    try:
        tokenizer = ranked_tokenizer([*pieces, *[b""] * len(control)], dict(enumerate(control, start=len(pieces))), QWEN_WORDS)
    except ValueError as error:
        raise WeightsError(f"{path} is no qwen.tiktoken ({error})") from error
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _pieces(path: Path) -> list[bytes]:
    """The bytes of every token of the file, in the order of ranks."""
    ranked: dict[int, bytes] = {}
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            token, rank = line.split()
            ranked[int(rank)] = base64.b64decode(token, validate=True)
        except ValueError as error:
            raise WeightsError(f"{path} is no qwen.tiktoken: its line {number} is no token and its rank ({error})") from error
    missing = [rank for rank in range(max(1, len(lines))) if not ranked.get(rank)]
    if missing:
        raise WeightsError(f"{path} is no qwen.tiktoken: of its {len(lines)} lines none has a token of rank {missing[0]}")
    return [ranked[rank] for rank in range(len(lines))]
