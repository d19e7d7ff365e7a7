"""Whether the first token waits longer after a long turn, or late in a conversation.

    python -m benchmarks.growth [--data ../shared/data] [--repeats 3]

The real engine, its lanes threaded as in the server, fed at microphone pace. Turns are made of recordings of one reader, cut to length at a
pause; each is committed 300 ms after its last sample, and what is timed is the way from there to the reply's first text, without
speculation, which would hide it. Conversations are of typed turns of a dozen words and replies of as many, prefilled between turns as the
server does. Medians, with the ratio to the short one of the same run.
"""

import argparse
import json
import statistics
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np

from agent.heard import HeardReplies
from agent.history import History
from agent.items import ContentPart, Message, PartKind
from agent.memory import Memory
from server.caller_audio import CALLER_RATE, load_recording
from server.wiring import engine_files
from streaming.audio import AudioFrame, Samples, resample_clause
from streaming.bundle import ensure_bundle
from streaming.doors import EngineOutput, SessionEvent
from streaming.engine import SpeechEngine  # noqa: TC001 - built here
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    CommitTurn,
    ContextMessage,
    Respond,
    RespondOptions,
    SessionSpec,
    SetHistory,
    StartTurn,
    TextDelta,
)
from streaming.load import load_engine
from streaming.manifest import load_manifest

_FRAME = SAMPLE_RATE // 50


class Watched:
    """The engine, stepping on a thread of its own, and when each reply's first text came."""

    def __init__(self, threads: int) -> None:
        files = engine_files(ensure_bundle(load_manifest("pocket")), threads)
        self.first: dict[str, float] = {}
        self.told = threading.Condition()
        self.engine: SpeechEngine = load_engine(files, self._hear)
        self._wake = threading.Event()
        self.engine.on_work(self._wake.set)
        self._thread = threading.Thread(target=self._step)
        self._ended = False
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def _hear(self, output: EngineOutput) -> None:
        if isinstance(output, SessionEvent) and isinstance(output.event, TextDelta):
            with self.told:
                self.first.setdefault(output.event.response_id, time.perf_counter())
                self.told.notify()

    def _step(self) -> None:
        while not self._ended:
            self._wake.clear()
            while self.engine.busy():
                self.engine.step()
            self._wake.wait()

    def time_reply(self, session: str, response_id: str) -> float:
        """Milliseconds from now to the reply's first text; the reply is then given up."""
        begun = time.perf_counter()
        self.engine.order(session, Respond(response_id, RespondOptions(audio=False)))
        with self.told:
            assert self.told.wait_for(lambda: response_id in self.first, timeout=30)
        self.engine.order(session, Abort(response_id))
        return (self.first[response_id] - begun) * 1000


def turn_of(data: Path, seconds: float) -> Samples:
    """So much of one reader's prose, with 300 ms of silence behind it."""
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    reader = [line for line in lines if line["set"] == "librispeech_train100" and line["seconds"] > 2]
    parts: list[Samples] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        recording = load_recording(data / reader[len(parts)]["path"])
        parts.append(resample_clause(recording.pcm.astype(np.float32) / 32_768, CALLER_RATE, SAMPLE_RATE))
    pcm = np.concatenate(parts)[: int(seconds * SAMPLE_RATE)]
    quiet: Samples = np.concatenate((pcm, np.zeros(3 * SAMPLE_RATE // 10, np.float32)))
    return quiet


def after_turn(watched: Watched, name: str, pcm: Samples) -> float:
    """Speak, commit, ask."""
    engine = watched.engine
    engine.open(name, SessionSpec())
    engine.order(name, SetHistory((ContextMessage("system", "", "Answer briefly."),)))
    engine.order(name, StartTurn("i", 0))
    begun = time.perf_counter()
    for at in range(0, len(pcm), _FRAME):
        time.sleep(max(0.0, begun + (at + _FRAME) / SAMPLE_RATE - time.perf_counter()))
        engine.feed(name, AudioFrame(pcm[at : at + _FRAME], at))
    engine.order(name, CommitTurn("i", 0, len(pcm)))
    engine.order(name, SetHistory((ContextMessage("system", "", "Answer briefly."), ContextMessage("user", "i", None))))
    taken = watched.time_reply(name, f"{name} reply")
    engine.close(name)
    return taken


def after_turns(watched: Watched, name: str, turns: int) -> float:
    """A conversation of typed turns; the reply to the last."""
    engine = watched.engine
    engine.open(name, SessionSpec())
    history = (ContextMessage("system", "", "Answer briefly."),)
    for number in range(turns):
        history += (ContextMessage("user", f"u{number}", f"This is what I say in turn {number}, a dozen words of it."),)
        if number < turns - 1:
            history += (ContextMessage("assistant", f"a{number}", f"And this is what I answer to number {number}, as many words."),)
            engine.order(name, SetHistory(history))
            time.sleep(0.3)
    engine.order(name, SetHistory(history))
    taken = watched.time_reply(name, f"{name} reply")
    engine.close(name)
    return taken


def after_an_hour(watched: Watched, name: str, turns: int) -> float:
    """The same with the conversation's memory in front of the engine; the history is told turn by turn as in a call."""
    engine, history = watched.engine, History()
    memory = Memory(history, HeardReplies())
    engine.open(name, SessionSpec())
    for number in range(turns):
        said = ContentPart(PartKind.INPUT_TEXT, f"This is what I say in turn {number}, a dozen words of it.")
        history.add(Message(f"u{number}", "user", (said,)))
        if number < turns - 1:
            answer = ContentPart(PartKind.OUTPUT_TEXT, f"And this is what I answer to number {number}, as many words.")
            history.add(Message(f"a{number}", "assistant", (answer,)))
            memory.cover()
            engine.order(name, SetHistory(memory.context("Answer briefly.", history.items)))
            time.sleep(0.3)
    engine.order(name, SetHistory(memory.context("Answer briefly.", history.items)))
    taken = watched.time_reply(name, f"{name} reply")
    engine.close(name)
    return taken


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    watched = Watched(threads=1)
    short, long = (turn_of(options.data, seconds) for seconds in (3, 60))
    rows = {
        "after a turn of 3 s": partial(after_turn, pcm=short),
        "after a turn of 60 s": partial(after_turn, pcm=long),
        "after 1 turn": partial(after_turns, turns=1),
        "after 30 turns": partial(after_turns, turns=30),
        "after 30 remembered": partial(after_an_hour, turns=30),
        "after 300 remembered": partial(after_an_hour, turns=300),
    }
    found: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(options.repeats):
        for name, measure in rows.items():
            found[name].append(measure(watched, f"{name} {repeat}"))
    watched.stop()
    pairs = (
        ("after a turn of 3 s", "after a turn of 60 s"),
        ("after 1 turn", "after 30 turns"),
        ("after 30 remembered", "after 300 remembered"),
    )
    for short_name, long_name in pairs:
        for name in (short_name, long_name):
            print(f"first text {name:22} {statistics.median(found[name]):6.0f} ms ({min(found[name]):.0f} to {max(found[name]):.0f})")
        print(f"  ratio {statistics.median(found[long_name]) / statistics.median(found[short_name]):.2f}, n={options.repeats}")


if __name__ == "__main__":
    main()
