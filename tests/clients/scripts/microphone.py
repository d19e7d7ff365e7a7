"""A microphone for third-party clients: recordings as 24 kHz PCM16 at their own pace, silence in between.

Standard library only, since each client runs in an environment of its own. Recordings come as raw PCM16 files, made by the test.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

CHUNK_SECONDS = 0.04
CHUNK_BYTES = int(24_000 * CHUNK_SECONDS) * 2
SILENCE = bytes(CHUNK_BYTES)


class Microphone:
    """Sends one chunk every 40 ms through `send`, from the recording being played or of silence."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._pending = b""
        self._spoken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Microphone":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def say(self, recording: Path) -> None:
        """Speak a recording; returns when its last chunk has been sent."""
        self._spoken.clear()
        self._pending = recording.read_bytes()
        await self._spoken.wait()

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            chunk, self._pending = self._pending[:CHUNK_BYTES], self._pending[CHUNK_BYTES:]
            if chunk and not self._pending:
                self._spoken.set()
            await self._send(chunk.ljust(CHUNK_BYTES, b"\0") if chunk else SILENCE)
            due += CHUNK_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
