"""The language model as the engine uses it: sequences that are brought in line with a prompt, one primitive for everything.

Prefill while the caller speaks, a new turn, a cut reply, an edited history: each is `sync`, which keeps the longest common prefix of what
the sequence holds, rewinds the rest (a length is forgotten, nothing is moved) and computes what is missing, in pieces.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Final, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from streaming.kv import KeyValueCache
from streaming.models.gguf import load_gguf
from streaming.models.llama import Llama
from streaming.models.safetensors import load_safetensors

__all__ = ["ContextFullError", "LanguageModel", "LlamaLanguageModel", "TokenSequence"]

_PIECE: Final = 128
"""Tokens computed at once: some tens of milliseconds on a CPU, so that other work is not held up by a long prompt."""

_CONTEXT: Final = 4_096
"""Positions of a session: with SmolLM2-135M 23 kB each, 94 MB where all are used."""


class ContextFullError(Exception):
    """The prompt does not fit the positions a session has."""


class TokenSequence:
    """The ledger of one conversation: the tokens whose keys and values are held, in order, and the logits after the last of them."""

    def __init__(self, cache: KeyValueCache) -> None:
        self.tokens: Final[list[int]] = []
        # float32 [vocabulary]; None while the last token's have not been computed (an unfinished `sync`).
        self.logits: Tensor | None = None
        self.cache: Final = cache


class LanguageModel(Protocol):
    """Text in, tokens out, one at a time. Not for two threads at once."""

    @property
    def end_token(self) -> int:
        """Ends a message."""

    @property
    def context(self) -> int:
        """Positions of a session."""

    def sequence(self) -> TokenSequence:
        """An empty sequence."""

    def sync(self, sequence: TokenSequence, tokens: list[int]) -> Generator[int, None, None]:
        """Bring `sequence` to hold exactly `tokens`, in pieces; yields how many tokens each piece computed. Afterwards `sequence.logits`
        foretell the next one, control tokens but the end at minus infinity. Stopped half way it leaves a shorter sequence, which is as
        good a start as any for the next `sync`. Raises ContextFullError where they do not fit, ValueError where there are none, both
        before anything is changed."""

    def append(self, sequence: TokenSequence, token: int) -> Tensor:
        """One token more; the logits [vocabulary] after it. Raises ContextFullError where it does not fit."""

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text; what looks like a control token is plain text too."""

    def control(self, name: str) -> int:
        """The id of a control token, for example `<|im_start|>`. Raises ValueError where there is none."""

    def decode(self, tokens: list[int]) -> str:
        """Text of tokens, control tokens left out; an incomplete character is U+FFFD."""

    def token_texts(self) -> list[bytes]:
        """The bytes of every plain token, empty for control tokens, by id."""


class LlamaLanguageModel:
    """A Llama-shaped model and its tokenizer."""

    def __init__(self, model: Llama, tokenizer: Tokenizer, end_token: str = "<|im_end|>", context: int = _CONTEXT) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._context = min(context, model.shape.context)
        self._end = self.control(end_token)
        # Reads "<|im_end|>" in a caller's words as what it is: ten characters.
        self._plain = Tokenizer.from_str(tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._texts = _token_texts(tokenizer, model.shape.vocabulary)
        # What no reply may hold: control tokens but the end, and rows of the vocabulary that no token has.
        self._never = torch.tensor([token for token, text in enumerate(self._texts) if not text and token != self._end])

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype = torch.bfloat16, context: int = _CONTEXT) -> "LlamaLanguageModel":
        """From a GGUF file, or from a folder in the Hugging Face layout. Raises OSError where `path` can't be read, ValueError, naming it,
        for what is no Llama-shaped model with ChatML tokens."""
        model, tokenizer = load_safetensors(path, dtype) if path.is_dir() else load_gguf(path, dtype)
        try:
            return cls(model, tokenizer, context=context)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def end_token(self) -> int:
        return self._end

    @property
    def context(self) -> int:
        return self._context

    def sequence(self) -> TokenSequence:
        return TokenSequence(self._model.new_cache(self._context))

    def sync(self, sequence: TokenSequence, tokens: list[int]) -> Generator[int, None, None]:
        if not tokens:
            raise ValueError("a prompt has at least one token")
        if len(tokens) >= self._context:
            raise ContextFullError(f"{len(tokens)} tokens do not fit the {self._context} positions of a session")
        return self._sync(sequence, tokens)

    def _sync(self, sequence: TokenSequence, tokens: list[int]) -> Generator[int, None, None]:
        kept = _common_prefix(sequence.tokens, tokens)
        if kept == len(tokens) == len(sequence.tokens) and sequence.logits is not None:
            return
        # The logits after a token are not kept, so the last one is computed again where it was held already.
        kept = min(kept, len(tokens) - 1)
        del sequence.tokens[kept:]
        sequence.logits = None
        for start in range(kept, len(tokens), _PIECE):
            piece = tokens[start : start + _PIECE]
            if start + len(piece) < len(tokens):
                self._model.extend(piece, start, sequence.cache)
            else:
                sequence.logits = self._logits(piece, start, sequence.cache)
            sequence.tokens.extend(piece)
            yield len(piece)

    def append(self, sequence: TokenSequence, token: int) -> Tensor:
        if len(sequence.tokens) >= self._context:
            raise ContextFullError(f"all {self._context} positions of the session are used")
        logits = self._logits([token], len(sequence.tokens), sequence.cache)
        sequence.tokens.append(token)
        sequence.logits = logits
        return logits

    def encode(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def control(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ValueError(f"the tokenizer has no {name}: this model does not speak ChatML")
        return token

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def token_texts(self) -> list[bytes]:
        return self._texts

    def _logits(self, tokens: list[int], start: int, cache: KeyValueCache) -> Tensor:
        return self._model.logits(tokens, start, cache).index_fill(0, self._never, -torch.inf)


def _token_texts(tokenizer: Tokenizer, vocabulary: int) -> list[bytes]:
    """The bytes of every row of the vocabulary; empty where it is no text."""
    special = tokenizer.get_added_tokens_decoder()
    letters = _byte_letters()
    names = ("" if token in special else tokenizer.id_to_token(token) or "" for token in range(vocabulary))
    return [bytes(letters[letter] for letter in name) for name in names]


def _common_prefix(held: list[int], wanted: list[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(held, wanted, strict=False)) if a != b), min(len(held), len(wanted)))


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level BPE writes bytes with (GPT-2): printable ones stand for themselves, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return letters | {chr(256 + n): byte for n, byte in enumerate(others)}
