"""How much of its time a worker works, over the last seconds."""

from collections import deque
from typing import Final

from streaming.doors import EngineLoad

__all__ = ["LoadMeter"]

_SECONDS: Final = 4.0
"""Over which load is measured: a question and its answer."""

_EVERY: Final = 0.5
"""Seconds between reports."""


class LoadMeter:
    """Told when the worker worked; times are seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        # Stretches of work (begun, ended), oldest first: those of the last seconds.
        self._stretches: deque[tuple[float, float]] = deque()
        self._worked = 0.0
        self._started = now
        self._reported_at = now
        self._reported: EngineLoad | None = None

    def busy(self, now: float) -> float:
        """Share of the last seconds spent working, 0.0 to 1.0; of fewer where it has not been here for as long."""
        while self._stretches and self._stretches[0][1] < now - _SECONDS:
            begun, ended = self._stretches.popleft()
            self._worked -= ended - begun
        return min(1.0, self._worked / max(_EVERY, min(_SECONDS, now - self._started)))

    def worked(self, begun: float, ended: float, *, counts: bool = True) -> None:
        """The worker worked; `counts` False for what would not have been done had there been anything else."""
        if counts:
            self._stretches.append((begun, ended))
            self._worked += ended - begun

    def report(self, now: float, sessions: int) -> EngineLoad | None:
        """The load, where half a second has passed and it is another than the last time."""
        if now - self._reported_at < _EVERY:
            return None
        self._reported_at = now
        load = EngineLoad(round(self.busy(now), 2), sessions)
        if load == self._reported:
            return None
        self._reported = load
        return load
