"""What families of language models put around the messages of a conversation, and which of it a checkpoint was trained with.

A table and not the checkpoint's Jinja template: templates write a conversation anew each time (they date it, strip it, leave out what was
thought), and the prompt of a later turn must begin with the tokens of the one before.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from streaming.decoder import LanguageModel

__all__ = ["CHATML", "GEMMA", "LLAMA3", "MISTRAL", "MISTRAL3", "PHI3", "PHI4", "Markup", "markup_of"]

_CONTROL: Final = re.compile(r"(<\|[\w-]+\|>|</?s>|\[/?[A-Z_]+\]|<(?:start|end)_of_turn>|<bos>|</?(?:think|audio)>)")
"""How control tokens are written."""

_SPEAKERS: Final = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Markup:
    """`opening` and `closing` of a message by its speaker (system, user, assistant), `begin` before the first one. Control tokens are
    written as the tokenizer names them. `sign` is one that no other family has. With `within` the instructions stand at the beginning of
    the first message of the user, which is opened by them."""

    opening: Mapping[str, str]
    closing: Mapping[str, str]
    begin: str = ""
    sign: str = ""
    within: bool = False

    @property
    def end(self) -> str:
        """The control token that ends what the assistant says."""
        return next(piece for piece in _CONTROL.split(self.closing["assistant"]) if _CONTROL.fullmatch(piece))

    @staticmethod
    def tokens(model: "LanguageModel", text: str) -> list[int]:
        """Markup as tokens; nothing that people write goes this way. Raises ValueError where the model lacks a control token."""
        pieces = [piece for piece in _CONTROL.split(text) if piece]
        return [token for piece in pieces for token in ([model.control(piece)] if _CONTROL.fullmatch(piece) else model.encode(piece))]


CHATML: Final = Markup(
    opening={speaker: f"<|im_start|>{speaker}\n" for speaker in _SPEAKERS},
    closing=dict.fromkeys(_SPEAKERS, "<|im_end|>\n"),
    sign="<|im_start|>",
)
"""Qwen, SmolLM2, SmolLM3."""

PHI4: Final = Markup(
    opening={speaker: f"<|im_start|>{speaker}<|im_sep|>" for speaker in _SPEAKERS},
    closing=dict.fromkeys(_SPEAKERS, "<|im_end|>"),
    sign="<|im_sep|>",
)
"""Phi-4."""

PHI3: Final = Markup(
    opening={speaker: f"<|{speaker}|>" for speaker in _SPEAKERS}, closing=dict.fromkeys(_SPEAKERS, "<|end|>"), sign="<|end|>"
)
"""Phi-3 and Phi-4-mini. The line breaks of Phi-3's template are none for its tokenizer, whose control tokens swallow the space behind."""

LLAMA3: Final = Markup(
    opening={speaker: f"<|start_header_id|>{speaker}<|end_header_id|>\n\n" for speaker in _SPEAKERS},
    closing=dict.fromkeys(_SPEAKERS, "<|eot_id|>"),
    begin="<|begin_of_text|>",
    sign="<|start_header_id|>",
)
"""Llama 3."""

MISTRAL: Final = Markup(
    opening={"system": "[SYSTEM_PROMPT]", "user": "[INST]", "assistant": ""},
    closing={"system": "[/SYSTEM_PROMPT]", "user": "[/INST]", "assistant": "</s>"},
    begin="<s>",
    sign="[SYSTEM_PROMPT]",
)
"""Mistral's V7 and later, as Voxtral has it."""

MISTRAL3: Final = Markup(
    opening={"system": "[INST]", "user": "[INST]", "assistant": ""},
    closing={"system": "\n\n", "user": "[/INST]", "assistant": "</s>"},
    begin="<s>",
    sign="[INST]",
    within=True,
)
"""Mistral's V3, whose instructions are the beginning of what the user says."""

GEMMA: Final = Markup(
    opening={
        "system": "<start_of_turn>user\n",
        "user": "<start_of_turn>user\n",
        "assistant": "<start_of_turn>model\n",
    },
    closing={"system": "\n\n", "user": "<end_of_turn>\n", "assistant": "<end_of_turn>\n"},
    begin="<bos>",
    sign="<start_of_turn>",
    within=True,
)
"""Gemma 1 to 3."""

_FAMILIES: Final = (PHI4, CHATML, LLAMA3, MISTRAL, MISTRAL3, GEMMA, PHI3)
"""In the order they are tried: Phi-4 has ChatML's tokens too, SmolLM3 Llama 3's, V7 of Mistral V3's."""

_UNTHOUGHT: Final = "<think>\n\n</think>\n\n"
"""What stands before an answer without thinking, where a model can think aloud (Qwen3, SmolLM3): a caller would hear it think."""


def markup_of(has: Callable[[str], bool], template: str | None) -> Markup:
    """The markup of a checkpoint whose tokenizer `has` these control tokens and whose chat template is `template`, if it has one. Raises
    ValueError for a family that is not known here."""
    for family in _FAMILIES:
        if has(family.sign) and has(family.end) and (template is None or family.sign in template):
            if template is not None and "enable_thinking" in template and has("<think>") and has("</think>"):
                return replace(family, opening={**family.opening, "assistant": family.opening["assistant"] + _UNTHOUGHT})
            return family
    signs = ", ".join(family.sign for family in _FAMILIES)
    raise ValueError(
        f"how it marks the messages of a conversation is not known here: its tokenizer and chat template share none of {signs}"
    )
