"""The engine in a process of its own: spawned, joined by one socket pair, its models never on the event loop.

Messages are length-prefixed pickles between our own two processes; nothing of a stranger is ever unpickled. In the child, a reader
thread knocks at the engine's doors (which only note what is wanted, and wake the Ear's lane), a writer thread sends what
comes out, and the main thread steps.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from server.engine_link import CloseSession, FeedFrame, OpenSession, Request, Sink, TakeOrder, apply, deliver
from streaming.audio import AudioFrame
from streaming.doors import EngineOutput
from streaming.engine import SpeechEngine
from streaming.events import EngineFailed, EngineOrder, SessionSpec

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["EngineFactory", "ProcessEngineLink"]

log = logging.getLogger(__name__)

_LENGTH: Final = struct.Struct("!I")
_WRITE_LIMIT: Final = 64 << 20
"""Bytes waiting for the engine beyond which it counts as stuck: over half an hour of one session's audio."""
_STOP_SECONDS: Final = 5.0
"""How long a stopping engine may take to leave before it is killed."""

EngineFactory = Callable[[Callable[[EngineOutput], None]], SpeechEngine]
"""Loads and warms an engine in the child, given where its outputs go. Must be picklable (a module's function, or a `partial` of one)."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """The models are loaded and warm."""


@dataclass(frozen=True, slots=True)
class _Unable:
    """The engine could not start."""

    error: str


class ProcessEngineLink:
    """Owns the engine's process. If it dies, every session is told (`EngineFailed`) and a new process is started for
    the sessions that come after."""

    def __init__(self, factory: EngineFactory) -> None:
        self._factory = factory
        self._sinks: dict[str, Sink] = {}
        self._process: BaseProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running(self) -> bool:
        return self._writer is not None

    async def start(self) -> None:
        reader = await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise(reader), name="engine-supervisor")

    async def stop(self) -> None:
        self._stopping = True
        self._sinks.clear()
        self._disconnect()
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        await self._reap()

    def open(self, session_id: str, spec: SessionSpec, sink: Sink) -> None:
        self._sinks[session_id] = sink
        self._send(OpenSession(session_id, spec))

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        self._send(FeedFrame(session_id, frame))

    def order(self, session_id: str, order: EngineOrder) -> None:
        self._send(TakeOrder(session_id, order))

    def close(self, session_id: str) -> None:
        if self._sinks.pop(session_id, None) is not None:
            self._send(CloseSession(session_id))

    async def _spawn(self) -> asyncio.StreamReader:
        """Start a process and wait until it is warm."""
        # Inherited by the child, which has threads enough: numpy's small products gain nothing from a pool of their own.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("spawn").Process(
            target=_child_main, args=(theirs, self._factory), name="vivavoce-engine", daemon=True
        )
        await asyncio.to_thread(process.start)
        theirs.close()
        self._process = process
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            first = await _receive(reader)
        except asyncio.IncompleteReadError as error:
            writer.close()
            await self._reap()
            raise RuntimeError(f"the engine process exited with {process.exitcode} while it loaded the models") from error
        if isinstance(first, _Unable):
            writer.close()
            await self._reap()
            raise RuntimeError(first.error)
        self._writer = writer
        return reader

    async def _supervise(self, reader: asyncio.StreamReader) -> None:
        """Deliver what the engine says; when it dies, tell every session and start another."""
        while True:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    outputs = await _receive(reader)
                    assert isinstance(outputs, list)
                    deliver(self._sinks, outputs)
            self._disconnect()
            if self._stopping:
                return
            await self._reap()
            error = f"the engine process exited with {self._process.exitcode if self._process else None}"
            log.error("%s; starting another", error)
            sinks, self._sinks = self._sinks, {}
            for sink in sinks.values():
                sink(EngineFailed(error))
            reader = await self._spawn()

    def _send(self, request: Request) -> None:
        """Queue a message for the engine; dropped while there is none (its sessions have been told)."""
        if self._writer is None:
            return
        self._writer.write(_pack(request))
        if self._writer.transport.get_write_buffer_size() > _WRITE_LIMIT and self._process is not None:
            log.error("the engine has not read for too long; killing it")
            self._process.kill()

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _reap(self) -> None:
        if self._process is None:
            return
        await asyncio.to_thread(self._process.join, _STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)


def _pack(message: object) -> bytes:
    body = pickle.dumps(message, protocol=5)
    return _LENGTH.pack(len(body)) + body


async def _receive(reader: asyncio.StreamReader) -> object:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    message: object = pickle.loads(await reader.readexactly(length))
    return message


# --------------------------------------------------------------------------------------------------- in the child


def _child_main(sock: socket.socket, factory: EngineFactory) -> None:
    """Load, say so, then step until the parent closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when we end
    outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
    try:
        engine = factory(outputs.put)
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent must hear why
        sock.sendall(_pack(_Unable(f"{type(error).__name__}: {error}")))
        return
    sock.sendall(_pack(_Ready()))
    wake, gone = threading.Event(), threading.Event()
    threading.Thread(target=_read_requests, args=(sock, engine, wake, gone), name="reader", daemon=True).start()
    threading.Thread(target=_write_outputs, args=(sock, outputs), name="writer", daemon=True).start()
    engine.on_work(wake.set)
    while not gone.is_set():
        wake.clear()
        while engine.busy():
            for output in engine.step():
                outputs.put(output)
        wake.wait()
    # Nothing here needs an orderly end, and the lanes may be inside a library that would abort the process over one.
    os._exit(0)


def _read_requests(sock: socket.socket, engine: SpeechEngine, wake: threading.Event, gone: threading.Event) -> None:
    stream = sock.makefile("rb")
    while True:
        head = stream.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            break
        request: Request = pickle.loads(stream.read(_LENGTH.unpack(head)[0]))
        apply(engine, request)
        wake.set()
    gone.set()
    wake.set()


def _write_outputs(sock: socket.socket, outputs: queue.SimpleQueue[EngineOutput]) -> None:
    """Send outputs as they come, all that wait in one message."""
    while True:
        batch = [outputs.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                batch.append(outputs.get_nowait())
        try:
            sock.sendall(_pack(batch))
        except OSError:
            return  # the parent has gone; the reader thread ends the process
