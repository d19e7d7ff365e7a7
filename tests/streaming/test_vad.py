"""Silero against its own package, rows against each other, and the hysteresis on scripted probabilities."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streaming.audio import Samples
from streaming.events import SpeechStarted, SpeechStopped, SpeechSuspected
from streaming.vad import WINDOW, GatePhase, SileroVad, SpeechGate, VadState, silero_model

CLIP = Path(__file__).parents[1] / "golden" / "seine.flac"


@pytest.fixture(scope="module")
def clip() -> Samples:
    pcm, rate = soundfile.read(CLIP, dtype="float32")
    assert rate == 16_000
    return np.concatenate((pcm, np.zeros(8_000, np.float32)))


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad(silero_model())


def windows_of(pcm: Samples) -> Samples:
    return pcm[: len(pcm) - len(pcm) % WINDOW].reshape(-1, WINDOW)


def alone(vad: SileroVad, pcm: Samples) -> list[float]:
    state, probabilities = VadState.initial(), []
    for window in windows_of(pcm):
        (probability,), (state,) = vad.step(window[None], [state])
        probabilities.append(probability)
    return probabilities


def test_probabilities_equal_the_reference_on_a_real_clip(vad, clip):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from silero_vad import load_silero_vad

        reference = load_silero_vad(onnx=True)
    expected = [reference(torch.from_numpy(window.copy()), 16_000).item() for window in windows_of(clip)]
    got = alone(vad, clip)
    assert max(expected) > 0.9
    assert min(expected) < 0.1
    assert np.abs(np.array(got) - np.array(expected)).max() < 1e-4


def test_a_batch_of_streams_equals_each_alone(vad, clip):
    streams = [clip, np.zeros_like(clip), np.roll(clip, 3_000)]
    states, got = [VadState.initial() for _ in streams], []
    for row in zip(*(windows_of(s) for s in streams), strict=True):
        probabilities, states = vad.step(np.stack(row), states)
        got.append(probabilities)
    for column, stream in zip(np.array(got).T, streams, strict=True):
        assert np.abs(column - np.array(alone(vad, stream))).max() < 1e-5


def test_a_state_is_a_value(vad, clip):
    (window, following), start = windows_of(clip)[20:22], VadState.initial()
    _, (state,) = vad.step(window[None], [start])
    first = vad.step(following[None], [state])[0]
    assert vad.step(following[None], [state])[0] == first
    assert not start.hidden.any()


def test_the_model_is_found_without_importing_torch():
    code = "import sys, streaming.vad as v; v.SileroVad(v.silero_model()); sys.exit('torch' in sys.modules or 'silero_vad' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0


# ------------------------------------------------------------------------------------------------------ hysteresis


def run(gate: SpeechGate, probabilities: list[float]) -> list[SpeechStarted | SpeechStopped]:
    pushed = (gate.push(p, n * WINDOW) for n, p in enumerate(probabilities))
    return [event for event in pushed if event is not None and not isinstance(event, SpeechSuspected)]


def test_speech_starts_at_its_first_window_and_stops_after_its_last():
    events = run(SpeechGate(), [0.1, 0.9, 0.8, 0.9, 0.2, 0.1, 0.3, 0.1])
    assert events == [SpeechStarted(at=WINDOW, probability=0.8), SpeechStopped(at=4 * WINDOW, probability=0.3)]


def test_the_first_loud_window_is_a_suspicion():
    pushed = [SpeechGate.push(gate, p, n * WINDOW) for gate in [SpeechGate()] for n, p in enumerate([0.1, 0.9, 0.9, 0.9])]
    assert pushed == [None, SpeechSuspected(at=WINDOW), SpeechStarted(at=WINDOW, probability=0.9), None]


def test_one_loud_window_is_no_speech():
    gate = SpeechGate()
    assert run(gate, [0.0, 0.9, 0.1, 0.9, 0.0, 0.9, 0.0]) == []
    assert gate.phase is GatePhase.QUIET


def test_a_short_dip_is_no_pause():
    assert len(run(SpeechGate(), [0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.9])) == 1


def test_speech_goes_on_down_to_the_lower_threshold():
    gate = SpeechGate()
    assert len(run(gate, [0.9, 0.9, 0.4, 0.36, 0.4, 0.4, 0.4])) == 1
    assert gate.phase is GatePhase.SPEAKING


def test_a_pause_ends_only_at_the_upper_threshold():
    assert run(SpeechGate(), [0.9, 0.9, 0.3, 0.4, 0.4])[1:] == [SpeechStopped(at=2 * WINDOW, probability=0.4)]


def test_every_phase_is_reached():
    gate, phases = SpeechGate(), []
    for n, probability in enumerate([0.1, 0.9, 0.9, 0.1, 0.1, 0.1]):
        gate.push(probability, n * WINDOW)
        phases.append(gate.phase)
    quiet, starting, speaking, stopping = GatePhase
    assert phases == [quiet, starting, speaking, stopping, stopping, quiet]


def test_the_threshold_holds_from_the_next_window_on():
    gate = SpeechGate(threshold=0.95)
    assert run(gate, [0.9] * 5) == []
    gate.threshold = 0.5
    assert len(run(gate, [0.9] * 2)) == 1


def test_reset_reports_nothing_and_starts_anew():
    gate = SpeechGate()
    run(gate, [0.9, 0.9])
    gate.reset()
    assert gate.phase is GatePhase.QUIET
    assert run(gate, [0.1] * 5) == []
    assert len(run(gate, [0.9, 0.9])) == 1
