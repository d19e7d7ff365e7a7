"""Arguments of a forced function call: JSON that follows a JSON Schema, whatever the model would rather write.

What the schema fixes (braces, keys, commas) is written for the model, in one prefill; where it leaves a choice (the letters of a string,
the digits of a number, which of several values, whether an optional property or another item follows) the model takes the likeliest of
what is allowed. So even a 135M model's arguments parse and validate; whether they are the right ones is its own affair.

Understood: type object (properties, required), array (items, minItems, maxItems), string (minLength, maxLength), integer and number
(minimum, maximum: a value beyond is moved to the bound), boolean, null, enum, const, local $ref. Where there is a choice of schemas (anyOf,
oneOf, a list of types) the first that is not null is taken, of allOf the first. A schema that says nothing of a type gets a string. Not
enforced: pattern, format, multipleOf, exclusive bounds, uniqueItems, additionalProperties and conditions. Bounded: 64 tokens a string, 16
items an array that may end there, 8 levels (deeper values are null), 384 tokens in all, after which everything ends as soon as it may.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import torch
from torch import Tensor

from streaming.batching import Work
from streaming.decoder import LanguageModel, Prompt, TokenSequence

__all__ = ["Schema", "SchemaWriter"]

Schema: TypeAlias = Mapping[str, object]
"""A parsed JSON Schema."""

_TOKENS: Final = 384
"""Of a reply's reserve of 512 positions."""

_STRING_TOKENS: Final = 64
"""Tokens after which a string is closed: arguments are names, dates and sentences, not essays."""

_DIGITS: Final = 15
"""Characters of a number: what a double keeps."""

_ITEMS: Final = 16
"""Items after which an array is closed where the schema has no `maxItems`."""

_LEAST_ITEMS: Final = 64
"""More than this `minItems` can't ask for."""

_LONGEST_TOKEN: Final = 256
"""No token has more characters: only where so few are left does a string look at its tokens' lengths."""

_DEPTH: Final = 8
"""Nesting after which values become null: a schema that refers to itself ends here."""

_NUMERIC: Final = re.compile(rb"-?[0-9]*\.?[0-9]*")
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)?")
_NUMBER: Final = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)?")


class SchemaWriter:
    """Writes JSON behind what a sequence holds. One is good for one language model; making it reads the whole vocabulary once."""

    def __init__(self, model: LanguageModel) -> None:
        self.model: Final = model
        self.texts: Final = model.token_texts()
        # Masks [vocabulary]: 0 where a token is allowed, minus infinity where not.
        self.inside: Final = self._mask(lambda text: not any(byte < 0x20 or byte in b'"\\' for byte in text))
        self.opening: Final = self._mask(lambda text: not any(byte < 0x20 or byte in b'"\\' for byte in text) and not text[:1].isspace())
        self.quote: Final = self._mask(lambda text: text.startswith(b'"'))
        self.key: Final = self._mask(lambda text: text.strip().startswith(b'"'))
        self.anything: Final = self._mask(lambda _: True)
        self.comma: Final = self._mask(lambda text: text.strip().startswith(b","))
        self.object_end: Final = self._mask(lambda text: text.strip().startswith(b"}"))
        self.array_end: Final = self._mask(lambda text: text.strip().startswith(b"]"))
        self.numeric: Final = [token for token, text in enumerate(self.texts) if text and _NUMERIC.fullmatch(text)]
        # Characters that each token begins: bytes but continuations, [vocabulary].
        self.lengths: Final = torch.tensor([sum(byte & 0xC0 != 0x80 for byte in text) for text in self.texts])

    def write(self, sequence: TokenSequence, schema: Schema, tell: Callable[[str], None] = lambda _delta: None) -> Work[str]:
        """The JSON text of an object that follows `schema`, told piece by piece as it stands: what the schema fixes, whole values.
        `sequence.logits` must foretell its beginning. Raises ContextFullError where it does not fit."""
        writing = _Writing(self, sequence, schema, tell)
        yield from writing.object_value(_resolved(schema, schema), _DEPTH)
        writing.tell_more()
        return writing.text

    def _mask(self, allowed: Callable[[bytes], bool]) -> Tensor:
        return torch.tensor([0.0 if text and allowed(text) else -torch.inf for text in self.texts])


class _Writing:
    """One JSON text being written."""

    def __init__(self, writer: SchemaWriter, sequence: TokenSequence, root: Schema, tell: Callable[[str], None]) -> None:
        self._writer = writer
        self._sequence = sequence
        self._root = root
        self._begun = len(sequence.tokens)
        self._tell = tell
        self.text = ""
        # Characters of it that have been told.
        self._told = 0
        # Fixed text since the last token the model chose, and how many tokens of the sequence precede it. It is tokenised as one piece,
        # as the model would have written it, so a quote that has been read may become the beginning of `", "`.
        self._fixed = ""
        self._before = len(sequence.tokens)

    # ------------------------------------------------------------------------------------------------------- values

    def _value(self, schema: object, depth: int) -> Work[None]:
        schema = _resolved(schema, self._root)
        values = schema.get("enum")
        if "const" in schema:
            self._put(_json(schema["const"]))
        elif isinstance(values, list) and values:
            yield from self._choose([_json(value) for value in values])
        else:
            match _type(schema) if depth else "null":
                case "object":
                    yield from self.object_value(schema, depth)
                case "array":
                    yield from self._array(schema, depth)
                case "integer" | "number" as kind:
                    yield from self._number(schema, whole=kind == "integer")
                case "boolean":
                    yield from self._choose(["true", "false"])
                case "null":
                    self._put("null")
                case _:
                    yield from self._string(schema)

    def object_value(self, schema: Schema, depth: int) -> Work[None]:
        """An object; for the root too, whatever its schema says."""
        properties, needed = schema.get("properties"), schema.get("required")
        known: Mapping[str, object] = properties if isinstance(properties, Mapping) else {}
        required = [name for name in needed if isinstance(name, str)] if isinstance(needed, list) else []
        names = [*known, *dict.fromkeys(name for name in required if name not in known)]
        self._put("{")
        separator, more = "", self._writer.key
        while names:
            # Any up to the next one that is required may come next; where none is, the object may end.
            until = next((n for n, name in enumerate(names, 1) if name in required), 0)
            if not until and (self._full or (yield from self._prefers(self._writer.object_end, more))):
                break
            offered = names[until - 1 : until] if self._full else names[: until or None]
            self._put(separator)
            name = offered[(yield from self._choose([_json(name) for name in offered]))]
            self._put(": ")
            yield from self._value(known.get(name), depth - 1)
            names = names[names.index(name) + 1 :]
            separator, more = ", ", self._writer.comma
        self._put("}")

    def _array(self, schema: Schema, depth: int) -> Work[None]:
        least = min(_count(schema, "minItems", 0), _LEAST_ITEMS)
        most = _count(schema, "maxItems", max(least, _ITEMS))
        self._put("[")
        for count in range(most):
            more = self._writer.comma if count else self._writer.anything
            if count >= least and (self._full or (yield from self._prefers(self._writer.array_end, more))):
                break
            self._put(", " if count else "")
            yield from self._value(schema.get("items"), depth - 1)
        self._put("]")

    def _string(self, schema: Schema) -> Work[None]:
        least, most = _count(schema, "minLength", 0), _count(schema, "maxLength", _STRING_TOKENS * 128)
        writer, said = self._writer, b""
        self._put('"')
        for step in range(_STRING_TOKENS):
            length = len(said.decode(errors="ignore"))
            logits = yield from self._read()
            scores = logits + (writer.inside if step else writer.opening)
            if length + _LONGEST_TOKEN > most:
                scores = scores.masked_fill(writer.lengths > most - length, -torch.inf)
            best = int(scores.argmax())
            may_end = length >= least and (self._full or _best(logits, writer.quote) >= float(scores[best]))
            if may_end or scores[best] == -torch.inf:
                break
            said += writer.texts[best]
            yield from self._take(best)
        self.text += said.decode(errors="ignore")
        self._put('"')

    def _number(self, schema: Schema, *, whole: bool) -> Work[None]:
        grammar, texts, digits = _INTEGER if whole else _NUMBER, self._writer.texts, ""
        while allowed := [token for token in self._writer.numeric if _goes_on(grammar, digits + texts[token].decode())]:
            logits = yield from self._read()
            best = _likeliest(logits, allowed)
            if digits[-1:].isdigit() and (self._full or float(logits.max()) > float(logits[best])):
                break  # the model would rather go on with something that is no digit
            digits += texts[best].decode()
            yield from self._take(best)
        self.text += _bounded(digits.rstrip(".-") or "0", schema, whole=whole)

    # -------------------------------------------------------------------------------------------------- the sequence

    @property
    def _full(self) -> bool:
        """Whether everything should end."""
        return len(self._sequence.tokens) - self._begun >= _TOKENS

    def tell_more(self) -> None:
        """Tell what has been written since."""
        if delta := self.text[self._told :]:
            self._told = len(self.text)
            self._tell(delta)

    def _put(self, text: str) -> None:
        """Write what the schema fixes. The model reads it before its next choice."""
        self.text += text
        self._fixed += text

    def _read(self) -> Work[Tensor]:
        """Logits [vocabulary] behind everything written."""
        return (yield from self._look([*self._sequence.tokens[: self._before], *self._writer.model.encode(self._fixed)]))

    def _look(self, tokens: list[int]) -> Work[Tensor]:
        yield from self._writer.model.sync(self._sequence, Prompt(tokens))
        assert self._sequence.logits is not None
        return self._sequence.logits

    def _take(self, token: int) -> Work[None]:
        """Append a token that the model chose behind what it has read."""
        self.tell_more()
        yield from self._writer.model.append(self._sequence, token)
        self._fixed, self._before = "", len(self._sequence.tokens)

    def _prefers(self, end: Tensor, more: Tensor) -> Work[bool]:
        """Whether the likeliest token that ends is likelier than the likeliest that goes on."""
        logits = yield from self._read()
        return _best(logits, end) >= _best(logits, more)

    def _choose(self, texts: Sequence[str]) -> Work[int]:
        """Write one of several texts and say which: at every token where they part the likeliest way. One that ends where others go on is
        taken where the model would do neither."""
        ways = {index: self._writer.model.encode(self._fixed + text) for index, text in enumerate(texts)}
        before = self._sequence.tokens[: self._before]
        while len({tuple(way) for way in ways.values()}) > 1:
            shared = _shared(list(ways.values()))
            logits = yield from self._look([*before, *shared])
            at = len(shared)
            likeliest = _likeliest(logits, sorted({way[at] for way in ways.values() if len(way) > at}))
            ended = {index: way for index, way in ways.items() if len(way) == at}
            if ended and float(logits.max()) > float(logits[likeliest]):
                ways = ended
            else:
                ways = {index: way for index, way in ways.items() if way[at : at + 1] == [likeliest]}
        index = next(iter(ways))
        self._put(texts[index])
        return index


def _best(logits: Tensor, mask: Tensor) -> float:
    return float((logits + mask).max())


def _likeliest(logits: Tensor, tokens: list[int]) -> int:
    return tokens[int(logits[torch.tensor(tokens)].argmax())]


def _shared(ways: list[list[int]]) -> list[int]:
    """The beginning they all have."""
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*ways, strict=False))
    return [column[0] for column in columns]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _goes_on(grammar: re.Pattern[str], digits: str) -> bool:
    return len(digits) <= _DIGITS and grammar.fullmatch(digits) is not None


def _bounded(digits: str, schema: Schema, *, whole: bool) -> str:
    """The number, moved to the bound it is beyond."""
    least, most = schema.get("minimum"), schema.get("maximum")
    if isinstance(least, int | float) and float(digits) < least:
        return _json(math.ceil(least) if whole else least)
    if isinstance(most, int | float) and float(digits) > most:
        return _json(math.floor(most) if whole else most)
    return digits


def _count(schema: Schema, key: str, default: int) -> int:
    value = schema.get(key)
    return value if isinstance(value, int) and value >= 0 else default


def _type(schema: Schema) -> object:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((item for item in kind if item != "null"), "null")
    if kind is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return kind


def _resolved(schema: object, root: Schema) -> Schema:
    """The schema behind local references and first branches; {} where they lead nowhere."""
    for _ in range(_DEPTH):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        branches: object = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list)), [])
        if isinstance(reference, str):
            schema = _pointed(reference, root)
        elif isinstance(branches, list) and branches:
            schema = next((branch for branch in branches if not (isinstance(branch, Mapping) and branch.get("type") == "null")), {})
        else:
            return schema
    return {}


def _pointed(reference: str, root: Schema) -> object:
    """What a local reference points at (RFC 6901)."""
    found: object = root
    for name in reference.removeprefix("#").split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found
