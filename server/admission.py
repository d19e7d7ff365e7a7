"""Whether one more call fits, by what the present ones cost. Pure: times are seconds of one monotonic clock.

The engine measures itself over some seconds and reports twice a second, so a measure says nothing of the calls that came after it: until
they are old enough they count as the others do on average, and for a least share where those do little. The first call always fits.
"""

from collections.abc import Hashable
from typing import Final

from server.auth import Refusal
from streaming.doors import EngineLoad

__all__ = ["ENGINE_RESTARTING", "SHUTTING_DOWN", "Admission"]

ENGINE_RESTARTING: Final = Refusal(
    503, "engine_restarting", "The engine has stopped and is being started again; try again in some seconds.", 5
)

SHUTTING_DOWN: Final = Refusal(503, "server_shutting_down", "The server is shutting down.", 30)

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
        # When calls that are held were admitted, those of the last seconds.
        self._admitted: dict[Hashable, float] = {}

    def admitted(self, call: Hashable, now: float) -> None:
        """A call has been taken."""
        self._admitted[call] = now

    def left(self, call: Hashable) -> None:
        """A call has ended."""
        self._admitted.pop(call, None)

    def refuses(self, load: EngineLoad | None, calls: int, now: float) -> Refusal | None:
        """Why not one more beside `calls` others, None if it fits."""
        self._admitted = {call: at for call, at in self._admitted.items() if at > now - _LAG}
        if not calls or self._expected(load, calls) <= self._max_busy:
            return None
        held = "1 call is" if calls == 1 else f"{calls} calls are"
        message = f"The engine has no room for another call: {held} held. Try again in {_COME_BACK} seconds."
        return Refusal(503, "engine_busy", message, _COME_BACK)

    def _expected(self, load: EngineLoad | None, calls: int) -> float:
        """How busy the engine would be with one more like the present ones."""
        if load is None:  # of a new engine: nothing is known of any call
            return calls * _LEAST_SHARE
        share = load.busy / max(1, load.sessions)
        new = min(calls, len(self._admitted))
        return share * (calls - new) + max(share, _LEAST_SHARE) * new + share
