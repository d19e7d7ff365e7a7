"""From named matrices of a file, whichever its format, to the weights of our decoder: what is fused, what is packed, in which dtype.

Matrices are asked for by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`); a reader translates its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from streaming.models.linear import Dense, FourBits, Linear, Packing, packed_eight, packed_four
from streaming.models.llama import LlamaLayer, LlamaShape, LlamaWeights

__all__ = ["FUSED", "Matrix", "assemble", "fused"]

FUSED: Final = ("self_attn.qkv_proj", "mlp.gate_up_proj")
"""What Phi-3 has instead of five products, parts in the order of their names."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A tensor of a file: `values` [rows, columns] or [rows], any float type; `bits` where the file quantised them to four bits."""

    values: Tensor
    bits: FourBits | None = None

    def rows(self, order: Tensor | slice) -> "Matrix":
        """The rows in another order (int64 [rows]), or some of them."""
        bits = self.bits
        ordered = None if bits is None else FourBits(bits.levels[order], bits.scales[order], bits.zeros[order])
        return Matrix(self.values[order], ordered)


def assemble(
    shape: LlamaShape,
    find: Callable[[str], Matrix | None],
    dtype: torch.dtype,
    packing: Packing = Packing.SMALLEST,
    device: torch.device | str = "cpu",
) -> LlamaWeights:
    """The weights in `dtype` on `device`; only on a CPU are they packed. `find` gives a tensor by its Hugging Face name, None where the
    file has none. A product that has a bias in the first layer has one in all. Without `lm_head.weight` the head is tied. Raises
    ValueError, naming the tensor, for one that is missing or has the wrong shape."""

    def vector(name: str) -> Tensor:
        return _need(find, name, (shape.width,)).values.to(device, dtype)

    def linear(at: str, outputs: Mapping[str, int], inputs: int) -> Linear:
        """One product out of several with the same input; `outputs` of each."""
        parts = [_need(find, f"{at}.{name}.weight", (rows, inputs)) for name, rows in outputs.items()]
        first = f"model.layers.0.{at.split('.', 3)[3]}"
        biased = any(find(f"{first}.{name}.bias") is not None for name in outputs)
        biases = [_need(find, f"{at}.{name}.bias", (rows,)).values for name, rows in outputs.items()] if biased else []
        bias = torch.cat(biases).to(device, dtype) if biased else None
        return _packed(Dense(torch.cat([part.values for part in parts]).to(device, dtype), bias), parts, packing)

    def head_norm(at: str) -> Tensor | None:
        if not shape.head_norm:
            return None
        norms = [_need(find, f"{at}.{name}.weight", (shape.head_width,)).values.to(device, dtype) for name in ("q_norm", "k_norm")]
        return torch.cat([norm.expand(count, -1) for norm, count in zip(norms, (shape.heads, shape.kv_heads), strict=True)])

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
    tied = find("lm_head.weight") is None
    head = Dense(embedding if tied else _need(find, "lm_head.weight", (shape.vocabulary, width)).values.to(device, dtype))
    return LlamaWeights(
        embedding,
        tuple(layers),
        vector("model.norm.weight"),
        head if packing is Packing.NONE else packed_eight(head, shared=tied),
    )


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
    if matrix.values.shape != size:
        raise ValueError(f"the tensor {name} is {tuple(matrix.values.shape)}, not {size}")
    return matrix


def _packed(dense: Dense, parts: list[Matrix], packing: Packing) -> Linear:
    """`dense`, which is `parts` one under the other, as few rows are to be multiplied with it."""
    bits = [part.bits for part in parts if part.bits is not None]
    if packing is Packing.NONE:
        return dense
    if packing is Packing.EIGHT_BITS or len(bits) < len(parts):
        return packed_eight(dense)
    levels, scales, zeros = (torch.cat([getattr(part, name) for part in bits]) for name in ("levels", "scales", "zeros"))
    return packed_four(dense, FourBits(levels, scales, zeros))
