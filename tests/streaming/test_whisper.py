import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperConfig, WhisperModel

from streaming.features import LogMel
from streaming.models.ctranslate2 import WeightsError
from streaming.models.whisper import Span, Whisper, WhisperShape
from streaming.models.whisper_weights import load_whisper

SHAPE = WhisperShape(mels=80, width=32, heads=4, encoder_layers=2, decoder_layers=2, vocabulary=97, audio_positions=60, text_positions=24)


def reference_model() -> WhisperModel:
    torch.manual_seed(3)
    config = WhisperConfig(
        vocab_size=SHAPE.vocabulary,
        num_mel_bins=SHAPE.mels,
        d_model=SHAPE.width,
        encoder_layers=SHAPE.encoder_layers,
        decoder_layers=SHAPE.decoder_layers,
        encoder_attention_heads=SHAPE.heads,
        decoder_attention_heads=SHAPE.heads,
        encoder_ffn_dim=4 * SHAPE.width,
        decoder_ffn_dim=4 * SHAPE.width,
        max_source_positions=SHAPE.audio_positions,
        max_target_positions=SHAPE.text_positions,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    model = WhisperModel(config).eval()
    for parameter in model.parameters():
        # Its own initialisation is so small that a missing layer would hardly show.
        parameter.data.normal_(0.0, 0.15)
    return model


def ctranslate2_tensors(reference: WhisperModel) -> dict[str, torch.Tensor]:
    """The reference's weights under the names and in the fusions of a CTranslate2 file."""
    state = reference.state_dict()
    tensors = {"encoder/num_heads": torch.tensor(SHAPE.heads, dtype=torch.int16)}

    def fused(prefix: str, *names: str) -> tuple[torch.Tensor, torch.Tensor]:
        weights = [state[f"{prefix}.{name}.weight"] for name in names]
        biases = [state.get(f"{prefix}.{name}.bias", torch.zeros(SHAPE.width)) for name in names]
        return torch.cat(weights), torch.cat(biases)

    def put(target: str, pair: tuple[torch.Tensor, torch.Tensor], norm: bool = False) -> None:
        tensors[f"{target}/{'gamma' if norm else 'weight'}"], tensors[f"{target}/{'beta' if norm else 'bias'}"] = pair

    def single(source: str) -> tuple[torch.Tensor, torch.Tensor]:
        return state[f"{source}.weight"], state[f"{source}.bias"]

    for convolution in ("conv1", "conv2"):
        put(f"encoder/{convolution}", single(f"encoder.{convolution}"))
    for half in ("encoder", "decoder"):
        tensors[f"{half}/position_encodings/encodings"] = state[f"{half}.embed_positions.weight"]
        put(f"{half}/layer_norm", single(f"{half}.layer_norm"), norm=True)
        for n in range(2):
            ours, theirs = f"{half}/layer_{n}", f"{half}.layers.{n}"
            put(f"{ours}/self_attention/layer_norm", single(f"{theirs}.self_attn_layer_norm"), norm=True)
            put(f"{ours}/self_attention/linear_0", fused(f"{theirs}.self_attn", "q_proj", "k_proj", "v_proj"))
            put(f"{ours}/self_attention/linear_1", single(f"{theirs}.self_attn.out_proj"))
            put(f"{ours}/ffn/layer_norm", single(f"{theirs}.final_layer_norm"), norm=True)
            put(f"{ours}/ffn/linear_0", single(f"{theirs}.fc1"))
            put(f"{ours}/ffn/linear_1", single(f"{theirs}.fc2"))
            if half == "decoder":
                put(f"{ours}/attention/layer_norm", single(f"{theirs}.encoder_attn_layer_norm"), norm=True)
                put(f"{ours}/attention/linear_0", single(f"{theirs}.encoder_attn.q_proj"))
                put(f"{ours}/attention/linear_1", fused(f"{theirs}.encoder_attn", "k_proj", "v_proj"))
                put(f"{ours}/attention/linear_2", single(f"{theirs}.encoder_attn.out_proj"))
    tensors["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    return tensors


def write_model(path: Path, tensors: dict[str, torch.Tensor], specification: str = "WhisperSpec") -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", 6) + text(specification) + struct.pack("<II", 3, len(tensors))
    for name, tensor in tensors.items():
        code, content = {torch.float32: 0, torch.int16: 2}[tensor.dtype], tensor.contiguous().numpy().tobytes()
        data += text(name) + struct.pack(f"<B{tensor.dim()}IBI", tensor.dim(), *tensor.shape, code, len(content)) + content
    path.write_bytes(data + struct.pack("<I", 0))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[WhisperModel, Whisper]:
    reference = reference_model()
    path = write_model(tmp_path_factory.mktemp("whisper") / "model.bin", ctranslate2_tensors(reference))
    return reference, load_whisper(path, torch.float32)


def padded(mel: torch.Tensor) -> torch.Tensor:
    """The zeros that the reference's convolutions see around a whole clip."""
    return torch.cat((torch.zeros(2, SHAPE.mels), mel, torch.zeros(1, SHAPE.mels)))


@torch.inference_mode()
def test_equal_to_transformers(pair: tuple[WhisperModel, Whisper]) -> None:
    reference, ours = pair
    assert ours.shape == SHAPE
    mel = torch.randn(2 * SHAPE.audio_positions, SHAPE.mels)
    tokens = torch.randint(0, SHAPE.vocabulary, (17,))
    expected = reference(input_features=mel.T[None], decoder_input_ids=tokens[None])
    frames = ours.encoder(ours.encoder.stem(padded(mel), 0), [Span(SHAPE.audio_positions, 0, ours.encoder.new_cache())])
    torch.testing.assert_close(frames, expected.encoder_last_hidden_state[0], atol=1e-4, rtol=1e-4)
    audio = ours.decoder.new_audio_cache()
    ours.decoder.listen(frames, 0, audio)
    hidden = ours.decoder(tokens, [Span(17, 0, ours.decoder.new_cache(), audio=(audio, SHAPE.audio_positions))])
    torch.testing.assert_close(hidden, expected.last_hidden_state[0], atol=1e-4, rtol=1e-4)
    scores = expected.last_hidden_state[0] @ reference.decoder.embed_tokens.weight.T
    torch.testing.assert_close(ours.decoder.scores(hidden), scores, atol=1e-3, rtol=1e-4)


@torch.inference_mode()
def test_decoder_in_steps_is_the_decoder_at_once(pair: tuple[WhisperModel, Whisper]) -> None:
    decoder = pair[1].decoder
    frames, tokens = torch.randn(40, SHAPE.width), torch.randint(0, SHAPE.vocabulary, (20,))
    audio, cache = decoder.new_audio_cache(), decoder.new_cache()
    decoder.listen(frames[:25], 0, audio)
    decoder.listen(frames[25:], 25, audio)
    at_once = decoder(tokens, [Span(20, 0, decoder.new_cache(), audio=(audio, 40))])
    steps = [decoder(tokens[a:b], [Span(b - a, a, cache, audio=(audio, 40))]) for a, b in ((0, 6), (6, 7), (7, 15), (15, 20))]
    torch.testing.assert_close(torch.cat(steps), at_once, atol=1e-4, rtol=1e-4)
    # Positions are overwritten, whatever stood there: that is what rewinding is.
    torch.testing.assert_close(decoder(tokens[3:8], [Span(5, 3, cache, audio=(audio, 40))]), at_once[3:8], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_stem_of_a_stretch_is_the_stretch_of_the_stem(pair: tuple[WhisperModel, Whisper]) -> None:
    encoder = pair[1].encoder
    mel = padded(torch.randn(100, SHAPE.mels))
    whole = encoder.stem(mel, 0)
    torch.testing.assert_close(encoder.stem(mel[2 * 20 : 2 * 35 + 3], 20), whole[20:35], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.stem(mel[: 2 * 35 + 3], 0), whole[:35], atol=1e-5, rtol=1e-5)


def test_a_cache_refuses_what_does_not_fit(pair: tuple[WhisperModel, Whisper]) -> None:
    encoder = pair[1].encoder
    with pytest.raises(ValueError, match="positions 50 to 61"):
        encoder(torch.zeros(11, SHAPE.width), [Span(11, 50, encoder.new_cache())])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop("decoder/layer_1/attention/linear_1/bias"), "it has no decoder/layer_1/attention/linear_1/bias"),
        (
            lambda t: t.update({"encoder/layer_norm/beta": torch.zeros(31)}),
            r"encoder/layer_norm/beta is torch.float32 \(31,\), expected \(32,\)",
        ),
        (lambda t: t.update({"encoder/num_heads": torch.tensor(5, dtype=torch.int16)}), "5 attention heads"),
        (lambda t: t.update({"encoder/conv2/bias": torch.zeros(32, dtype=torch.int16)}), "encoder/conv2/bias is torch.int16"),
    ],
)
def test_a_wrong_model_is_refused(tmp_path: Path, change, what: str) -> None:
    tensors = ctranslate2_tensors(reference_model())
    change(tensors)
    with pytest.raises(WeightsError, match=what):
        load_whisper(write_model(tmp_path / "model.bin", tensors))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="TransformerSpec, not a WhisperSpec"):
        load_whisper(write_model(tmp_path / "model.bin", {}, "TransformerSpec"))


