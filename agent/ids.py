"""Ids: a prefix and 21 base-62 characters, from a counter keyed by the session's seed, so that a replayed log makes the same ones."""

import hashlib
from typing import Final

__all__ = ["IdMaker"]

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = 21
"""As long as the hosted service's (protocols.md 1.4): 125 bits."""


class IdMaker:
    """Makes the ids of one session."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._count = 0

    def make(self, prefix: str) -> str:
        """The next id, for example `item_4Jr0...`."""
        self._count += 1
        number = int.from_bytes(hashlib.sha256(f"{self._key}/{self._count}".encode()).digest())
        letters = []
        for _ in range(_LENGTH):
            number, digit = divmod(number, len(_ALPHABET))
            letters.append(_ALPHABET[digit])
        return f"{prefix}_{''.join(letters)}"
