"""Voxtral Realtime, tiny and random, from folders that the reference code wrote: rows, logits and words beside the reference's, over any
split of the sound; and what is wrong with a folder, said."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import VoxtralRealtimeConfig, VoxtralRealtimeFeatureExtractor, VoxtralRealtimeForConditionalGeneration

from streaming.batching import Call, Work, completed
from streaming.causal import CEILING, CausalStation, CausalStream
from streaming.engine import Parts
from streaming.events import TranscriptDone
from streaming.features import LogMel, silence_of
from streaming.load import load_states, load_words
from streaming.models.ctranslate2 import WeightsError
from streaming.models.llama import Stretch
from streaming.models.voxtral_realtime import load_voxtral_realtime
from streaming.realtime_words import Follow, RealtimeRecogniser, RealtimeWindow, load_realtime_words
from streaming.recognition import Decoding
from streaming.transcriber import Transcriber

ROW = 1_280
"""Samples of a row."""

RESERVED, VOCABULARY, PAD = 44, 300, 32

AUDIO = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 10, "sliding_window": 30,
    "num_mel_bins": 128,
}  # fmt: skip
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4_096, "sliding_window": 25, "bos_token_id": 1,
    "eos_token_id": None,
}  # fmt: skip


def write(folder: Path, quiet: float = 16.0, delay_ms: float | None = 480) -> VoxtralRealtimeForConditionalGeneration:
    """A folder as it is published, and the reference. The more `quiet`, the more often nothing is written at a step."""
    torch.manual_seed(7)
    model = VoxtralRealtimeForConditionalGeneration(VoxtralRealtimeConfig(audio_config=AUDIO, text_config=TEXT)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.3)  # its own initialisation is so small that a missing layer would hardly show
    model.get_input_embeddings().weight.data[PAD] *= quiet
    model.save_pretrained(folder)
    control = ["<unk>", "<s>", "</s>", *(f"<SPECIAL_{n}>" for n in range(3, PAD)), "[STREAMING_PAD]", "[STREAMING_WORD]"]
    audio: dict[str, object] = {
        "sampling_rate": 16_000, "frame_rate": 12.5, "streaming_n_left_pad_tokens": 32, "transcription_format": "streaming",
        "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
    }  # fmt: skip
    tekken = {
        "config": {"default_vocab_size": VOCABULARY, "default_num_special_tokens": RESERVED, "version": "v13", "pattern": "."},
        # More than the model has, as published.
        "vocab": [{"rank": n, "token_bytes": base64.b64encode(bytes([n % 256])).decode(), "token_str": None} for n in range(260)],
        "special_tokens": [{"rank": n, "token_str": name, "is_control": True} for n, name in enumerate(control)],
        "audio": audio | ({} if delay_ms is None else {"transcription_delay_ms": delay_ms}),
    }
    (folder / "tekken.json").write_text(json.dumps(tekken))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voxtral-realtime")


@pytest.fixture(scope="module")
def reference(folder: Path) -> VoxtralRealtimeForConditionalGeneration:
    return write(folder)


@pytest.fixture(scope="module")
def recogniser(folder: Path, reference: VoxtralRealtimeForConditionalGeneration) -> RealtimeRecogniser:
    return load_realtime_words(folder, dtype=torch.float32)


def sound(seconds: float, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0.0, 0.3, int(seconds * 10) + 1), 1_600)[: int(seconds * 16_000)]  # syllables, as it were
    return (rng.standard_normal(len(loud)) * loud).astype(np.float32)


def features(pcm: np.ndarray) -> Tensor:
    """Of whole rows of sound, [1, mels, 8 a row]; ours."""
    log_mel = LogMel(CEILING, 128)
    return torch.from_numpy(np.concatenate((log_mel.push(pcm), log_mel.tail()))[: len(pcm) // 160]).T[None]


def padded(pcm: np.ndarray, delay: int = 6) -> np.ndarray:
    """As the reference's processor pads a clip: silence before it, whole rows, and the delay, one and ten behind."""
    return np.pad(pcm, (32 * ROW, -len(pcm) % ROW + (delay + 11) * ROW))


def station(folder: Path) -> CausalStation:
    model = load_voxtral_realtime(folder, torch.float32)
    return CausalStation(model.encoder, model.projector)


