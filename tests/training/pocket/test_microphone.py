"""What a microphone makes of speech."""

import numpy as np
import pytest

from streaming.events import SAMPLE_RATE
from training.pocket.microphone import Microphone

ALL = dict.fromkeys(("speed", "room", "noise", "telephone", "loss"), 1.0)
NONE = dict.fromkeys(ALL, 0.0)


def tone(hertz: float = 3_000.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32) * 0.5


def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(8_000).astype(np.float32)


def heard(shares: dict[str, float], words: np.ndarray | None = None, seed: int = 3) -> np.ndarray:
    return Microphone({**NONE, **shares}, [noise]).hear(tone() if words is None else words, np.random.default_rng(seed))


def test_the_same_seed_gives_the_same_sound() -> None:
    assert np.array_equal(heard(ALL), heard(ALL))
    assert not np.array_equal(heard(ALL)[:1000], heard(ALL, seed=4)[:1000])


def test_what_comes_in_is_sound_in_range_with_quiet_around() -> None:
    pcm = heard(ALL)
    assert pcm.dtype == np.float32
    assert np.abs(pcm).max() <= 1
    plain = heard({})
    assert len(plain) > SAMPLE_RATE
    assert np.abs(plain[:500]).max() < 0.01 < np.abs(plain).max()


@pytest.mark.parametrize("what", ALL)
def test_each_thing_that_happens_changes_the_sound(what) -> None:
    once, plain = heard({what: 1.0}), heard({})
    assert len(once) != len(plain) or not np.allclose(once, plain, atol=1e-3)


def test_a_telephone_has_nothing_above_four_kilohertz() -> None:
    spectrum = np.abs(np.fft.rfft(heard({"telephone": 1.0}, tone(6_000.0))))
    assert spectrum[len(spectrum) * 5 // 8 :].max() < 0.01 * np.abs(np.fft.rfft(heard({}, tone(6_000.0)))).max()


def test_lost_packets_are_quiet() -> None:
    pcm = heard({"loss": 1.0}, np.tile(tone(), 5))
    frames = np.abs(pcm[: len(pcm) // 320 * 320].reshape(-1, 320)).max(1)
    assert (frames[40:-40] < 0.01).any()


def test_a_noise_alone_is_as_long_as_asked() -> None:
    assert len(Microphone(NONE, [noise]).nothing(2.0, np.random.default_rng(1))) == 2 * SAMPLE_RATE
