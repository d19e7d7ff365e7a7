"""What families of language models put around the messages of a conversation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streaming.decoder import LanguageModel

__all__ = ["CHATML", "LLAMA3", "MISTRAL", "Markup"]

_CONTROL: Final = re.compile(r"(<\|[\w-]+\|>|</?s>|\[/?[A-Z_]+\])")
"""How control tokens are written."""

_SPEAKERS: Final = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Markup:
    """`opening` and `closing` of a message by its speaker (system, user, assistant), `begin` before the first one. Control tokens are
    written as the tokenizer names them."""

    opening: Mapping[str, str]
    closing: Mapping[str, str]
    begin: str = ""

    @staticmethod
    def tokens(model: LanguageModel, text: str) -> list[int]:
        """Markup as tokens; nothing that people write goes this way. Raises ValueError where the model lacks a control token."""
        pieces = [piece for piece in _CONTROL.split(text) if piece]
        return [token for piece in pieces for token in ([model.control(piece)] if _CONTROL.fullmatch(piece) else model.encode(piece))]


CHATML: Final = Markup(
    opening={speaker: f"<|im_start|>{speaker}\n" for speaker in _SPEAKERS}, closing=dict.fromkeys(_SPEAKERS, "<|im_end|>\n")
)
"""Qwen, SmolLM2."""

LLAMA3: Final = Markup(
    opening={speaker: f"<|start_header_id|>{speaker}<|end_header_id|>\n\n" for speaker in _SPEAKERS},
    closing=dict.fromkeys(_SPEAKERS, "<|eot_id|>"),
    begin="<|begin_of_text|>",
)
"""Llama 3."""

MISTRAL: Final = Markup(
    opening={"system": "[SYSTEM_PROMPT]", "user": "[INST]", "assistant": ""},
    closing={"system": "[/SYSTEM_PROMPT]", "user": "[/INST]", "assistant": "</s>"},
    begin="<s>",
)
"""Mistral's V7 and later, as Voxtral has it."""
