"""The shape of a decoder from a `config.json` of Hugging Face's: Llama, Mistral, Qwen2, Qwen3, SmolLM3, Phi-3. What a config asks for
beyond `streaming.models.llama` is refused by name, never ignored. What it leaves out is as `transformers` has it for that family.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from streaming.models.config_values import number_of
from streaming.models.llama import LlamaShape
from streaming.models.rope import rope_of

__all__ = ["FAMILIES", "LlamaConfig", "llama_config"]


@dataclass(frozen=True, slots=True)
class _Family:
    """What a family does without being told, or by other names."""

    epsilon: float = 1e-6
    rope_base: float = 10_000.0
    tied: bool = False
    qkv_bias: bool = False
    # Keys that say whether there are biases: of query, key and value and the product after them, and of the feed-forward layer.
    attention_bias: bool = False
    mlp_bias: bool = False
    head_norm: bool = False
    head_width: int | None = None
    # The window is of all layers where one is given; else only where `use_sliding_window` says so, and of the layers it says.
    slides: bool = False
    window: int | None = None
    fused: bool = False


FAMILIES: Final[Mapping[str, _Family]] = MappingProxyType(
    {
        "llama": _Family(attention_bias=True, mlp_bias=True),
        "mistral": _Family(slides=True, window=4_096),
        "phi3": _Family(epsilon=1e-5, slides=True, fused=True),
        "qwen2": _Family(qkv_bias=True),
        "qwen3": _Family(attention_bias=True, head_norm=True, head_width=128),
        "smollm3": _Family(attention_bias=True, mlp_bias=True, rope_base=2_000_000.0, tied=True),
    }
)
"""By `model_type`."""

_BEYOND: Final = (
    "attention_chunk_size", "attention_multiplier", "attn_logit_softcapping", "clip_qkv", "embedding_multiplier",
    "final_logit_softcapping", "logit_scale", "logits_scaling", "num_experts", "num_local_experts", "quantization_config",
    "query_pre_attn_scalar", "residual_multiplier",
)  # fmt: skip
"""What other architectures compute, and how weights of these may be stored, that nothing here does."""


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """What a config says of a decoder. `biased` are the products of a layer that have a bias (`self_attn.q_proj`), as the file names
    them; `fused`: it has the products of `streaming.models.weights.FUSED`."""

    shape: LlamaShape
    tied: bool
    biased: frozenset[str]
    fused: bool


def llama_config(config: Mapping[str, object], context: int | None = None) -> LlamaConfig:
    """What `config` says, for sequences of no more than `context` positions, None for as many as the model has. Raises ValueError for what
    is no such model, and for what this decoder does not do."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"its model_type is {kind!r}; this decoder is for {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    for key in _BEYOND:
        if config.get(key) is not None:
            raise ValueError(f"it asks for {key}, which this decoder does not do")
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise ValueError(f"its hidden_act is {activation!r}; this decoder does silu")
    heads, width = number_of(config, "num_attention_heads", int), number_of(config, "hidden_size", int)
    if heads < 1:
        raise ValueError(f"it has {heads} heads")
    layers, trained = number_of(config, "num_hidden_layers", int), number_of(config, "max_position_embeddings", int)
    head_width = number_of(config, "head_dim", int, family.head_width or width // heads)
    positions = min(trained, context or trained)
    base, rope = rope_of(config, head_width, family.rope_base, positions)
    shape = LlamaShape(
        vocabulary=number_of(config, "vocab_size", int),
        layers=layers,
        width=width,
        hidden=number_of(config, "intermediate_size", int),
        heads=heads,
        kv_heads=number_of(config, "num_key_value_heads", int, heads),
        head_width=head_width,
        context=positions,
        rope_base=base,
        norm_epsilon=number_of(config, "rms_norm_eps", float, family.epsilon),
        rope=rope,
        windows=_windows(config, family, layers),
        still=_still(config, layers) if kind == "smollm3" else frozenset(),
        head_norm=family.head_norm,
    )
    tied = config.get("tie_word_embeddings", family.tied)
    return LlamaConfig(shape, bool(tied), _biased(config, family), family.fused)


def _windows(config: Mapping[str, object], family: _Family, layers: int) -> tuple[int | None, ...]:
    """The window of each layer; empty where none has one."""
    if family.slides:
        window = config.get("sliding_window", family.window)
        kinds: list[object] = ["sliding_attention"] * layers
    elif config.get("use_sliding_window"):
        window = config.get("sliding_window", 4_096)
        kinds = _kinds(config, layers)
    else:
        return ()
    if window is None:
        return ()
    size = number_of({"sliding_window": window}, "sliding_window", int)
    return tuple(size if kind == "sliding_attention" else None for kind in kinds)


def _kinds(config: Mapping[str, object], layers: int) -> list[object]:
    """The attention of each layer, where the config says it, or by the first layer that slides."""
    kinds = config.get("layer_types")
    if kinds is None:
        if config.get("model_type") == "smollm3":
            still = _still(config, layers)
            return ["sliding_attention" if layer in still else "full_attention" for layer in range(layers)]
        first = number_of(config, "max_window_layers", int, 28)
        return ["full_attention" if layer < first else "sliding_attention" for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise ValueError(f"its layer_types are {kinds!r}; this decoder does full_attention and sliding_attention, one of them a layer")
    return kinds


def _still(config: Mapping[str, object], layers: int) -> frozenset[int]:
    """SmolLM3: layers that positions do not turn are 0 in a list, or every fourth."""
    turned = config.get("no_rope_layers")
    if turned is None:
        interval = number_of(config, "no_rope_layer_interval", int, 4)
        return frozenset(range(interval - 1, layers, interval))
    if not isinstance(turned, list) or len(turned) < layers:
        raise ValueError(f"its no_rope_layers are {turned!r}, not a number for each of {layers} layers")
    return frozenset(layer for layer in range(layers) if not turned[layer])


def _biased(config: Mapping[str, object], family: _Family) -> frozenset[str]:
    products: list[str] = []
    attention = family.attention_bias and bool(config.get("attention_bias"))
    if attention or family.qkv_bias:
        products += [f"self_attn.{name}_proj" for name in "qkv"]
    if attention:
        products.append("self_attn.o_proj")
    if family.mlp_bias and config.get("mlp_bias"):
        products += [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    return frozenset(products)
