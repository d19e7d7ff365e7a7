"""`idle_timeout_ms` of server_vad: how long the caller may say nothing after a reply has been played out (protocols.md 1.8 F)."""

from streaming.events import SAMPLE_RATE

__all__ = ["IdleTimer"]


class IdleTimer:
    """Counts session time, while it is the caller's turn to speak and nothing of ours sounds."""

    def __init__(self) -> None:
        # When the timeout is over; None while it does not run.
        self.deadline: int | None = None
        self._since: int | None = None

    def watch(self, timeout_ms: int | None, *, waiting: bool, now: int) -> None:
        """`waiting` says whether, as of `now`, the caller is to speak and can hear nothing of us. `timeout_ms` None is no timeout."""
        if not waiting or timeout_ms is None:
            self._since = self.deadline = None
            return
        if self._since is None:
            self._since = now
        self.deadline = self._since + timeout_ms * SAMPLE_RATE // 1_000

    def expired(self, now: int) -> bool:
        """Whether the caller has been silent for as long as the client allows."""
        return self.deadline is not None and now >= self.deadline