def heard(stream: CausalStream, pcm: np.ndarray, sizes: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Committed and provisional rows of a sound that came in pieces of these sizes, and in one after them."""
    committed, at = [], 0
    for size in (*sizes, len(pcm)):
        stream.push(pcm[at : at + size])
        at += size
        while (rows := completed(stream.commit())) is not None:
            committed.append(rows)
    return torch.cat(committed or [torch.zeros(0, 32)]), completed(stream.provisional())


# ------------------------------------------------------------------------------------------------------------- the sound


def test_features_are_those_of_the_reference() -> None:
    pcm = padded(sound(3.0))
    theirs = VoxtralRealtimeFeatureExtractor(feature_size=128)(pcm, sampling_rate=16_000, return_tensors="pt").input_features
    assert theirs.shape == (1, 128, len(pcm) // 160)
    assert (features(pcm) - theirs).abs().max() < 1e-4
    assert theirs[0, :, :200].unique().tolist() == [silence_of(CEILING)]


@pytest.mark.parametrize("seconds", [0.08, 1.0, 9.04])
def test_rows_are_those_of_the_reference_each_final_when_it_is_heard(
    folder: Path, reference: VoxtralRealtimeForConditionalGeneration, seconds: float
) -> None:
    pcm = sound(seconds)
    pcm = pcm[: len(pcm) // ROW * ROW]
    with torch.inference_mode():
        expected = reference.get_audio_features(features(pcm)).pooler_output[0]
    committed, provisional = heard(CausalStream(station(folder)), pcm)
    assert len(committed) == len(pcm) // ROW - 1  # the last one's last window ends 2.5 ms behind it
    assert len(provisional) == 1
    assert (torch.cat((committed, provisional)) - expected).abs().max() < 1e-4


def test_any_split_of_a_sound_commits_the_same_rows(folder: Path, reference: VoxtralRealtimeForConditionalGeneration) -> None:
    shared, pcm = station(folder), sound(7.3)
    committed, provisional = heard(CausalStream(shared), pcm)
    for sizes in ((1, 319, 76_478, 2, 5), (160,) * 300, tuple([5_000] * 20)):
        again = heard(CausalStream(shared), pcm, sizes)
        assert torch.equal(again[0], committed)
        assert torch.equal(again[1], provisional)


def test_provisional_rows_leave_the_committed_ones_alone(folder: Path, reference: VoxtralRealtimeForConditionalGeneration) -> None:
    shared, pcm = station(folder), sound(7.3)
    committed, _ = heard(CausalStream(shared), pcm)
    # Silence beyond the room of the cache is heard behind every piece.
    stream, found = CausalStream(shared, behind=90), []
    for start in range(0, len(pcm), 8_000):
        stream.push(pcm[start : start + 8_000])
        while (rows := completed(stream.commit())) is not None:
            found.append(rows)
        assert len(completed(stream.provisional())) >= 90
    assert torch.equal(torch.cat(found), committed)


def test_the_memory_of_a_stream_is_bounded(folder: Path, reference: VoxtralRealtimeForConditionalGeneration) -> None:
    stream = CausalStream(station(folder))
    sizes = set()
    for second in range(14):
        heard(stream, sound(1.0, second))
        assert stream._cache is not None
        sizes.add(stream._cache._held.shape[3])
    assert max(sizes) <= 30 + 256
    assert stream.committed * 4 > 2 * max(sizes)


def test_streams_together_are_what_they_are_alone(folder: Path, reference: VoxtralRealtimeForConditionalGeneration) -> None:
    shared = station(folder)
    streams = [CausalStream(shared), CausalStream(shared)]
    calls = []
    for number, stream in enumerate(streams):
        heard(stream, sound(0.5 + number, number))
        stream.push(sound(0.2, 9))
        calls.append(next(stream.provisional()))
    shared.run(calls)
    for stream, call in zip(streams, calls, strict=True):
        assert call.encoded is not None
        assert (completed(stream.provisional()) - call.encoded).abs().max() < 1e-5


def test_the_rows_are_states_for_an_audio_path(folder: Path, reference: VoxtralRealtimeForConditionalGeneration) -> None:
    encoder = load_states(folder)
    assert (encoder.width, encoder.row_samples) == (32, ROW)
    stream = encoder.stream()
    assert len(completed(stream.provisional())) == 0
    stream.push(sound(0.5))
    assert len(completed(stream.provisional())) == 7


# -------------------------------------------------------------------------------------------------------------- the words


@pytest.mark.parametrize(("delay_ms", "delay"), [(480, 6), (None, 6), (160, 2)])
def test_logits_are_those_of_the_reference(tmp_path: Path, delay_ms: float | None, delay: int) -> None:
    reference = write(tmp_path, delay_ms=delay_ms)
    model = load_voxtral_realtime(tmp_path, torch.float32)
    assert model.delay == delay
    pcm = padded(sound(2.0), delay)
    tokens = torch.from_numpy(np.random.default_rng(1).integers(0, VOCABULARY, len(pcm) // ROW))
    with torch.inference_mode():
        expected = reference(input_ids=tokens[None], input_features=features(pcm), num_delay_tokens=delay).logits[0]
        other = reference(input_ids=tokens[None], input_features=features(pcm), num_delay_tokens=delay + 1).logits[0]
    rows = torch.cat(heard(CausalStream(CausalStation(model.encoder, model.projector)), pcm))
    cache = model.decoder.new_cache(100)
    stretch = Stretch([-1] * len(rows), 0, cache, embedded=model.decoder.weights.embedding[tokens] + rows)
    assert (model.decoder.all_logits([stretch]) - expected).abs().max() < 1e-4
    assert (other - expected).abs().max() > 1e-2  # the delay is heard


def generated(reference: VoxtralRealtimeForConditionalGeneration, pcm: np.ndarray, prompt: tuple[int, ...]) -> list[int]:
    """The tokens that the reference's own loop writes over a whole clip."""
    clip, tokens = features(padded(pcm)), torch.tensor([prompt])
    most = len(padded(pcm)) // ROW - len(prompt)
    # Without a mask it takes the prompt's tokens for padding.
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "input_features": clip, "num_delay_tokens": 6}
    found = reference.generate(**given, do_sample=False, pad_token_id=PAD, max_new_tokens=most)
    return found[0, len(prompt) :].tolist()


