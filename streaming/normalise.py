"""English text as it is said: numbers, money, times, dates, addresses and abbreviations become words, each tied to its characters.

Not here: how a word sounds (`streaming.phonemes`), and markup (the clause cutter takes it out; what is left of it is skipped).
American conventions: month before day, "point" in decimals. Ambiguous forms take the commoner reading ("3-4" is "three to four").
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from streaming.numerals import cardinal, digits, number, ordinal, year

__all__ = ["SpokenToken", "normalise"]


@dataclass(frozen=True, slots=True)
class SpokenToken:
    """`words` are said for the characters `start` to `end` of the text; `stop` is the pause heard after them: one of `. ? ! , ; :`, or "".
    A word is lower case; or as written, where its capitals may tell how to say it ("NASA", "OpenAI"); a single capital is a letter's name.
    Example: `SpokenToken(0, 5, ("three", "dollars", "and", "fifty", "cents"), ".")` for "$3.50."."""

    start: int
    end: int
    words: tuple[str, ...]
    stop: str = ""


def normalise(text: str) -> list[SpokenToken]:
    """The tokens of `text` in order, none overlapping; characters with nothing to say are in none. Linear in the length of `text`."""
    # Same length, so that positions hold.
    plain = text.replace("\u2019", "'").replace("\u2212", "-").replace("\u00a0", " ")
    if _shouted(plain):
        plain = plain.lower() if len(plain.lower()) == len(plain) else plain
    tokens: list[SpokenToken] = []
    before = ""
    for match in _TOKEN.finditer(plain):
        kind = match.lastgroup
        assert kind is not None
        words = _READERS[kind](match.group())
        if not words:
            continue
        if tokens:
            in_range = before in _NUMERIC and kind in _NUMERIC
            tokens[-1] = _before_gap(tokens[-1], plain[tokens[-1].end : match.start()], in_range)
        if kind == "phone":
            # Group by group, as it is written.
            groups = re.finditer(r"\d+", match.group())
            tokens.extend(SpokenToken(match.start() + g.start(), match.start() + g.end(), digits(g.group()), ",") for g in groups)
        else:
            tokens.append(SpokenToken(match.start(), match.end(), words))
        before = kind
    if tokens:
        last = tokens[-1]
        # The full stop of an abbreviation at the end of the text also ends the sentence.
        ending = plain[last.end - 1 :] if plain[last.end - 1] == "." else plain[last.end :]
        tokens[-1] = replace(last, stop=_stop(ending))
    return tokens


def _shouted(text: str) -> bool:
    """Whether capitals are only loudness: three words or more, all of them in capitals."""
    words = re.findall(r"[^\W\d_]{2,}", text)
    return len(words) >= 3 and all(word.isupper() for word in words)


def _before_gap(token: SpokenToken, gap: str, between_numbers: bool) -> SpokenToken:
    """The token with what the characters between it and the next one say: a pause, or "to" in a range."""
    if between_numbers and gap.strip() in ("-", "\u2013"):
        return replace(token, words=(*token.words, "to"))
    return replace(token, stop=_stop(gap))


def _stop(gap: str) -> str:
    """The strongest pause among the characters after a token."""
    for mark in "?!":
        if mark in gap:
            return mark
    if re.search(r"[.\u2026]|\n\s*\n|\n\s*[-*\u2022]", gap):
        return "."
    for mark in ";:":
        if mark in gap:
            return mark
    return "," if re.search(r"[,()\[\]\n\u2014]|\s[-\u2013]\s|\s\u2013|\u2013\s", gap) else ""


# ---------------------------------------------------------------------------------------------------- what is written


_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")

_ABBREVIATIONS: Final[Mapping[str, str]] = {
    "mr": "mister",
    "mrs": "mrs",
    "ms": "ms",
    "dr": "doctor",
    "prof": "professor",
    "st": "street",
    "jr": "junior",
    "sr": "senior",
    "vs": "versus",
    "etc": "et cetera",
    "approx": "approximately",
    "inc": "incorporated",
    "ltd": "limited",
    "corp": "corporation",
    "dept": "department",
    "gen": "general",
    "capt": "captain",
    "lt": "lieutenant",
    "sgt": "sergeant",
    "rev": "reverend",
    "mt": "mount",
    "ave": "avenue",
    "blvd": "boulevard",
    "rd": "road",
    "vol": "volume",
    "fig": "figure",
    **{month[:3].lower(): month.lower() for month in _MONTHS if month != "May"},
    "sept": "september",
}

# Abbreviations only in their place: before a name, before a number, with their inner full stop.
_IN_PLACE: Final[Mapping[str, tuple[str, ...]]] = {
    r"St\.(?= [A-Z])": ("saint",),
    r"No\.(?= ?\d)": ("number",),
    r"e\.g\.": ("for", "example"),
    r"i\.e\.": ("that", "is"),
}

# Abbreviations without a full stop too ("Rev" or "Gen" alone may be a name), and those written in lower case.
_BARE: Final = ("Mr", "Mrs", "Ms", "Dr", "Prof", "Jr", "Sr", "vs", "etc", "Ltd", "Blvd")
_LOWER: Final = ("vs", "etc", "approx", "dept", "vol", "fig", "inc", "ltd", "corp")

_UNITS: Final[Mapping[str, tuple[str, str]]] = {
    "%": ("percent", "percent"),
    "km/h": ("kilometer an hour", "kilometers an hour"),
    "mph": ("mile an hour", "miles an hour"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "ml": ("milliliter", "milliliters"),
    "lbs": ("pound", "pounds"),
    "lb": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "ft": ("foot", "feet"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "kW": ("kilowatt", "kilowatts"),
    "GB": ("gigabyte", "gigabytes"),
    "MB": ("megabyte", "megabytes"),
    "KB": ("kilobyte", "kilobytes"),
    "TB": ("terabyte", "terabytes"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "Hz": ("hertz", "hertz"),
    "ms": ("millisecond", "milliseconds"),
    "sec": ("second", "seconds"),
    "min": ("minute", "minutes"),
    "hrs": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "\u00b0C": ("degree celsius", "degrees celsius"),
    "\u00b0F": ("degree fahrenheit", "degrees fahrenheit"),
    "\u00b0": ("degree", "degrees"),
}

_CURRENCIES: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "\u20ac": ("euro", "euros", "cent", "cents"),
    "\u00a3": ("pound", "pounds", "penny", "pence"),
    "\u00a5": ("yen", "yen", "sen", "sen"),
}

_SCALES: Final[Mapping[str, str]] = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}

_SYMBOLS: Final[Mapping[str, str]] = {
    "&": "and",
    "+": "plus",
    "=": "equals",
    "@": "at",
    "%": "percent",
    "\u00b0": "degrees",
    "\u00d7": "times",
}

# Said in an e-mail or web address; what is not here separates without a word.
_ADDRESS_MARKS: Final[Mapping[str, str]] = {"@": "at", ".": "dot", "-": "dash", "_": "underscore", "/": "slash", "+": "plus"}

# Endings of addresses that are spelled; the others ("com", "org") are words.
_SPELLED_DOMAINS: Final = ("ai", "io", "uk", "us", "eu", "de", "ch", "fr", "co", "edu", "tv", "me")

# No quantifier below runs over the same characters twice, and those before a required mark are bounded: 100 kB of one letter stay linear.
_HOST: Final = r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,6}"
_PLAIN_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)*)"
_UNIT: Final = "|".join(re.escape(unit) + (r"(?![A-Za-z])" if unit[-1].isalpha() else "") for unit in _UNITS)
_CURRENCY: Final = "[" + "".join(_CURRENCIES) + "]"
_MONTH: Final = "(?:" + "|".join(f"{month}|{month[:3]}\\.?" for month in _MONTHS) + ")"
_ABBREVIATION: Final = rf"(?:{'|'.join((*map(str.capitalize, _ABBREVIATIONS), *_LOWER))})\.|(?:{'|'.join(_BARE)})(?![\w'])"

_PATTERNS: Final[Mapping[str, str]] = {
    "address": rf"(?<![\w.+-])[\w.+-]{{1,64}}@{_HOST}[A-Za-z]{{2,24}}(?!\w)"
    rf"|(?<![\w.-])(?:https?://(?:www\.)?|www\.){_HOST}[A-Za-z]{{2,24}}(?::\d{{1,5}})?(?:/[\w./%~-]{{0,200}}[\w/])?"
    rf"|(?<![\w.-]){_HOST}(?:com|org|net|edu|gov|io|ai|dev|app|info|co\.uk|uk|de|ch)(?![\w-])(?:/[\w./%~-]{{0,200}}[\w/])?",
    "iso_date": r"(?<!\d)\d{4}-\d\d-\d\d(?!\d)",
    "slash_date": r"(?<![\d/])\d{1,2}/\d{1,2}/(?:\d{4}|\d\d)(?![\d/])",
    "month_day": rf"(?<!\w){_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?![\w:%]|[.,]\d)",
    "time": r"(?<![\d:.])\d{1,2}:\d\d(?![\d:])(?: ?[AaPp]\.?[Mm](?:\.|\b))?|(?<![\d:.,])\d{1,2} ?[AaPp]\.?[Mm](?:\.|\b)",
    "money": rf"{_CURRENCY} ?{_PLAIN_NUMBER}(?:(?: (?:thousand|million|billion|trillion)|[kKmMbB]|bn)\b)?",
    "phone": r"(?<![\w-])(?:\+?\d{1,3}[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])|(?<![\w-])\d{3}-\d{4}(?![\w-])",
    "fraction": r"(?<![\d/.])\d{1,2}/\d{1,2}(?![\d/])",
    "ordinal": r"(?<![\d.,])\d{1,15}(?:st|nd|rd|th)(?!\w)",
    "decade": r"(?<![\d.,])[12]\d{2}0s(?!\w)",
    "measure": rf"(?:(?<![\w)])-)?{_PLAIN_NUMBER} ?(?:{_UNIT})",
    "number": rf"(?:(?<![\w)])-)?{_PLAIN_NUMBER}",
    "in_place": rf"(?<![\w'.])(?:{'|'.join(_IN_PLACE)})",
    "initials": r"(?<![\w.])(?:[A-Za-z]\.){2,8}",
    "abbreviation": rf"(?<![\w'])(?:{_ABBREVIATION})",
    "article": r"(?<![\w'])A(?= \w)",
    # A longer run of letters is no word; 32 of them bound what one word can cost.
    "word": r"[^\W\d_]{1,32}(?:'[^\W\d_]{1,32})?",
    "symbol": r"(?<=\d) ?[*\u00d7] ?(?=\d)|(?<=\d) [x/] (?=\d)|(?<=\d)x(?=\d)|#(?=\d)|[&+=@%\u00b0]",
}

_TOKEN: Final = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))

_NUMERIC: Final = ("time", "money", "ordinal", "decade", "measure", "number")
"""Kinds between which a dash is "to"."""


# ----------------------------------------------------------------------------------------------------- how it is said


def _read_address(written: str) -> tuple[str, ...]:
    bare = re.sub(r"^(?:https?://)?(?:www\.)?", "", written)
    words: list[str] = []
    pieces = re.findall(r"[^\W\d_]+|\d+|[^\w]|_", bare)
    for index, piece in enumerate(pieces):
        if piece.isdigit():
            words.extend(cardinal(int(piece)) if len(piece) <= 2 else digits(piece))
        elif piece.isalpha():
            spelled = piece.lower() in _SPELLED_DOMAINS and index > 0 and pieces[index - 1] == "."
            words.extend(piece.upper() if spelled else (piece.lower(),))
        elif piece in _ADDRESS_MARKS and index < len(pieces) - 1:
            words.append(_ADDRESS_MARKS[piece])
    return tuple(words)


def _read_iso_date(written: str) -> tuple[str, ...]:
    of_year, month, day = (int(part) for part in written.split("-"))
    return _date(of_year, month, day, written)


def _read_slash_date(written: str) -> tuple[str, ...]:
    month, day, of_year = (int(part) for part in written.split("/"))
    if of_year < 100:
        of_year += 2000 if of_year < 50 else 1900
    # Where the first number can't be a month the date is written day first.
    return _date(of_year, month, day, written) if month <= 12 else _date(of_year, day, month, written)


def _date(of_year: int, month: int, day: int, written: str) -> tuple[str, ...]:
    """A date of the calendar; other numbers one after another."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return tuple(word for part in re.findall(r"\d+", written) for word in number(part))
    return (_MONTHS[month - 1].lower(), *ordinal(day), *year(of_year))


