"""Edges and level of synthetic sounds whose values are known."""

import numpy as np

from streaming.audio import Samples
from streaming.mastering import fade, level, sounding

RATE = 22_050
WINDOW = 110


def tone(samples: int, amplitude: float = 0.1) -> Samples:
    return (amplitude * np.sin(np.arange(samples) * (2 * np.pi * 441 / RATE))).astype(np.float32)


def silence(samples: int) -> Samples:
    return np.zeros(samples, np.float32)


def test_sound_is_found_between_silences_to_a_window() -> None:
    start, end = sounding(np.concatenate((silence(2000), tone(4400), silence(3000))), RATE)
    assert 2000 - WINDOW <= start <= 2000
    assert 6400 <= end <= 6400 + WINDOW


def test_a_soft_onset_belongs_to_the_sound() -> None:
    start, _ = sounding(np.concatenate((silence(2200), tone(1100, 0.001), tone(4400))), RATE)
    assert start == 2200


def test_silence_has_no_sound() -> None:
    assert sounding(silence(1000), RATE) == (0, 0)
    assert sounding(silence(0), RATE) == (0, 0)


def test_loud_and_soft_come_out_alike_and_pauses_do_not_count() -> None:
    soft, loud = level(tone(22_000, 0.08), RATE), level(np.concatenate((tone(22_000, 0.4), silence(22_000))), RATE)
    assert abs(float(np.sqrt(np.mean(soft**2))) - 0.1) < 1e-3
    assert abs(float(np.sqrt(np.mean(loud[:22_000] ** 2))) - 0.1) < 1e-3


def test_gain_is_bounded_and_peaks_are_not_clipped() -> None:
    assert float(np.abs(level(tone(22_000, 0.001), RATE)).max()) <= 0.004 + 1e-6
    click = silence(22_000)
    click[::110] = 0.9
    assert float(np.abs(level(click, RATE)).max()) <= 0.9
    assert not level(silence(500), RATE).any()


def test_fades_start_and_end_at_zero_and_leave_the_middle() -> None:
    ones = np.ones(100, np.float32)
    faded = fade(ones, 10, 20)
    assert faded[0] == 0 == faded[-1]
    assert (faded[10:80] == 1).all()
    assert (ones == 1).all()
    assert len(fade(silence(0), 10, 10)) == 0
    assert len(fade(np.ones(3, np.float32), 10, 10)) == 3
