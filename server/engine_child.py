"""The engine's process from inside: load, say so, then hear, step and speak until the parent closes the socket.

A reader thread knocks at the engine's doors (which only note what is wanted, and wake the Ear's lane), a writer thread sends what comes
out, and the main thread steps. Messages are length-prefixed pickles between our own two processes; nothing of a stranger is ever unpickled.
"""

import gc
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from server.apology import FixedSpeech, speak_fixed
from server.engine_link import Request, apply
from streaming.doors import Engine, EngineOutput

__all__ = ["LENGTH", "EngineFactory", "Ready", "Unable", "WakingEngine", "pack", "run_engine"]

_NICE: Final = 5
"""The event loop comes first when it wakes: it needs the core for microseconds, and a frame waits for it. Measured with
`benchmarks/pacing.py`, eight sessions being answered on two cores: p99 lateness of a 20 ms frame 4.7 ms as equals and 2.7 like this, at the
same output; while another server's calls took the machine, 27 and 4.3. With 10 it was no better, and beside other programs the engine has
to be heard too."""

_IDLE_SECONDS: Final = 0.5
"""An engine without work steps this often: it reports its load in a step, and the last report must not be of when it was busy."""

LENGTH: Final = struct.Struct("!I")
"""What precedes every message: its length in bytes."""


class WakingEngine(Engine, Protocol):
    """An engine that says when it has work, and whose doors may be knocked at on another thread than the one that steps."""

    def on_work(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, on any thread, whenever `step` has something new to do."""


EngineFactory = Callable[[Callable[[EngineOutput], None]], WakingEngine]
"""Loads and warms an engine in the child, given where its outputs go. Must be picklable (a module's function, or a `partial` of one)."""


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """The models are loaded and warm; `apology` is what they leave behind for when they are gone."""

    apology: FixedSpeech


@dataclass(frozen=True, slots=True)
class Unable:
    """The engine could not start."""

    error: str


def pack(message: object) -> bytes:
    """A message as it travels."""
    body = pickle.dumps(message, protocol=5)
    return LENGTH.pack(len(body)) + body


def run_engine(sock: socket.socket, factory: EngineFactory) -> None:
    """Load, say so, then step until the parent closes the socket."""
    if hasattr(os, "nice"):
        os.nice(_NICE)  # before there are threads: on Linux each has its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when we end
    outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
    try:
        engine = factory(outputs.put)
        apology = speak_fixed(engine, outputs)
        # What is here now stays. Looking through all of it for garbage takes a tenth of a second, in which the Ear is deaf.
        gc.collect()
        gc.freeze()
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent must hear why
        sock.sendall(pack(Unable(f"{type(error).__name__}: {error}")))
        return
    sock.sendall(pack(Ready(apology)))
    threading.excepthook = _die
    wake, gone = threading.Event(), threading.Event()
    threading.Thread(target=_read_requests, args=(sock, engine, wake, gone), name="reader", daemon=True).start()
    threading.Thread(target=_write_outputs, args=(sock, outputs), name="writer", daemon=True).start()
    engine.on_work(wake.set)
    while not gone.is_set():
        for output in engine.step():
            outputs.put(output)
        if not engine.busy():
            wake.wait(_IDLE_SECONDS)
            wake.clear()
    # Nothing here needs an orderly end, and the lanes may be inside a library that would abort the process over one.
    os._exit(0)


def _die(args: threading.ExceptHookArgs) -> None:
    """A thread has failed, and an engine without it would be deaf or mute: better none, for that the parent notices."""
    traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
    sys.stderr.flush()
    os._exit(1)


def _read_requests(sock: socket.socket, engine: WakingEngine, wake: threading.Event, gone: threading.Event) -> None:
    stream = sock.makefile("rb")
    while True:
        head = stream.read(LENGTH.size)
        if len(head) < LENGTH.size:
            break
        request: Request = pickle.loads(stream.read(LENGTH.unpack(head)[0]))
        apply(engine, request)
        wake.set()
    gone.set()
    wake.set()


def _write_outputs(sock: socket.socket, outputs: queue.SimpleQueue[EngineOutput]) -> None:
    """Send outputs as they come, all that wait in one message."""
    while True:
        batch = [outputs.get()]
        while not outputs.empty():  # nobody else takes
            batch.append(outputs.get())
        try:
            sock.sendall(pack(batch))
        except OSError:
            return  # the parent has gone; the reader thread ends the process