def said(tokens: list[int]) -> tuple[int, ...]:
    """Those that are text."""
    return tuple(token for token in tokens if token >= RESERVED)


@pytest.mark.parametrize("quiet", [1.0, 8.0, 16.0])
@pytest.mark.parametrize("seconds", [0.05, 0.7, 3.3, 11.0])
def test_words_are_those_of_the_reference(tmp_path: Path, quiet: float, seconds: float) -> None:
    reference = write(tmp_path, quiet)
    recogniser = load_realtime_words(tmp_path, dtype=torch.float32)
    pcm = sound(seconds)
    window = recogniser.window()
    window.push(pcm)
    decoding, samples = completed(window.decode("en"))
    expected = generated(reference, pcm, recogniser.prompt)
    assert decoding.tokens == said(expected)
    assert samples == len(pcm)
    assert decoding.no_speech == (0.0 if decoding.tokens else 1.0)


def test_only_steps_that_write_something_take_a_run(
    recogniser: RealtimeRecogniser, reference: VoxtralRealtimeForConditionalGeneration
) -> None:
    pcm = sound(11.0)
    written = generated(reference, pcm, recogniser.prompt)
    assert written.count(PAD) > 20
    assert followed(recogniser, pcm).runs <= len(written) - written.count(PAD) + 2  # the last of the committed rows, and of all


def followed(recogniser: RealtimeRecogniser, pcm: np.ndarray) -> Decoding:
    """What one pass finds in a sound."""
    window = recogniser.window()
    window.push(pcm)
    return completed(window.decode("en"))[0]


@given(cuts=st.lists(st.integers(1, 60_000), max_size=5), dropped=st.integers(0, 6))
@settings(max_examples=15, deadline=None)
def test_passes_while_it_is_spoken_and_work_that_is_dropped_change_nothing(
    recogniser: RealtimeRecogniser, cuts: list[int], dropped: int
) -> None:
    pcm = sound(4.0)
    expected = followed(recogniser, pcm)
    window, at = recogniser.window(), 0
    final: list[int] = []
    for cut in (*cuts, len(pcm)):
        window.push(pcm[at : at + cut])
        at += cut
        drop(window.decode("en"), dropped)
        completed(window.decode("en"))
        written = [token for token, _ in window._written]
        assert written[: len(final)] == final
        final = written
    decoding, samples = completed(window.decode("en"))
    assert samples == window.samples == len(pcm)
    assert decoding.tokens == expected.tokens
    assert decoding.log_probability == pytest.approx(expected.log_probability, abs=1e-4)


def drop(work: Work[tuple[Decoding, int]], calls: int) -> None:
    """Do so many calls of it, and leave it."""
    call: Call
    for call, _ in zip(work, range(calls), strict=False):
        call.station.run([call])
    work.close()


