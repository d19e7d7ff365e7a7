"""WebRTC's echo canceller as we use it: its delay, what it takes away, and what it leaves alone."""

import numpy as np
import pytest

from streaming.audio import Samples
from streaming.echo_canceller import FRAME, WebRtcEchoCanceller
from streaming.events import SAMPLE_RATE


def babble(seed: int, seconds: float) -> Samples:
    """Noise that comes and goes in syllables, with a voice's spectrum, about -20 dBFS."""
    rng = np.random.default_rng(seed)
    count = int(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.normal(0, 1, count))
    spectrum *= 1 / (1 + (np.fft.rfftfreq(count, 1 / SAMPLE_RATE) / 500) ** 2)
    sound = np.fft.irfft(spectrum, count)
    steps = np.repeat(rng.random(count // 3_200 + 1) > 0.3, 3_200)[:count]
    envelope = np.convolve(steps, np.hanning(800) / np.hanning(800).sum(), "same")
    sound = sound * envelope
    return (sound * 0.1 / np.sqrt(np.mean(sound**2))).astype(np.float32)


def filtered(heard: Samples, played: Samples) -> Samples:
    """All that comes out, its delay taken out."""
    canceller = WebRtcEchoCanceller()
    frames = [canceller.push(heard[at : at + FRAME], played[at : at + FRAME]) for at in range(0, len(heard) - FRAME + 1, FRAME)]
    return np.concatenate(frames)[canceller.delay :]


def level_db(sound: Samples) -> float:
    return 10 * float(np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-12))


def test_its_delay_is_what_it_says() -> None:
    heard = babble(1, 2.0)
    clean = filtered(heard, np.zeros_like(heard))
    lags = range(-64, 65)
    heard, clean = (np.diff(sound, 2) for sound in (heard, clean))  # its high-pass turns the phase of what is low
    middle = clean[8_000:24_000]
    alike = [float(np.dot(middle, heard[8_000 + lag : 24_000 + lag])) for lag in lags]
    assert lags[int(np.argmax(alike))] == 0
    assert abs(level_db(middle) - level_db(heard[8_000:24_000])) < 1


@pytest.mark.parametrize("delay_ms", [20, 120, 300])
def test_an_echo_is_taken_away(delay_ms: int) -> None:
    played, delay = babble(2, 6.0), delay_ms * SAMPLE_RATE // 1_000
    echo = np.concatenate((np.zeros(delay, np.float32), played))[: len(played)] * np.float32(0.5)
    clean = filtered(echo, played)
    assert level_db(clean[3 * SAMPLE_RATE :]) < level_db(echo[3 * SAMPLE_RATE :]) - 25


def test_who_speaks_over_it_stays() -> None:
    played, theirs = babble(3, 8.0), babble(4, 8.0)
    theirs[: 5 * SAMPLE_RATE] = 0.0
    echo = np.concatenate((np.zeros(960, np.float32), played))[: len(played)] * np.float32(0.25)
    clean = filtered(theirs + echo, played)
    heard, left = theirs[5 * SAMPLE_RATE : 7 * SAMPLE_RATE], clean[5 * SAMPLE_RATE : 7 * SAMPLE_RATE]
    assert abs(level_db(left) - level_db(heard)) < 4
