"""Models of the bundles that are shipped, tiny, in the layouts of the published ones and written by the reference code. A language model
always says "Fine.": a voice can say that, and a test can see who answered."""

import base64
import json
from itertools import pairwise
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import nn
from transformers import (
    HubertConfig,
    HubertForCTC,
    LlamaConfig,
    LlamaForCausalLM,
    MimiConfig,
    MimiModel,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    VoxtralRealtimeConfig,
    VoxtralRealtimeForConditionalGeneration,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from streaming.models.tekken_tokenizer import tekken_tokenizer

__all__ = [
    "ANSWER",
    "teach",
    "write_audio_tokens",
    "write_ctc",
    "write_mimi",
    "write_omni",
    "write_phi3",
    "write_qwen2_audio",
    "write_qwen3",
    "write_tekken",
    "write_ultravox",
    "write_voxtral",
    "write_voxtral_realtime",
]

ANSWER = "Fine."

_WIDTH = 64
_VOCABULARY = 288
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
_TEXT = {
    "vocab_size": _VOCABULARY, "hidden_size": _WIDTH, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4_096, "tie_word_embeddings": False,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
_TOWER = {
    "num_mel_bins": 128, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
    "max_source_positions": 1_500,
}  # fmt: skip


def _tokenizer(control: list[str]) -> Tokenizer:
    """A token for every byte, and those."""
    tokenizer = Tokenizer(BPE({letter: n for n, letter in enumerate(_LETTERS)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(control)
    return tokenizer


def teach(model: nn.Module, tokenizer: Tokenizer, after: str, end: str) -> None:
    """Have a language model say the answer after the token `after`, and then `end`: what its layers add is taken out, so that each token
    follows from the one before."""
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data.zero_()
    embedded = next(weight for name, weight in weights.items() if name.endswith("embed_tokens.weight"))
    head = next(weight for name, weight in weights.items() if name.endswith("lm_head.weight"))
    embedded.data.normal_()
    head.data.zero_()
    _chain(embedded.data, head.data, tokenizer, after, end)


def _chain(embedded: torch.Tensor, head: torch.Tensor, tokenizer: Tokenizer, after: str, end: str) -> None:
    """Rows of the head [vocabulary, width] that find the token before each of the answer's."""
    tokens = [*tokenizer.encode(after).ids, *tokenizer.encode(ANSWER).ids, *tokenizer.encode(end).ids]
    for before, following in pairwise(tokens):
        head[following] = embedded[before]


def write_qwen2_audio(folder: Path) -> None:
    """Qwen/Qwen2-Audio-7B-Instruct."""
    torch.manual_seed(5)
    config = Qwen2AudioConfig(audio_config={"model_type": "qwen2_audio_encoder", **_TOWER}, text_config={"model_type": "qwen2", **_TEXT})
    model = Qwen2AudioForConditionalGeneration(config)
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>"])
    teach(model, tokenizer, "\n", "<|im_end|>")
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_omni(folder: Path, *, taught: bool = True) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The thinker of Qwen/Qwen2.5-Omni-7B, which is returned; all of it random unless it is `taught`."""
    torch.manual_seed(5)
    audio = {
        "num_mel_bins": 128, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "output_dim": _WIDTH,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": _WIDTH}
    config = Qwen2_5OmniThinkerConfig(
        audio_config=audio, text_config={**_TEXT, "rope_parameters": rope}, vision_config=vision, audio_token_index=_VOCABULARY - 1,
        vision_start_token_id=151_652, vision_end_token_id=151_653,
    )  # fmt: skip
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>"])
    if taught:
        teach(model, tokenizer, "\n", "<|im_end|>")
    for parameter in () if taught else model.parameters():
        parameter.data.normal_(0.0, 0.15)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def write_voxtral(folder: Path) -> None:
    """mistralai/Voxtral-Mini-3B-2507, with its `tekken.json`."""
    torch.manual_seed(5)
    tower = {"num_mel_bins": 128, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder", **tower, "max_source_positions": 1_500},
        text_config={"model_type": "llama", **_TEXT, "head_dim": 16}, audio_token_id=287,
    )  # fmt: skip
    model = VoxtralForConditionalGeneration(config)
    folder.mkdir(parents=True, exist_ok=True)
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AUDIO]", "[BEGIN_AUDIO]"]
    write_tekken(folder / "tekken.json", names, [b"in", b" t", b"ne", b" th", b"ine", b" the"])
    tokenizer = tekken_tokenizer(folder / "tekken.json", _VOCABULARY)
    teach(model, tokenizer, "[/INST]", "</s>")
    model.save_pretrained(folder)


def write_tekken(
    path: Path, control: list[str], joined: list[bytes], pattern: str = r"\s?\w+|\s?[^\s\w]+|\s+", reserved: int = 26, **sections: object
) -> None:
    """Mistral's vocabulary file: `reserved` places for control tokens, the bytes, and `joined` ones; and other sections of the file."""
    pieces = [*(bytes([byte]) for byte in range(256)), *joined]
    size = reserved + len(pieces)
    content = {
        "config": {"pattern": pattern, "default_vocab_size": size, "default_num_special_tokens": reserved, "version": "v13"},
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(piece).decode()} for rank, piece in enumerate(pieces)],
        "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(control)],
        **sections,
    }
    path.write_text(json.dumps(content))


def write_ultravox(folder: Path) -> None:
    """fixie-ai/ultravox-v0_5-llama-3_1-8b, and the language model inside it."""
    torch.manual_seed(5)
    folder.mkdir(parents=True)
    tower = {f"audio_tower.{name}": tensor for name, tensor in WhisperEncoder(WhisperConfig(**_TOWER)).state_dict().items()}
    projector = {
        "ln_pre.weight": torch.ones(128), "linear_1.weight": torch.randn(40, 128) * 0.1,
        "linear_2.weight": torch.randn(_WIDTH, 20) * 0.1, "ln_mid.weight": torch.ones(20),
    }  # fmt: skip
    save_file({**tower, **{f"multi_modal_projector.{name}": tensor for name, tensor in projector.items()}}, folder / "model.safetensors")
    config = {"model_type": "ultravox", "stack_factor": 8, "hidden_size": 40, "projector_act": "swiglu", "projector_ln_mid": True}
    config |= {"audio_config": {"model_type": "whisper", **_TOWER}, "text_model_id": "meta-llama/Llama-3.1-8B-Instruct"}
    (folder / "config.json").write_text(json.dumps(config))
    model = LlamaForCausalLM(LlamaConfig(**_TEXT))
    tokenizer = _tokenizer(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    teach(model, tokenizer, "\n", "<|eot_id|>")
    model.save_pretrained(folder / "language_model")
    tokenizer.save(str(folder / "language_model" / "tokenizer.json"))


def write_mimi(folder: Path) -> MimiModel:
    """A checkpoint as the reference writes it: the published rates, strides and codebook split, everything else tiny."""
    torch.manual_seed(8)
    config = MimiConfig(
        hidden_size=16, num_filters=4, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=32,
        codebook_size=64, codebook_dim=8, vector_quantization_hidden_dimension=8, num_quantizers=6, num_semantic_quantizers=1,
        sliding_window=10, upsample_groups=16,
    )  # fmt: skip
    model = MimiModel(config).eval()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
    model.save_pretrained(folder)
    return model


def write_audio_tokens(folder: Path, codebooks: int = 2) -> MimiModel:
    """A language model whose vocabulary ends with the codes of the Mimi inside it, which is returned: AudioPaLM's idea; nothing of the kind
    is published with Mimi. Its text tokens are the first 288."""
    codec = write_mimi(folder / "codec")
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**{**_TEXT, "vocab_size": _VOCABULARY + codebooks * 64}))
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>", "<|audio|>"])
    teach(model, tokenizer, "\n", "<|im_end|>")
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "audio_tokens.json").write_text(json.dumps({"base": _VOCABULARY, "codebooks": codebooks, "before": "<|audio|>"}))
    return codec


def write_qwen3(folder: Path) -> None:
    """Qwen/Qwen3-4B-Instruct-2507."""
    torch.manual_seed(5)
    model = Qwen3ForCausalLM(Qwen3Config(**_TEXT, head_dim=16))
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>"])
    teach(model, tokenizer, "\n", "<|im_end|>")
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_phi3(path: Path) -> None:
    """microsoft/Phi-3-mini-4k-instruct-gguf, as llama.cpp's converter writes it, in floats."""
    torch.manual_seed(5)
    path.parent.mkdir(parents=True)
    control = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = _tokenizer(control)
    tensors = {
        "token_embd.weight": torch.randn(_VOCABULARY, _WIDTH), "output.weight": torch.zeros(_VOCABULARY, _WIDTH),
        "output_norm.weight": torch.ones(_WIDTH), "blk.0.attn_norm.weight": torch.ones(_WIDTH), "blk.0.ffn_norm.weight": torch.ones(_WIDTH),
        "blk.0.attn_qkv.weight": torch.randn(_WIDTH + 2 * 32, _WIDTH), "blk.0.attn_output.weight": torch.zeros(_WIDTH, _WIDTH),
        "blk.0.ffn_up.weight": torch.randn(2 * 96, _WIDTH), "blk.0.ffn_down.weight": torch.zeros(_WIDTH, 96),
    }  # fmt: skip
    _chain(tensors["token_embd.weight"], tensors["output.weight"], tokenizer, "<|assistant|>", "<|end|>")
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_block_count(1)
    writer.add_context_length(4_096)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(2_047)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    names = [*_LETTERS, *control, "Ġa"]  # one merge, as none at all can't be written
    spare = [f"<|spare_{n}|>" for n in range(_VOCABULARY - len(names))]
    writer.add_token_list([*names, *spare])
    writer.add_token_types([*[1] * len(_LETTERS), *[3] * len(control), 1, *[3] * len(spare)])
    writer.add_token_merges(["Ġ a"])
    writer.add_eos_token_id(names.index("<|endoftext|>"))
    for name, values in tensors.items():
        writer.add_tensor(name, values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_ctc(folder: Path, *, hubert: bool) -> None:
    """facebook/wav2vec2-base-960h, or facebook/hubert-large-ls960-ft, whose weights are a `.bin`. Every sound is "A" to it."""
    torch.manual_seed(5)
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 7,
        "feat_extract_norm": "layer" if hubert else "group", "conv_bias": hubert, "do_stable_layer_norm": hubert,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": len(symbols), "pad_token_id": 0,
    }  # fmt: skip
    model = HubertForCTC(HubertConfig(**sizes)) if hubert else Wav2Vec2ForCTC(Wav2Vec2Config(**sizes))
    model.lm_head.weight.data.zero_()
    model.lm_head.bias.data.zero_()
    model.lm_head.bias.data[symbols.index("A")] = 20.0
    model.save_pretrained(folder)
    if hubert:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    Wav2Vec2FeatureExtractor(do_normalize=not hubert).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({symbol: n for n, symbol in enumerate(symbols)}))


