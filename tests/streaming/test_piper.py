"""The Piper network in two halves: stretches equal the whole, durations the audio."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from streaming.audio import Samples
from streaming.models.onnx_graph import Graph
from streaming.models.piper import WHOLE, Noise, PiperModel, Stretches, halves

QUIET = Noise(0.0, 0.0)
HELLO = "həlˈoʊ wˈɜːld, ænd ɡʊd mˈɔːɹnɪŋ tʊ juː ˈɔːl."


@pytest.fixture(scope="module")
def path(parts: Path) -> Path:
    return parts / "piper-en-us-joe" / "en_US-joe-medium.onnx"


@pytest.fixture(scope="module")
def piper(path: Path) -> PiperModel:
    return PiperModel.load(path, 1, QUIET)


def spoken(piper: PiperModel, symbols: str, stretches: Stretches = WHOLE) -> Samples:
    return np.concatenate(list(piper.stream(symbols, 1.0, stretches).stretches))


# ------------------------------------------------------------------------------------------------------- the cut in two


@pytest.fixture
def voice(onnx) -> list[bytes]:
    """A graph as Piper's, in small."""
    return [
        onnx.node("/dp/Exp", "Exp", "input", "long"),
        onnx.node("/Ceil", "Ceil", "long", "frames"),
        onnx.node("/Mul", "Mul", "frames input", "z"),
        onnx.node("/dec/pre/Conv", "Mul", "z dec.weight", "a"),
        onnx.node("/dec/Tanh", "Tanh", "a", "b"),
        onnx.node("/Unsqueeze", "Neg", "b", "output"),
        onnx.weight("dec.weight", 2.0),
        onnx.value(11, "input"),
        onnx.value(12, "output"),
    ]


def test_the_cut_is_where_the_latent_enters_the_decoder(onnx, voice: list[bytes]) -> None:
    cut = halves(onnx.model(*voice))
    assert cut.latent == "z"
    front, decoder = Graph(cut.front), Graph(cut.decoder)
    assert (front.outputs, front.weights) == (("z", "frames"), frozenset())
    assert ([node.name for node in decoder.nodes], decoder.weights) == (["/dec/pre/Conv", "/dec/Tanh", "/Unsqueeze"], {"dec.weight"})


def test_what_is_no_piper_voice_is_refused(onnx, voice: list[bytes]) -> None:
    graphs = {
        r"Ceil node \(the durations\) in a Piper voice, found 0": voice[:1] + voice[2:],
        r"Ceil node .* found 2": [*voice, onnx.node("/again", "Ceil", "long", "more")],
        r"latent .* found 0": voice[:3] + voice[5:],
        r"latent .* found 2": [*voice, onnx.node("/dec/Add", "Add", "a long", "c")],
        r"output .* found 0": voice[:-1],
    }
    for what, graph in graphs.items():
        with pytest.raises(ValueError, match=what):
            halves(onnx.model(*graph))


@pytest.mark.models
def test_the_halves_share_no_weights_but_constants_and_compute_what_the_whole_graph_does(path: Path, piper: PiperModel) -> None:
    whole = path.read_bytes()
    cut = halves(whole)
    assert len(cut.front) + len(cut.decoder) < len(whole) + 10_000
    assert not any(name.startswith("dec.") for name in Graph(cut.front).weights)
    assert all(name.startswith("dec.") or "Constant" in name for name in Graph(cut.decoder).weights)
    assert not any(node.name.startswith("/dec/") for node in Graph(cut.front).nodes)

    ids = [piper._ids["^"], piper._ids["_"]]
    for symbol in HELLO:
        ids += [piper._ids[symbol], piper._ids["_"]]
    ids.append(piper._ids["$"])
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    inputs = {
        "input": np.array([ids], np.int64),
        "input_lengths": np.array([len(ids)], np.int64),
        "scales": np.array([0, 1, 0], np.float32),
    }
    (reference,) = session.run(None, inputs)
    assert np.abs(reference.reshape(-1) - spoken(piper, HELLO)).max() < 1e-5


# ------------------------------------------------------------------------------------------------------------ stretches


@pytest.mark.parametrize(("first", "longest"), [(1, 1), (5, 40), (22, 128), (300, 300)])
@pytest.mark.parametrize("frames", [1, 4, 33, 34, 194, 1_000])
def test_stretches_cover_everything_once_and_grow_to_a_bound(first: int, longest: int, frames: int) -> None:
    cuts = list(Stretches(first, longest).cut(frames))
    assert (cuts[0][0], cuts[-1][1]) == (0, frames)
    assert all(before[1] == after[0] for before, after in pairwise(cuts))
    sizes = [end - start for start, end in cuts]
    assert min(sizes) > 0
    assert sizes[0] <= first * 3 // 2
    assert all(size <= min(longest, first << n) * 3 // 2 for n, size in enumerate(sizes))


def test_everything_at_once_is_one_stretch() -> None:
    assert list(WHOLE.cut(100_000)) == [(0, 100_000)]


@pytest.mark.models
@pytest.mark.parametrize("stretches", [Stretches(), Stretches(1, 7), Stretches(13, 13)])
def test_stretches_are_the_whole_to_rounding(piper: PiperModel, stretches: Stretches) -> None:
    whole, cut = spoken(piper, HELLO), spoken(piper, HELLO, stretches)
    assert len(list(stretches.cut(len(whole) // 256))) >= 3
    assert len(cut) == len(whole)
    assert np.abs(cut - whole).max() < 1e-5


@pytest.mark.models
def test_the_decoders_reach_is_what_it_takes(piper: PiperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert piper.reach == 11
    whole = spoken(piper, HELLO)
    monkeypatch.setattr(piper, "reach", 8)
    assert np.abs(spoken(piper, HELLO, Stretches(22, 22)) - whole).max() > 1e-4


@pytest.mark.models
def test_every_duration_is_known_before_anything_is_decoded(piper: PiperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    decode = piper._run_decoder

    def counted(latent: Samples) -> Samples:
        widths.append(latent.shape[2])
        return decode(latent)

    monkeypatch.setattr(piper, "_run_decoder", counted)
    utterance = piper.stream(HELLO, 1.0, Stretches(10, 20))
    assert (len(utterance.ends), widths) == (len(HELLO), [])
    assert len(next(utterance.stretches)) == 10 * 256
    assert widths == [10 + 11]
    assert len(next(utterance.stretches)) == 20 * 256
    assert widths == [10 + 11, 10 + 20 + 11]


# ------------------------------------------------------------------------------------------------------------ durations


@pytest.mark.models
def test_durations_are_the_audios_to_the_sample(piper: PiperModel) -> None:
    utterance = piper.stream(HELLO, 1.0, Stretches())
    assert utterance.dropped == 0
    assert len(utterance.ends) == len(HELLO)
    assert (np.diff(utterance.ends) >= 0).all()
    assert utterance.ends[-1] <= utterance.samples
    assert sum(len(samples) for samples in utterance.stretches) == utterance.samples


@pytest.mark.models
def test_unknown_symbols_are_left_out_and_counted(piper: PiperModel) -> None:
    odd = piper.stream("^hə本lˈo_ʊ☃", 1.0, WHOLE)
    assert odd.dropped == 4
    assert np.array_equal(np.concatenate(list(odd.stretches)), spoken(piper, "həlˈoʊ"))
    assert odd.ends[3] == odd.ends[2]
    assert piper.stream("☃", 1.0, WHOLE).dropped == 1
