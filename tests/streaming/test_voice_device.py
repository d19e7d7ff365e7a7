"""Where the voice runs: tried on both, with voices and a clock that are told how long everything takes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from streaming.device import DeviceError
from streaming.tts import Speech
from streaming.voice_device import Pace, choose_voice, measure_pace

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Told:
    """A voice whose chunks take these times in seconds, the first run three times as long; or that fails."""

    clock: Clock
    chunks: tuple[float, ...]
    fails: bool = False
    runs: int = 0

    def speak(self, *_: object, **__: object) -> Iterator[Speech]:
        if self.fails:
            raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
        self.runs += 1
        for seconds in self.chunks:
            self.clock.now += seconds * (3 if self.runs == 1 else 1)
            yield Speech(np.zeros(240, np.int16), (), True)


@dataclass
class Loader:
    clock: Clock = field(default_factory=Clock)
    on_cpu: tuple[float, ...] = (0.02, 0.03)
    on_gpu: tuple[float, ...] = (0.01, 0.08)
    fails: bool = False
    asked: list[int | None] = field(default_factory=list)

    def __call__(self, gpu: int | None) -> Told:
        self.asked.append(gpu)
        if gpu is not None and self.fails:
            raise OSError("onnxruntime 1.32 could not use CUDA on GPU 1")
        return Told(self.clock, self.on_cpu if gpu is None else self.on_gpu)

    def choose(self, device: torch.device, wanted: str, *, offered: bool = True) -> tuple[float, ...]:
        return choose_voice(self, device, wanted, lambda: offered, self.clock).chunks


def test_the_one_that_sounds_sooner_is_kept_and_both_are_told(caplog: pytest.LogCaptureFixture) -> None:
    loader = Loader()
    assert loader.choose(GPU, "auto") == loader.on_gpu
    assert loader.asked == [None, 1]
    expected = "the voice runs on cuda:1: its first chunk takes 10.0 ms on the GPU and 20.0 ms on the CPU, a clause 90.0 and 50.0 ms"
    assert caplog.messages == [expected]
    slow = Loader(on_gpu=(0.03, 0.01))
    assert slow.choose(GPU, "auto") == slow.on_cpu
    assert "the voice runs on the CPU: its first chunk takes 30.0 ms on the GPU and 20.0 ms" in caplog.messages[1]


@pytest.mark.parametrize(("device", "wanted", "offered"), [(CPU, "auto", True), (GPU, "auto", False), (GPU, "cpu", True)])
def test_where_there_is_no_choice_nothing_is_tried(device: torch.device, wanted: str, offered: bool) -> None:
    loader = Loader()
    assert loader.choose(device, wanted, offered=offered) == loader.on_cpu
    assert (loader.asked, loader.clock.now) == ([None], 0.0)


@pytest.mark.parametrize(("device", "gpu"), [(GPU, 1), (CPU, 0)])
def test_a_gpu_that_is_asked_for_is_taken(device: torch.device, gpu: int) -> None:
    loader = Loader()
    assert loader.choose(device, "cuda") == loader.on_gpu
    assert loader.asked == [gpu]


def test_a_gpu_that_can_not_be_had_is_refused_or_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    loader = Loader(fails=True)
    with pytest.raises(DeviceError, match=r"can't run on cuda:1 \(onnxruntime 1\.32 could not .* serve with --voice-device cpu"):
        loader.choose(GPU, "cuda")
    with pytest.raises(DeviceError, match=r"built without CUDA; put onnxruntime-gpu in its place .* --voice-device cpu"):
        loader.choose(GPU, "cuda", offered=False)
    assert loader.choose(GPU, "auto") == loader.on_cpu
    assert "the voice runs on the CPU: on cuda:1 it does not (onnxruntime 1.32 could not" in caplog.text


def test_a_gpu_that_fails_in_a_run_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    voice = choose_voice(lambda gpu: Told(clock, (0.1,), fails=gpu is not None), GPU, "auto", lambda: True, clock)
    assert not voice.fails
    assert "CUDNN_STATUS_EXECUTION_FAILED" in caplog.text


def test_the_first_run_does_not_count() -> None:
    clock = Clock()
    paces = measure_pace(Told(clock, (0.5, 0.25)), 3, clock)
    assert paces == [Pace(500.0, 750.0)] * 3
