"""Whisper's vocabulary: what its commands are numbered, how a prompt is made of them, which tokens are never chosen.

Numbers come from the tokenizer, and are checked against the size of the model: English models have one text token less than the others, and
large-v3 one language more, so the wrong tokenizer of the right family would give commands that are off by one. The order of commands is
the published one (openai/whisper, `whisper/tokenizer.py`): end of text, start, languages, tasks, no speech, no times, and then the times.
"""

from collections.abc import Sequence
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from streaming.models.ctranslate2 import WeightsError

__all__ = ["TIMES", "WhisperVocabulary", "is_multilingual", "sound_signs"]

TIMES: Final = 1_501
"""Time tokens of every Whisper: 0 to 30 s in steps of 20 ms. Many a `tokenizer.json` leaves them out."""

_MULTILINGUAL: Final = 51_865
"""The vocabulary's size from which a published Whisper knows languages; the English ones have 51,864."""

_SIGNS: Final = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
)
"""What is written around sounds that are not words ("[laughter]"), each with and without a space before it where that is one token."""

_NOTES: Final = "♩♪♫♬♭♮♯"
"""The same, by their first token where they have several."""


def is_multilingual(size: int) -> bool:
    """Whether a published Whisper of this vocabulary knows languages (openai/whisper, `model.py`)."""
    return size >= _MULTILINGUAL


class WhisperVocabulary:
    """Text and commands of one model."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        suppressed: Sequence[int] | None = None,
        suppressed_first: Sequence[int] | None = None,
        *,
        multilingual: bool = True,
    ) -> None:
        """`size` is the model's. `suppressed` tokens are never chosen, `suppressed_first` not as the first; None for what Whisper's own
        decoding takes: signs of sounds, and at first blank and end. A model that is not `multilingual` is prompted without a language
        or task. Raises WeightsError where the tokenizer is not that of such a model."""
        self._tokenizer = tokenizer
        self._multilingual = multilingual
        self._start = self._command("<|startoftranscript|>")
        self._transcribe = self._command("<|transcribe|>")
        self._no_times = self._command("<|notimestamps|>")
        self.end: Final = self._command("<|endoftext|>")
        self.no_speech: Final = self._command("<|nocaptions|>", "<|nospeech|>")
        self._check_size(size)
        never = sound_signs(tokenizer) if suppressed is None else suppressed
        first = (*tokenizer.encode(" ", add_special_tokens=False).ids[:1], self.end) if suppressed_first is None else suppressed_first
        if any(not 0 <= token < size for token in (*never, *first)):
            raise WeightsError(f"a token is to be suppressed that is none of the model's {size}: the lists are another model's")
        # Added to the scores, shape (size,): everything above the end of text is a command or a time.
        self.bias: Final = _refusing(size, [token for token in never if token != self.end])
        self.bias[self.end + 1 :] = -torch.inf
        self.first_bias: Final = _refusing(size, first)

    def language(self, hint: str | None) -> str:
        """The language to decode with: the hint without its region ("en-GB" is "en"), "en" for none. Raises ValueError for one that
        the model does not know."""
        language = (hint or "en").lower().replace("_", "-").split("-")[0]
        if not self._multilingual:
            if language != "en":
                raise ValueError(f"the recogniser knows no language {hint!r}: it is an English one")
            return language
        # Every code has two or three letters, no other command of Whisper's vocabulary has so few.
        if len(language) > 3 or self._tokenizer.token_to_id(f"<|{language}|>") is None:
            raise ValueError(f"the recogniser knows no language {hint!r}")
        return language

    def prompt(self, language: str) -> list[int]:
        """What every decoding begins with; the probability of no speech is that behind its first token."""
        if not self._multilingual:
            return [self._start, self._no_times]
        return [self._start, self._command(f"<|{language}|>"), self._transcribe, self._no_times]

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without the space in front; an unfinished character at the end is left out."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip().rstrip("\ufffd")

    def _command(self, *names: str) -> int:
        for name in names:
            token = self._tokenizer.token_to_id(name)
            if token is not None:
                return int(token)
        raise WeightsError(f"the vocabulary has no {names[0]}: not Whisper's")

    def _check_size(self, size: int) -> None:
        """Times are the last tokens, whether the tokenizer names them or not."""
        named = self._tokenizer.get_vocab_size(with_added_tokens=True)
        timed = self._tokenizer.token_to_id("<|0.00|>") is not None
        fits = named if timed else self._no_times + 1 + TIMES
        if fits != size or self._no_times >= size:
            what = f"the tokenizer is that of a model of {fits} tokens, but this one has {size}"
            raise WeightsError(f"{what}: take the tokenizer.json of the same Whisper")


def sound_signs(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that write sounds and not words, as Whisper's own decoding suppresses them (openai/whisper, `non_speech_tokens`): sorted."""

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    # A dash or an apostrophe is a word's within it, and a speaker's mark before it.
    found = {token for mark in (" -", " '") for token in tokens(mark)[:1]}
    for sign in (*_SIGNS, *_NOTES):
        for ids in (tokens(sign), tokens(f" {sign}")):
            if len(ids) == 1 or (ids and sign in _NOTES):
                found.add(ids[0])
    return tuple(sorted(found))


def _refusing(size: int, tokens: Sequence[int]) -> Tensor:
    bias = torch.zeros(size)
    bias[torch.tensor(list(tokens), dtype=torch.long)] = -torch.inf
    return bias
