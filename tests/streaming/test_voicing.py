"""What the VAD heard, by position."""

import pytest

from streaming.vad import WINDOW
from streaming.voicing import Voiced, Voicing


def heard(*probabilities: float) -> Voicing:
    voicing = Voicing()
    for number, probability in enumerate(probabilities, 1):
        voicing.heard(number * WINDOW, probability)
    return voicing


def test_the_best_160_ms_count() -> None:
    best = heard(0, 0, 0.5, 0.9, 1.0, 0.9, 0.7, 0, 0.6).best(0, 9 * WINDOW)
    assert best == Voiced(pytest.approx(0.8), 4 * WINDOW + WINDOW // 2)


def test_a_click_is_no_word() -> None:
    best = heard(0, 0, 1.0, 0, 0).best(0, 5 * WINDOW)
    assert best is not None
    assert best.probability == pytest.approx(0.2)


def test_only_the_stretch_counts_and_silence_is_around_it() -> None:
    best = heard(*[1.0] * 10).best(2 * WINDOW, 4 * WINDOW)
    assert best == Voiced(pytest.approx(0.4), 2 * WINDOW + WINDOW // 2)


def test_what_has_not_been_heard_is_not_known() -> None:
    voicing = heard(*[0.1] * 10)
    assert voicing.best(0, 14 * WINDOW) is not None  # the last frame of a client that commits right behind it
    assert voicing.best(0, 14 * WINDOW + 1) is None
    assert Voicing().best(0, 0) is None
    assert voicing.best(20 * WINDOW, 14 * WINDOW) is None


def test_it_keeps_a_minute() -> None:
    voicing = heard(*[1.0] * 10, *[0.0] * 1_870)
    assert voicing.best(0, 10 * WINDOW) == Voiced(1.0, 7 * WINDOW + WINDOW // 2)
    voicing = heard(*[1.0] * 10, *[0.0] * 1_875)
    assert voicing.best(0, 10 * WINDOW) is None
