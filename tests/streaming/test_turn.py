"""Whisper's front end against transformers, and Smart Turn on recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from streaming.audio import Samples
from streaming.turn import FEATURES, TURN_SAMPLES, Classifier, SmartTurn, TurnEncoder, whisper_features

GOLDEN = Path(__file__).parents[1] / "golden"


def load(name: str) -> Samples:
    pcm, rate = soundfile.read(GOLDEN / f"{name}.flac", dtype="float32")
    assert rate == 16_000
    return pcm


def reference(pcm: Samples) -> Samples:
    from transformers import WhisperFeatureExtractor

    padded = np.concatenate((np.zeros(max(0, TURN_SAMPLES - len(pcm)), np.float32), pcm[-TURN_SAMPLES:]))
    extractor = WhisperFeatureExtractor(chunk_length=8)
    return extractor(padded, sampling_rate=16_000, return_tensors="np", do_normalize=True).input_features[0]


@pytest.mark.parametrize(
    "pcm", [load("seine"), np.tile(load("seine"), 7), np.tile(load("weather_question"), 5)[:TURN_SAMPLES], load("seine")[:100]]
)
def test_features_equal_those_of_transformers(pcm):
    features = whisper_features(pcm)
    assert features.shape == (80, 800)
    assert features.dtype == np.float32
    assert np.abs(features - reference(pcm)).max() < 1e-4


def test_nothing_and_silence_have_features_too():
    for pcm in (np.zeros(0, np.float32), np.zeros(200_000, np.float32)):
        features = whisper_features(pcm)
        assert np.isfinite(features).all()
        assert np.ptp(features) == 0


def test_only_the_last_8_seconds_count():
    pcm = np.tile(load("seine"), 8)
    assert np.array_equal(whisper_features(pcm), whisper_features(pcm[-TURN_SAMPLES:]))


@pytest.mark.models
def test_a_finished_question_scores_higher_than_its_first_half(parts):
    model = SmartTurn(parts / "smart-turn-v3.2" / "smart-turn-v3.2-cpu.onnx")
    pause = np.zeros(3_200, np.float32)
    # Half of the third recording ("Is it safe to swim") could be a sentence, and scores like one.
    for name in ("weather_question", "dog-or-cat-3-nowait"):
        whole = load(name)
        finished = model.score(np.concatenate((whole, pause)))
        begun = model.score(np.concatenate((whole[: len(whole) // 2], pause)))
        assert 0.0 <= begun < 0.5 < finished <= 1.0


@pytest.mark.models
def test_the_score_is_that_of_the_reference_features(parts):
    import onnxruntime

    path = parts / "smart-turn-v3.2" / "smart-turn-v3.2-cpu.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pcm = load("seine")
    (expected,) = session.run(None, {"input_features": reference(pcm)[None]})
    features = TurnEncoder(path).features(pcm)
    assert features.shape == (FEATURES,)
    assert 1 / (1 + np.exp(-features[-1])) == pytest.approx(float(expected[0, 0]), abs=1e-3)
    assert SmartTurn(path).score(pcm) == Classifier.load().probability(features)


def test_what_is_no_smart_turn_is_refused_by_name(tmp_path):
    path = tmp_path / "turn.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"turn\.onnx is not Smart Turn v3\.2"):
        SmartTurn(path)


def classifier(features: int) -> dict[str, Samples]:
    return {
        "hidden": np.eye(2, features, dtype=np.float16),
        "hidden_bias": np.array([0.0, -1.0], np.float32),
        "out": np.array([2.0, 1.0], np.float32),
        "out_bias": np.array([-0.5], np.float32),
    }


def test_a_classifier_is_one_hidden_layer(tmp_path):
    save_file(classifier(FEATURES), tmp_path / "it.safetensors")
    loaded = Classifier.load(tmp_path / "it.safetensors")
    features = np.zeros(FEATURES, np.float32)
    features[:3] = (0.25, 3.0, 7.0)
    # 2 x 0.25 + (3 - 1) - 0.5; the rest of the features have no weight.
    assert loaded.probability(features) == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize(
    "tensors", [classifier(5), {"hidden": np.zeros((2, FEATURES), np.float16)}, classifier(FEATURES) | {"more": np.zeros(1)}]
)
def test_a_classifier_of_something_else_is_refused_by_name(tmp_path, tensors):
    save_file(tensors, tmp_path / "it.safetensors")
    with pytest.raises(ValueError, match=r"it\.safetensors is"):
        Classifier.load(tmp_path / "it.safetensors")


def test_half_a_classifier_is_refused_by_name(tmp_path):
    save_file(classifier(FEATURES), tmp_path / "it.safetensors")
    whole = (tmp_path / "it.safetensors").read_bytes()
    (tmp_path / "it.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"it\.safetensors is no end-of-turn classifier"):
        Classifier.load(tmp_path / "it.safetensors")
