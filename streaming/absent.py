"""The language model of an engine that has none: its replies are written elsewhere (`server.upstream`) and only spoken here.

It takes what a caller says and holds nothing of it. A reply that is asked of it all the same fails, with a word.
"""

from typing import Final

import torch

from streaming.batching import Work
from streaming.decoder import Prompt, TokenSequence
from streaming.kv import KeyValueCache
from streaming.markup import CHATML, Markup

__all__ = ["AbsentLanguageModel", "NoLanguageModelError"]

_CONTEXT: Final = 4_096
"""Positions of a session, of which none is ever used: templates need a number."""


class NoLanguageModelError(Exception):
    """A reply was asked of an engine without a language model."""


class AbsentLanguageModel:
    """`streaming.decoder.LanguageModel` without a model."""

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset({0})

    @property
    def markup(self) -> Markup:
        return CHATML

    @property
    def context(self) -> int:
        return _CONTEXT

    def sequence(self) -> TokenSequence:
        """An empty sequence, which stays empty."""
        return TokenSequence(KeyValueCache(0, 1, 1, 1, torch.float32, torch.device("cpu")))

    def sync(self, sequence: TokenSequence, prompt: Prompt) -> Work[None]:  # noqa: ARG002 (nothing is held)
        """Nothing, where a caller is listened to. Raises NoLanguageModelError where a reply is to follow."""
        yield from ()
        if prompt.segments and prompt.segments[-1].role == "assistant":
            raise NoLanguageModelError("this engine has no language model: replies are made elsewhere")

    def append(self, sequence: TokenSequence, token: int) -> Work[None]:  # noqa: ARG002 (nothing is held)
        """Never: there is no reply to go on with. Raises NoLanguageModelError."""
        yield from ()
        raise NoLanguageModelError("this engine has no language model: replies are made elsewhere")

    def encode(self, text: str) -> list[int]:
        """A token for everything: there is only one."""
        return [0] if text else []

    def control(self, name: str) -> int:  # noqa: ARG002 (all of them are the one)
        """The one token."""
        return 0

    def decode(self, tokens: list[int]) -> str:  # noqa: ARG002 (none says anything)
        """No text."""
        return ""

    def token_texts(self) -> list[bytes]:
        """None of the tokens has a text."""
        return [b""]
