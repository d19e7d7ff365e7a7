"""The language model as the engine uses it: sequences that are brought in line with a prompt, one primitive for everything.

Prefill while the caller speaks, a new turn, a cut reply, an edited history: each is `sync`, which keeps the longest common prefix of what
the sequence holds, rewinds the rest (a length is forgotten, nothing is moved) and computes what is missing, in pieces.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from streaming.batching import Call, Station, Work
from streaming.events import Role
from streaming.kv import KeyValueCache, SharedPrefixes
from streaming.markup import CHATML, Markup, markup_of
from streaming.models.byte_letters import byte_letters
from streaming.models.chat_hints import folder_hints, gguf_hints
from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf import read_gguf
from streaming.models.gguf_file import GgufFile
from streaming.models.linear import usual_dtype
from streaming.models.llama import Stretch
from streaming.models.llama_config import FAMILIES
from streaming.models.pretrained import model_type
from streaming.models.safetensors import load_safetensors, load_tokenizer
from streaming.models.transformers_decoder import load_transformers

__all__ = ["CONTEXT", "ContextFullError", "Decoder", "Extend", "LanguageModel", "LlamaLanguageModel", "Prompt", "Segment", "TokenSequence"]

_PIECE: Final = 64
"""Tokens of a prompt computed at once: 50 ms on one core of a CPU, so that other work is not held up by a long one."""

_DEVICE_PIECE: Final = 1_024
"""The same on a GPU, where a batch is cheap as long as it fits."""

CONTEXT: Final = 4_096
"""Positions of a session: with SmolLM2-135M 23 kB each, 94 MB where all are used."""

_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
"""A byte as SentencePiece writes it."""


class ContextFullError(Exception):
    """The prompt does not fit the positions a session has."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of a prompt that belong together, up to position `end`: the instructions (`role` system), a message, or the opening of the
    reply, whose own tokens follow it. `item_id` is "" where they are no item's."""

    role: Role
    item_id: str
    end: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens and what they are. The first segment is what other sessions may begin with too. A number below zero is no token but the row
    of that number in `rows`, [width] of the model's embedding space (`streaming.audio_path`): the same number is always the same row."""

    tokens: list[int]
    segments: tuple[Segment, ...] = ()
    rows: Mapping[int, Tensor] = field(default_factory=dict, compare=False)

    @property
    def shared(self) -> int:
        """How many tokens the first segment has."""
        return self.segments[0].end if self.segments else 0


class TokenSequence:
    """The ledger of one conversation: the tokens whose keys and values are held, in order, what they are, and the logits after the last.
    To rewind is to forget: nothing is moved or cleared."""

    def __init__(self, cache: KeyValueCache) -> None:
        self.tokens: Final[list[int]] = []
        self.segments: tuple[Segment, ...] = ()
        # float32 [vocabulary]; None while the last token's have not been computed (an unfinished `sync`).
        self.logits: Tensor | None = None
        self.cache: Final = cache

    def common(self, tokens: list[int]) -> int:
        """How many of the first `tokens` are held."""
        return _common_prefix(self.tokens, tokens)

    def rewind(self, position: int) -> None:
        """Hold the first `position` tokens only; what is appended then is as if the others had never been."""
        if position < len(self.tokens):
            del self.tokens[position:]
            self.logits = None
            self.segments = tuple(segment for segment in self.segments if segment.end <= position)

    def evict(self) -> None:
        """Give the memory back. The next `sync` computes everything anew: a conversation's messages are the ledger it comes back from."""
        self.rewind(0)
        self.cache.release()


@dataclass(slots=True, eq=False)
class Extend:
    """A `Call`: `tokens` are appended to `sequence`, whose `logits` are set where they are `scored`. `embedded` are the rows of those below
    zero, [n, width], in order; None where there are none."""

    station: Station
    sequence: TokenSequence
    tokens: list[int]
    scored: bool
    embedded: Tensor | None = None

    @property
    def rows(self) -> int:
        """Tokens."""
        return len(self.tokens)


class Decoder(Protocol):
    """What computes: `streaming.models.llama`, or a stand-in for architectures it does not have."""

    @property
    def context(self) -> int:
        """Positions it was trained for."""

    @property
    def vocabulary(self) -> int:
        """Tokens it has rows for."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    @property
    def embedding(self) -> Tensor:
        """What stands for each token, [vocabulary, width]."""

    def new_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for `capacity` positions."""

    def forward(self, stretches: Sequence[Stretch]) -> list[Tensor | None]:
        """See `Llama.forward`."""


