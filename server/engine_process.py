"""The engine in a process of its own: spawned, joined by one socket pair, its models never on the event loop.

If the process dies, its sessions go on: another is started and told what they need (`server.rebuilding`), and meanwhile they are told what
can be told without one.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import pickle
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from server.engine_child import LENGTH, EngineFactory, Ready, Unable, pack, run_engine
from server.engine_link import CloseSession, Fact, FeedFrame, OpenSession, Request, Sink, TakeOrder
from server.rebuilding import SessionRecord
from server.restarts import RestartOptions, Restarts
from streaming.audio import AudioFrame
from streaming.doors import EngineLoad, EngineOutput
from streaming.events import EngineFailed, EngineOrder, SessionSpec

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from server.apology import FixedSpeech

__all__ = ["ProcessEngineLink"]

log = logging.getLogger(__name__)

_WRITE_LIMIT: Final = 64 << 20
"""Bytes waiting for the engine beyond which it counts as stuck: 17 minutes of one session's audio."""

_LOAD_SECONDS: Final = 600.0
"""How long models may take to load, from a slow disk too; a process that takes longer hangs."""

_STOP_SECONDS: Final = 5.0
"""How long a stopping engine may take to leave before it is killed."""


@dataclass(slots=True)
class _Served:
    """A session: what rebuilds it, and where its facts go."""

    record: SessionRecord
    sink: Sink

    def tell(self, facts: list[Fact]) -> None:
        for fact in facts:
            self.sink(fact)


class ProcessEngineLink:
    """Owns the engine's process. If it dies, another is started, and the sessions are rebuilt in it (`EngineLost`); where that cannot be
    done within the bounds of `restarts` they are given up (`EngineFailed`)."""

    def __init__(self, factory: EngineFactory, restarts: RestartOptions | None = None) -> None:
        self._factory = factory
        self._restarts = Restarts(restarts or RestartOptions())
        self._sessions: dict[str, _Served] = {}
        self._load: EngineLoad | None = None
        self._apology: FixedSpeech | None = None
        self._process: BaseProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running(self) -> bool:
        return self._writer is not None

    @property
    def load(self) -> EngineLoad | None:
        return self._load

    async def start(self) -> None:
        reader = await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise(reader), name="engine-supervisor")

    async def stop(self) -> None:
        self._stopping = True
        self._sessions.clear()
        self._disconnect()
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        await self._reap()

    def open(self, session_id: str, spec: SessionSpec, sink: Sink) -> None:
        self._sessions[session_id] = _Served(SessionRecord(session_id, spec, dead=not self.running), sink)
        self._send(OpenSession(session_id, spec))

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        if (served := self._sessions.get(session_id)) is not None:
            served.record.feed(frame)
            self._send(FeedFrame(session_id, frame), served.record)

    def order(self, session_id: str, order: EngineOrder) -> None:
        if (served := self._sessions.get(session_id)) is not None:
            served.tell(served.record.order(order, self._apology))
            self._send(TakeOrder(session_id, order), served.record)

    def close(self, session_id: str) -> None:
        if self._sessions.pop(session_id, None) is not None:
            self._send(CloseSession(session_id))

    # ------------------------------------------------------------------------------------------------------ the process

    async def _spawn(self) -> asyncio.StreamReader:
        """Start a process and wait until it is warm. Raises RuntimeError with the reason if it does not get there."""
        # Inherited by the child, which has threads enough: numpy's small products gain nothing from a pool of their own.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("spawn").Process(
            target=run_engine, args=(theirs, self._factory), name="vivavoce-engine", daemon=True
        )
        starting = asyncio.ensure_future(asyncio.to_thread(process.start))
        writer: asyncio.StreamWriter | None = None
        try:
            await asyncio.shield(starting)
            theirs.close()
            reader, writer = await asyncio.open_connection(sock=ours)
            async with asyncio.timeout(_LOAD_SECONDS):
                ready = await _receive(reader)
            if isinstance(ready, Unable):
                raise RuntimeError(ready.error)
            assert isinstance(ready, Ready)
        except BaseException as error:
            await starting
            for end in (writer, ours, theirs):
                if end is not None:
                    end.close()
            self._process = process
            if isinstance(error, asyncio.CancelledError):
                process.kill()  # it holds nothing yet
                raise
            await self._reap()
            if isinstance(error, TimeoutError):
                raise RuntimeError(f"the engine process did not load the models within {_LOAD_SECONDS:.0f} seconds") from error
            if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
                raise RuntimeError(f"the engine process exited with {process.exitcode} while it loaded the models") from error
            raise
        self._process, self._apology, self._load, self._writer = process, ready.apology, None, writer
        self._restarts.started(asyncio.get_running_loop().time())
        return reader

    async def _supervise(self, reader: asyncio.StreamReader) -> None:
        """Deliver what the engine says; when it dies, start another and rebuild every session in it."""
        while True:
            rebuilding = asyncio.create_task(self._rebuild(), name="engine-rebuilding")
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    outputs = await _receive(reader)
                    assert isinstance(outputs, list)
                    self._deliver(outputs)
            rebuilding.cancel()
            self._disconnect()
            if self._stopping:
                return
            await self._reap()
            self._mourn(f"the engine process exited with {self._process.exitcode if self._process else None}")
            reader = await self._restart()

    async def _rebuild(self) -> None:
        """Tell a new engine of the sessions it does not know, one after another, as fast as it reads: up to 2 MB each."""
        for session_id, served in tuple(self._sessions.items()):
            if self._writer is None:
                return
            if served.record.dead and session_id in self._sessions:
                for request in served.record.rebuild():
                    self._send(request)
                with contextlib.suppress(ConnectionError):  # the reader notices too
                    await self._writer.drain()

    def _deliver(self, outputs: list[EngineOutput]) -> None:
        """Hand each output to its session; one that has closed gets nothing."""
        for output in outputs:
            if isinstance(output, EngineLoad):
                self._load = output
            elif (served := self._sessions.get(output.session_id)) is not None:
                served.tell(served.record.tell(output))

    def _mourn(self, error: str) -> None:
        """Tell every session that its engine has died."""
        log.error("%s; starting another", error)
        if self._restarts.died(asyncio.get_running_loop().time()):
            self._give_up(f"{error}, not for the first time")
        for served in self._sessions.values():
            served.tell(served.record.lose(error, self._apology))

    async def _restart(self) -> asyncio.StreamReader:
        """Start the process again and again, until it runs. Its sessions wait as long as they can."""
        loop = asyncio.get_running_loop()
        given_up = loop.call_at(self._restarts.patient_until, self._give_up, "the engine could not be started again in time")
        try:
            while True:
                await asyncio.sleep(self._restarts.wait())
                try:
                    return await self._spawn()
                except (RuntimeError, OSError) as error:
                    log.error("the engine could not be started again: %s", error)
        finally:
            given_up.cancel()

    def _give_up(self, error: str) -> None:
        sessions, self._sessions = self._sessions, {}
        for served in sessions.values():
            served.sink(EngineFailed(error))

    def _send(self, request: Request, record: SessionRecord | None = None) -> None:
        """Queue a message for the engine; dropped while there is none, or none that knows the session: its `record` keeps what matters."""
        if self._writer is None or (record is not None and record.dead):
            return
        self._writer.write(pack(request))
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


async def _receive(reader: asyncio.StreamReader) -> object:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    message: object = pickle.loads(await reader.readexactly(length))
    return message
