"""Byte-level BPE by rank, as tiktoken does it: for vocabularies that are published as a list of pieces and no more.

Of two neighbours whose bytes together are a token, those whose token has the lowest rank are joined first. So every way to cut a token into
two tokens is a merge, in the order of ranks, and a word that is a token is that token.
"""

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from streaming.models.byte_letters import byte_letters

__all__ = ["byte_words", "ranked_tokenizer"]


def byte_words(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Cuts text as the pattern says, then writes its bytes as letters. Raises an Exception of the package for a bad pattern."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def ranked_tokenizer(pieces: Sequence[bytes], control: Mapping[int, str], pattern: str) -> Tokenizer:
    """The tokenizer of a vocabulary, 131,072 tokens in two seconds. `pieces` are the bytes of every token in the order of ranks, none for
    control tokens, whose names are `control` by number; `pattern` finds the words of a text. Raises ValueError where they do not fit."""
    letter_of = {byte: letter for letter, byte in byte_letters().items()}
    names = ["".join(letter_of[byte] for byte in piece) if piece else control[number] for number, piece in enumerate(pieces)]
    numbers = {piece: number for number, piece in enumerate(pieces) if piece}
    merges = [
        (names[numbers[piece[:at]]], names[numbers[piece[at:]]])
        for piece in pieces  # in the order of ranks
        for at in range(1, len(piece))
        if piece[:at] in numbers and piece[at:] in numbers
    ]
    try:
        tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, merges, ignore_merges=True))
        tokenizer.pre_tokenizer = byte_words(pattern)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(str(error)) from error
    tokenizer.decoder = decoders.ByteLevel()
    special = [name for name, piece in zip(names, pieces, strict=True) if not piece]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer
