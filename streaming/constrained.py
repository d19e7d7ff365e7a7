"""Arguments of a forced function call: JSON that follows a JSON Schema, whatever the model would rather write.

What the schema fixes (braces, keys, commas) is written for the model; where it leaves a choice (the letters of a string, the digits of a
number, which of several values, whether an optional property or another item follows) the model chooses among what is allowed. So even a
135M model's arguments parse and validate; whether they are the right ones is its own affair.

Understood: type object (properties, required, additionalProperties ignored), array (items, minItems, maxItems), string, integer, number,
boolean, null, enum, const, local $ref, and the first branch of anyOf, oneOf and a list of types. `pattern`, `format`, `minimum` and the
like are not enforced. A schema that says nothing gets a string.
"""

import json
from collections.abc import Callable, Generator, Mapping
from typing import Final, TypeAlias

import torch
from torch import Tensor

from streaming.decoder import LanguageModel, TokenSequence

__all__ = ["Schema", "SchemaWriter"]

Schema: TypeAlias = Mapping[str, object]
"""A parsed JSON Schema."""

_STRING_TOKENS: Final = 64
"""Tokens after which a string is closed: arguments are names, dates and sentences, not essays."""

_DIGITS: Final = 15
"""Characters of a number: what a double keeps."""

_ITEMS: Final = 16
"""Items after which an array is closed where the schema has no `maxItems`."""

_DEPTH: Final = 8
"""Nesting after which values become null: a schema that refers to itself ends here."""

_Work: TypeAlias = Generator[None, None, str]