def _read_month_day(written: str) -> tuple[str, ...]:
    name, day = written.split()
    month = next(month for month in _MONTHS if month.startswith(name.rstrip(".")))
    return (month.lower(), *ordinal(int(re.sub(r"\D", "", day))))


def _read_time(written: str) -> tuple[str, ...]:
    match = re.match(r"(\d+)(?::(\d\d))? ?(?:([AaPp])\.?[Mm])?", written)
    assert match is not None
    hour, minute, half = match.groups()
    words = list(cardinal(int(hour)))
    if minute == "00" and half is None:
        words.extend(("o'clock",) if 1 <= int(hour) <= 12 else ("hundred",))
    elif minute is not None and minute != "00":
        words.extend(("oh", *cardinal(int(minute))) if minute.startswith("0") else cardinal(int(minute)))
    return (*words, half.upper(), "M") if half else tuple(words)


def _read_money(written: str) -> tuple[str, ...]:
    one, many, small_one, small_many = _CURRENCIES[written[0]]
    match = re.match(r"([\d.,]*\d) ?([A-Za-z]*)", written[1:].strip())
    assert match is not None
    amount, scale = match.group(1).replace(",", ""), match.group(2).lower()
    whole, _, part = amount.partition(".")
    if scale or len(part) > 2 or "." in part:
        return (*number(amount), *((_SCALES.get(scale, scale),) if scale else ()), many)
    unit = one if whole == "1" else many
    cents = int(part.ljust(2, "0")) if part else 0
    if not cents:
        return (*number(whole, plain=True), unit)
    small = (*cardinal(cents), small_one if cents == 1 else small_many)
    return small if whole == "0" else (*number(whole, plain=True), unit, "and", *small)


