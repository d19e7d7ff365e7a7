"""Numbers as English words, one word a string ("forty", "two"): cardinals, ordinals, years, decimals and strings of digits."""

import re
from typing import Final

from num2words import num2words

__all__ = ["cardinal", "digits", "number", "ordinal", "year"]

_LONGEST: Final = 15
"""Digits. A longer number is an identifier to the ear: nobody follows "quintillions"."""

_DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def cardinal(value: int) -> tuple[str, ...]:
    """`cardinal(142)` is `("one", "hundred", "forty", "two")`."""
    return _words(num2words(value))


def ordinal(value: int) -> tuple[str, ...]:
    """`ordinal(21)` is `("twenty", "first")`."""
    return _words(num2words(value, to="ordinal"))


def year(value: int) -> tuple[str, ...]:
    """`year(1984)` is `("nineteen", "eighty", "four")`; 2000 to 2009 are read as numbers."""
    return _words(num2words(value, to="year"))


def digits(written: str) -> tuple[str, ...]:
    """Each digit by itself; other characters are left out."""
    return tuple(_DIGITS[int(digit)] for digit in written if digit.isdecimal())


def number(written: str, plain: bool = False) -> tuple[str, ...]:
    """A number as written, with commas and points: `number("3.14")` is `("three", "point", "one", "four")`. Four digits that look like a
    year are read as one unless `plain`; leading zeros and very long numbers are read digit by digit, versions ("3.11.2") part by part."""
    parts = re.sub(r"[^\d.]", "", written).split(".")
    if len(parts) > 2:
        return _join([_whole(part) for part in parts])
    if not plain and len(parts) == 1 and len(written) == 4 and "1100" <= written <= "2099" and written.isascii():
        return year(int(written))
    whole = _whole(parts[0]) if parts[0] else ("zero",)
    return _join([whole, digits(parts[1])]) if len(parts) == 2 else whole


def _whole(written: str) -> tuple[str, ...]:
    if len(written) > _LONGEST or (len(written) > 1 and written.startswith("0")):
        return digits(written)
    return cardinal(int(written))


def _join(parts: list[tuple[str, ...]]) -> tuple[str, ...]:
    words = list(parts[0])
    for part in parts[1:]:
        words.extend(("point", *part))
    return tuple(words)


def _words(written: str) -> tuple[str, ...]:
    """num2words writes "one thousand, two hundred and thirty-four"."""
    return tuple(word for word in re.findall(r"[a-z']+", written) if word != "and")