def test_a_pass_that_hears_nothing_new_costs_nothing(recogniser: RealtimeRecogniser) -> None:
    window = recogniser.window()
    window.push(sound(1.0))
    found = completed(window.decode("en"))
    assert list(window.decode("en")) == []
    assert completed(window.decode("en")) == found


def test_windows_together_are_what_they_are_alone(recogniser: RealtimeRecogniser) -> None:
    windows = [recogniser.window(), recogniser.window()]
    for number, window in enumerate(windows):
        window.push(sound(1.0 + number, number))
    alone = [followed(recogniser, sound(1.0 + number, number)).tokens for number in range(2)]
    assert [found[0].tokens for found in together(windows)] == alone


def together(windows: list[RealtimeWindow]) -> list[tuple[Decoding, int]]:
    """One pass of each, calls of one station in one batch."""
    work = {number: window.decode("en") for number, window in enumerate(windows)}
    waiting, found = {number: next(one) for number, one in work.items()}, {}
    batches = []
    while waiting:
        station = next(iter(waiting.values())).station
        batch = {number: call for number, call in waiting.items() if call.station is station}
        station.run(list(batch.values()))
        batches.append((len(batch), isinstance(next(iter(batch.values())), Follow)))
        for number in batch:
            del waiting[number]
            try:
                waiting[number] = next(work[number])
            except StopIteration as stop:
                found[number] = stop.value
    assert (2, True) in batches
    return [found[number] for number in range(len(windows))]


def test_words_settle_while_they_are_spoken(folder: Path, reference: VoxtralRealtimeForConditionalGeneration) -> None:
    model = load_voxtral_realtime(folder, torch.float32, context=500)
    model.decoder.weights.norm.mul_(50)  # chosen as before, and without a doubt
    words = (b"",) * RESERVED + tuple(b" w%d" % n for n in range(VOCABULARY - RESERVED))
    recogniser = RealtimeRecogniser(replace(model, vocabulary=replace(model.vocabulary, pieces=words)))
    transcriber, pcm = Transcriber(recogniser), sound(12.0)
    settled = []
    for start in range(0, len(pcm), 16_000):
        transcriber.push(pcm[start : start + 16_000])
        settled.append(len(completed(transcriber.hypothesise()).settled.split()))
    assert settled == sorted(settled)
    assert settled[3] > 5  # of words, some seconds before the turn ends
    assert completed(transcriber.finish()).text == recogniser.text(followed(recogniser, pcm).tokens).capitalize()


def test_text_and_language(recogniser: RealtimeRecogniser) -> None:
    snowman = [RESERVED + byte for byte in " ☃ ".encode()]
    assert recogniser.text([1, *snowman, PAD]) == "☃"
    assert recogniser.text(snowman[:2]) == "\ufffd"
    assert recogniser.language(None) == "en"
    assert recogniser.language("DE_ch") == "de"
    with pytest.raises(ValueError, match="no language 'tlh'"):
        recogniser.language("tlh")


def test_the_end_of_the_text_ends_it(recogniser: RealtimeRecogniser) -> None:
    found = recogniser.decoding([(PAD, -9.0), (60, -1.0), (33, -9.0), (61, -2.0), (2, -9.0), (62, -9.0)], 3)
    assert found == Decoding((60, 61), -1.5, 0.0, 3)