def _read_phone(written: str) -> tuple[str, ...]:
    return digits(re.sub(r"\D", "", written))


def _read_fraction(written: str) -> tuple[str, ...]:
    top, bottom = (int(part) for part in written.split("/"))
    if top == 0 or not 2 <= bottom <= 20 or top > bottom:
        return (*cardinal(top), *cardinal(bottom))
    if bottom in (2, 4):
        name = ("half", "halves") if bottom == 2 else ("quarter", "quarters")
    else:
        name = (ordinal(bottom)[-1], ordinal(bottom)[-1] + "s")
    return (*cardinal(top), name[0] if top == 1 else name[1])


def _read_ordinal(written: str) -> tuple[str, ...]:
    return ordinal(int(written[:-2]))


def _read_decade(written: str) -> tuple[str, ...]:
    *rest, last = year(int(written[:-1]))
    return (*rest, last[:-1] + "ies" if last.endswith("y") else last + "s")


def _read_measure(written: str) -> tuple[str, ...]:
    match = re.match(r"(-?)([\d.,]*\d) ?(.+)", written)
    assert match is not None
    sign, amount, unit = match.groups()
    one, many = _UNITS[unit]
    return (*(("minus",) if sign else ()), *number(amount, plain=True), *(one if amount == "1" else many).split())


