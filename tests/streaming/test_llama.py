"""Our decoder beside itself: whatever way tokens come in, the same logits. Beside `transformers`: `test_llama_families.py`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import PreTrainedModel

from streaming.models.llama import Llama, LlamaShape
from streaming.models.rope import Rope
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


def _reference() -> PreTrainedModel:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**_config(tie_word_embeddings=True)))
    # Initial weights are so small that attention would hardly matter, and biases would be zero.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return model.eval()


def _ours(reference: PreTrainedModel, dtype: torch.dtype = torch.float32) -> Llama:
    held = {name: Matrix(values) for name, values in reference.state_dict().items() if name != "lm_head.weight"}
    return Llama(SHAPE, assemble(SHAPE, held.get, dtype))


@pytest.fixture(scope="module")
def tiny() -> Llama:
    return _ours(_reference())


TOKENS = torch.randint(0, SHAPE.vocabulary, (64,), generator=torch.Generator().manual_seed(1)).tolist()


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
    reference = _reference()
    exact, packed = _ours(reference), _ours(reference, dtype=torch.bfloat16)
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


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kv_heads": 3}, "evenly"),
        ({"head_width": 15}, "odd"),
        ({"layers": 0}, "at least 1"),
        ({"rope": Rope(6)}, "6 numbers are turned of a head of 4"),
        ({"windows": (4, 4)}, "1 layers have the windows"),
        ({"windows": (0,)}, "have the windows"),
    ],
)
def test_a_shape_must_fit_together(change: dict[str, object], complaint: str) -> None:
    sizes = {"vocabulary": 8, "layers": 1, "width": 8, "hidden": 8, "heads": 4, "kv_heads": 2, "head_width": 4, "context": 8}
    with pytest.raises(ValueError, match=complaint):
        LlamaShape(**sizes | change)  # type: ignore[arg-type]


def test_a_missing_or_misshapen_tensor_is_named() -> None:
    state = _reference().state_dict()
    held = {name: Matrix(values) for name, values in state.items()}
    missing = {name: matrix for name, matrix in held.items() if name != "model.layers.1.mlp.down_proj.weight"}
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.down_proj\.weight is missing"):
        assemble(SHAPE, missing.get, torch.float32)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is \(3,\), not \(64,\)"):
        assemble(SHAPE, {**held, "model.norm.weight": Matrix(torch.zeros(3))}.get, torch.float32)
