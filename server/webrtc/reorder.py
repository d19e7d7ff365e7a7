"""RTP packets in the order of their numbers, as soon as they are there. Pure: time is an argument, in seconds.

A listening machine needs no jitter buffer. It plays nothing out, so a packet that comes in order is heard at once, however unevenly packets
come; only one that follows a gap waits, for the missing one to come late, and not for long. (The library's own buffer holds four packets
always, and sixteen from the first loss on: 80 and 320 ms.)
"""

from typing import Final, Generic, TypeVar

__all__ = ["ReorderBuffer"]

_Packet = TypeVar("_Packet")

_HELD: Final = 3
"""Packets that may wait behind a gap: with the usual 20 ms, what comes 60 ms late is still heard in its place."""
_NEW_STREAM: Final = 1_000
"""A jump of so many numbers, 20 s, is another stream."""
_BEHIND: Final = 1 << 15


class ReorderBuffer(Generic[_Packet]):
    """One stream of packets, numbered modulo 2^16."""

    def __init__(self) -> None:
        self._next: int | None = None
        # By number: packets that wait behind a gap, and when they came.
        self._held: dict[int, tuple[_Packet, float]] = {}
        # Packets that never came in time, and those that came too late or twice.
        self.lost = 0
        self.late = 0
        # Seconds that each of the packets returned last has waited.
        self.waits: list[float] = []

    def push(self, number: int, packet: _Packet, now: float) -> list[_Packet]:
        """What can be used now, in order."""
        self.waits = []
        if self._next is None:
            self._next = number
        ahead = (number - self._next) & 0xFFFF
        released: list[_Packet] = []
        if _NEW_STREAM < ahead < (1 << 16) - _NEW_STREAM:
            released = self.flush(now)
            self._next, ahead = number, 0
        if ahead >= _BEHIND or number in self._held:
            self.late += 1
            return released
        self._held[number] = (packet, now)
        released += self._in_order(now)
        while len(self._held) > _HELD:
            released += self._over_gap(now)
        return released

    def flush(self, now: float) -> list[_Packet]:
        """Everything that waits; what is missing between is lost."""
        released: list[_Packet] = []
        while self._held:
            released += self._over_gap(now)
        return released

    def _over_gap(self, now: float) -> list[_Packet]:
        assert self._next is not None
        expected = self._next
        missing = min((number - expected) & 0xFFFF for number in self._held)
        self.lost += missing
        self._next = (expected + missing) & 0xFFFF
        return self._in_order(now)

    def _in_order(self, now: float) -> list[_Packet]:
        released: list[_Packet] = []
        while self._next in self._held:
            packet, came = self._held.pop(self._next)
            self.waits.append(now - came)
            released.append(packet)
            self._next = (self._next + 1) & 0xFFFF
        return released
