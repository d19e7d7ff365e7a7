"""Further clients of a call, each over a WebSocket (`/v1/realtime?call_id=`): they see its events and may send requests, its sound is not
theirs.
"""

import asyncio
import json
from collections import deque
from typing import Final

__all__ = ["Sideband", "Sidebands"]

_MAX_BYTES: Final = 4 << 20
"""Events waiting for one that does not read; then it is let go, and the call goes on."""
_MAX_SIDEBANDS: Final = 8
"""On one call at once."""
_SESSION_EVENTS: Final = ('"type":"session.created"', '"type":"session.updated"')


class Sideband:
    """Filled by the call, emptied by the writer of the socket."""

    def __init__(self) -> None:
        self._events: deque[str] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        # Whether nothing more will come: the call has ended, or this client has not read.
        self.ended = False

    def put(self, text: str) -> None:
        """An event of the call."""
        if self._bytes + len(text) > _MAX_BYTES:
            self.ended = True
            self._events.clear()
        elif not self.ended:
            self._events.append(text)
            self._bytes += len(text)
        self._changed.set()

    def end(self) -> None:
        """The call has ended; what waits may still be read."""
        self.ended = True
        self._changed.set()

    async def get(self) -> str | None:
        """The next event; None after the last one."""
        while not self._events:
            if self.ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        text = self._events.popleft()
        self._bytes -= len(text)
        return text


class Sidebands:
    """Those of one call."""

    def __init__(self) -> None:
        self._all: list[Sideband] = []
        # The session as it was last told: a client that comes later begins with it.
        self._session = ""

    def attach(self) -> Sideband | None:
        """Another client; None where there are too many."""
        if len(self._all) >= _MAX_SIDEBANDS:
            return None
        sideband = Sideband()
        if self._session:
            sideband.put(_as_created(self._session))
        self._all.append(sideband)
        return sideband

    def detach(self, sideband: Sideband) -> None:
        """It has gone."""
        if sideband in self._all:
            self._all.remove(sideband)

    def put(self, text: str) -> None:
        """An event of the call, as it goes to the caller."""
        if any(text.startswith(kind, text.find('"type"')) for kind in _SESSION_EVENTS):
            self._session = text
        for sideband in self._all:
            sideband.put(text)
        self._all = [sideband for sideband in self._all if not sideband.ended]

    def end(self) -> None:
        """The call is over."""
        for sideband in self._all:
            sideband.end()
        self._all.clear()


def _as_created(text: str) -> str:
    """The first event of a Realtime socket is `session.created`, whatever the session has become since."""
    event = json.loads(text)
    return json.dumps(event | {"event_id": event["event_id"] + "_again", "type": "session.created"}, separators=(",", ":"))
