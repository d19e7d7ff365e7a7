"""The Piper network in three: stretches equal the whole, durations the audio."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import streaming.models.piper
from streaming.audio import Samples
from streaming.models.frames import Frames
from streaming.models.onnx_graph import Graph
from streaming.models.onnx_session import session_of
from streaming.models.piper import WHOLE, Noise, PiperModel, Stretches, split

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


# ------------------------------------------------------------------------------------------------------ the cut in three


@pytest.fixture
def voice(onnx) -> list[bytes]:
    """A graph as Piper's, in small. The flow has a node that is not named after it."""
    return [
        onnx.node("/dp/Exp", "Exp", "input", "long"),
        onnx.node("/Ceil", "Ceil", "long", "frames"),
        onnx.node("/Cast", "Abs", "frames", "mask"),
        onnx.node("/Add", "Mul", "frames input", "prior"),
        onnx.node("/flow/Mul", "Mul", "prior mask", "c"),
        onnx.node("", "Neg", "c", "d"),
        onnx.node("/flow/Conv", "Mul", "d flow.weight", "e"),
        onnx.node("/Mul", "Mul", "e mask", "latent"),
        onnx.node("/dec/pre/Conv", "Mul", "latent dec.weight", "a"),
        onnx.node("/dec/Tanh", "Tanh", "a", "b"),
        onnx.node("/Unsqueeze", "Neg", "b", "output"),
        onnx.weight("flow.weight", 2.0),
        onnx.weight("dec.weight", 2.0),
        onnx.value(11, "input"),
        onnx.value(12, "output"),
    ]


def test_the_cuts_are_where_prior_and_latent_enter_flow_and_decoder(onnx, voice: list[bytes]) -> None:
    networks = split(onnx.model(*voice))
    assert (networks.prior, networks.mask, networks.latent) == ("prior", "mask", "latent")
    front, flow, decoder = (Graph(model) for model in (networks.front, networks.flow, networks.decoder))
    assert (front.outputs, front.weights) == (("prior", "frames"), frozenset())
    assert [node.name for node in flow.nodes] == ["/flow/Mul", "", "/flow/Conv", "/Mul"]
    assert (flow.outputs, flow.weights) == (("latent",), {"flow.weight"})
    assert [node.name for node in decoder.nodes] == ["/dec/pre/Conv", "/dec/Tanh", "/Unsqueeze"]
    assert (decoder.outputs, decoder.weights) == (("output",), {"dec.weight"})


def test_what_is_no_piper_voice_is_refused(onnx, voice: list[bytes]) -> None:
    graphs = {
        r"Ceil node \(the durations\) in a Piper voice, found 0": [voice[0], onnx.node("/Ceil", "Exp", "long", "frames"), *voice[2:]],
        r"Ceil node .* found 2": [*voice, onnx.node("/again", "Ceil", "long", "more")],
        r"latent .* found 0": voice[:8] + voice[10:],
        r"latent .* found 2": [*voice, onnx.node("/dec/Add", "Add", "a long", "f")],
        r"mask .* found 0": voice[:4] + voice[7:],
        r"prior .* found 2": [*voice, onnx.node("/flow/Add", "Add", "c long", "f")],
        r"output .* found 0": voice[:-1],
    }
    for what, graph in graphs.items():
        with pytest.raises(ValueError, match=what):
            split(onnx.model(*graph))


@pytest.mark.models
def test_the_networks_share_constants_at_most_and_compute_what_the_whole_graph_does(path: Path, piper: PiperModel) -> None:
    whole = path.read_bytes()
    networks = split(whole)
    assert len(networks.front) + len(networks.flow) + len(networks.decoder) < len(whole) + 10_000
    modules = [{name.split(".")[0] for name in Graph(each).weights} for each in (networks.front, networks.flow, networks.decoder)]
    assert ["enc_p" in names for names in modules] == [True, False, False]
    assert ["flow" in names for names in modules] == [False, True, False]
    assert ["dec" in names for names in modules] == [False, False, True]

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
def test_the_reach_is_what_it_takes(piper: PiperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (piper.flow.reach, piper.decoder.reach) == (32, 11)
    whole = spoken(piper, HELLO)
    for network, less in ((piper.flow, 20), (piper.decoder, 8)):
        with monkeypatch.context() as patch:
            patch.setattr(network, "reach", less)
            assert np.abs(spoken(piper, HELLO, Stretches(22, 22)) - whole).max() > 1e-4


@pytest.mark.models
def test_every_duration_is_known_before_anything_is_decoded(piper: PiperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, list[int]] = {"flow": [], "decoder": []}

    def counted(name: str, compute: Callable[[Frames], Frames]) -> Callable[[Frames], Frames]:
        def compute_and_count(frames: Frames) -> Frames:
            read[name].append(frames.shape[2])
            return compute(frames)

        return compute_and_count

    for name, network in (("flow", piper.flow), ("decoder", piper.decoder)):
        monkeypatch.setattr(network, "_compute", counted(name, network._compute))
    utterance = piper.stream(HELLO, 1.0, Stretches(10, 20))
    frames = utterance.samples // 256
    assert (len(utterance.ends), read) == (len(HELLO), {"flow": [], "decoder": []})
    assert len(next(utterance.stretches)) == 10 * 256
    assert read == {"flow": [10 + 11 + 32], "decoder": [10 + 11]}
    # The rest of the latent at once, with what it depends on before it.
    assert len(next(utterance.stretches)) == 20 * 256
    assert read == {"flow": [53, frames], "decoder": [21, 10 + 20 + 11]}


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


@pytest.mark.models
def test_on_a_gpu_run_the_flow_and_the_decoder_and_durations_and_sound_are_what_they_were(
    path: Path, piper: PiperModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def on_cpu_all_the_same(model: bytes, threads: int, gpu: int | None = None) -> onnxruntime.InferenceSession:
        asked.append(gpu)
        return session_of(model, threads)

    monkeypatch.setattr(streaming.models.piper, "session_of", on_cpu_all_the_same)
    moved = PiperModel.load(path, 1, QUIET, gpu=2)
    # The front once, and the others first where their reach can be measured.
    assert asked == [None, None, None, 2, 2]
    assert (moved.flow.reach, moved.decoder.reach) == (piper.flow.reach, piper.decoder.reach)
    ours, theirs = moved.stream(HELLO, 1.0, Stretches()), piper.stream(HELLO, 1.0, Stretches())
    np.testing.assert_array_equal(ours.ends, theirs.ends)
    np.testing.assert_array_equal(np.concatenate(list(ours.stretches)), np.concatenate(list(theirs.stretches)))
