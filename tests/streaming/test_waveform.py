"""wav2vec 2.0 and HuBERT, tiny and random, beside `transformers` itself; as streams; and as recognisers of words."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    HubertConfig,
    HubertForCTC,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
)
from transformers.modeling_utils import PreTrainedModel

from streaming.audio import Samples
from streaming.batching import completed
from streaming.ctc import CtcRecogniser, load_ctc
from streaming.engine import Parts
from streaming.load import load_states, load_words
from streaming.models.ctranslate2 import WeightsError
from streaming.models.waveform import load_waveform
from streaming.transcriber import Transcriber
from streaming.windowed import WindowedEncoder, WindowPlan

SYMBOLS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
"""The vocabulary of the English checkpoints, in their order."""

PLAN = WindowPlan(context=20, block=6, lookahead=8)


def config(kind: str, norm: str) -> Wav2Vec2Config | HubertConfig:
    """`norm` "group" is that of the base models, "layer" that of the large ones (with a bias in the convolutions)."""
    large = norm == "layer"
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 7,
        "feat_extract_norm": norm, "conv_bias": large, "do_stable_layer_norm": large, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2, "vocab_size": len(SYMBOLS), "pad_token_id": 0,
    }  # fmt: skip
    return (Wav2Vec2Config if kind == "wav2vec2" else HubertConfig)(**sizes)


CLASSES: dict[tuple[str, bool], type[PreTrainedModel]] = {
    ("wav2vec2", False): Wav2Vec2Model,
    ("wav2vec2", True): Wav2Vec2ForCTC,
    ("hubert", False): HubertModel,
    ("hubert", True): HubertForCTC,
}


def write(folder: Path, kind: str, norm: str, *, ctc: bool = False, normalised: bool = True) -> PreTrainedModel:
    """A checkpoint as the reference writes it."""
    torch.manual_seed(5)
    model = CLASSES[kind, ctc](config(kind, norm)).eval()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalised).save_pretrained(folder)
    if ctc:
        (folder / "vocab.json").write_text(json.dumps({symbol: n for n, symbol in enumerate(SYMBOLS)}))
    return model


def sound(seconds: float, seed: int = 2) -> Samples:
    return (np.random.default_rng(seed).standard_normal(int(seconds * 16_000)) * 0.1 + 0.02).astype(np.float32)


@torch.inference_mode()
def expected(model: PreTrainedModel, folder: Path, pcm: Samples) -> torch.Tensor:
    """What the reference makes of a whole clip, its own feature extractor in front."""
    values = Wav2Vec2FeatureExtractor.from_pretrained(folder)(pcm, sampling_rate=16_000, return_tensors="pt").input_values
    found = model(values)
    return (found.logits if hasattr(found, "logits") else found.last_hidden_state)[0]


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize(("kind", "ctc"), CLASSES)
def test_equal_to_transformers(tmp_path: Path, kind: str, ctc: bool, norm: str, normalised: bool) -> None:
    reference = write(tmp_path, kind, norm, ctc=ctc, normalised=normalised)
    model = load_waveform(tmp_path, ctc=ctc)
    assert (model.row_samples, model.reach, model.width) == (320, 400, len(SYMBOLS) if ctc else 16)
    for length in (399, 400, 719, 720, 16_000, 21_337):
        rows = model.run(sound(2)[:length])
        assert len(rows) == model.rows(length)
        if length >= 400:
            torch.testing.assert_close(rows, expected(reference, tmp_path, sound(2)[:length]), atol=1e-4, rtol=1e-4)


def test_weights_under_their_old_names_are_read(tmp_path: Path) -> None:
    reference = write(tmp_path, "wav2vec2", "group")
    tensors = load_file(tmp_path / "model.safetensors")
    for theirs, old in (("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v")):
        (name,) = (name for name in tensors if name.endswith(theirs))
        tensors[name.replace(theirs, old)] = tensors.pop(name)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(load_waveform(tmp_path).run(sound(1)), expected(reference, tmp_path, sound(1)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["pretraining", "ctc"])
def test_a_checkpoint_with_another_head_gives_its_states(tmp_path: Path, kind: str) -> None:
    if kind == "ctc":
        reference = write(tmp_path, "wav2vec2", "group", ctc=True).wav2vec2
    else:
        whole = Wav2Vec2ForPreTraining(config("wav2vec2", "group")).eval()
        whole.save_pretrained(tmp_path)
        Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
        reference = whole.wav2vec2
    torch.testing.assert_close(load_waveform(tmp_path).run(sound(1)), expected(reference, tmp_path, sound(1)), atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------- streams


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> WindowedEncoder:
    folder = tmp_path_factory.mktemp("hubert")
    write(folder, "hubert", "layer")
    return WindowedEncoder(load_waveform(folder), PLAN)


def rows(encoder: WindowedEncoder, parts: list[Samples], looks: list[bool] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Committed and provisional rows of a stream."""
    stream = encoder.stream()
    blocks = [torch.zeros(0, encoder.width)]
    for n, part in enumerate(parts):
        stream.push(part)
        while (block := completed(stream.commit())) is not None:
            blocks.append(block)
        if looks is not None and looks[n % len(looks)]:
            completed(stream.provisional())
    committed = torch.cat(blocks)
    assert stream.committed == len(committed)
    return committed, completed(stream.provisional())


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 32_000), max_size=8), looks=st.lists(st.booleans(), min_size=1, max_size=9))
def test_any_split_and_any_look_at_the_tail_commits_the_same(encoder: WindowedEncoder, cuts: list[int], looks: list[bool]) -> None:
    at_once = rows(encoder, [sound(2)])
    split = rows(encoder, np.split(sound(2), sorted(cuts)), looks)
    assert torch.equal(split[0], at_once[0])
    assert torch.equal(split[1], at_once[1])
    assert len(at_once[0]) == 90
    assert len(at_once[0]) + len(at_once[1]) == 99


