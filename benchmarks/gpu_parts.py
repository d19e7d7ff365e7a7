"""The parts of a spoken turn on a device, timed: hearing, decoding, the voice. What each figure is: `benchmarks.gpu`."""

import contextlib
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.gpu_models import Language, Published, Reciting, decoder, hearing, language_model, weight_bytes
from benchmarks.gpu_realtime import PublishedRealtime, Reader, Reading, recogniser, row_bytes, together
from streaming.audio import Samples
from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.decoder import Extend
from streaming.events import SAMPLE_RATE, ContextMessage
from streaming.models.llama import Stretch
from streaming.models.onnx_session import offers_cuda
from streaming.transcriber import Transcriber
from streaming.tts import PhonemeVoice
from streaming.voice_device import measure_pace

__all__ = ["Figure", "Plan", "bandwidth", "forget", "measure_parts", "measure_voice"]

_HELD: Final = 200
_TURN: Final = (ContextMessage("user", "turn", None),)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, and where."""

    device: torch.device
    seconds: tuple[int, ...] = (3, 10, 30, 60)
    batches: tuple[int, ...] = (1, 16, 64)
    calls: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rounds: int = 20
    tiny: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured: milliseconds, one a time. `roofline` is what they could be at best, where that is known."""

    model: str
    what: str
    size: str
    ms: tuple[float, ...]
    roofline: float | None = None

    @property
    def spread(self) -> str:
        """Median (10th to 90th percentile)."""
        low, high = np.percentile(self.ms, (10, 90))
        return f"{statistics.median(self.ms):.2f} ({low:.2f} to {high:.2f})"


@contextlib.contextmanager
def timed(plan: Plan, into: list[float]) -> Iterator[None]:
    """Adds the milliseconds of the block, up to the end of all that it started on the device."""
    _finish(plan)
    begun = time.perf_counter()
    yield
    _finish(plan)
    into.append(1000 * (time.perf_counter() - begun))


def _finish(plan: Plan) -> None:
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)


def forget(plan: Plan) -> None:
    """Give the GPU's memory back: the next model needs it, and the server's engine, which is another process."""
    gc.collect()
    if plan.device.type == "cuda":
        torch.cuda.empty_cache()


def measure_parts(model: Published | PublishedRealtime, plan: Plan) -> list[Figure]:
    """First tokens or last words, listening, and decode steps."""
    if isinstance(model, Published):
        heard, language = _measure_hearing(model, plan), model.language
    else:
        heard, language = _measure_writing(model, plan), model.answers
    forget(plan)
    return [*heard, *_measure_decoding(model.name, language, plan)]


@torch.inference_mode()
def _measure_hearing(model: Published, plan: Plan) -> list[Figure]:
    language, path = language_model(decoder(model.language, plan.device)), hearing(model, plan.device)
    template = ChatTemplate(language, path=path)
    numbers = count(-1, -1)
    figures = []
    for seconds in plan.seconds:
        pcm = _noise(seconds)
        times: dict[str, list[float]] = {"incremental": [], "whole": [], "listening": []}
        for _ in range(plan.rounds + 1):  # the first is not counted
            listened = _answer(plan, language, template, path, numbers, np.split(pcm, seconds), times["incremental"])
            times["listening"].append(listened / seconds)
            _answer(plan, language, template, path, numbers, [pcm], times["whole"])
        figures += [Figure(model.name, f"first token, {how}", f"{seconds} s", tuple(times[how][1:])) for how in ("incremental", "whole")]
        figures.append(Figure(model.name, "listening, a second of sound", f"{seconds} s", tuple(times["listening"][1:])))
    return figures


def _answer(
    plan: Plan,
    language: Reciting,
    template: ChatTemplate,
    path: AudioPath,
    numbers: Iterator[int],
    pieces: Sequence[Samples],
    into: list[float],
) -> float:
    """A turn that comes in these pieces: the time from its last sample to the first token goes `into`, that of listening before is given.
    The last piece's blocks are committed as they would have been by then, unless it is the only one."""
    sequence, sound, listened = language.sequence(), Sound(path.encoder.stream(), numbers, 1), list[float]()
    budget = language.context - 64
    completed(language.sync(sequence, template.listening_prompt((), {}, sound, budget)))
    for piece in pieces:
        sound.push(piece)
        if len(pieces) > 1:
            with timed(plan, listened):
                completed(sound.commit())
                completed(language.sync(sequence, template.listening_prompt((), {}, sound, budget)))
    with timed(plan, into):
        completed(sound.conclude())
        completed(language.sync(sequence, template.reply_prompt(_TURN, {}, budget, {"turn": sound})))
    return sum(listened)


def _noise(seconds: int) -> Samples:
    return (np.random.default_rng(seconds).standard_normal(seconds * SAMPLE_RATE) * 0.05).astype(np.float32)