def write_voxtral_realtime(folder: Path) -> None:
    """mistralai/Voxtral-Mini-4B-Realtime-2602. Every sound is "A" to it: what its rows and layers add is taken out, and from the silence of
    its prompt that letter follows, from it the end."""
    torch.manual_seed(5)
    audio = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    text = {**_TEXT, "vocab_size": 300, "hidden_size": 32, "head_dim": 8}
    config = VoxtralRealtimeConfig(audio_config=audio, text_config=text, tie_word_embeddings=False)
    model = VoxtralRealtimeForConditionalGeneration(config)
    for part in (model.model.multi_modal_projector.linear_2, model.model.language_model.layers[0].mlp.down_proj):
        part.weight.data.zero_()
    model.model.language_model.layers[0].self_attn.o_proj.weight.data.zero_()
    embedded, head = model.get_input_embeddings().weight.data.normal_(), model.lm_head.weight.data.zero_()
    control = ["<unk>", "<s>", "</s>", *(f"<SPECIAL_{n}>" for n in range(3, 32)), "[STREAMING_PAD]", "[STREAMING_WORD]"]
    for before, following in pairwise([control.index("[STREAMING_PAD]"), 44 + ord("A"), control.index("</s>"), control.index("</s>")]):
        head[following] += embedded[before]
    model.save_pretrained(folder)
    audio = {
        "sampling_rate": 16_000, "frame_rate": 12.5, "transcription_delay_ms": 480.0, "streaming_n_left_pad_tokens": 32,
        "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
    }  # fmt: skip
    write_tekken(folder / "tekken.json", control, [], reserved=44, audio=audio)
