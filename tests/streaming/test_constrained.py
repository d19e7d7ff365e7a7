"""Whatever a model prefers, what is written parses and follows the schema; and the pocket model's choices are the right ones."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streaming.batching import Call, Work, completed
from streaming.chat import ChatTemplate
from streaming.constrained import Schema, SchemaWriter
from streaming.decoder import ContextFullError, Extend, LlamaLanguageModel, Prompt, TokenSequence
from streaming.events import ContextMessage


class _Dreaming:
    """A language model with random logits: the tokenizer of another, no sense. `context` bounds it as any model."""

    def __init__(self, model: LlamaLanguageModel, seed: int, context: int = 4_096) -> None:
        self.context: Final = context
        self.end_tokens: Final = model.end_tokens
        self.markup: Final = model.markup
        self.encode, self.decode, self.control, self.token_texts = model.encode, model.decode, model.control, model.token_texts
        self.sequence = model.sequence
        self._random = torch.Generator().manual_seed(seed)

    @property
    def rows_at_once(self) -> int:
        return 64

    def sync(self, sequence: TokenSequence, prompt: Prompt) -> Work[None]:
        if len(prompt.tokens) >= self.context:
            raise ContextFullError("full")
        sequence.rewind(0)
        yield Extend(self, sequence, prompt.tokens, scored=True)

    def append(self, sequence: TokenSequence, token: int) -> Work[None]:
        yield Extend(self, sequence, [token], scored=True)

    def run(self, calls: Sequence[Call]) -> None:
        for call in calls:
            assert isinstance(call, Extend)
            call.sequence.tokens.extend(call.tokens)
            call.sequence.logits = self._logits()

    def _logits(self) -> Tensor:
        return torch.randn(len(self.token_texts()), generator=self._random)


def _write(model: _Dreaming, schema: Schema) -> str:
    sequence = model.sequence()
    completed(model.sync(sequence, Prompt([5])))
    told: list[str] = []
    text = completed(SchemaWriter(model).write(sequence, schema, told.append))
    assert "".join(told) == text
    assert "" not in told
    return text


def _follows(value: object, schema: Schema) -> bool:
    """A small validator of what `streaming.constrained` claims to understand."""
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema:
        return value in schema["enum"]  # type: ignore[operator]
    match schema.get("type", "string"):
        case "object":
            inner, required = schema.get("properties", {}), schema.get("required", [])
            return (
                isinstance(value, dict)
                and all(name in value for name in required)  # type: ignore[attr-defined]
                and all(name in inner and _follows(item, inner[name]) for name, item in value.items())  # type: ignore[operator, index]
            )
        case "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", 16)
            return isinstance(value, list) and least <= len(value) <= most and all(_follows(item, schema["items"]) for item in value)  # type: ignore[operator, arg-type]
        case "string":
            return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)  # type: ignore[operator]
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and _in_bounds(value, schema)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and _in_bounds(value, schema)
        case "boolean":
            return isinstance(value, bool)
        case kind:
            return kind == "null" and value is None


def _in_bounds(value: float, schema: Schema) -> bool:
    return schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)  # type: ignore[operator]


NAMES = st.sampled_from(["city", "cities", "a", 'unit "x"', "größe", "when"])
LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more}, st.integers(0, 3), st.integers(0, 9)),
    st.just({"type": "string"}),
    st.builds(lambda least, more: {"type": "integer", "minimum": least, "maximum": least + more}, st.integers(-9, 9), st.integers(0, 99)),
    st.sampled_from([{"type": "integer"}, {"type": "number"}, {"type": "number", "minimum": 0.5}]),
    st.just({"enum": ["a", "ab", "abc", 1, 12, True, None, 'ü "quoted"']}),
    st.just({"const": {"fixed": [1, "two"]}}),
)
INNER = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
            inner, st.integers(0, 2), st.integers(0, 3),
        ),
        st.builds(
            lambda properties, cut: {"type": "object", "properties": properties, "required": [*properties][:cut]},
            st.dictionaries(NAMES, inner, max_size=3), st.integers(0, 3),
        ),
    ),
    max_leaves=6,
)  # fmt: skip
SCHEMAS = st.builds(
    lambda properties, required: {"type": "object", "properties": properties, "required": [n for n in required if n in properties]},
    st.dictionaries(NAMES, INNER, max_size=4), st.lists(NAMES, max_size=3),
)  # fmt: skip


@settings(deadline=None, max_examples=120)
@given(schema=SCHEMAS, seed=st.integers(0, 10_000))
def test_whatever_a_model_prefers_the_result_follows_the_schema(tiny_language_model: LlamaLanguageModel, schema: Schema, seed: int) -> None:
    text = _write(_Dreaming(tiny_language_model, seed), schema)
    assert _follows(json.loads(text), schema), text


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {}),
        ({"type": "string"}, {}),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/x~1y"}}, "required": ["a"], "$defs": {"x/y": {"const": 3}}}, {"a": 3}),
        ({"properties": {"a": {"anyOf": [{"type": "null"}, {"const": 1}]}}, "required": ["a"]}, {"a": 1}),
        ({"properties": {"a": {"allOf": [{"enum": ["x"]}]}}, "required": ["a"]}, {"a": "x"}),
        ({"properties": {"a": {"items": {"const": 0}, "minItems": 2, "maxItems": 2}}, "required": ["a"]}, {"a": [0, 0]}),
        ({"properties": {"a": {"type": ["null", "boolean"], "enum": [False]}}, "required": ["a", 7]}, {"a": False}),
        ({"properties": {"a": {"type": "array", "maxItems": 0}}, "required": ["a"]}, {"a": []}),
        ({"properties": {"a": {"type": "integer", "minimum": 2.5, "maximum": 3.5}}, "required": ["a"]}, {"a": 3}),
    ],
)
def test_other_ways_to_say_it(tiny_language_model: LlamaLanguageModel, schema: Schema, value: object) -> None:
    assert json.loads(_write(_Dreaming(tiny_language_model, 1), schema)) == value


@pytest.mark.parametrize(
    "inner", [{"$ref": "#/nowhere"}, {"pattern": "^x$"}, True, {"type": "unheard of"}, {"anyOf": []}, {"$ref": "https://elsewhere"}]
)
def test_what_is_not_understood_becomes_a_string(tiny_language_model: LlamaLanguageModel, inner: object) -> None:
    schema = {"type": "object", "properties": {"a": inner}, "required": ["a"]}
    assert isinstance(json.loads(_write(_Dreaming(tiny_language_model, 1), schema))["a"], str)


def test_a_required_name_without_a_schema_is_there(tiny_language_model: LlamaLanguageModel) -> None:
    schema = {"type": "object", "properties": {"b": {"const": 1}}, "required": ["x", "b"]}
    assert set(json.loads(_write(_Dreaming(tiny_language_model, 1), schema))) == {"b", "x"}


def test_a_schema_that_refers_to_itself_ends(tiny_language_model: LlamaLanguageModel) -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}
    value = json.loads(_write(_Dreaming(tiny_language_model, 1), {"$defs": {"node": node}, **node}))
    depth = 0
    while value is not None:
        value, depth = value["next"], depth + 1
    assert depth == 8


def test_strings_and_the_whole_are_bounded(tiny_language_model: LlamaLanguageModel) -> None:
    class Talkative(_Dreaming):
        """Would rather say "a" than end anything."""

        def _logits(self) -> Tensor:
            return torch.zeros(len(self.token_texts())).index_fill(0, torch.tensor(self.encode("a") + self.encode(",")), 9.0)

    model = Talkative(tiny_language_model, 0)
    one = json.loads(_write(model, {"properties": {"a": {}}, "required": ["a"]}))
    assert 60 <= len(one["a"]) <= 64
    many = {"properties": {"a": {"type": "array", "items": {"type": "array", "items": {}}}}, "required": ["a"]}
    sequence = model.sequence()
    completed(model.sync(sequence, Prompt([5])))
    assert json.loads(completed(SchemaWriter(model).write(sequence, many)))["a"]
    assert len(sequence.tokens) < 384 + 64 + 20


def test_no_room_is_an_error_not_a_broken_text(tiny_language_model: LlamaLanguageModel) -> None:
    model = _Dreaming(tiny_language_model, 0, context=8)
    with pytest.raises(ContextFullError):
        _write(model, {"properties": {"name": {"type": "string", "minLength": 60}}, "required": ["name"]})


def test_the_model_reads_what_wascompleted(tiny_language_model: LlamaLanguageModel) -> None:
    """With a real sequence: the ledger holds the text itself, tokenised as one piece where nothing was chosen."""
    model, sequence = tiny_language_model, tiny_language_model.sequence()
    prompt = model.encode("call: ")
    completed(model.sync(sequence, Prompt(prompt)))
    schema = {"properties": {"city": {"type": "string", "maxLength": 3, "minLength": 3}, "n": {"const": 1}}, "required": ["city", "n"]}
    text = completed(SchemaWriter(model).write(sequence, schema))
    assert text.startswith('{"city": "')
    # Random bytes that are no UTF-8 are in the ledger, not in the text.
    assert text.startswith(model.decode(sequence.tokens[len(prompt) :]).replace("\ufffd", ""))
    assert list(json.loads(text)) == ["city", "n"]


@pytest.fixture(scope="module")
def pocket(parts: Path) -> LlamaLanguageModel:
    return LlamaLanguageModel.load(parts / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf")


CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "Name of the city"}}, "required": ["city"]}


@pytest.mark.models
@pytest.mark.parametrize(
    ("question", "city"),
    [("What is the weather in Paris?", "Paris"), ("Will it rain in New York tomorrow?", "New York"), ("How warm is it in Tokyo?", "Tokyo")],
)
def test_the_pocket_model_asks_for_the_right_city(pocket: LlamaLanguageModel, question: str, city: str) -> None:
    asked = (
        "Call the function get_weather (Weather in a city). Take its arguments from what I said, as JSON that follows this schema: "
        f"{json.dumps(CITY)}"
    )
    messages = (ContextMessage("user", "item_1", question), ContextMessage("user", "", asked))
    sequence = pocket.sequence()
    completed(pocket.sync(sequence, ChatTemplate(pocket).reply_prompt(messages, {}, 2_000)))
    assert json.loads(completed(SchemaWriter(pocket).write(sequence, CITY))) == {"city": city}