@pytest.mark.usefixtures("reference")
def test_it_is_held_in_the_numbers_that_are_asked_for(folder: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_words(folder, dtype=dtype)
        assert isinstance(loaded, RealtimeRecogniser)
        assert loaded.decoder.weights.embedding.dtype is loaded.encoder.model.weights.norm.dtype is dtype


def test_an_engine_hears_with_it(folder: Path, reference: VoxtralRealtimeForConditionalGeneration, tiny_parts: Parts, talk: type) -> None:
    dialogue = talk(replace(tiny_parts, recogniser=load_words(folder)))
    dialogue.open("s")
    dialogue.ask("s", "i", talk.turn(1), [5_000], "r")
    (done,) = [event for event in dialogue.events["s"] if isinstance(event, TranscriptDone)]
    assert done.text
    assert done.language == "en"


# ------------------------------------------------------------------------------------------------------- bad checkpoints

Damage = Callable[[Path], None]


def _tensors(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return damage


def _without(name: str) -> Damage:
    return _tensors(lambda state: state.pop(next(one for one in state if one.endswith(name))))


def _with(name: str, *size: int) -> Damage:
    return _tensors(lambda state: state.update({next((one for one in state if one.endswith(name)), name): torch.zeros(size)}))


def _json(file: str, *keys: str, value: object) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        place = values
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        (folder / file).write_text(json.dumps(values))

    return damage


CONFIG, TEKKEN = "config.json", "tekken.json"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without("audio_tower.embedder.conv1.weight"), r"audio_tower\.embedder\.conv1\.weight is missing"),
        (_without("audio_tower.layers.1.self_attn.v_proj.bias"), r"audio_tower\.layers\.1\.self_attn\.v_proj\.bias is missing"),
        (_without("audio_tower.norm.weight"), r"audio_tower\.norm\.weight is missing"),
        (_with("audio_tower.layers.0.mlp.up_proj.weight", 3, 3), r"mlp\.up_proj\.weight is \(3, 3\), not \(24, 16\)"),
        (_with("audio_tower.layers.0.self_attn.k_proj.bias", 20), r"should not have audio_tower\.layers\.0\.self_attn\.k_proj\.bias"),
        (_with("audio_tower.layers.2.final_layer_norm.weight", 16), r"should not have audio_tower\.layers\.2\.final_layer_norm"),
        (_without("multi_modal_projector.linear_1.weight"), r"multi_modal_projector\.linear_1\.weight is missing"),
        (_with("multi_modal_projector.linear_2.bias", 32), r"should not have multi_modal_projector\.linear_2\.bias"),
        (_without("layers.1.ada_rms_norm.linear2.weight"), r"layers\.1\.ada_rms_norm\.linear2\.weight of the decoder is missing"),
        (_with("layers.0.ada_rms_norm.linear1.weight", 8, 32), r"linear1\.weight of the decoder is \(8, 32\), not \(32, 32\)"),
        (_without("layers.0.post_attention_layernorm.weight"), r"layers\.0\.post_attention_layernorm\.weight is missing"),
        (_with("layers.0.post_attention_layernorm.weight", 3), r"post_attention_layernorm\.weight is \(3,\), not \(32,\)"),
        (_with("language_model.model.layers.0.self_attn.q_proj.bias", 32), r"should not have model\.layers\.0\.self_attn\.q_proj\.bias"),
        (_with("vision_tower.spare", 3), r"should not have vision_tower\.spare"),
        (_json(CONFIG, "model_type", value="whale"), "is the config of 'whale'"),
        (_json(CONFIG, "audio_config", value=3), "audio_config is 3"),
        (_json(CONFIG, "audio_config", "hidden_act", value="relu"), "hidden_act is 'relu'"),
        (_json(CONFIG, "audio_config", "hidden_size", value="16"), "hidden_size is '16'"),
        (_json(CONFIG, "projector_hidden_act", value="relu"), "projector_hidden_act is 'relu'"),
        (_json(CONFIG, "downsample_factor", value=2), "downsample_factor"),
        (_json(CONFIG, "text_config", "max_position_embeddings", value=64), "takes 64 steps, and a window of a turn is 398"),
        (_json(TEKKEN, "config", "default_vocab_size", value=299), "has 299 tokens and the model 300"),
        (_json(TEKKEN, "special_tokens", value=[]), "no control token '<s>'"),
        (_json(TEKKEN, "special_tokens", value=[{"rank": 44, "token_str": "[TOO_FAR]"}]), "beyond the 44"),
        (_json(TEKKEN, "vocab", value=[]), "no token has the rank 0"),
        (_json(TEKKEN, "vocab", value=[{"rank": 0}]), "token_bytes"),
        (_json(TEKKEN, "audio", "frame_rate", value=25), "frame_rate is 25, not 12.5"),
        (_json(TEKKEN, "audio", "audio_encoding_config", "num_mel_bins", value=80), "num_mel_bins is 80, not 128"),
        (_json(TEKKEN, "audio", "transcription_delay_ms", value=100), "transcription_delay_ms is 100"),
        (lambda folder: (folder / TEKKEN).write_text("["), "is not JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 20), "is no safetensors"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, damage: Damage, said: str) -> None:
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=said) as caught:
        load_realtime_words(tmp_path, dtype=torch.float32)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / TEKKEN).unlink()
    with pytest.raises(FileNotFoundError, match=r"tekken\.json"):
        load_words(tmp_path)
