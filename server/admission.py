"""Whether one more call fits, by what the present ones cost. Pure: times are seconds of one monotonic clock.

The engine measures itself over some seconds and reports twice a second, so a measure says nothing of the calls that came after it: until
they are old enough they count as the others do on average, and for a least share where those do little. The first call always fits.
"""

from collections import deque
from typing import Final

from server.auth import Refusal
from streaming.doors import EngineLoad

__all__ = ["Admission"]

_LAG: Final = 5.0
"""Seconds until a call is in the measure: the engine's window is four, and reports come every half second."""
_LEAST_SHARE: Final = 0.12
"""What a new call counts as at least: eight of them fill an engine that has measured nothing yet."""
_COME_BACK: Final = 5
"""Seconds after which a refused caller may try again: the measure has then seen who is there."""


class Admission:
    """Told of every admission; asked before it."""

    def __init__(self, max_busy: float) -> None:
        self._max_busy = max_busy
        # When the calls of the last seconds were admitted; bounded by the sessions a server takes.
        self._admitted: deque[float] = deque()

    def admitted(self, now: float) -> None:
        """A call has been taken."""
        self._admitted.append(now)

    def refuses(self, load: EngineLoad | None, calls: int, now: float) -> Refusal | None:
        """Why not one more beside `calls` others, None if it fits."""
        while self._admitted and self._admitted[0] <= now - _LAG:
            self._admitted.popleft()
        if not calls or self._expected(load, calls) <= self._max_busy:
            return None
        held = "1 call is" if calls == 1 else f"{calls} calls are"
        message = f"The engine has no room for another call: {held} held. Try again in {_COME_BACK} seconds."
        return Refusal(503, "engine_busy", message, _COME_BACK)

    def _expected(self, load: EngineLoad | None, calls: int) -> float:
        """How busy the engine would be with one more like the present ones."""
        share = load.busy / max(1, load.sessions) if load is not None else 0.0
        # Some of the new ones may have left again.
        new = min(calls, len(self._admitted))
        return share * (calls - new) + max(share, _LEAST_SHARE) * new + share
