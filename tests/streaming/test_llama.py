"""Our decoder beside `transformers`, and beside itself: whatever way tokens come in, the same logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_utils import PreTrainedModel

from streaming.models.llama import Llama, LlamaShape
from streaming.models.weights import Matrix, assemble

SHAPE = LlamaShape(vocabulary=128, layers=2, width=64, hidden=96, heads=4, kv_heads=2, head_width=16, context=256, rope_base=5_000.0)


def _config(**changes: object) -> dict[str, object]:
    return {
        "vocab_size": SHAPE.vocabulary,
        "num_hidden_layers": SHAPE.layers,
        "hidden_size": SHAPE.width,
        "intermediate_size": SHAPE.hidden,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.kv_heads,
        "max_position_embeddings": SHAPE.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": SHAPE.rope_base},
        "rms_norm_eps": SHAPE.norm_epsilon,
        "attn_implementation": "eager",
    } | changes


def _reference(kind: str, *, tied: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "qwen2":
        model: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config(**_config(tie_word_embeddings=tied)))
    else:
        model = LlamaForCausalLM(LlamaConfig(**_config(tie_word_embeddings=tied)))
    # Initial weights are so small that attention would hardly matter, and biases would be zero.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return model.eval()


def _ours(reference: PreTrainedModel, *, tied: bool, dtype: torch.dtype = torch.float32) -> Llama:
    state = reference.state_dict()
    held = {name: Matrix(values) for name, values in state.items() if not (tied and name == "lm_head.weight")}
    return Llama(SHAPE, assemble(SHAPE, held.get, dtype))


@pytest.fixture(scope="module")
def tiny() -> Llama:
    return _ours(_reference("llama", tied=True), tied=True)


TOKENS = torch.randint(0, SHAPE.vocabulary, (64,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_equals_transformers(kind: str, tied: bool) -> None:
    reference = _reference(kind, tied=tied)
    ours = _ours(reference, tied=tied)
    with torch.inference_mode():
        expected = reference(torch.tensor([TOKENS])).logits[0]
    cache = ours.new_cache(128)
    alone = torch.stack([ours.logits([token], position, cache) for position, token in enumerate(TOKENS)])
    torch.testing.assert_close(alone, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.logits(TOKENS, 0, ours.new_cache(128)), expected[-1], atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_any_split_of_a_prefill_gives_the_same_logits(tiny: Llama, pieces: list[int]) -> None:
    cache = tiny.new_cache(256)
    start = 0
    for piece in pieces:
        tokens = (TOKENS * 3)[start : start + piece]
        last = tiny.logits(tokens, start, cache)
        start += piece
    whole = tiny.logits((TOKENS * 3)[:start], 0, tiny.new_cache(256))
    torch.testing.assert_close(last, whole, atol=1e-4, rtol=1e-4)


def test_rewinding_and_appending_equals_a_fresh_prefill(tiny: Llama) -> None:
    cache = tiny.new_cache(128)
    tiny.logits(TOKENS, 0, cache)
    other = [token + 1 if token + 1 < SHAPE.vocabulary else 0 for token in TOKENS[20:40]]
    rewound = tiny.logits(other, 20, cache)
    fresh = tiny.logits(TOKENS[:20] + other, 0, tiny.new_cache(128))
    torch.testing.assert_close(rewound, fresh, atol=1e-4, rtol=1e-4)


def test_extend_leaves_the_cache_as_logits_does(tiny: Llama) -> None:
    one, other = tiny.new_cache(128), tiny.new_cache(128)
    tiny.logits(TOKENS[:30], 0, one)
    tiny.logits(TOKENS[:30], 0, other)
    assert torch.equal(tiny.logits([5], 30, one), tiny.logits([5], 30, other))


def test_bf16_with_packed_weights_agrees_with_float32() -> None:
    reference = _reference("llama", tied=True)
    exact, packed = _ours(reference, tied=True), _ours(reference, tied=True, dtype=torch.bfloat16)
    one, other = exact.new_cache(128), packed.new_cache(128)
    expected = torch.stack([exact.logits([token], position, one) for position, token in enumerate(TOKENS)])
    found = torch.stack([packed.logits([token], position, other) for position, token in enumerate(TOKENS)])
    similarity = torch.nn.functional.cosine_similarity(found, expected, dim=-1)
    assert similarity.min() > 0.99


def test_refuses_what_does_not_fit(tiny: Llama) -> None:
    with pytest.raises(ValueError, match="0 tokens at position 0"):
        tiny.logits([], 0, tiny.new_cache(8))
    with pytest.raises(ValueError, match="beyond the 8"):
        tiny.logits(TOKENS[:9], 0, tiny.new_cache(8))
    with pytest.raises(ValueError, match="1 tokens at position 256"):
        tiny.logits([1], SHAPE.context, tiny.new_cache(512))


@pytest.mark.parametrize(("change", "complaint"), [({"kv_heads": 3}, "evenly"), ({"head_width": 15}, "odd"), ({"layers": 0}, "at least 1")])
def test_a_shape_must_fit_together(change: dict[str, int], complaint: str) -> None:
    sizes = {"vocabulary": 8, "layers": 1, "width": 8, "hidden": 8, "heads": 4, "kv_heads": 2, "head_width": 4, "context": 8}
    with pytest.raises(ValueError, match=complaint):
        LlamaShape(**sizes | change)


def test_a_missing_or_misshapen_tensor_is_named() -> None:
    state = _reference("llama", tied=True).state_dict()
    held = {name: Matrix(values) for name, values in state.items()}
    missing = {name: matrix for name, matrix in held.items() if name != "model.layers.1.mlp.down_proj.weight"}
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.down_proj\.weight is missing"):
        assemble(SHAPE, missing.get, torch.float32)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is \(3,\), not \(64,\)"):
        assemble(SHAPE, {**held, "model.norm.weight": Matrix(torch.zeros(3))}.get, torch.float32)
