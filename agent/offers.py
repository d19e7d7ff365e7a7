"""What the agent's code has asked for and waits for its moment: fixed words until nobody speaks, a use of the line until all is played."""

from collections import deque
from typing import Final

from agent.commands import Command, UseLine
from agent.events import LineRequested, WordsOffered

__all__ = ["Offers"]

_KEPT: Final = 16
"""Words, and uses of the line, that wait: more is a fault of the agent's code, and the newest are dropped."""


class Offers:
    """One session's."""

    def __init__(self) -> None:
        self._words: deque[str] = deque()
        self._lines: deque[LineRequested] = deque()

    def add(self, offer: WordsOffered | LineRequested) -> None:
        """It is to be done in its time."""
        if isinstance(offer, LineRequested):
            if len(self._lines) < _KEPT:
                self._lines.append(offer)
        elif len(self._words) < _KEPT and offer.text.strip():
            self._words.append(offer.text)

    def take_words(self) -> str | None:
        """What to say, now that nobody speaks."""
        return self._words.popleft() if self._words else None

    def take_lines(self) -> list[Command]:
        """What to do on the line, now that all that was said has been played. What still waits to be said comes first."""
        if self._words:
            return []
        lines = [UseLine(line.request_id, line.action, line.target) for line in self._lines]
        self._lines.clear()
        return [*lines]
