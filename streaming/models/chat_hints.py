"""What a checkpoint says of conversations: its chat template, as text, and the tokens that end a message."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf_file import GgufFile
from streaming.models.safetensors import json_object

__all__ = ["ChatHints", "folder_hints", "gguf_hints"]


@dataclass(frozen=True, slots=True)
class ChatHints:
    """`template` is Jinja, which nothing here runs: it is searched for the markup it writes. None where there is none. `ends` are ids of
    tokens after which a model stops, besides the one that its markup ends a message with."""

    template: str | None = None
    ends: frozenset[int] = frozenset()


_ENDS: Final = ("eos_token_id", "eot_token_id", "eom_token_id")
"""`tokenizer.ggml.*`: of the text, of a turn, of a message."""


def folder_hints(folder: Path) -> ChatHints:
    """Of a folder in Hugging Face's layout: `chat_template.jinja` or what `tokenizer_config.json` has, and the ends of
    `generation_config.json`, or else of `config.json`. Raises WeightsError for a file that is no JSON object."""
    generation, config = (_object(folder / name) for name in ("generation_config.json", "config.json"))
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    listed: list[object] = ends if isinstance(ends, list) else [] if ends is None else [ends]
    known = frozenset(end for end in listed if isinstance(end, int) and end >= 0)
    if len(known) < len(set(listed)):
        raise WeightsError(f"{folder}: eos_token_id is {ends!r}, not a token or a list of them")
    return ChatHints(_template(folder), known)


def gguf_hints(file: GgufFile) -> ChatHints:
    """Of a GGUF file."""
    ends = (int(file.number(f"tokenizer.ggml.{name}")) for name in _ENDS if file.has(f"tokenizer.ggml.{name}"))
    template = file.text("tokenizer.chat_template") if file.has("tokenizer.chat_template") else None
    return ChatHints(template, frozenset(ends))


def _template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = _object(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several by name, of which the one for talk is "default"
        named = [entry.get("template") for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
        template = named[0] if named else None
    return template if isinstance(template, str) else None


def _object(path: Path) -> dict[str, object]:
    """What a JSON file holds; nothing where it is not there."""
    return json_object(path) if path.is_file() else {}
