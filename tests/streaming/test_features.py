import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from streaming.audio import Samples
from streaming.features import CEILING, HOP, MELS, SILENCE, WINDOW, LogMel, mel_filters


def chirp(samples: int) -> Samples:
    """Something with sound in every band and silence in between."""
    time = np.arange(samples) / 16_000
    loudness = 0.4 * (np.sin(2 * np.pi * 1.5 * time) > 0)
    noise = np.random.default_rng(7).standard_normal(samples) * 1e-3
    return (loudness * np.sin(2 * np.pi * (100 + 900 * time) * time) + noise).astype(np.float32)


def whole(samples: Samples, ceiling: float = CEILING) -> np.ndarray:
    mel = LogMel(ceiling)
    return np.concatenate((mel.push(samples), mel.flush()))


def test_filters_are_whispers() -> None:
    for mels in (MELS, 128):
        reference = WhisperFeatureExtractor(feature_size=mels).mel_filters
        assert mel_filters(mels).shape == (WINDOW // 2 + 1, mels)
        np.testing.assert_allclose(mel_filters(mels), reference, atol=1e-9)


def test_features_are_whispers_where_the_ceiling_is_the_clips_maximum() -> None:
    sound = chirp(50_000)
    reference = WhisperFeatureExtractor()(sound, sampling_rate=16_000)["input_features"][0].T
    loudest = float(whole(sound, -2.0).max()) * 4 - 4
    ours = whole(sound, loudest)
    np.testing.assert_allclose(ours, reference[: len(ours)], atol=1e-4)
    # Nothing of the sound reaches beyond our last frame.
    assert np.ptp(reference[len(ours) :]) == 0


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 6_000), max_size=12))
def test_any_split_gives_bit_identical_features(cuts: list[int]) -> None:
    sound = chirp(6_000)
    mel = LogMel()
    frames = [mel.push(part) for part in np.split(sound, sorted(cuts))]
    assert np.array_equal(np.concatenate([*frames, mel.flush()]), whole(sound))


@pytest.mark.parametrize("samples", [0, 1, 100, 199, 200, 201, 400, 1_000, 16_000])
def test_every_frame_that_sound_reaches_comes_and_no_other(samples: int) -> None:
    sound = chirp(samples)
    frames = whole(sound)
    assert len(frames) == (-(-(samples + WINDOW // 2) // HOP) if samples else 0)
    followed = LogMel().push(np.concatenate((sound, np.zeros(1_600, np.float32))))
    assert np.array_equal(followed[: len(frames)], frames)
    assert np.array_equal(followed[len(frames) :], np.full_like(followed[len(frames) :], SILENCE))


def test_tail_changes_nothing() -> None:
    sound = chirp(3_000)
    mel = LogMel()
    first = mel.push(sound[:1_234])
    assert np.array_equal(mel.tail(), mel.tail())
    assert np.array_equal(np.concatenate((first, mel.push(sound[1_234:]), mel.flush())), whole(sound))


def test_flush_and_reset_begin_a_new_stream() -> None:
    sound = chirp(2_000)
    mel = LogMel()
    mel.push(sound[:700])
    mel.reset()
    once = np.concatenate((mel.push(sound), mel.flush()))
    assert np.array_equal(once, whole(sound))
    assert np.array_equal(np.concatenate((mel.push(sound), mel.flush())), once)


def test_what_is_held_is_bounded() -> None:
    mel = LogMel()
    for part in np.split(chirp(64_000), 400):
        mel.push(part)
    assert len(mel._held) < WINDOW