class SchemaWriter:
    """Writes JSON behind what `sequence` holds. One is good for one language model; making it reads the whole vocabulary once."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        texts = model.token_texts()
        self._texts = texts
        self._free = _mask(texts, lambda text: bool(text) and not any(byte < 0x20 or byte in b'"\\' for byte in text))
        self._quote = _mask(texts, lambda text: text.startswith(b'"'))
        self._comma = _mask(texts, lambda text: text.strip().startswith(b","))
        self._close_object = _mask(texts, lambda text: text.strip().startswith(b"}"))
        self._close_array = _mask(texts, lambda text: text.strip().startswith(b"]"))
        self._numeric = _mask(texts, lambda text: bool(text) and all(byte in b"-.0123456789" for byte in text))

    def write(self, sequence: TokenSequence, schema: Schema) -> _Work:
        """The JSON text of one value that follows `schema`; yields between tokens. `sequence.logits` must foretell its beginning."""
        return self._value(sequence, schema, schema, _DEPTH)

    def choose(self, sequence: TokenSequence, values: list[str]) -> _Work:
        """Which of several texts the model would write, by greedy choice at each token where they differ."""
        ways = [self._model.encode(value) for value in values]
        position = 0
        while len({tuple(way) for way in ways}) > 1:
            # A way that ends here is taken only if it is the only one left: prefer the longer, which can still be told apart.
            nexts = sorted({way[position] for way in ways if len(way) > position})
            chosen = nexts[0] if len(nexts) == 1 else nexts[int(_logits(sequence)[torch.tensor(nexts)].argmax())]
            ways = [way for way in ways if len(way) > position and way[position] == chosen]
            if len({tuple(way) for way in ways}) > 1:
                self._model.append(sequence, chosen)
                yield
            position += 1
        rest = ways[0][position - 1 :] if position else ways[0]
        yield from self._force_tokens(sequence, rest)
        return next(value for value in values if self._model.encode(value) == ways[0])

    def _value(self, sequence: TokenSequence, schema: Schema, root: Schema, depth: int) -> _Work:
        schema = _resolved(schema, root)
        if "const" in schema:
            return (yield from self._force(sequence, json.dumps(schema["const"])))
        values = schema.get("enum")
        if isinstance(values, list) and values:
            return (yield from self.choose(sequence, [json.dumps(value) for value in values]))
        match _type(schema) if depth else "null":
            case "object":
                return (yield from self._object(sequence, schema, root, depth))
            case "array":
                return (yield from self._array(sequence, schema, root, depth))
            case "integer":
                return (yield from self._number(sequence, whole=True))
            case "number":
                return (yield from self._number(sequence, whole=False))
            case "boolean":
                return (yield from self.choose(sequence, ["true", "false"]))
            case "null":
                return (yield from self._force(sequence, "null"))
            case _:
                return (yield from self._string(sequence))

    def _object(self, sequence: TokenSequence, schema: Schema, root: Schema, depth: int) -> _Work:
        properties, required = schema.get("properties"), schema.get("required")
        text = yield from self._force(sequence, "{")
        for name, inner in properties.items() if isinstance(properties, Mapping) else ():
            wanted = isinstance(required, list) and name in required
            more = self._comma if len(text) > 1 else self._quote
            if not wanted and _best(sequence, self._close_object) >= _best(sequence, more):
                continue
            text += yield from self._force(sequence, (", " if len(text) > 1 else "") + json.dumps(name) + ": ")
            text += yield from self._value(sequence, inner if isinstance(inner, Mapping) else {}, root, depth - 1)
        return text + (yield from self._force(sequence, "}"))

    def _array(self, sequence: TokenSequence, schema: Schema, root: Schema, depth: int) -> _Work:
        inner, least, most = schema.get("items"), schema.get("minItems"), schema.get("maxItems")
        text, count = (yield from self._force(sequence, "[")), 0
        while count < (most if isinstance(most, int) else _ITEMS):
            done = _best(sequence, self._close_array) >= (_best(sequence, self._comma) if count else float(_logits(sequence).max()))
            if done and count >= (least if isinstance(least, int) else 0):
                break
            if count:
                text += yield from self._force(sequence, ", ")
            text += yield from self._value(sequence, inner if isinstance(inner, Mapping) else {}, root, depth - 1)
            count += 1
        return text + (yield from self._force(sequence, "]"))

    def _string(self, sequence: TokenSequence) -> _Work:
        yield from self._force(sequence, '"')
        said = b""
        for _ in range(_STRING_TOKENS):
            if _best(sequence, self._quote) >= _best(sequence, self._free):
                break
            token = int((_logits(sequence) + self._free).argmax())
            said += self._texts[token]
            self._model.append(sequence, token)
            yield
        yield from self._force(sequence, '"')
        return json.dumps(said.decode("utf-8", errors="ignore").strip(), ensure_ascii=False)

    def _number(self, sequence: TokenSequence, *, whole: bool) -> _Work:
        text = ""
        while len(text) < _DIGITS:
            scores = _logits(sequence)
            allowed = [int(token) for token in torch.topk(scores + self._numeric, 32).indices if self._continues(text, int(token), whole)]
            if not allowed or (text[-1:].isdigit() and float(scores.max()) > float(scores[allowed[0]])):
                break  # the model would rather go on with something that is no digit
            text += self._texts[allowed[0]].decode()
            self._model.append(sequence, allowed[0])
            yield
        return text if text[-1:].isdigit() else "0"

    def _continues(self, text: str, token: int, whole: bool) -> bool:
        """Whether `text` with this token behind it begins a JSON number."""
        longer = text + self._texts[token].decode("ascii", errors="replace")
        digits = longer.removeprefix("-")
        integer, point, fraction = digits.partition(".")
        if not all(part.isdigit() or not part for part in (integer, fraction)) or (point and (whole or not integer)):
            return False
        return len(longer) <= _DIGITS and longer != "-0" and (len(integer) < 2 or integer[0] != "0") and not longer.endswith(".-")

    def _force(self, sequence: TokenSequence, text: str) -> _Work:
        yield from self._force_tokens(sequence, self._model.encode(text))
        return text

    def _force_tokens(self, sequence: TokenSequence, tokens: list[int]) -> Generator[None, None, None]:
        for _ in self._model.sync(sequence, [*sequence.tokens, *tokens]) if tokens else ():
            yield


def _mask(texts: list[bytes], allowed: Callable[[bytes], bool]) -> Tensor:
    """[vocabulary]: 0 where a token is allowed, minus infinity where not."""
    return torch.tensor([0.0 if allowed(text) else -torch.inf for text in texts])


def _logits(sequence: TokenSequence) -> Tensor:
    assert sequence.logits is not None
    return sequence.logits.float()


def _best(sequence: TokenSequence, mask: Tensor) -> float:
    return float((_logits(sequence) + mask).max())


def _type(schema: Schema) -> object:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind is None and "properties" in schema:
        return "object"
    return kind


def _resolved(schema: Schema, root: Schema) -> Schema:
    """The schema behind local references and first branches; {} where they lead nowhere."""
    for _ in range(_DEPTH):
        reference, branches = schema.get("$ref"), schema.get("anyOf") or schema.get("oneOf")
        if isinstance(reference, str):
            found: object = root
            for name in reference.removeprefix("#/").split("/"):
                found = found.get(name) if isinstance(found, Mapping) else None
            schema = found if isinstance(found, Mapping) else {}
        elif isinstance(branches, list) and branches and isinstance(branches[0], Mapping):
            schema = branches[0]
        else:
            return schema
    return {}
