"""A tokenizer of Mistral's `tekken.json`, for models that are published without another."""

from pathlib import Path

from tokenizers import Tokenizer

from streaming.models.ctranslate2 import WeightsError
from streaming.models.ranked_tokenizer import ranked_tokenizer
from streaming.models.tekken import load_tekken

__all__ = ["tekken_tokenizer"]


def tekken_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a model with `vocabulary` tokens. Raises WeightsError, naming the file, for what is no such file, or of another
    model, and OSError."""
    tekken = load_tekken(path, vocabulary)
    named = {number: name for name, number in tekken.control.items()}
    control = {number: named.get(number, f"<SPECIAL_{number}>") for number, piece in enumerate(tekken.pieces) if not piece}
    try:
        return ranked_tokenizer(tekken.pieces, control, tekken.pattern)
    except ValueError as error:
        raise WeightsError(f"{path} is no tekken.json of this model ({error})") from error
