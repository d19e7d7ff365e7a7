"""From named matrices of a file, whichever its format, to the weights of our decoder: what is fused, what is packed, in which dtype.

Matrices are asked for by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`); a reader translates its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from streaming.models.eight_bits import eight_bits_only
from streaming.models.linear import (
    Dense,
    FourBits,
    Linear,
    Packing,
    can_be_four_bits,
    four_bits_only,
    packed_eight,
    packed_four,
    usual_dtype,
)
from streaming.models.llama import LlamaLayer, LlamaShape, LlamaWeights

__all__ = ["FUSED", "Matrix", "assemble", "fused"]

FUSED: Final = ("self_attn.qkv_proj", "mlp.gate_up_proj")
"""What Phi-3 has instead of five products, parts in the order of their names."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A tensor of a file: `given` [rows, columns] or [rows], any float type; or `bits`, where the file quantised it to four."""

    given: Tensor | None
    bits: FourBits | None = None

    @property
    def values(self) -> Tensor:
        """The numbers, which are made of the bits anew each time."""
        if self.given is not None:
            return self.given
        assert self.bits is not None
        return self.bits.values()

    @property
    def shape(self) -> torch.Size:
        """[rows, columns] or [rows]."""
        held = self.given if self.bits is None else self.bits.levels
        assert held is not None
        return held.shape

    def rows(self, order: Tensor | slice) -> "Matrix":
        """The rows in another order (int64 [rows]), or some of them."""
        bits = self.bits
        ordered = None if bits is None else FourBits(bits.levels[order], bits.scales[order], bits.zeros[order])
        return Matrix(None if self.given is None else self.given[order], ordered)


def assemble(
    shape: LlamaShape,
    find: Callable[[str], Matrix | None],
    dtype: torch.dtype | None = None,
    packing: Packing = Packing.SMALLEST,
    device: torch.device | str = "cpu",
) -> LlamaWeights:
    """The weights in `dtype` on `device`, as they are (but for what is held in its bits alone); where it is None in the usual one, and
    packed on a CPU. `find` gives a tensor by its Hugging Face name, None where the file has none. A product that has a bias in the first
    layer has one in all. Without `lm_head.weight` the head is tied. Raises ValueError, naming the tensor, for one that is missing or has
    the wrong shape."""
    if dtype is not None and packing is not Packing.ALONE:
        packing = Packing.NONE
    dtype = dtype or usual_dtype(device)

    def vector(name: str) -> Tensor:
        return _need(find, name, (shape.width,)).values.to(device, dtype)

    def linear(at: str, outputs: Mapping[str, int], inputs: int) -> Linear:
        """One product out of several with the same input; `outputs` of each."""
        parts = [_need(find, f"{at}.{name}.weight", (rows, inputs)) for name, rows in outputs.items()]
        first = f"model.layers.0.{at.split('.', 3)[3]}"
        biased = any(find(f"{first}.{name}.bias") is not None for name in outputs)
        biases = [_need(find, f"{at}.{name}.bias", (rows,)).values for name, rows in outputs.items()] if biased else []
        bias = torch.cat(biases).to(device, dtype) if biased else None
        if packing is Packing.ALONE:
            return _alone(parts, bias)
        return _packed(Dense(torch.cat([part.values for part in parts]).to(device, dtype), bias), parts, packing)

    def head_norm(at: str) -> Tensor | None:
        if not shape.head_norm:
            return None
        norms = [_need(find, f"{at}.{name}.weight", (shape.head_width,)).values.to(device, dtype) for name in ("q_norm", "k_norm")]
        return torch.cat([norm.expand(count, -1) for norm, count in zip(norms, (shape.heads, shape.kv_heads), strict=True)])

    def head() -> Linear:
        """In eight bits where anything is packed: what it gives decides between words. A tied one is not held twice alone."""
        if packing is Packing.ALONE:
            return Dense(embedding) if tied else eight_bits_only(_need(find, "lm_head.weight", embedding.shape).values.to(device))
        dense = Dense(embedding if tied else _need(find, "lm_head.weight", embedding.shape).values.to(device, dtype))
        return dense if packing is Packing.NONE else packed_eight(dense, shared=tied)

    tied = find("lm_head.weight") is None
    width, per_kv, mixed = shape.width, shape.kv_heads * shape.head_width, shape.heads * shape.head_width
    embedding = _need(find, "model.embed_tokens.weight", (shape.vocabulary, width)).values.to(device, dtype)
    layers = []
    for index in range(shape.layers):
        at = f"model.layers.{index}"
        qkv = linear(f"{at}.self_attn", {"q_proj": mixed, "k_proj": per_kv, "v_proj": per_kv}, width)
        gate_up = linear(f"{at}.mlp", {"gate_proj": shape.hidden, "up_proj": shape.hidden}, width)
        layers.append(
            LlamaLayer(
                attention_norm=vector(f"{at}.input_layernorm.weight"),
                qkv=qkv,
                attention_out=linear(f"{at}.self_attn", {"o_proj": width}, mixed),
                feed_forward_norm=vector(f"{at}.post_attention_layernorm.weight"),
                gate_up=gate_up,
                down=linear(f"{at}.mlp", {"down_proj": width}, shape.hidden),
                head_norm=head_norm(f"{at}.self_attn"),
            )
        )
    return LlamaWeights(embedding, tuple(layers), vector("model.norm.weight"), head())


