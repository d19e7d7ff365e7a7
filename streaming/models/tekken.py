"""Mistral's vocabulary file `tekken.json`: the bytes of each token, the numbers of control tokens, how text is cut before it is split into
tokens (`streaming.models.tekken_tokenizer`), and what it says of sound.

A token's number is its rank behind the control tokens; the file may list more tokens than the model has.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streaming.events import SAMPLE_RATE
from streaming.features import HOP, WINDOW
from streaming.models.config_values import number_of
from streaming.models.ctranslate2 import WeightsError
from streaming.models.safetensors import json_object

__all__ = ["Tekken", "load_tekken"]

_LEAD: Final = 32
"""Rows of silence before a sound where the file does not say."""


@dataclass(frozen=True, slots=True, eq=False)
class Tekken:
    """A vocabulary. `pieces` are the bytes of every token, none for control tokens, whose numbers are `control`; `pattern` finds the words
    of a text. Sound is preceded by
    `lead` steps of silence and words come `delay` steps behind it, where the file says so."""

    pieces: tuple[bytes, ...]
    control: Mapping[str, int]
    pattern: str
    lead: int
    delay: int | None

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say, a character that is cut replaced."""
        return b"".join(self.pieces[token] for token in tokens).decode("utf-8", errors="replace")


def load_tekken(path: Path, vocabulary: int, sound: tuple[int, int] | None = None) -> Tekken:
    """The file of a model with `vocabulary` tokens. `sound` are the mel bands it hears and the samples of a step, None where what the file
    says of that does not matter. Raises WeightsError, naming the file, for what is no such file or of another model, and OSError."""
    raw = json_object(path)
    try:
        lead, delay = (_LEAD, None) if sound is None else _sound(_object(raw, "audio"), *sound)
        pattern = _object(raw, "config").get("pattern", "")
        return Tekken(*_tokens(raw, vocabulary), str(pattern), lead, delay)
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} is no tekken.json of this model ({error})") from error


def _tokens(raw: Mapping[str, object], vocabulary: int) -> tuple[tuple[bytes, ...], dict[str, int]]:
    config = _object(raw, "config")
    size, reserved = (number_of(config, key, int) for key in ("default_vocab_size", "default_num_special_tokens"))
    control = {str(entry["token_str"]): number_of(entry, "rank", int) for entry in _entries(raw, "special_tokens")}
    words = {number_of(entry, "rank", int): base64.b64decode(str(entry["token_bytes"])) for entry in _entries(raw, "vocab")}
    if size != vocabulary:
        raise ValueError(f"it has {size} tokens and the model {vocabulary}")
    if not set(control.values()) <= set(range(reserved)):
        raise ValueError(f"a control token stands beyond the {reserved} there are")
    if missing := set(range(size - reserved)) - set(words):
        raise ValueError(f"no token has the rank {min(missing)}")
    return (b"",) * reserved + tuple(words[rank] for rank in range(size - reserved)), control


def _sound(audio: Mapping[str, object], mels: int, step_samples: int) -> tuple[int, int | None]:
    """Lead and delay in steps. What the features are must be what they are here."""
    encoding = _object(audio, "audio_encoding_config")
    expected = {"sampling_rate": SAMPLE_RATE, "frame_rate": SAMPLE_RATE / step_samples}
    expected_encoding = {"num_mel_bins": mels, "hop_length": HOP, "window_size": WINDOW}
    for section, values in ((audio, expected), (encoding, expected_encoding)):
        for key, value in values.items():
            if section and number_of(section, key, float) != value:
                raise ValueError(f"{key} is {section[key]!r}, not {value:g}")
    lead = number_of(audio, "streaming_n_left_pad_tokens", int, _LEAD)
    if audio.get("transcription_delay_ms") is None:
        return lead, None
    steps = number_of(audio, "transcription_delay_ms", float) * SAMPLE_RATE / 1_000 / step_samples
    if steps < 1 or steps != int(steps):
        raise ValueError(f"transcription_delay_ms is {audio['transcription_delay_ms']!r}, which is no number of steps")
    return lead, int(steps)


def _object(values: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The object at `key`, empty where there is none."""
    value = values.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{key} is no object")
    return value or {}


def _entries(raw: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = raw.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError(f"it has no list {key}")
    return value
