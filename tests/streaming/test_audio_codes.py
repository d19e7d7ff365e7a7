"""Mimi, tiny and random: frame by frame what it is at once; its codes as tokens of a language model."""

import json
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import write_audio_tokens, write_mimi
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, MimiModel

from streaming.audio import Samples, StreamResampler
from streaming.audio_codes import AudioVocabulary, CodeStation, CodeStream, TokenEncoder
from streaming.audio_path import Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel, Prompt
from streaming.events import ContextMessage
from streaming.hearing_models import hears, load_hearing_model
from streaming.models.ctranslate2 import WeightsError
from streaming.models.llama import Llama, LlamaShape
from streaming.models.mimi import Mimi, MimiState, load_mimi
from streaming.models.weights import Matrix, assemble

TEXT = 97
"""Tokens of the tiny language model before audio was appended."""

VOCABULARY = AudioVocabulary(base=TEXT, codebooks=3, size=64)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[MimiModel, Mimi]:
    folder = tmp_path_factory.mktemp("mimi")
    return write_mimi(folder), load_mimi(folder)


def sound(seconds: float) -> Samples:
    return (np.random.default_rng(9).standard_normal(int(seconds * 16_000)) * 0.1).astype(np.float32)


def resampled(pcm: Samples) -> Samples:
    resampler = StreamResampler(16_000, 24_000)
    return np.concatenate((resampler.push(pcm), resampler.flush()))


@torch.inference_mode()
def expected(reference: MimiModel, pcm: Samples, codebooks: int) -> torch.Tensor:
    """Codes of the whole sound at 24 kHz, [frames, codebooks], by the reference, offline."""
    return reference.encode(torch.from_numpy(pcm)[None, None], num_quantizers=codebooks).audio_codes[0].T


