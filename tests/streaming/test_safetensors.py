"""A folder as `save_pretrained` writes it, loaded and beside the model that wrote it; and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from streaming.models.safetensors import load_safetensors

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def _save(folder: Path, kind: str = "llama", **changes: object) -> torch.Tensor:
    """Write a random model; its logits [40] after tokens 0 to 9."""
    torch.manual_seed(2)
    if kind == "qwen2":
        model: LlamaForCausalLM | Qwen2ForCausalLM = Qwen2ForCausalLM(Qwen2Config(**SIZES | changes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SIZES | changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    Tokenizer(WordLevel({f"w{n}": n for n in range(40)}, unk_token="w0")).save(str(folder / "tokenizer.json"))
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(torch.arange(10)[None]).logits[0, -1]
    return logits


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("qwen2", True)])
def test_equals_the_model_that_was_saved(tmp_path: Path, kind: str, tied: bool) -> None:
    expected = _save(tmp_path, kind, tie_word_embeddings=tied)
    model, tokenizer = load_safetensors(tmp_path, torch.float32)
    torch.testing.assert_close(model.logits(list(range(10)), 0, model.new_cache(16)), expected, atol=1e-4, rtol=1e-4)
    assert tokenizer.get_vocab_size() == 40


def _reconfigure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "gemma"}, "not the config of a llama, mistral, qwen2 model"),
        ({"rope_scaling": {"rope_type": "llama3"}, "rope_parameters": None}, "stretches its rotary embedding"),
        ({"attention_bias": True}, "asks for attention_bias"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide', not a number"),
        ({"intermediate_size": 50}, r"gate_proj\.weight is \(48, 32\), not \(50, 32\)"),
        ({"num_key_value_heads": 3}, "evenly"),
    ],
)
def test_refuses_what_it_does_not_do(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    _save(tmp_path)
    _reconfigure(tmp_path, **changes)
    with pytest.raises(ValueError, match=complaint):
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