def test_until_a_block_is_committed_it_is_the_whole(encoder: WindowedEncoder) -> None:
    pcm = sound(0.25)
    committed, provisional = rows(encoder, np.split(pcm, 7 * np.arange(1, 100)))
    assert len(committed) == 0
    assert torch.equal(provisional, encoder._station.model.run(pcm))


def test_a_window_that_holds_everything_is_the_whole(tmp_path: Path) -> None:
    reference = write(tmp_path, "wav2vec2", "group")
    encoder = WindowedEncoder(load_waveform(tmp_path), WindowPlan(context=99, block=40, lookahead=59))
    pcm = sound(2)[: 98 * 320 + 400]  # no sample beyond the last row: it would be normalised with
    committed, provisional = rows(encoder, [pcm])
    assert len(committed) == 40
    torch.testing.assert_close(torch.cat((committed, provisional)), expected(reference, tmp_path, pcm), atol=1e-4, rtol=1e-4)


def test_what_is_held_is_bounded(encoder: WindowedEncoder) -> None:
    stream = encoder.stream()
    for part in np.split(sound(20), 1_000):
        stream.push(part)
        while completed(stream.commit()) is not None:
            pass
        assert len(stream._pcm) <= (PLAN.context + PLAN.block + PLAN.lookahead) * 320 + 400 + 320


def test_less_than_one_row_is_none(encoder: WindowedEncoder) -> None:
    committed, provisional = rows(encoder, [sound(0.02)])
    assert (len(committed), tuple(provisional.shape)) == (0, (0, 16))


def test_a_folder_gives_its_states(tmp_path: Path) -> None:
    reference = write(tmp_path, "hubert", "group")
    encoder = load_states(tmp_path)
    stream = encoder.stream()
    stream.push(sound(1))
    assert completed(stream.commit()) is None
    rows = completed(stream.provisional())
    assert (encoder.width, encoder.row_samples) == (16, 320)
    torch.testing.assert_close(rows, expected(reference, tmp_path, sound(1)), atol=1e-4, rtol=1e-4)


def test_rows_that_are_thinned_are_refused(tmp_path: Path) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**{**config("wav2vec2", "group").to_diff_dict(), "add_adapter": True})).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="add_adapter"):
        load_waveform(tmp_path)


@pytest.mark.parametrize("wrong", [{"block": 0}, {"lookahead": -1}, {"context": -1}])
def test_a_plan_that_cannot_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        WindowPlan(**wrong)


# --------------------------------------------------------------------------------------------------------------- words


@pytest.fixture(scope="module", params=[("wav2vec2", "group"), ("hubert", "layer")], ids=lambda param: param[0])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ctc")
    write(folder, *request.param, ctc=True)
    return folder


def transcript(recogniser: CtcRecogniser, pcm: Samples, frame: int) -> tuple[str, list[str]]:
    """The final text, and what had settled on the way."""
    transcriber = Transcriber(recogniser)
    settled = []
    for start in range(0, len(pcm), frame):
        transcriber.push(pcm[start : start + frame])
        if transcriber.due():
            settled.append(completed(transcriber.hypothesise()).settled)
    return completed(transcriber.finish()).text, settled