def fused(shape: LlamaShape, find: Callable[[str], Matrix | None]) -> Callable[[str], Matrix | None]:
    """`find` for a file that has the products of `FUSED`: their parts by the names of five."""
    per_kv, mixed = shape.kv_heads * shape.head_width, shape.heads * shape.head_width
    whole = dict(zip(FUSED, (mixed + 2 * per_kv, 2 * shape.hidden), strict=True))
    parts = {
        "self_attn.q_proj": (FUSED[0], slice(0, mixed)),
        "self_attn.k_proj": (FUSED[0], slice(mixed, mixed + per_kv)),
        "self_attn.v_proj": (FUSED[0], slice(mixed + per_kv, None)),
        "mlp.gate_proj": (FUSED[1], slice(0, shape.hidden)),
        "mlp.up_proj": (FUSED[1], slice(shape.hidden, None)),
    }

    def find_part(name: str) -> Matrix | None:
        stem, kind = name.rsplit(".", 1)
        part = next((part for part in parts if stem.endswith(part)), None)
        if part is None:
            return find(name)
        product, rows = parts[part]
        there = f"{stem.removesuffix(part)}{product}.{kind}"
        if kind == "bias" and find(there) is None:
            return None
        size = (whole[product], shape.width) if kind == "weight" else (whole[product],)
        return _need(find, there, size).rows(rows)

    return find_part


def _need(find: Callable[[str], Matrix | None], name: str, size: tuple[int, ...]) -> Matrix:
    matrix = find(name)
    if matrix is None:
        raise ValueError(f"the tensor {name} is missing")
    if matrix.shape != size:
        raise ValueError(f"the tensor {name} is {tuple(matrix.shape)}, not {size}")
    return matrix


def _packed(dense: Dense, parts: list[Matrix], packing: Packing) -> Linear:
    """`dense`, which is `parts` one under the other, as few rows are to be multiplied with it."""
    if packing is Packing.NONE:
        return dense
    bits = _joined(parts)
    return packed_eight(dense) if packing is Packing.EIGHT_BITS or bits is None else packed_four(dense, bits)


def _alone(parts: list[Matrix], bias: Tensor | None) -> Linear:
    """The product with `parts` one under the other, in the fewest bits that lose next to nothing."""
    bits = _joined(parts)
    if bits is not None and can_be_four_bits(bits):
        return four_bits_only(bits, bias)
    return eight_bits_only(torch.cat([part.values for part in parts]), bias)


def _joined(parts: list[Matrix]) -> FourBits | None:
    """The four bits of `parts` one under the other; None where one of them has none."""
    bits = [part.bits for part in parts if part.bits is not None]
    if len(bits) < len(parts):
        return None
    levels, scales, zeros = (torch.cat([getattr(part, name) for part in bits]) for name in ("levels", "scales", "zeros"))
    return FourBits(levels, scales, zeros)