def codes(station: CodeStation, parts: list[Samples], *, look: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Committed and provisional codes of a stream."""
    stream = CodeStream(station)
    frames = [torch.zeros(0, station.codebooks, dtype=torch.int64)]
    for part in parts:
        stream.push(part)
        while (frame := completed(stream.commit())) is not None:
            frames.append(frame)
        if look:
            completed(stream.provisional())
    committed = torch.cat(frames)
    assert stream.committed == len(committed)
    return committed, completed(stream.provisional())


@pytest.mark.parametrize("frames", [1, 3, 25])
@torch.inference_mode()
def test_frame_by_frame_it_is_what_it_is_at_once(pair: tuple[MimiModel, Mimi], frames: int) -> None:
    reference, ours = pair
    pcm = resampled(sound(4))[: 50 * 1_920]
    state, found, latents, past = MimiState(), [], [], MimiState()
    for start in range(0, len(pcm), frames * 1_920):
        part = pcm[start : start + frames * 1_920]
        step, state = ours.step(part, state, 6)
        found.append(step)
        out = reference.encoder(
            torch.from_numpy(part)[None, None], past_key_values=past.attention, padding_cache=past.convolutions, use_streaming=True
        )
        past = MimiState(out.past_key_values, out.padding_cache)
        latents.append(out.latents)
    whole = reference.encoder(torch.from_numpy(pcm)[None, None]).latents
    torch.testing.assert_close(torch.cat(latents, dim=-1), whole, atol=1e-4, rtol=1e-4)
    assert torch.equal(torch.cat(found), expected(reference, pcm, 6))


def test_codes_of_a_stream_are_those_of_the_whole(pair: tuple[MimiModel, Mimi]) -> None:
    reference, ours = pair
    committed, provisional = codes(CodeStation(ours, 3), np.array_split(sound(3.3), 70))
    whole = resampled(sound(3.3))
    # As if silence followed to the end of the frame.
    padded = np.pad(whole, (0, -len(whole) % 1_920))
    assert torch.equal(torch.cat((committed, provisional)), expected(reference, padded, 3))
    assert (len(committed), len(provisional)) == (41, 1)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 24_000), max_size=8), look=st.booleans())
def test_any_split_and_any_look_at_the_tail_commits_the_same(pair: tuple[MimiModel, Mimi], cuts: list[int], look: bool) -> None:
    station = CodeStation(pair[1], 2)
    at_once = codes(station, [sound(1.5)])
    split = codes(station, np.split(sound(1.5), sorted(cuts)), look=look)
    assert torch.equal(split[0], at_once[0])
    assert torch.equal(split[1], at_once[1])


def test_a_call_made_again_gives_the_same(pair: tuple[MimiModel, Mimi]) -> None:
    station = CodeStation(pair[1], 2)
    stream = CodeStream(station)
    stream.push(sound(1))
    completed(stream.commit())
    (call,) = [next(stream.commit())]
    station.run([call])
    first = call.codes
    station.run([call])
    assert torch.equal(first, call.codes)


def test_what_is_kept_of_the_past_is_bounded(pair: tuple[MimiModel, Mimi]) -> None:
    state = MimiState()
    pcm = resampled(sound(4))
    for start in range(0, 40 * 1_920, 1_920):
        _, state = pair[1].step(pcm[start : start + 1_920], state, 1)
        assert state.attention is not None
        assert all(layer.keys.shape[2] < 10 for layer in state.attention.layers)


# ------------------------------------------------------------------------------------------ in a language model's vocabulary


@torch.inference_mode()
def test_they_are_tokens_of_a_language_model(pair: tuple[MimiModel, Mimi]) -> None:
    torch.manual_seed(4)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=TEXT, max_position_embeddings=512, **sizes)).eval()
    model.resize_token_embeddings(VOCABULARY.end, mean_resizing=False)
    embeddings = model.get_input_embeddings().weight
    encoder = TokenEncoder(pair[1], VOCABULARY, embeddings)
    assert encoder.width == 32
    stream = encoder.stream()
    rows = []
    for part in np.array_split(sound(2), 31):
        stream.push(part)
        while (row := completed(stream.commit())) is not None:
            rows.append(row)
    assert stream.committed == sum(len(row) for row in rows) == 3 * 24
    rows.append(completed(stream.provisional()))

    whole = resampled(sound(2))
    tokens = VOCABULARY.tokens(expected(pair[0], np.pad(whole, (0, -len(whole) % 1_920)), 3))
    assert tokens.min() >= TEXT
    assert tokens.max() < VOCABULARY.end
    prompt = torch.tensor([5, 6, 7])
    by_id = model(input_ids=torch.cat((prompt, tokens))[None]).logits[0]
    by_row = model(inputs_embeds=torch.cat((embeddings[prompt], *rows))[None]).logits[0]
    torch.testing.assert_close(by_row, by_id, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_as_ordinary_tokens_they_enter_our_keys_and_values_while_they_come(pair: tuple[MimiModel, Mimi]) -> None:
    torch.manual_seed(6)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": True}
    reference = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY.end, max_position_embeddings=512, **sizes)).eval()
    state = reference.state_dict()
    shape = LlamaShape(vocabulary=VOCABULARY.end, layers=2, width=32, hidden=48, heads=4, kv_heads=4, head_width=8, context=512)
    shape = replace(shape, norm_epsilon=reference.config.rms_norm_eps)
    weights = assemble(shape, lambda name: Matrix(state[name]) if name in state and name != "lm_head.weight" else None, torch.float32)
    tokenizer = Tokenizer(WordLevel({**{f"w{n}": n for n in range(TEXT - 1)}, "<|im_end|>": TEXT - 1}, unk_token="w0"))
    model = LlamaLanguageModel(Llama(shape, weights), tokenizer, context=512)

    sequence, stream = model.sequence(), CodeStream(CodeStation(pair[1], 3))
    prompt, computed = [5, 6, 7], []
    for part in np.array_split(sound(1), 10):
        stream.push(part)
        while (codes := completed(stream.commit())) is not None:
            prompt += VOCABULARY.tokens(codes).tolist()
        work = model.sync(sequence, Prompt(prompt))
        for call in work:
            call.station.run([call])
            computed.append(call.rows)
    # Nothing was computed twice.
    assert sum(computed) == len(prompt) == 3 + 12 * 3
    expected = reference(input_ids=torch.tensor([prompt])).logits[0, -1]
    assert sequence.logits is not None
    torch.testing.assert_close(sequence.logits[:TEXT], expected[:TEXT], atol=1e-4, rtol=1e-4)
    # What the tokenizer has no text for is heard and never said.
    assert (sequence.logits[TEXT:] == -torch.inf).all()


def test_tokens_stand_behind_the_text_codebook_by_codebook() -> None:
    assert VOCABULARY.tokens(torch.tensor([[0, 0, 0], [1, 2, 63]])).tolist() == [97, 161, 225, 98, 163, 288]
    assert VOCABULARY.end == 289


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "what"),
    [
        (AudioVocabulary(97, 3, 32), 500, "32 tokens a codebook and this Mimi 64 codes"),
        (AudioVocabulary(97, 3, 64), 288, "has 288 tokens: 289 are needed for 3 codebooks of 64 behind 97 of text"),
        (AudioVocabulary(97, 7, 64), 1_000, "7 codebooks were asked for: this Mimi has 1 to 6"),
        (AudioVocabulary(97, 0, 64), 1_000, "0 codebooks"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(
    pair: tuple[MimiModel, Mimi], vocabulary: AudioVocabulary, tokens: int, what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        TokenEncoder(pair[1], vocabulary, torch.zeros(tokens, 8))


def test_a_folder_with_audio_in_its_vocabulary_hears_by_the_tokens_of_the_sound(tmp_path: Path) -> None:
    codec = write_audio_tokens(tmp_path)
    reference = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert hears(tmp_path)
    model, path = load_hearing_model(tmp_path, torch.float32)
    heard = Sound(path.encoder.stream(), count(-1, -1), 1)
    pcm = sound(1.1)
    for part in np.array_split(pcm, 7):
        heard.push(part)
        completed(heard.commit())
    completed(heard.conclude())
    prompt = ChatTemplate(model, "Hear.", path=path).reply_prompt((ContextMessage("user", "i", None),), {}, 1_000, {"i": heard})
    sequence = model.sequence()
    completed(model.sync(sequence, prompt))
    whole = resampled(pcm)
    codes = expected(codec, np.pad(whole, (0, -len(whole) % 1_920)), 2)
    tokens = AudioVocabulary(288, 2, 64).tokens(codes).tolist()
    begin = next(index for index, token in enumerate(prompt.tokens) if token < 0)
    assert model.decode(prompt.tokens[begin - 1 : begin]) == ""  # "<|audio|>", a control token
    spelt = [*prompt.tokens[:begin], *tokens, *prompt.tokens[begin + len(tokens) :]]
    assert min(spelt) >= 0
    with torch.inference_mode():
        logits = reference(input_ids=torch.tensor([spelt])).logits[0, -1]
    assert sequence.logits is not None
    said = sequence.logits.isfinite()
    assert not said[288:].any()
    torch.testing.assert_close(sequence.logits[said], logits[said], atol=1e-4, rtol=1e-4)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("declared", "what"),
    [
        ({"base": 289}, "has 416 tokens: 417 are needed for 2 codebooks of 64 behind 289 of text"),
        ({"codebooks": 7}, "7 codebooks were asked for|544 are needed|736 are needed"),
        ({"base": "288"}, "base, the first audio token, is '288'"),
        ({"before": 3}, "what stands before and after a sound is text"),
        ({"before": "<|sound|>"}, r"<\|sound\|>"),
        ({"codebook": 1}, "there is no setting 'codebook'"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(tmp_path: Path, declared: dict[str, object], what: str) -> None:
    write_audio_tokens(tmp_path)
    path = tmp_path / "audio_tokens.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **declared}))
    with pytest.raises(WeightsError, match=what):
        load_hearing_model(tmp_path)


def test_a_vocabulary_without_its_codec_is_refused(tmp_path: Path) -> None:
    write_audio_tokens(tmp_path)
    shutil.rmtree(tmp_path / "codec")
    with pytest.raises(WeightsError, match=r"codec.config\.json is the config of None, not of a Mimi"):
        load_hearing_model(tmp_path)


def test_a_damaged_checkpoint_is_refused_and_named(tmp_path: Path) -> None:
    write_mimi(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in tensors if "layers.1.self_attn.q_proj" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"it has no .*layers\.1\.self_attn\.q_proj"):
        load_mimi(tmp_path)
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"it should not have more \(1 tensors\)"):
        load_mimi(tmp_path)
    save_file({**tensors, gone: torch.zeros(3, 3)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="of other sizes"):
        load_mimi(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:5_000])
    with pytest.raises(WeightsError, match="damaged"):
        load_mimi(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load_mimi(tmp_path)


@pytest.mark.parametrize(
    ("change", "what"), [({"model_type": "encodec"}, "config of 'encodec'"), ({"use_causal_conv": False}, "looks ahead")]
)
def test_another_model_is_refused(tmp_path: Path, change: dict[str, object], what: str) -> None:
    write_mimi(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightsError, match=what):
        load_mimi(tmp_path)
