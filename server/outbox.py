"""Events waiting to leave for one client: bounded in bytes, in order, and audio that was cut can be taken back."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

__all__ = ["Outbox", "OutboxFullError"]

_AUDIO_ROOM: Final = 2
"""Audio deltas that may wait: while the transport is slow, sound stays in playout, where it can still be cut."""


class OutboxFullError(Exception):
    """The client has not read for too long."""


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    audio_of: str | None


class Outbox:
    """Filled by the session, emptied by its writer."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._audio = 0
        self._filled = asyncio.Event()
        # Set while nothing waits and the writer holds nothing.
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting_bytes(self) -> int:
        """Bytes not yet taken by the writer."""
        return self._bytes

    @property
    def has_audio_room(self) -> bool:
        """Whether another audio delta may be put."""
        return self._audio < _AUDIO_ROOM

    def put(self, text: str, audio_of: str | None = None) -> None:
        """Queue an event (ASCII JSON); `audio_of` names the response whose sound it is. Raises OutboxFullError."""
        if self._bytes + len(text) > self._max_bytes:
            raise OutboxFullError(f"{self._bytes} bytes wait for the client")
        self._entries.append(_Entry(text, audio_of))
        self._bytes += len(text)
        self._audio += audio_of is not None
        self._filled.set()
        self._empty.clear()

    def drop_audio(self, response_id: str) -> int:
        """Take back the waiting sound of a response; returns how many deltas that were."""
        kept = deque(entry for entry in self._entries if entry.audio_of != response_id)
        dropped = len(self._entries) - len(kept)
        self._entries = kept
        self._bytes = sum(len(entry.text) for entry in kept)
        self._audio -= dropped
        return dropped

    async def get(self) -> str:
        """The next event; waits for one. Calling it again says that the last one has been handed to the transport."""
        while not self._entries:
            self._empty.set()
            self._filled.clear()
            await self._filled.wait()
        entry = self._entries.popleft()
        self._bytes -= len(entry.text)
        self._audio -= entry.audio_of is not None
        return entry.text

    async def drained(self) -> None:
        """Returns when everything has been handed to the transport."""
        await self._empty.wait()
