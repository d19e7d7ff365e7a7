"""Server-sent events, as chat endpoints stream them (WHATWG HTML, 9.2): bytes in, the data of whole events out. Pure; bounded."""

from typing import Final

from server.upstream.errors import UpstreamError

__all__ = ["EventParser"]

_LONGEST: Final = 1 << 20
"""Bytes of one event: a chunk of a reply has hundreds, a whole call of a tool some thousands."""


class EventParser:
    """`push` what has come, cut anywhere. Raises UpstreamError for an event that is too long or no UTF-8."""

    def __init__(self) -> None:
        # The line that has no end yet, and the data lines of the event that has none.
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def push(self, received: bytes) -> list[str]:
        """The data of the events that are complete."""
        events: list[str] = []
        *lines, rest = received.split(b"\n")
        for line in lines:
            self._line += line
            if (event := self._take(bytes(self._line))) is not None:
                events.append(event)
            self._line.clear()
        self._line += rest
        if len(self._line) + self._size > _LONGEST:
            raise UpstreamError(f"it sent a line of more than {_LONGEST >> 20} MiB")
        return events

    def _take(self, line: bytes) -> str | None:
        """A whole line; gives the event that it ends."""
        line = line.removesuffix(b"\r")
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":  # comments keep the connection open; ids and names of events say nothing here
                self._data.append(value.removeprefix(b" "))
                self._size += len(value)
            return None
        data, self._data, self._size = self._data, [], 0
        if not data:
            return None
        try:
            return b"\n".join(data).decode()
        except UnicodeDecodeError:
            raise UpstreamError("it sent what is no text") from None
