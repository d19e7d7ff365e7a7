"""When a dead engine is started again, and when its sessions are given up. Pure: times are seconds of one monotonic clock."""

from collections import deque
from dataclasses import dataclass

__all__ = ["RestartOptions", "Restarts"]


@dataclass(frozen=True, slots=True)
class RestartOptions:
    """The first restart is at once, then `first_wait` seconds after the last attempt, twice as long each time, at most `longest_wait`; an
    engine that has lived for `sound_after` seconds begins anew. Sessions are given up when it has died `deaths` times within `within`
    seconds (one of them may be what kills it), or has not come back after `patience`: what the caller says is kept no longer than that."""

    first_wait: float = 1.0
    longest_wait: float = 30.0
    sound_after: float = 60.0
    deaths: int = 3
    within: float = 60.0
    patience: float = 30.0


class Restarts:
    """Told of deaths and starts."""

    def __init__(self, options: RestartOptions) -> None:
        self._options = options
        # Attempts since the engine was last sound.
        self._attempts = 0
        self._started = 0.0
        self._died: deque[float] = deque(maxlen=options.deaths)

    def started(self, now: float) -> None:
        """The engine runs."""
        self._started = now

    def died(self, now: float) -> bool:
        """The engine has died. Returns whether its sessions are to be given up."""
        options = self._options
        if now - self._started >= options.sound_after:
            self._attempts = 0
        self._died.append(now)
        return len(self._died) == options.deaths and now - self._died[0] <= options.within

    @property
    def patient_until(self) -> float:
        """When its sessions are to be given up unless it runs again; only after a death."""
        return self._died[-1] + self._options.patience

    def wait(self) -> float:
        """Seconds before the next attempt, which this counts."""
        attempts, self._attempts = self._attempts, self._attempts + 1
        return min(self._options.longest_wait, self._options.first_wait * 2.0 ** min(attempts - 1, 30)) if attempts else 0.0