def _read_number(written: str) -> tuple[str, ...]:
    return ("minus", *number(written[1:], plain=True)) if written.startswith("-") else number(written)


def _read_initials(written: str) -> tuple[str, ...]:
    return tuple(written.replace(".", "").upper())


def _read_in_place(written: str) -> tuple[str, ...]:
    return _IN_PLACE[next(pattern for pattern in _IN_PLACE if pattern.replace("\\", "").startswith(written))]


def _read_abbreviation(written: str) -> tuple[str, ...]:
    return tuple(_ABBREVIATIONS[written.rstrip(".").lower()].split())


def _read_word(written: str) -> tuple[str, ...]:
    # Capitals inside a word say how it is read; a lone capital is a letter's name, "I" apart.
    if written == "I" or written[1:].islower() or written.startswith("I'"):
        return (written.lower(),)
    return (written,)


def _read_symbol(written: str) -> tuple[str, ...]:
    mark = written.strip()
    if mark == "#":
        return ("number",)
    if mark == "/":
        return ("over",)
    return ("by",) if mark == "x" else ("times",) if mark == "*" else (_SYMBOLS[mark],)


_READERS: Final[Mapping[str, Callable[[str], tuple[str, ...]]]] = {
    "address": _read_address,
    "iso_date": _read_iso_date,
    "slash_date": _read_slash_date,
    "month_day": _read_month_day,
    "time": _read_time,
    "money": _read_money,
    "phone": _read_phone,
    "fraction": _read_fraction,
    "ordinal": _read_ordinal,
    "decade": _read_decade,
    "measure": _read_measure,
    "number": _read_number,
    "in_place": _read_in_place,
    "initials": _read_initials,
    "abbreviation": _read_abbreviation,
    "article": lambda _: ("a",),
    "word": _read_word,
    "symbol": _read_symbol,
}