class LanguageModel(Protocol):
    """Text in, tokens out, one at a time. Not for two threads at once."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Each of them ends a message."""

    @property
    def markup(self) -> Markup:
        """What stands around the messages of a conversation."""

    @property
    def context(self) -> int:
        """Positions of a session."""

    def sequence(self) -> TokenSequence:
        """An empty sequence."""

    def sync(self, sequence: TokenSequence, prompt: Prompt) -> Work[None]:
        """Bring `sequence` to hold exactly the prompt, in pieces. Afterwards `sequence.logits` foretell the next token, control tokens but
        the ends at minus infinity. Dropped half way it leaves a shorter sequence, which is as good a start as any for the next `sync`.
        Raises ContextFullError where it does not fit, ValueError where it is empty, both before anything is changed."""

    def append(self, sequence: TokenSequence, token: int) -> Work[None]:
        """One token more; `sequence.logits` follow it. Raises ContextFullError where it does not fit."""

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text; what looks like a control token is plain text too."""

    def control(self, name: str) -> int:
        """The id of a control token, for example `<|im_start|>`. Raises ValueError where there is none."""

    def decode(self, tokens: list[int]) -> str:
        """Text of tokens, control tokens and rows of sound left out; an incomplete character is U+FFFD."""

    def token_texts(self) -> list[bytes]:
        """The bytes of every plain token, empty for control tokens, by id."""


class LlamaLanguageModel:
    """A Llama-shaped model, or what stands in for one, and its tokenizer."""

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, markup: Markup = CHATML, ends: Iterable[int] = (), context: int = CONTEXT
    ) -> None:
        """`ends` are tokens after which it stops besides the one that ends a message in `markup`. Raises ValueError where the tokenizer has
        not what the markup needs."""
        self._model = model
        self._tokenizer = tokenizer
        self._context = min(context, model.context)
        self.markup: Final = markup
        self.end_tokens: Final = frozenset({self.control(markup.end), *(end for end in ends if end < model.vocabulary)})
        # Reads "<|im_end|>" in a caller's words as what it is: ten characters.
        self._plain = Tokenizer.from_str(tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._texts = _token_texts(tokenizer, model.vocabulary)
        # What no reply may hold: control tokens but the ends, and rows of the vocabulary that no token has.
        never = [token for token, text in enumerate(self._texts) if not text and token not in self.end_tokens]
        self._never = torch.tensor(never)
        self._piece = _PIECE if model.device.type == "cpu" else _DEVICE_PIECE
        self._prefixes = SharedPrefixes()

    @classmethod
    def load(
        cls, path: Path, dtype: torch.dtype | None = None, context: int = CONTEXT, device: torch.device | str = "cpu"
    ) -> "LlamaLanguageModel":
        """From a GGUF file, or from a folder in the Hugging Face layout, on to `device`, with the markup it was trained with. Raises
        OSError where `path` can't be read, WeightsError, naming it, for what is no causal language model, or of a family whose markup is
        not known."""
        model: Decoder
        if path.is_dir():
            hints = folder_hints(path)
            model, tokenizer = _folder(path, dtype, device, context)
        else:
            file = GgufFile(path)
            hints = gguf_hints(file)
            model, tokenizer = read_gguf(file, dtype, device=device, context=context)
        try:
            markup = markup_of(lambda name: tokenizer.token_to_id(name) is not None, hints.template)
            return cls(model, tokenizer, markup, hints.ends, context)
        except ValueError as error:
            raise WeightsError(f"{path}: {error}") from error

    @property
    def context(self) -> int:
        return self._context

    @property
    def embedding(self) -> Tensor:
        """What stands for each token, [vocabulary, width]."""
        return self._model.embedding

    def sequence(self) -> TokenSequence:
        return TokenSequence(self._model.new_cache(self._context))

    @property
    def rows_at_once(self) -> int:
        return self._piece

    def sync(self, sequence: TokenSequence, prompt: Prompt) -> Work[None]:
        if not prompt.tokens:
            raise ValueError("a prompt has at least one token")
        if len(prompt.tokens) >= self._context:
            raise ContextFullError(f"{len(prompt.tokens)} tokens do not fit the {self._context} positions of a session")
        return self._sync(sequence, prompt)

    def _sync(self, sequence: TokenSequence, prompt: Prompt) -> Work[None]:
        tokens = prompt.tokens
        kept = _common_prefix(sequence.tokens, tokens)
        if kept == len(tokens) == len(sequence.tokens) and sequence.logits is not None:
            sequence.segments = prompt.segments
            return
        # The logits after a token are not kept, so the last one is computed again where it was held already.
        sequence.rewind(min(kept, len(tokens) - 1))
        sequence.logits = None
        self._begin_alike(sequence, prompt)
        while (start := len(sequence.tokens)) < len(tokens):
            piece = tokens[start : start + self._piece]
            if start < prompt.shared:
                piece = piece[: prompt.shared - start]
            embedded = [prompt.rows[token] for token in piece if token < 0]
            scored = start + len(piece) == len(tokens)
            yield Extend(self, sequence, piece, scored, torch.stack(embedded) if embedded else None)
            if start + len(piece) == prompt.shared:
                self._prefixes.keep(tokens[: prompt.shared], sequence.cache)
        sequence.segments = prompt.segments

    def _begin_alike(self, sequence: TokenSequence, prompt: Prompt) -> None:
        """Take the instructions' keys and values from another session, where one has computed them."""
        shared = min(prompt.shared, len(prompt.tokens) - 1)
        if len(sequence.tokens) >= shared:
            return
        held = self._prefixes.find(prompt.tokens[:shared])
        if held is not None:
            sequence.rewind(0)
            sequence.cache.restore(held)
            sequence.tokens.extend(prompt.tokens[:shared])

    def append(self, sequence: TokenSequence, token: int) -> Work[None]:
        if len(sequence.tokens) >= self._context:
            raise ContextFullError(f"all {self._context} positions of the session are used")
        yield Extend(self, sequence, [token], scored=True)

    def run(self, calls: Sequence[Call]) -> None:
        """See `Station`."""
        extends = [call for call in calls if isinstance(call, Extend)]
        stretches = [Stretch(c.tokens, len(c.sequence.tokens), c.sequence.cache, c.scored, c.embedded) for c in extends]
        for call, logits in zip(extends, self._model.forward(stretches), strict=True):
            call.sequence.tokens.extend(call.tokens)
            call.sequence.logits = None if logits is None else logits.index_fill(0, self._never, -torch.inf)

    def encode(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def control(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ValueError(f"the tokenizer has no {name}: its markup needs that")
        return token

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode([token for token in tokens if token >= 0], skip_special_tokens=True)

    def token_texts(self) -> list[bytes]:
        return self._texts


def _folder(path: Path, dtype: torch.dtype | None, device: torch.device | str, context: int) -> tuple[Decoder, Tokenizer]:
    """The model in a folder: ours where we have its architecture, else that of `transformers`."""
    if model_type(path) in FAMILIES or model_type(path) is None:
        return load_safetensors(path, dtype, device, context=context)
    model, tokenizer = load_transformers(path, dtype or usual_dtype(device), device), load_tokenizer(path / "tokenizer.json")
    if tokenizer.get_vocab_size() > model.vocabulary:
        raise WeightsError(f"{path}: tokenizer.json has {tokenizer.get_vocab_size()} tokens, the model {model.vocabulary}")
    return model, tokenizer


def _token_texts(tokenizer: Tokenizer, vocabulary: int) -> list[bytes]:
    """The bytes of every row of the vocabulary; empty where it is no text. SentencePiece writes a space as a letter of its own and bytes
    as `<0x0A>`, byte-level BPE each byte as a letter."""
    special = tokenizer.get_added_tokens_decoder()
    names = ("" if token in special else tokenizer.id_to_token(token) or "" for token in range(vocabulary))
    if '"ByteLevel"' not in tokenizer.to_str():
        return [bytes.fromhex(name[3:5]) if _BYTE.fullmatch(name) else name.replace("▁", " ").encode() for name in names]
    letters = byte_letters()
    return [bytes(letters[letter] for letter in name) for name in names]


def _common_prefix(held: list[int], wanted: list[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(held, wanted, strict=False)) if a != b), min(len(held), len(wanted)))