@torch.inference_mode()
def _measure_writing(model: PublishedRealtime, plan: Plan) -> list[Figure]:
    reads = recogniser(model, plan.device)
    figures = []
    for seconds in plan.seconds:
        pieces = np.split(_noise(seconds), 50 * seconds)  # 20 ms each, as callers send them
        times: dict[str, list[float]] = {"incremental": [], "whole": [], "listening": []}
        for _ in range(plan.rounds + 1):  # the first is not counted
            times["listening"].append(_transcribe(plan, reads, pieces, times["incremental"]) / seconds)
            _transcribe(plan, reads, [np.concatenate(pieces)], times["whole"])
        figures += [Figure(model.name, f"last word, {how}", f"{seconds} s", tuple(times[how][1:])) for how in ("incremental", "whole")]
        figures.append(Figure(model.name, "listening, a second of sound", f"{seconds} s", tuple(times["listening"][1:])))
    return [*figures, *_measure_rows(model, reads, plan)]


def _transcribe(plan: Plan, reads: Reading, pieces: Sequence[Samples], into: list[float]) -> float:
    """A turn that comes in these pieces, with a pass whenever the server makes one: the time from its last sample to its words goes `into`,
    that of the passes before is given."""
    transcriber, listened = Transcriber(reads), list[float]()
    for piece in pieces[:-1]:
        transcriber.push(piece)
        if transcriber.due():
            with timed(plan, listened):
                completed(transcriber.hypothesise())
    transcriber.push(pieces[-1])
    with timed(plan, into):
        completed(transcriber.finish())
    return sum(listened)


def _measure_rows(model: PublishedRealtime, reads: Reading, plan: Plan) -> list[Figure]:
    """A row and a step of so many streams at once, each 80 ms further."""
    best = 1000 * row_bytes(model) / bandwidth(plan)
    step = np.zeros(reads.encoder.row_samples, np.float32)
    figures = []
    for batch in plan.batches:
        readers = [Reader(reads) for _ in range(batch)]
        # So many that the prompt is heard, and a little more: a row is complete when its last window is.
        for reader in readers:
            reader.push(np.zeros(len(step) * (len(reads.prompt) + 1) - len(reads.lead), np.float32))
        together(reader.read() for reader in readers)
        times: list[float] = []
        for _ in range(5 * plan.rounds + 1):
            for reader in readers:
                reader.push(step)
            with timed(plan, times):
                together(reader.read() for reader in readers)
        assert {reader.steps for reader in readers} == {len(reads.prompt) + 5 * plan.rounds + 1}, "a row was not heard"
        figures.append(Figure(model.name, "row and step, 80 ms of sound", f"{batch} calls", tuple(times[1:]), best))
        del readers, reader
    return figures


def _measure_decoding(name: str, model: Language, plan: Plan) -> list[Figure]:
    llama = decoder(model, plan.device, slots=max(plan.batches))
    language = language_model(llama)
    best = 1000 * weight_bytes(model.shape) / bandwidth(plan)
    figures = []
    for batch in plan.batches:
        sequences = [language.sequence() for _ in range(batch)]
        for sequence in sequences:
            llama.forward([Stretch([5] * _HELD, 0, sequence.cache)])
            sequence.tokens.extend([5] * _HELD)
        times: list[float] = []
        for _ in range(5 * plan.rounds + 1):
            with timed(plan, times):
                language.run([Extend(language, sequence, [7], scored=True) for sequence in sequences])
        figures.append(Figure(name, "decode step", f"{batch} calls", tuple(times[1:]), best))
        del sequences, sequence
    return figures


def bandwidth(plan: Plan) -> float:
    """Bytes a second that are read or written by a large copy; the best of several."""
    source = torch.empty((1 << 22) if plan.tiny else (1 << 31), dtype=torch.int8, device=plan.device)
    target, times = torch.empty_like(source), list[float]()
    for _ in range(10):
        with timed(plan, times):
            target.copy_(source)
    return 2 * source.nbytes / (min(times) / 1000)


def measure_voice(plan: Plan, folder: Path) -> list[Figure]:
    """The first chunk and the whole of a clause in the voice of the pocket bundle: on the CPU, and on the GPU where onnxruntime can."""
    places: dict[str, int | None] = {"CPU": None}
    if plan.device.type == "cuda" and offers_cuda():
        places["GPU"] = plan.device.index or 0
    figures = []
    for place, gpu in places.items():
        paces = measure_pace(PhonemeVoice.load(folder, gpu=gpu), plan.rounds)
        figures.append(Figure("voice", "first chunk", place, tuple(pace.first for pace in paces)))
        figures.append(Figure("voice", "a clause", place, tuple(pace.clause for pace in paces)))
    return figures
