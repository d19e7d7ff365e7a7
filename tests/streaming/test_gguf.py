"""GGUF files, made here as llama.cpp makes them, beside the weights they were made from."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from streaming.models.gguf import load_gguf
from streaming.models.llama import Llama, LlamaShape
from streaming.models.weights import Matrix, assemble

SHAPE = LlamaShape(vocabulary=64, layers=2, width=64, hidden=96, heads=4, kv_heads=2, head_width=16, context=128, norm_epsilon=2.0**-16)
TOKENS = ["<|end|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVW", "Ġ", "Ġa"]


def _interleaved(weight: torch.Tensor) -> torch.Tensor:
    """Rows as llama.cpp wants them: the two halves of a head become pairs."""
    heads = weight.shape[0] // SHAPE.head_width
    return weight.view(heads, 2, SHAPE.head_width // 2, -1).transpose(1, 2).reshape(weight.shape)


def _tensors(*, tied: bool) -> dict[str, torch.Tensor]:
    """Hugging Face names and random weights, norms near one."""
    random = torch.Generator().manual_seed(3)
    width, per_kv = SHAPE.width, SHAPE.kv_heads * SHAPE.head_width
    sizes = {"model.embed_tokens": (SHAPE.vocabulary, width)} | ({} if tied else {"lm_head": (SHAPE.vocabulary, width)})
    for layer in range(SHAPE.layers):
        at = f"model.layers.{layer}"
        sizes |= {f"{at}.self_attn.{name}_proj": (rows, width) for name, rows in (("q", width), ("k", per_kv), ("v", per_kv), ("o", width))}
        sizes |= {f"{at}.mlp.{name}_proj": (SHAPE.hidden, width) for name in ("gate", "up")}
        sizes |= {f"{at}.mlp.down_proj": (width, SHAPE.hidden)}
    matrices = {f"{name}.weight": torch.randn(size, generator=random) * 0.3 for name, size in sizes.items()}
    norms = [f"model.layers.{n}.{kind}" for n in range(SHAPE.layers) for kind in ("input_layernorm", "post_attention_layernorm")]
    return matrices | {f"{name}.weight": 1 + torch.randn(width, generator=random) * 0.1 for name in (*norms, "model.norm")}


def _their_name(name: str) -> str:
    changes = {
        "model.layers.": "blk.", "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
    }  # fmt: skip
    for ours, theirs in changes.items():
        name = name.replace(ours, theirs)
    return name


def _write(
    path: Path,
    tensors: dict[str, torch.Tensor],
    kind: gguf.GGMLQuantizationType,
    change: Callable[[gguf.GGUFWriter], None] = lambda _: None,
    *,
    architecture: str = "llama",
    pre: str = "smollm",
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(SHAPE.layers)
    writer.add_context_length(SHAPE.context)
    writer.add_embedding_length(SHAPE.width)
    writer.add_feed_forward_length(SHAPE.hidden)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_rope_freq_base(SHAPE.rope_base)
    writer.add_layer_norm_rms_eps(SHAPE.norm_epsilon)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * 61])
    writer.add_token_merges(["Ġ a"])
    change(writer)
    for name, values in tensors.items():
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            values = _interleaved(values)
        if values.dim() == 1:
            writer.add_tensor(_their_name(name), values.numpy())
        else:
            writer.add_tensor(_their_name(name), gguf.quantize(values.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _rounded(tensors: dict[str, torch.Tensor], kind: gguf.GGMLQuantizationType) -> dict[str, Matrix]:
    """What the file holds of them, by `gguf` itself."""
    held = {}
    for name, values in tensors.items():
        known = values.numpy() if values.dim() == 1 else gguf.dequantize(gguf.quantize(values.numpy(), kind), kind)
        held[name] = Matrix(torch.from_numpy(np.array(known)))
    return held


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_gives_the_weights_it_was_made_from(tmp_path: Path, kind: str, tied: bool) -> None:
    tensors, quantisation = _tensors(tied=tied), gguf.GGMLQuantizationType[kind]
    model, _ = load_gguf(_write(tmp_path / "tiny.gguf", tensors, quantisation), torch.float32)
    expected = Llama(SHAPE, assemble(SHAPE, _rounded(tensors, quantisation).get, torch.float32))
    assert model.shape == SHAPE
    tokens = list(range(3, 40))
    torch.testing.assert_close(
        model.logits(tokens, 0, model.new_cache(64)), expected.logits(tokens, 0, expected.new_cache(64)), atol=1e-4, rtol=1e-4
    )


def test_four_bits_decode_as_the_bf16_they_stand_for(tmp_path: Path) -> None:
    tensors, kind = _tensors(tied=True), gguf.GGMLQuantizationType.Q4_1
    model, _ = load_gguf(_write(tmp_path / "tiny.gguf", tensors, kind))
    exact = Llama(SHAPE, assemble(SHAPE, _rounded(tensors, kind).get, torch.float32))
    one, other = model.new_cache(64), exact.new_cache(64)
    for position, token in enumerate(range(3, 40)):
        found, expected = model.logits([token], position, one), exact.logits([token], position, other)
        assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.995


def test_qwen2_rows_are_not_interleaved(tmp_path: Path) -> None:
    tensors, kind = _tensors(tied=True), gguf.GGMLQuantizationType.F32
    model, _ = load_gguf(_write(tmp_path / "tiny.gguf", tensors, kind, architecture="qwen2", pre="qwen2"), torch.float32)
    expected = Llama(SHAPE, assemble(SHAPE, _rounded(tensors, kind).get, torch.float32))
    tokens = list(range(3, 20))
    torch.testing.assert_close(model.logits(tokens, 0, model.new_cache(64)), expected.logits(tokens, 0, expected.new_cache(64)))


def test_the_tokenizer_comes_with_it(tmp_path: Path) -> None:
    _, tokenizer = load_gguf(_write(tmp_path / "tiny.gguf", _tensors(tied=True), gguf.GGMLQuantizationType.F16))
    encoded = tokenizer.encode("<|im_start|>a a12<|im_end|>", add_special_tokens=False)
    assert encoded.tokens == ["<|im_start|>", "a", "Ġa", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=True) == "a a12"


def test_bad_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    missing = tmp_path / "none.gguf"
    with pytest.raises(FileNotFoundError, match=r"none\.gguf is not there.*vivavoce pull"):
        load_gguf(missing)
    noise, empty, cut = tmp_path / "noise.gguf", tmp_path / "empty.gguf", tmp_path / "cut.gguf"
    noise.write_bytes(bytes(range(256)) * 40)
    empty.write_bytes(b"")
    whole = _write(tmp_path / "tiny.gguf", _tensors(tied=True), gguf.GGMLQuantizationType.F16).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (noise, empty, cut):
        with pytest.raises(ValueError, match=rf"{path.name} is not a GGUF file, or is cut short"):
            load_gguf(path)


def test_what_this_decoder_does_not_do_is_refused(tmp_path: Path) -> None:
    tensors, kind = _tensors(tied=True), gguf.GGMLQuantizationType.F16
    path = tmp_path / "tiny.gguf"
    with pytest.raises(ValueError, match="holds a gpt2 model"):
        load_gguf(_write(path, tensors, kind, architecture="gpt2"))
    with pytest.raises(ValueError, match="stretches its rotary embedding"):
        load_gguf(_write(path, tensors, kind, lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)))
    with pytest.raises(ValueError, match="tokenizer gpt2/starcoder is not known"):
        load_gguf(_write(path, tensors, kind, pre="starcoder"))
    del tensors["model.norm.weight"]
    with pytest.raises(ValueError, match=r"tiny\.gguf: the tensor model\.norm\.weight is missing"):
        load_gguf(_write(path, tensors, kind))