@pytest.mark.models
@torch.inference_mode()
def test_equal_to_ctranslate2_on_a_recording(parts: Path, shared_data: Path) -> None:
    import ctranslate2

    folder = parts / "whisper-base"
    clip = shared_data / (shared_data / "questions.txt").read_text().split()[0]
    sound, _ = soundfile.read(clip, dtype="float32")
    mel = LogMel()
    features = np.concatenate((mel.push(sound), mel.flush()))
    features = np.pad(features, ((0, 3000 - len(features)), (0, 0)), constant_values=features.min())
    reference = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=2)
    expected = np.array(reference.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(features.T[None]))))[0]
    prompt = [50258, 50259, 50359, 50363]
    text = reference.generate(ctranslate2.StorageView.from_array(expected[None]), [prompt], beam_size=1)[0].sequences_ids[0]

    model = load_whisper(folder / "model.bin", torch.float32)
    whole = torch.cat((torch.zeros(2, 80), torch.from_numpy(features), torch.zeros(1, 80)))
    frames = model.encoder(model.encoder.stem(whole, 0), [Span(1500, 0, model.encoder.new_cache())])
    np.testing.assert_allclose(frames.numpy(), expected, atol=5e-3)
    audio = model.decoder.new_audio_cache()
    model.decoder.listen(frames, 0, audio)
    tokens = torch.tensor([*prompt, *text])
    scores = model.decoder.scores(model.decoder(tokens, [Span(len(tokens), 0, model.decoder.new_cache(), audio=(audio, 1500))]))
    assert scores.argmax(-1)[3:].tolist() == [*text, 50257]
