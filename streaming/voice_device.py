"""Where the voice is computed: on the CPU, or on the GPU where it is faster there. Which it is, only trying tells: a voice is small, its
clauses are short, and a GPU's launches may take longer than a CPU's arithmetic."""

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import torch

from streaming.device import DeviceError
from streaming.models.onnx_session import offers_cuda
from streaming.tts import PhonemeVoice, Voice

__all__ = ["Pace", "choose_voice", "load_voice", "measure_pace"]

log = logging.getLogger(__name__)

_ROUNDS: Final = 5
"""Runs of which the median counts; one before them does not."""

_CLAUSE: Final = "I would like to know what the weather will be tomorrow."
_RATE: Final = 24_000

_Voice = TypeVar("_Voice", bound=Voice)


@dataclass(frozen=True, slots=True)
class Pace:
    """Milliseconds from the text of a clause to its first chunk, and to its last."""

    first: float
    clause: float


def load_voice(folder: Path, device: torch.device, wanted: str = "auto") -> PhonemeVoice:
    """The voice in a folder (`PhonemeVoice.load`), on the GPU or not: see `choose_voice`. `device` is where the large models are."""
    return choose_voice(partial(_load, folder), device, wanted)


def _load(folder: Path, gpu: int | None) -> PhonemeVoice:
    return PhonemeVoice.load(folder, gpu=gpu)


def choose_voice(
    load: Callable[[int | None], _Voice],
    device: torch.device,
    wanted: str,
    offered: Callable[[], bool] = offers_cuda,
    clock: Callable[[], float] = time.perf_counter,
) -> _Voice:
    """The voice, which `load` makes for the GPU of a number or, None, for the CPU. `wanted` is `cpu`, `cuda`, or `auto`: where the large
    models are on a GPU and onnxruntime is built for one (`offered`) both are timed, and the one whose first chunk is there sooner is kept.
    Raises DeviceError where a GPU is wanted and can't be had."""
    gpu = device.index or 0
    if wanted == "cuda":
        if not offered():
            message = "the voice: the onnxruntime that is installed is built without CUDA; put onnxruntime-gpu in its place"
            raise DeviceError(f"{message} (docs/operations.md), or serve with --voice-device cpu")
        try:
            return load(gpu)
        except Exception as error:  # onnxruntime raises nothing narrower
            raise DeviceError(f"the voice can't run on cuda:{gpu} ({error}): serve with --voice-device cpu") from error
    on_cpu = load(None)
    if wanted == "cpu" or device.type != "cuda" or not offered():
        return on_cpu
    try:
        on_gpu = load(gpu)
        there = _typical(measure_pace(on_gpu, clock=clock))
    except Exception as error:  # noqa: BLE001 - whatever it was, there is a voice
        log.warning("the voice runs on the CPU: on cuda:%d it does not (%s)", gpu, error)
        return on_cpu
    here = _typical(measure_pace(on_cpu, clock=clock))
    faster = there.first < here.first
    # A warning: the engine's process has no log for less.
    log.warning(
        "the voice runs on %s: its first chunk takes %.1f ms on the GPU and %.1f ms on the CPU, a clause %.1f and %.1f ms",
        f"cuda:{gpu}" if faster else "the CPU", there.first, here.first, there.clause, here.clause,
    )  # fmt: skip
    return on_gpu if faster else on_cpu


def measure_pace(voice: Voice, rounds: int = _ROUNDS, clock: Callable[[], float] = time.perf_counter) -> list[Pace]:
    """How fast it speaks one clause, so many times, after a run that is not counted. `clock` in seconds."""
    paces = []
    for _ in range(rounds + 1):
        begun, ready = clock(), list[float]()
        for _chunk in voice.speak(_CLAUSE, _RATE, prompt=True):
            ready.append(1000 * (clock() - begun))
        paces.append(Pace(ready[0], ready[-1]))
    return paces[1:]


def _typical(paces: list[Pace]) -> Pace:
    """The medians."""
    return Pace(statistics.median(pace.first for pace in paces), statistics.median(pace.clause for pace in paces))
