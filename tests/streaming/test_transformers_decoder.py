"""Architectures that we have not, through `transformers`: equal to themselves without a cache, however tokens come, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel

from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel, Prompt, TokenSequence
from streaming.engine import Parts
from streaming.events import FinishReason, ResponseFinished
from streaming.markup import CHATML, GEMMA
from streaming.models.ctranslate2 import WeightsError
from streaming.models.llama import Stretch
from streaming.models.transformers_decoder import TransformersDecoder
from streaming.replying import Writer
from streaming.sampling import Sampling

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {},
    "gemma2": {"sliding_window": 9, "query_pre_attn_scalar": 8},
    "gemma3_text": {
        "sliding_window": 7,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}

TOKENS = torch.randint(3, 256, (50,), generator=torch.Generator().manual_seed(1)).tolist()


def _write(folder: Path, kind: str, template: str = "<|im_start|>") -> PreTrainedModel:
    """A random checkpoint with a byte-level tokenizer of 256 letters and the control tokens of ChatML and Gemma."""
    torch.manual_seed(9)
    config = AutoConfig.for_model(kind, **SIZES | FAMILIES.get(kind, {}))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer = Tokenizer(BPE({letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<bos>", "<start_of_turn>", "<end_of_turn>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return model.eval()


def _expected(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return logits


def _close(found: torch.Tensor | None, expected: torch.Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_in_pieces_in_a_batch_and_rewound_it_is_the_model_without_a_cache(tmp_path: Path, kind: str) -> None:
    reference = _write(tmp_path, kind)
    decoder = TransformersDecoder(reference)
    one, other = decoder.new_cache(64), decoder.new_cache(64)
    first = decoder.forward([Stretch(TOKENS[:20], 0, one), Stretch(TOKENS[10:], 0, other, scored=False)])
    _close(first[0], _expected(reference, TOKENS[:20]))
    assert first[1] is None
    for position in range(20, 24):
        (last,) = decoder.forward([Stretch([TOKENS[position]], position, one)])
    _close(last, _expected(reference, TOKENS[:24]))
    (last,) = decoder.forward([Stretch(TOKENS[3:40], 12, one)])  # rewound to 12, beyond every window
    _close(last, _expected(reference, TOKENS[:12] + TOKENS[3:40]))
    restored = decoder.new_cache(64)
    restored.restore(one.snapshot(15))
    assert restored.bytes == one.bytes * 15 // 49
    (last,) = decoder.forward([Stretch(TOKENS[:5], 15, restored)])
    _close(last, _expected(reference, (TOKENS[:12] + TOKENS[3:40])[:15] + TOKENS[:5]))
    rows = reference.get_input_embeddings()(torch.tensor(TOKENS[5:8]))
    (last,) = decoder.forward([Stretch([TOKENS[4], -1, -2, -3, TOKENS[8]], 4, other, embedded=rows)])
    _close(last, _expected(reference, TOKENS[10:14] + TOKENS[4:9]))
    one.release()
    assert one.bytes == 0


def _sync(model: LlamaLanguageModel, sequence: TokenSequence, tokens: list[int]) -> torch.Tensor:
    for call in model.sync(sequence, Prompt(tokens)):
        call.station.run([call])
    assert sequence.logits is not None
    return sequence.logits


@pytest.mark.parametrize(("kind", "template", "markup"), [("gpt_neox", "<|im_start|>", CHATML), ("gemma3_text", "<start_of_turn>", GEMMA)])
def test_a_folder_becomes_a_language_model(tmp_path: Path, kind: str, template: str, markup: object) -> None:
    reference = _write(tmp_path, kind, template)
    model = LlamaLanguageModel.load(tmp_path, torch.float32)
    assert (model.markup, model.context) == (markup, 128)
    sequence = model.sequence()
    _sync(model, sequence, TOKENS)
    logits = _sync(model, sequence, [*TOKENS[:30], 77, 78])
    expected = _expected(reference, [*TOKENS[:30], 77, 78])
    _close(logits[:256], expected[:256])
    assert logits[256:].isfinite().nonzero().flatten().tolist() == [next(iter(model.end_tokens)) - 256]


def test_two_calls_are_answered(tmp_path: Path, tiny_parts: Parts, talk: type[Any]) -> None:
    _write(tmp_path, "gpt_neox")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1_024}))
    model = LlamaLanguageModel.load(tmp_path, torch.float32)
    dialogue = talk(replace(tiny_parts, writer=Writer(model, ChatTemplate(model), Sampling())), speculate=True)
    dialogue.open("a", "b")
    for turn in range(2):
        for session in ("a", "b"):
            dialogue.ask(session, f"item_{turn}", dialogue.turn(turn), [7_000], f"r{turn}")
    for session in ("a", "b"):
        for response in ("r0", "r1"):
            reasons = [event.reason for event in dialogue.told(session, response) if isinstance(event, ResponseFinished)]
            assert reasons in ([FinishReason.STOP], [FinishReason.LENGTH])
    assert dialogue.sound["a"] == dialogue.sound["b"] != []


def test_what_cannot_be_run_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "gpt_neox")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt_of_tomorrow"}))
    with pytest.raises(WeightsError, match="an architecture that transformers does not know"):
        LlamaLanguageModel.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 260}))
    with pytest.raises(WeightsError, match="weights can't be loaded"):
        LlamaLanguageModel.load(tmp_path)
    encoder = AutoModel.from_config(AutoConfig.for_model("distilbert", vocab_size=300, dim=32, n_heads=2, n_layers=1, hidden_dim=32))
    encoder.config.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="a distilbert model is no causal language model"):
        LlamaLanguageModel.load(tmp_path)


@pytest.mark.parametrize("kind", ["mamba", "recurrent_gemma"])
def test_a_state_that_cannot_be_rewound_is_refused(kind: str) -> None:
    config = AutoConfig.for_model(kind, vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    with pytest.raises(WeightsError, match=f"a {kind} model has a state that can't be rewound"):
        TransformersDecoder(AutoModelForCausalLM.from_config(config))
