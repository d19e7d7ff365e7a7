"""Byte-pair encoding by rank as it is defined, slow and plain."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

__all__ = ["by_rank"]


def by_rank(words: Iterable[str], pieces: Sequence[bytes]) -> list[int]:
    """The ranks of the tokens of some words: of all neighbours that are a token together, those of the lowest rank are joined, the leftmost
    first, until there are none."""
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    found = []
    for word in words:
        parts = [bytes([byte]) for byte in word.encode()]
        while pairs := [(ranks[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
            at = min(pairs)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        found += [ranks[part] for part in parts]
    return found
