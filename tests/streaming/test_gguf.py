"""GGUF files, made here as llama.cpp makes them, beside the weights they were made from."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel

from streaming.decoder import LlamaLanguageModel
from streaming.markup import CHATML, PHI3
from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf import load_gguf
from streaming.models.linear import Dense, Packing, can_pack
from streaming.models.llama import Llama, LlamaShape
from streaming.models.rope import Rope
from streaming.models.weights import Matrix, assemble

SHAPE = LlamaShape(vocabulary=64, layers=2, width=64, hidden=96, heads=4, kv_heads=2, head_width=16, context=128, norm_epsilon=2.0**-16)
TOKENS = ["<|end|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVW", "Ġ", "Ġa"]


def _interleaved(weight: torch.Tensor) -> torch.Tensor:
    """Rows, or a bias, as llama.cpp wants them: the two halves of a head become pairs."""
    heads = weight.shape[0] // SHAPE.head_width
    return weight.reshape(heads, 2, SHAPE.head_width // 2, -1).transpose(1, 2).reshape(weight.shape).contiguous()


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
        "input_layernorm": "attn_norm", "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up", "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
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
    layers: int = SHAPE.layers,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
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
        if architecture in ("llama", "smollm3") and ("q_proj" in name or "k_proj" in name):
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
    assert model.shape == replace(SHAPE, rope=Rope(SHAPE.head_width))
    tokens = list(range(3, 40))
    torch.testing.assert_close(
        model.logits(tokens, 0, model.new_cache(64)), expected.logits(tokens, 0, expected.new_cache(64)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["Q4_1", "Q4_0", "Q8_0"])
@pytest.mark.parametrize("packing", [Packing.SMALLEST, Packing.ALONE])
def test_a_few_bits_decode_as_the_weights_they_stand_for(tmp_path: Path, kind: str, packing: Packing) -> None:
    """Weights of this size in a model of this size: eight bits a row are other bits than the file's, four are the file's own."""
    tensors, quantisation = _tensors(tied=False), gguf.GGMLQuantizationType[kind]
    model, _ = load_gguf(_write(tmp_path / "tiny.gguf", tensors, quantisation), packing=packing)
    exact = Llama(SHAPE, assemble(SHAPE, _rounded(tensors, quantisation).get, torch.float32))
    one, other = model.new_cache(64), exact.new_cache(64)
    for position, token in enumerate(range(3, 40)):
        found, expected = model.logits([token], position, one), exact.logits([token], position, other)
        assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > (0.98 if kind == "Q8_0" else 0.995)
    kept = model.logits(list(range(3, 40)), 0, model.new_cache(64))
    assert torch.nn.functional.cosine_similarity(kept, expected, dim=0) > (0.98 if kind == "Q8_0" else 0.995)


def _held(product: object) -> int:
    """Bytes of the tensors of a product."""
    return sum(
        getattr(product, name).nbytes for name in getattr(product, "__slots__", ()) if isinstance(getattr(product, name), torch.Tensor)
    )


def test_q4_k_is_read_as_gguf_reads_it_and_held_in_its_bits(tmp_path: Path) -> None:
    """Random blocks: `gguf` reads the kind and can't write it."""
    kind, random = gguf.GGMLQuantizationType.Q4_K, np.random.default_rng(8)
    raw = {}

    def blocks(rows: int, columns: int) -> np.ndarray:
        data = random.integers(0, 256, (rows, columns // 256, 144), dtype=np.uint8)
        data[..., :4] = np.array([1.5e-4, 1e-3], np.float16).view(np.uint8)
        return data.reshape(rows, -1)

    sizes = {"attn_q": (256, 256), "attn_k": (128, 256), "attn_v": (128, 256), "attn_output": (256, 256)}
    sizes |= {"ffn_gate": (512, 256), "ffn_up": (512, 256), "ffn_down": (256, 512)}
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "qwen3")
    for count, add in (
        (1, writer.add_block_count), (128, writer.add_context_length), (256, writer.add_embedding_length),
        (512, writer.add_feed_forward_length),
        (4, writer.add_head_count), (2, writer.add_head_count_kv), (64, writer.add_key_length),
    ):  # fmt: skip
        add(count)
    writer.add_layer_norm_rms_eps(2.0**-16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * 61])
    writer.add_token_merges(["Ġ a"])
    for name, (rows, columns) in sizes.items():
        raw[name] = blocks(rows, columns)
        writer.add_tensor(f"blk.0.{name}.weight", raw[name], raw_dtype=kind)
    for name, width in (("attn_norm", 256), ("ffn_norm", 256), ("attn_q_norm", 64), ("attn_k_norm", 64)):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(width, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(256, np.float32))
    writer.add_tensor("token_embd.weight", random.standard_normal((64, 256)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    exact, _ = load_gguf(path, torch.float32, Packing.NONE)
    (layer,) = exact.weights.layers
    expected = {name: torch.from_numpy(gguf.dequantize(data, kind)) for name, data in raw.items()}
    assert isinstance(layer.down, Dense)
    assert isinstance(layer.qkv, Dense)
    torch.testing.assert_close(layer.down.weight, expected["ffn_down"])
    torch.testing.assert_close(layer.qkv.weight, torch.cat([expected[f"attn_{name}"] for name in "qkv"]))
    alone, _ = load_gguf(path, packing=Packing.ALONE)
    found, wanted = (model.logits(list(range(3, 40)), 0, model.new_cache(64)) for model in (alone, exact))
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > 0.99
    if can_pack(layer.down.weight.to(torch.bfloat16)):
        assert _held(alone.weights.layers[0].down) == 256 * 512 // 2 + 256 * 512 // 32 * 4


LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0 + 0.1 * n for n in range(8)], "long_factor": [2.0 + 0.5 * n for n in range(8)],
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip

FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {}),
    "llama, biases": ("llama", {"attention_bias": True}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3}),
    "llama, linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "smollm3": ("smollm3", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}),
    "phi3": ("phi3", {"sliding_window": 11}),
    "phi3, short": ("phi3", {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 64}),
    "phi3, long": ("phi3", {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 64}),
    "phi3, part of a head": ("phi3", {"partial_rotary_factor": 0.5}),
}


def _reference(name: str) -> PreTrainedModel:
    kind, changes = FAMILIES[name]
    torch.manual_seed(4)
    sizes: dict[str, object] = {
        "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": SHAPE.norm_epsilon,
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | changes), attn_implementation="eager")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    model.tie_weights()
    return model.eval()


def _metadata(name: str, reference: PreTrainedModel) -> Callable[[gguf.GGUFWriter], None]:
    """What llama.cpp's converter writes of a model beyond the sizes that all have."""

    def write(writer: gguf.GGUFWriter) -> None:
        kind, changes = FAMILIES[name]
        head = int(changes.get("head_dim", 16))  # type: ignore[call-overload]
        writer.add_key_length(head)
        writer.add_rope_dimension_count(8 if "partial_rotary_factor" in changes else head)
        if "sliding_window" in changes:
            writer.add_sliding_window(11)
        if name == "llama, linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(4.0)
        if name == "llama 3.1":
            plain = 10_000.0 ** -(torch.arange(0, 16, 2) / 16)
            writer.add_tensor("rope_freqs.weight", (plain / reference.model.rotary_emb.inv_freq).numpy())
        if changes.get("rope_parameters") is LONG_ROPE:
            writer.add_rope_scaling_orig_ctx_len(64)
            writer.add_rope_scaling_attn_factors((1 + math.log(2) / math.log(64)) ** 0.5)
            for length in ("short", "long"):
                writer.add_tensor(f"rope_factors_{length}.weight", np.array(LONG_ROPE[f"{length}_factor"], np.float32))
        assert writer.arch == kind

    return write


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_transformers(tmp_path: Path, name: str) -> None:
    reference = _reference(name)
    kind, _ = FAMILIES[name]
    tensors = {
        key: value for key, value in reference.state_dict().items() if not (reference.config.tie_word_embeddings and "lm_head" in key)
    }
    pre = "llama-bpe" if kind in ("smollm3", "llama") else "qwen2"
    write = _metadata(name, reference)
    path = _write(tmp_path / "tiny.gguf", tensors, gguf.GGMLQuantizationType.F32, write, architecture=kind, pre=pre, layers=4)
    model, _ = load_gguf(path, torch.float32, context=64 if name == "phi3, short" else None)
    tokens = torch.randint(0, 64, (100 if name == "phi3, long" else 60,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0, -1]
    torch.testing.assert_close(
        model.logits(tokens, 0, model.new_cache(128 if name == "phi3, long" else 64)), expected, atol=1e-4, rtol=1e-4
    )


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
    with pytest.raises(ValueError, match="its rotary embedding is stretched by 'yarn'"):
        load_gguf(_write(path, tensors, kind, lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)))
    with pytest.raises(ValueError, match="tokenizer gpt2/starcoder is not known"):
        load_gguf(_write(path, tensors, kind, pre="starcoder"))
    del tensors["model.norm.weight"]
    with pytest.raises(ValueError, match=r"tiny\.gguf: the tensor model\.norm\.weight is missing"):
        load_gguf(_write(path, tensors, kind))


def test_a_tensor_too_many_a_bias_too_few_and_an_unreadable_quantisation_are_named(tmp_path: Path) -> None:
    tensors, kind = _tensors(tied=True), gguf.GGMLQuantizationType.F16
    path = tmp_path / "tiny.gguf"
    with pytest.raises(WeightsError, match=r"should not have blk\.0\.attn_rot_embd\.weight \(1 tensors\)"):
        load_gguf(_write(path, tensors, kind, lambda writer: writer.add_tensor("blk.0.attn_rot_embd.weight", np.ones(4, np.float32))))
    with pytest.raises(WeightsError, match=r"blk\.0\.attn_q\.bias is missing"):
        load_gguf(_write(path, tensors, kind, architecture="qwen2", pre="qwen2"))
    unread = gguf.GGMLQuantizationType.I8
    with pytest.raises(WeightsError, match=r"output\.weight is quantised as I8, which can't be read here"):
        load_gguf(
            _write(path, tensors, kind, lambda writer: writer.add_tensor("output.weight", np.ones((64, 64), np.int8), raw_dtype=unread))
        )


def test_a_tokenizer_of_sentence_piece(tmp_path: Path) -> None:
    """Beside `tokenizers`' own BPE with the merges that made these scores."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "<|end|>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁abcdehlorw",
        "he",
        "ll",
        "▁w",
        "hell",
        "▁hell",
        "or",
    ]
    kinds = [2, 3, 3, 3, *[6] * 256, *[1] * (len(pieces) - 260)]
    scores = [0.0] * 271 + [-float(n) for n in range(len(pieces) - 271)]

    def write(writer: gguf.GGUFWriter) -> None:
        for name in ("model", "list", "scores", "token_type", "merges", "pre"):
            for shard in writer.kv_data:
                shard.pop(f"tokenizer.ggml.{'tokens' if name == 'list' else name}", None)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)

    tensors = _tensors(tied=True)
    tensors["model.embed_tokens.weight"] = torch.randn(len(pieces), SHAPE.width)
    model, tokenizer = load_gguf(_write(tmp_path / "tiny.gguf", tensors, gguf.GGMLQuantizationType.F32, write), torch.float32)
    encoded = tokenizer.encode("hello wörld<|end|>", add_special_tokens=False)
    assert encoded.tokens == ["▁hell", "o", "▁w", "<0xC3>", "<0xB6>", "r", "l", "d", "<|end|>"]
    assert tokenizer.decode(encoded.ids) == "hello wörld"
    texts = LlamaLanguageModel(model, tokenizer, PHI3).token_texts()
    assert b"".join(texts[token] for token in encoded.ids).decode() == " hello wörld"
    assert [texts[pieces.index(name)] for name in ("<unk>", "<s>", "<|end|>")] == [b"", b"", b""]


def test_llama_3_cuts_numbers_by_three_and_takes_whole_words(tmp_path: Path) -> None:
    path = _write(tmp_path / "tiny.gguf", _tensors(tied=True), gguf.GGMLQuantizationType.F16, pre="llama-bpe")
    _, tokenizer = load_gguf(path)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.encode("a a1234", add_special_tokens=False).tokens == ["a", "Ġa", "1", "2", "3", "4"]
    assert tokenizer.pre_tokenizer is not None
    assert [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("it's 12345 x")] == ["it", "'s", "Ġ", "123", "45", "Ġx"]


def test_the_file_says_where_a_message_ends_and_how_it_is_marked(tmp_path: Path) -> None:
    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_chat_template("<|im_start|>")
        writer.add_eos_token_id(0)
        writer.add_eot_token_id(2)

    path = _write(tmp_path / "tiny.gguf", _tensors(tied=True), gguf.GGMLQuantizationType.F16, write)
    model = LlamaLanguageModel.load(path, torch.float32)
    assert (model.end_tokens, model.markup) == ({0, 2}, CHATML)
    path = _write(path, _tensors(tied=True), gguf.GGMLQuantizationType.F16, lambda writer: writer.add_chat_template("### User:"))
    with pytest.raises(WeightsError, match=r"tiny\.gguf: how it marks the messages of a conversation is not known here"):
        LlamaLanguageModel.load(path)
