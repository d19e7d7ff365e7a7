"""Folders in Hugging Face's layout that are refused, and why. Those that are not: `test_llama_families.py`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM

from streaming.models.ctranslate2 import WeightsError
from streaming.models.safetensors import load_safetensors

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def _save(folder: Path, words: int = 40, **changes: object) -> None:
    """Write a random model with a tied head, and a tokenizer of so many words."""
    LlamaForCausalLM(LlamaConfig(**SIZES | {"tie_word_embeddings": True} | changes)).save_pretrained(folder)
    Tokenizer(WordLevel({f"w{n}": n for n in range(words)}, unk_token="w0")).save(str(folder / "tokenizer.json"))


def _reconfigure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "gemma"}, r"config\.json: its model_type is 'gemma'; this decoder is for llama, mistral, phi3, qwen2"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "stretched by 'dynamic', which this decoder does not do"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "short_factor is not a list of numbers"),
        ({"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}, "1 rope factors for 4 frequencies"),
        ({"attn_logit_softcapping": 50.0}, "asks for attn_logit_softcapping, which this decoder does not do"),
        ({"quantization_config": {"quant_method": "gptq"}}, "asks for quantization_config"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, r"model\.layers\.0\.self_attn\.k_proj\.bias is missing"),
        ({"model_type": "qwen2"}, r"model\.layers\.0\.self_attn\.k_proj\.bias is missing"),
        ({"model_type": "qwen3", "head_dim": 8}, r"model\.layers\.0\.self_attn\.q_norm\.weight is missing"),
        ({"model_type": "phi3"}, r"model\.layers\.0\.self_attn\.qkv_proj\.weight is missing"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers are .1., not a number for each of 2"),
        ({"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["chunked_attention"] * 2}, "layer_types are .'chunked"),
        ({"num_hidden_layers": 1}, r"should not have model\.layers\.1\.input_layernorm\.weight \(9 tensors\)"),
        ({"tie_word_embeddings": False}, r"lm_head\.weight is missing"),
        ({"vocab_size": 39}, r"embed_tokens\.weight is \(40, 32\), not \(39, 32\)"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide', not a number"),
        ({"intermediate_size": 50}, r"gate_proj\.weight is \(48, 32\), not \(50, 32\)"),
        ({"num_key_value_heads": 3}, "evenly"),
    ],
)
def test_refuses_what_it_does_not_do(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    _save(tmp_path)
    _reconfigure(tmp_path, **changes)
    with pytest.raises(WeightsError, match=complaint):
        load_safetensors(tmp_path)


def test_names_the_bad_file(tmp_path: Path) -> None:
    _save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer"):
        load_safetensors(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is not there"):
        load_safetensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="no safetensors, or is cut short"):
        load_safetensors(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no \.safetensors"):
        load_safetensors(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_safetensors(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, words=41)
    with pytest.raises(WeightsError, match=r"tokenizer\.json has 41 tokens, the model 40"):
        load_safetensors(tmp_path)


def test_tensors_that_nothing_reads_may_be_there_and_a_bias_may_not(tmp_path: Path) -> None:
    _save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(tensors | old, tmp_path / "model.safetensors")
    assert load_safetensors(tmp_path)[0].shape.layers == 2
    save_file(tensors | {"model.layers.1.self_attn.q_proj.bias": torch.ones(32)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"should not have model\.layers\.1\.self_attn\.q_proj\.bias"):
        load_safetensors(tmp_path)
