"""From named matrices of a file, whichever its format, to the weights of our decoder: what is fused, what is packed, in which dtype.

Matrices are asked for by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`); a reader translates its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from streaming.models.linear import Dense, FourBits, Linear, Packing, packed_eight, packed_four
from streaming.models.llama import LlamaLayer, LlamaShape, LlamaWeights

__all__ = ["Matrix", "assemble"]


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A tensor of a file: `values` [rows, columns] or [rows], any float type; `bits` where the file quantised them to four bits."""

    values: Tensor
    bits: FourBits | None = None

    def rows(self, order: Tensor) -> "Matrix":
        """The rows in another order (int64 [rows])."""
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
    file has none. Raises ValueError, naming the tensor, for one that is missing or has the wrong shape."""

    def vector(name: str) -> Tensor:
        return _need(find, name, (shape.width,)).values.to(device, dtype)

    def linear(parts: list[Matrix], bias: Tensor | None = None) -> Linear:
        """One product out of several with the same input."""
        return _packed(Dense(torch.cat([part.values for part in parts]).to(device, dtype), bias), parts, packing)

    width, per_kv = shape.width, shape.kv_heads * shape.head_width
    embedding = _need(find, "model.embed_tokens.weight", (shape.vocabulary, width)).values.to(device, dtype)
    layers = []
    for index in range(shape.layers):
        at = f"model.layers.{index}"
        projections = {"q_proj": shape.heads * shape.head_width, "k_proj": per_kv, "v_proj": per_kv}
        qkv = [_need(find, f"{at}.self_attn.{name}.weight", (rows, width)) for name, rows in projections.items()]
        biases = [find(f"{at}.self_attn.{name}.bias") for name in projections]
        bias = None if biases[0] is None else torch.cat([bias.values for bias in biases if bias is not None]).to(device, dtype)
        gate_up = [_need(find, f"{at}.mlp.{name}.weight", (shape.hidden, width)) for name in ("gate_proj", "up_proj")]
        layers.append(
            LlamaLayer(
                attention_norm=vector(f"{at}.input_layernorm.weight"),
                qkv=linear(qkv, bias),
                attention_out=linear([_need(find, f"{at}.self_attn.o_proj.weight", (width, shape.heads * shape.head_width))]),
                feed_forward_norm=vector(f"{at}.post_attention_layernorm.weight"),
                gate_up=linear(gate_up),
                down=linear([_need(find, f"{at}.mlp.down_proj.weight", (width, shape.hidden))]),
            )
        )
    head = find("lm_head.weight")
    dense_head = Dense(embedding if head is None else head.values.to(device, dtype))
    return LlamaWeights(
        embedding,
        tuple(layers),
        vector("model.norm.weight"),
        dense_head if packing is Packing.NONE else packed_eight(dense_head, shared=head is None),
    )


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
