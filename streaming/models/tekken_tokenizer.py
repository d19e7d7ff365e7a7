"""A tokenizer of Mistral's `tekken.json`, for models that are published without another: byte-level BPE by rank.

Of two neighbours whose bytes together are a token, those whose token has the lowest rank are joined first. So every way to cut a token into
two tokens is a merge, in the order of ranks, and a word that is a token is that token.
"""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from streaming.models.byte_letters import byte_letters
from streaming.models.ctranslate2 import WeightsError
from streaming.models.tekken import load_tekken

__all__ = ["tekken_tokenizer"]


def tekken_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a model with `vocabulary` tokens, 131,072 in two seconds. Raises WeightsError, naming the file, for what is no such
    file, or of another model, and OSError."""
    tekken = load_tekken(path, vocabulary)
    letter_of = {byte: letter for letter, byte in byte_letters().items()}
    control = {number: name for name, number in tekken.control.items()}
    names = [
        "".join(letter_of[byte] for byte in piece) if piece else control.get(number, f"<SPECIAL_{number}>")
        for number, piece in enumerate(tekken.pieces)
    ]
    numbers = {piece: number for number, piece in enumerate(tekken.pieces) if piece}
    merges = [
        (names[numbers[piece[:at]]], names[numbers[piece[at:]]])
        for piece in tekken.pieces  # in the order of ranks
        for at in range(1, len(piece))
        if piece[:at] in numbers and piece[at:] in numbers
    ]
    try:
        tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, merges, ignore_merges=True))
        cut = pre_tokenizers.Split(Regex(tekken.pattern), "isolated")
    except Exception as error:  # tokenizers raises nothing narrower
        raise WeightsError(f"{path} is no tekken.json of this model ({error})") from error
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [name for name, piece in zip(names, tekken.pieces, strict=True) if not piece]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer
