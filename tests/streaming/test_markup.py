"""Checkpoints of every family, from a folder to an answered turn: their markup, where they stop, and that prompts grow at the end."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM

from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel
from streaming.engine import Parts
from streaming.events import ContextMessage, FinishReason, ResponseFinished, TextDelta
from streaming.markup import CHATML, markup_of
from streaming.models.ctranslate2 import WeightsError
from streaming.replying import Writer
from streaming.sampling import Sampling

RULES = ContextMessage("system", "item_0", "Be brief.")
ASKED, SAID = ContextMessage("user", "item_1", "Who?"), ContextMessage("assistant", "item_2", "I am.")
MORE = ContextMessage("user", "item_3", "Why?")

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class Family:
    kind: str
    controls: tuple[str, ...]
    # The prompt of RULES, ASKED, SAID, MORE.
    prompt: str
    template: str
    # What generation_config names besides, by name.
    ends: tuple[str, ...] = ()
    changes: dict[str, object] = field(default_factory=dict)
    sentence_piece: bool = False


def _chatml(thought: str = "") -> str:
    return (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
        f"<|im_start|>assistant\n{thought}I am.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n{thought}"
    )


FAMILIES = {
    "smollm2": Family("llama", CHATML_TOKENS, _chatml(), "{{ '<|im_start|>' }}"),
    "qwen2.5": Family("qwen2", CHATML_TOKENS, _chatml(), "{{ '<|im_start|>' }}", ends=("<|im_end|>", "<|endoftext|>")),
    "qwen3": Family(
        "qwen3", (*CHATML_TOKENS, "<think>", "</think>"), _chatml("<think>\n\n</think>\n\n"), "<|im_start|>{% if enable_thinking %}",
        changes={"head_dim": 8},
    ),
    "qwen3, that does not think": Family(
        "qwen3", (*CHATML_TOKENS, "<think>", "</think>"), _chatml(), "<|im_start|>", changes={"head_dim": 8},
    ),
    "smollm3": Family(
        "smollm3", (*CHATML_TOKENS, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<think>", "</think>"),
        _chatml("<think>\n\n</think>\n\n"), "<|im_start|> enable_thinking",
    ),
    "llama 3": Family(
        "llama", ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nI am.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>", ends=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "mistral v7": Family(
        "mistral", ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Who?[/INST]I am.</s>[INST]Why?[/INST]", "[SYSTEM_PROMPT] [INST]",
    ),
    "mistral v3": Family(
        "mistral", ("<s>", "</s>", "[INST]", "[/INST]"), "<s>[INST]Be brief.\n\nWho?[/INST]I am.</s>[INST]Why?[/INST]", "[INST]",
        sentence_piece=True,
    ),
    "phi-3": Family(
        "phi3", ("<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
        "<|system|>Be brief.<|end|><|user|>Who?<|end|><|assistant|>I am.<|end|><|user|>Why?<|end|><|assistant|>",
        "<|user|>\n{{ content }}<|end|>\n", ends=("<|endoftext|>", "<|end|>"), sentence_piece=True,
    ),
    "phi-4": Family(
        "phi3", ("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Who?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>I am.<|im_end|><|im_start|>user<|im_sep|>Why?<|im_end|><|im_start|>assistant<|im_sep|>",
        "<|im_start|><|im_sep|>",
    ),
}  # fmt: skip


def _tokenizer(family: Family) -> Tokenizer:
    """A token for each byte; SentencePiece's kind or byte-level."""
    if family.sentence_piece:
        letters = ["<unk>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), *"BbeWwhoyIiaamrf?."]
        vocabulary = {letter: index for index, letter in enumerate(dict.fromkeys(letters))}
        tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tokenizer = Tokenizer(BPE({letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    thoughts = [AddedToken(name, special=False, normalized=False) for name in family.controls if "think" in name]
    tokenizer.add_special_tokens([name for name in family.controls if "think" not in name])
    tokenizer.add_tokens(thoughts)
    return tokenizer


def write(folder: Path, family: Family) -> Tokenizer:
    """A random checkpoint in Hugging Face's layout, small enough for every test."""
    tokenizer = _tokenizer(family)
    torch.manual_seed(6)
    sizes: dict[str, Any] = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 1_024, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.kind, **sizes | family.changes))
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": family.template}))
    if family.ends:
        ends = [tokenizer.token_to_id(name) for name in family.ends]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return tokenizer


def _read(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """Tokens as text, control tokens by their names. SentencePiece marks where a text begins."""
    added = tokenizer.get_added_tokens_decoder()
    parts = [added[token].content if token in added else str(tokenizer.decoder.decode([_name(tokenizer, token)])) for token in tokens]
    return "".join(parts)


def _name(tokenizer: Tokenizer, token: int) -> str:
    name = tokenizer.id_to_token(token)
    assert name is not None
    return "" if name == "▁" else name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_is_told_a_conversation_as_it_was_trained_to_hear_it(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    tokenizer = write(tmp_path, family)
    model = LlamaLanguageModel.load(tmp_path, torch.float32)
    template = ChatTemplate(model)
    prompt = template.reply_prompt((RULES, ASKED, SAID, MORE), {}, 1_000).tokens
    assert _read(tokenizer, prompt).replace(" ", "") == family.prompt.replace(" ", "")
    assert model.end_tokens == {model.control(name) for name in (*family.ends, model.markup.end)}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_prompt_begins_with_the_one_before(tmp_path: Path, name: str) -> None:
    write(tmp_path, FAMILIES[name])
    model = LlamaLanguageModel.load(tmp_path, torch.float32)
    template = ChatTemplate(model)
    heard = [template.listening_prompt((RULES,), {}, words, 1_000).tokens for words in ("", "Who", "Who is it")]
    asked = template.reply_prompt((RULES, replace(ASKED, text="Who is it?")), {}, 1_000).tokens
    for before, after in zip(heard, (*heard[1:], asked), strict=True):
        assert after[: len(before)] == before
    said = [*asked, *model.encode("I am.")]
    history = (RULES, replace(ASKED, text="Who is it?"), SAID)
    assert template.listening_prompt(history, {}, "Why", 1_000).tokens[: len(said)] == said
    greeted = template.reply_prompt((RULES, SAID, MORE), {}, 1_000).tokens
    shared = template.reply_prompt((RULES,), {}, 1_000)
    assert greeted[: shared.shared] == shared.tokens[: shared.shared] == asked[: shared.shared]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_answers_a_turn(tmp_path: Path, tiny_parts: Parts, talk: type[Any], name: str) -> None:
    write(tmp_path, FAMILIES[name])
    model = LlamaLanguageModel.load(tmp_path, torch.float32)
    dialogue = talk(replace(tiny_parts, writer=Writer(model, ChatTemplate(model), Sampling())))
    dialogue.open("s")
    dialogue.ask("s", "item_1", dialogue.turn(1), [7_000], "r1")
    dialogue.ask("s", "item_2", dialogue.turn(2), [9_000], "r2")
    for response in ("r1", "r2"):
        told = dialogue.told("s", response)
        finished = [event for event in told if isinstance(event, ResponseFinished)]
        assert [event.reason in (FinishReason.STOP, FinishReason.LENGTH) for event in finished] == [True], finished
        text = "".join(event.text for event in told if isinstance(event, TextDelta))
        assert text == text.lstrip()
        assert not any(control in text for control in FAMILIES[name].controls)
    assert dialogue.sound["s"]


def test_a_stop_token_of_the_generation_config_ends_a_reply(tmp_path: Path) -> None:
    family = FAMILIES["llama 3"]
    tokenizer = write(tmp_path, family)
    model = LlamaLanguageModel.load(tmp_path, torch.float32)
    ends = [tokenizer.token_to_id(name) for name in family.ends]
    assert model.end_tokens == set(ends)
    never = [token for token in tokenizer.get_added_tokens_decoder() if token not in ends]
    sequence = model.sequence()
    for call in model.sync(sequence, ChatTemplate(model).reply_prompt((RULES, ASKED), {}, 1_000)):
        call.station.run([call])
    assert sequence.logits is not None
    assert sequence.logits[ends].isfinite().all()
    assert sequence.logits[never].isneginf().all()


def test_an_unknown_family_and_bad_hints_are_named(tmp_path: Path) -> None:
    write(tmp_path, replace(FAMILIES["smollm2"], template="### User:"))
    with pytest.raises(WeightsError, match=r"share none of <\|im_sep\|>, <\|im_start\|>"):
        LlamaLanguageModel.load(tmp_path, torch.float32)
    (tmp_path / "chat_template.jinja").write_text("<|im_start|>")
    assert LlamaLanguageModel.load(tmp_path, torch.float32).markup == CHATML
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "stop"}')
    with pytest.raises(WeightsError, match="eos_token_id is 'stop'"):
        LlamaLanguageModel.load(tmp_path, torch.float32)
    (tmp_path / "generation_config.json").write_text("[")
    with pytest.raises(WeightsError, match=r"generation_config\.json is not JSON"):
        LlamaLanguageModel.load(tmp_path, torch.float32)


def test_without_a_template_the_tokens_decide() -> None:
    assert markup_of({"<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>"}.__contains__, None) == CHATML
