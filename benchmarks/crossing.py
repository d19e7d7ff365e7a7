"""What it costs to cross into the engine's process and back: one frame in, its evidence out.

    python -m benchmarks.crossing [--rounds 2000] [--sessions 8]

The engine is scripted, so what is timed is the crossing: pickling, two wakes of the child, one of the event loop. `alone`: one session, one
window at a time, each sent when the last has come back. `together`: in a turn of the loop every session sends a window; timed until the
last of their windows has come back. Microseconds. `cpu` is what the event loop's process itself used per frame.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import uvloop

from server.engine_link import Fact
from server.engine_process import ProcessEngineLink
from streaming.audio import AudioFrame
from streaming.events import Listened, SessionSpec
from streaming.fakes import load_scripted

_WINDOW = 512
"""Samples a frame holds here: one window of the Ear, so that every frame is answered."""


class _Listener:
    """A session, and how many of its windows have come back."""

    def __init__(self, link: ProcessEngineLink, name: str) -> None:
        self._link = link
        self._name = name
        self._pcm = np.zeros(_WINDOW, np.float32)
        self._at = 0
        self._heard = 0
        self._back = asyncio.Event()
        link.open(name, SessionSpec(), self._receive)

    def send(self) -> None:
        self._link.feed(self._name, AudioFrame(self._pcm, self._at))
        self._at += _WINDOW

    async def answered(self) -> None:
        while self._heard < self._at:
            self._back.clear()
            await self._back.wait()

    def _receive(self, fact: Fact) -> None:
        if isinstance(fact, Listened):
            self._heard = fact.at
            self._back.set()


async def measure(sessions: int, rounds: int) -> tuple[list[float], float]:
    """Microseconds of each round trip, and microseconds of this process's time for each frame."""
    link = ProcessEngineLink(partial(load_scripted))
    await link.start()
    try:
        listeners = [_Listener(link, f"session-{number}") for number in range(sessions)]
        times = []
        used = time.process_time()
        for _ in range(rounds):
            begun = time.perf_counter()
            for listener in listeners:
                listener.send()
            for listener in listeners:
                await listener.answered()
            times.append(1e6 * (time.perf_counter() - begun))
        return times, 1e6 * (time.process_time() - used) / rounds / sessions
    finally:
        await link.stop()


def row(name: str, times: Sequence[float], cpu: float) -> str:
    """One line of the table."""
    ordered = sorted(times)
    p99 = ordered[len(ordered) * 99 // 100]
    return f"  {name:12s} n {len(times)}  p50 {statistics.median(times):7.0f}  p99 {p99:7.0f}  max {ordered[-1]:7.0f}  cpu {cpu:5.0f}"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2_000)
    parser.add_argument("--sessions", type=int, default=8)
    arguments = parser.parse_args()
    print(row("alone", *uvloop.run(measure(1, arguments.rounds))))
    print(row("together", *uvloop.run(measure(arguments.sessions, arguments.rounds))))


if __name__ == "__main__":
    main()
