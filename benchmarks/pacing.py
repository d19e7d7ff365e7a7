"""How late 20 ms frames leave the event loop while the engine decodes for every session.

    python -m benchmarks.pacing [--sessions 8] [--seconds 30] [--threads 1] [--nice 0 10]

One event loop with the real engine's process beside it, as in `vivavoce serve`. Every session has a metronome (`server.pacing`) that sends
a frame to a UDP socket and feeds one to its Ear at each beat. In turns of the same run: `idle`, nobody speaks; `decoding`, every session
is always being answered, at each given niceness of the engine. `late`: when a frame left after its deadline; `interval`: how far the time
since the frame before was from 20 ms. Milliseconds. `replies` shows that work was done.
"""

import argparse
import asyncio
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import uvloop

from benchmarks.decoder import QUESTIONS
from server.engine_child import WakingEngine
from server.engine_link import Fact
from server.engine_process import ProcessEngineLink
from server.pacing import FRAME_SECONDS, Metronome
from server.wiring import engine_files
from streaming.audio import AudioFrame
from streaming.bundle import ensure_bundle
from streaming.doors import EngineOutput, SynthesisedAudio
from streaming.events import SAMPLE_RATE, ContextMessage, Respond, RespondOptions, ResponseFinished, SessionSpec
from streaming.load import EngineFiles, load_engine
from streaming.manifest import load_manifest

_RATE = 24_000
_IN = int(SAMPLE_RATE * FRAME_SECONDS)
_OUT = int(_RATE * FRAME_SECONDS)


def niced(nice: int, files: EngineFiles, early: Callable[[EngineOutput], None]) -> WakingEngine:
    """The engine, less urgent than it is by itself."""
    os.nice(nice)
    return load_engine(files, early)


@dataclass(slots=True)
class Figures:
    """Of one turn of the run, in milliseconds."""

    late: list[float] = field(default_factory=list)
    interval: list[float] = field(default_factory=list)
    skipped: int = 0
    replies: int = 0
    sound: float = 0.0


class Stream:
    """A session that is answered again and again, and its metronome."""

    def __init__(self, link: ProcessEngineLink, number: int, figures: Figures, send: Callable[[bytes], None], *, answered: bool) -> None:
        self._link = link
        self._name = f"session-{number}"
        self._figures = figures
        self._send = send
        self._questions = itertools.cycle(QUESTIONS[number:] + QUESTIONS[:number])
        self._asked = 0
        self._waiting = np.zeros(0, np.int16)
        link.open(self._name, SessionSpec(seed=number), self._receive)
        if answered:
            self._ask()

    async def run(self, seconds: float) -> None:
        """Beat for so long."""
        metronome, silence, at, last = Metronome(), np.zeros(_IN, np.float32), 0, 0.0
        stop = time.monotonic() + seconds
        while last < stop:
            deadline = metronome.frames.deadline
            for _ in range(await metronome.beat()):
                now = time.monotonic()
                self._figures.late.append(1000 * max(0.0, now - deadline))
                if last:
                    self._figures.interval.append(1000 * abs(now - last - FRAME_SECONDS))
                last, deadline = now, deadline + FRAME_SECONDS
                frame, self._waiting = self._waiting[:_OUT], self._waiting[_OUT:]
                self._send(frame.tobytes())
                self._link.feed(self._name, AudioFrame(silence, at))
                at += _IN
        self._figures.skipped += metronome.frames.skipped
        self._link.close(self._name)

    def _ask(self) -> None:
        self._asked += 1
        context = (ContextMessage("user", "question", next(self._questions)),)
        options = RespondOptions(rate=_RATE, context=context, max_output_tokens=120)
        self._link.order(self._name, Respond(f"{self._name}-{self._asked}", options))

    def _receive(self, fact: Fact) -> None:
        match fact:
            case SynthesisedAudio(pcm=pcm):
                self._figures.sound += len(pcm) / _RATE
                self._waiting = np.concatenate((self._waiting[-10 * _RATE :], pcm))
            case ResponseFinished():
                self._figures.replies += 1
                self._ask()


async def measure(files: EngineFiles, nice: int, sessions: int, seconds: float, *, answered: bool) -> Figures:
    """One turn of the run."""
    link = ProcessEngineLink(partial(niced, nice, files))
    await link.start()
    gc.freeze()
    figures = Figures()
    loop = asyncio.get_running_loop()
    sink, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=sink.get_extra_info("sockname"))
    try:
        streams = [Stream(link, number, figures, transport.sendto, answered=answered) for number in range(sessions)]
        await asyncio.sleep(2)  # the first prompts
        async with asyncio.TaskGroup() as group:
            for number, stream in enumerate(streams):
                await asyncio.sleep(FRAME_SECONDS / sessions * (number > 0))  # calls do not begin together
                group.create_task(stream.run(seconds))
        return figures
    finally:
        transport.close()
        sink.close()
        await link.stop()


def spread(milliseconds: Sequence[float]) -> str:
    """Median, 99th percentile and worst."""
    ordered = sorted(milliseconds)
    return f"p50 {statistics.median(ordered):5.2f}  p99 {ordered[len(ordered) * 99 // 100]:6.2f}  max {ordered[-1]:6.2f}"


def row(name: str, figures: Figures) -> str:
    """One line of the table."""
    done = f"skipped {figures.skipped}  replies {figures.replies}, {figures.sound:.0f} s"
    return f"  {name:18s} n {len(figures.late)}  late {spread(figures.late)}  interval {spread(figures.interval)}  {done}"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1, help="the engine's, for the language model and the recogniser")
    parser.add_argument("--nice", type=int, nargs="+", default=[0], help="added to the niceness the engine has by itself")
    arguments = parser.parse_args()
    files = engine_files(ensure_bundle(load_manifest("pocket")), arguments.threads)
    of = partial(measure, files, sessions=arguments.sessions, seconds=arguments.seconds)
    print(row("idle", uvloop.run(of(arguments.nice[0], answered=False))))
    for nice in arguments.nice:
        print(row(f"decoding, nice {nice:+d}", uvloop.run(of(nice, answered=True))))


if __name__ == "__main__":
    main()
