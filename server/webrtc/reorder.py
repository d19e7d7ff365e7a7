"""RTP packets in the order of their numbers, as soon as they are there. Pure: time is an argument, in seconds.

A listening machine needs no jitter buffer. It plays nothing out, so a packet that comes in order is heard at once, however unevenly packets
come; only one that follows a gap waits, for the missing one to come late, and not for long. (The library's own buffer holds four packets
always, and sixteen from the first loss on: 80 and 320 ms.) Where packets overtake each other by more, the wait grows with what has been
seen to come late, and shrinks again when nothing has for a while.
"""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["ReorderBuffer"]

_Packet = TypeVar("_Packet")

_HELD: Final = 3
"""Packets that are sent after a missing one before it is given up: with the usual 20 ms, what comes 60 ms late is still heard in its
place."""
_MOST_HELD: Final = 12
"""The same where packets have come so late: 240 ms."""
_CALM: Final = 500
"""Packets, 10 s, without a late one, after which one less may wait."""
_NEW_STREAM: Final = 1_000
"""A jump of so many numbers, 20 s, is another stream."""
_BEHIND: Final = 1 << 15
_REMEMBERED: Final = 64
"""Numbers given up for lost that are still known when they come after all."""


class ReorderBuffer(Generic[_Packet]):
    """One stream of packets, numbered modulo 2^16."""

    def __init__(self) -> None:
        self._next: int | None = None
        # By number: packets that wait behind a gap, and when they came.
        self._held: dict[int, tuple[_Packet, float]] = {}
        # For how many others a missing one is waited for, and packets since the last one that was late.
        self._patience = _HELD
        self._calm = 0
        # Numbers given up, the oldest first.
        self._given_up: OrderedDict[int, None] = OrderedDict()
        # Packets that never came in time; of them, those that came too late; and those that came twice.
        self.lost = 0
        self.late = 0
        self.repeated = 0
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
            self._refuse(number)
            return released
        self._held[number] = (packet, now)
        released += self._in_order(now)
        while self._held and max((held - self._next) & 0xFFFF for held in self._held) > self._patience:
            released += self._over_gap(now)
        self._calm_down()
        return released

    def flush(self, now: float) -> list[_Packet]:
        """Everything that waits; what is missing between is lost."""
        self.waits = []
        released: list[_Packet] = []
        while self._held:
            released += self._over_gap(now)
        return released

    def _refuse(self, number: int) -> None:
        """A packet whose place has passed; of those that follow it, so many should have waited."""
        if number not in self._given_up:
            self.repeated += 1
            return
        del self._given_up[number]
        self.late += 1
        self._calm = 0
        assert self._next is not None
        following = ((self._next - number) & 0xFFFF) + len(self._held)
        self._patience = max(self._patience, min(following, _MOST_HELD))

    def _calm_down(self) -> None:
        self._calm += 1
        if self._calm >= _CALM:
            self._calm = 0
            self._patience = max(self._patience - 1, _HELD)

    def _over_gap(self, now: float) -> list[_Packet]:
        assert self._next is not None
        expected = self._next
        missing = min((number - expected) & 0xFFFF for number in self._held)
        self.lost += missing
        for step in range(max(0, missing - _REMEMBERED), missing):
            self._given_up[(expected + step) & 0xFFFF] = None
        while len(self._given_up) > _REMEMBERED:
            self._given_up.popitem(last=False)
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