def test_the_words_of_one_window_are_those_of_transformers(checkpoint: Path) -> None:
    recogniser = load_ctc(checkpoint, plan=WindowPlan(context=0, block=10_000, lookahead=0))
    reference = (Wav2Vec2ForCTC if "wav2vec2" in (checkpoint / "config.json").read_text() else HubertForCTC).from_pretrained(checkpoint)
    ids = expected(reference.eval(), checkpoint, sound(3)).argmax(-1)
    text = Wav2Vec2CTCTokenizer.from_pretrained(checkpoint).decode(ids, skip_special_tokens=True)
    assert text
    assert transcript(recogniser, sound(3), 320)[0] == " ".join(text.split()).capitalize()


def test_words_do_not_depend_on_the_split(checkpoint: Path) -> None:
    recogniser = load_ctc(checkpoint, plan=PLAN)
    texts = {transcript(recogniser, sound(4), frame)[0] for frame in (320, 1_777, 64_000)}
    assert len(texts) == 1
    settled = transcript(recogniser, sound(4), 320)[1]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(settled))


def test_a_turn_longer_than_a_window_is_transcribed(checkpoint: Path) -> None:
    text, _ = transcript(load_ctc(checkpoint, plan=PLAN), sound(31), 16_000)
    assert text


def test_a_pass_without_new_sound_costs_nothing(checkpoint: Path) -> None:
    window = load_ctc(checkpoint, plan=PLAN).window()
    window.push(sound(1))
    found = completed(window.decode("en"))
    assert found[1] == window.samples == 16_000
    assert list(window.decode("en")) == []


def test_it_knows_one_language(checkpoint: Path) -> None:
    recogniser = load_ctc(checkpoint, "de")
    assert [recogniser.language(hint) for hint in (None, "de", "de-CH", "DE_at")] == ["de"] * 4
    with pytest.raises(ValueError, match="no language 'fr': it knows 'de' only"):
        recogniser.language("fr")


def test_a_folder_says_itself_what_recognises(checkpoint: Path) -> None:
    recogniser = load_words(checkpoint, "nl")
    assert isinstance(recogniser, CtcRecogniser)
    assert recogniser.language(None) == "nl"


def test_an_engine_hears_with_it(checkpoint: Path, tiny_parts: Parts, talk: type) -> None:
    dialogue = talk(replace(tiny_parts, recogniser=load_ctc(checkpoint, plan=PLAN)))
    dialogue.open("call")
    dialogue.ask("call", "item", dialogue.turn(3), [4_000, 11_111], "answer")
    (text,) = dialogue.transcripts("call")
    assert text


def test_symbols_become_text(checkpoint: Path) -> None:
    recogniser = load_ctc(checkpoint)
    symbols = {symbol: n for n, symbol in enumerate(SYMBOLS)}
    assert recogniser.text([symbols[symbol] for symbol in "|HELLO||IT'S|"]) == "hello it's"
    assert recogniser.text([]) == ""


# ----------------------------------------------------------------------------------------------------------- bad input


def change(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def without(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def with_another(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})


def cut(folder: Path, share: float) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: change(folder, "config.json", model_type="whisper"), "not the config of wav2vec2 or hubert"),
        (lambda folder: (folder / "config.json").write_text("no"), "not the config of wav2vec2 or hubert"),
        (lambda folder: without(folder, "wav2vec2.encoder.layers.1.attention.k_proj.weight"), r"it has no .*layers\.1\.attention\.k_proj"),
        (lambda folder: with_another(folder, "wav2vec2.encoder.layers.7.attention.k_proj.weight"), r"it should not have .*layers\.7"),
        (lambda folder: change(folder, "config.json", hidden_size=32), "other sizes than config.json"),
        (lambda folder: cut(folder, 0.9), "damaged"),
        (lambda folder: cut(folder, 0), "damaged"),
        (lambda folder: change(folder, "preprocessor_config.json", sampling_rate=8_000), "sampling rate of 8000, not 16000"),
        (lambda folder: change(folder, "preprocessor_config.json", do_normalize="yes"), "do_normalize is 'yes'"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("{"), r"preprocessor_config\.json is not JSON"),
        (lambda folder: (folder / "vocab.json").write_text('{"<pad>": 0, "A": 1}'), "symbols and the model 32"),
        (lambda folder: (folder / "vocab.json").write_text('{"eng": {"A": 1}}'), "several languages"),
        (lambda folder: (folder / "vocab.json").write_text("A"), r"vocab\.json is not JSON"),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused_and_named(tmp_path: Path, damage, what: str) -> None:
    write(tmp_path, "wav2vec2", "group", ctc=True)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=what) as error:
        load_ctc(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json", "vocab.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, "wav2vec2", "group", ctc=True)
    (tmp_path / name).unlink()
    with pytest.raises(OSError, match=name):
        load_ctc(tmp_path)


def test_without_transformers_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "hubert", "group", ctc=True)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"\(hubert\) needs the package transformers: install it with `pip install 'vivavoce"):
        load_ctc(tmp_path)
