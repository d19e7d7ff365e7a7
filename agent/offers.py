"""What the agent's code has asked for and waits for its moment: fixed words until nobody speaks, a use of the line or the
end of the call until all is played."""

from collections import deque
from typing import Final

from agent.commands import Command, EndCall, UseLine
from agent.events import LineRequested, WordsOffered

__all__ = ["Offers"]

_KEPT: Final = 16
"""Words, and uses of the line, that wait: more is a fault of the agent's code, and the newest are dropped."""


class Offers:
    """One session's."""

    def __init__(self) -> None:
        self._words: deque[str] = deque()
        self._lines: deque[LineRequested] = deque()
        # Why the call is to end; None while it is not. Nothing is begun any more but what was offered before.
        self.ending: str | None = None
        self._ended = False

    def add(self, offer: WordsOffered | LineRequested) -> None:
        """It is to be done in its time."""
        if isinstance(offer, LineRequested):
            if len(self._lines) < _KEPT:
                self._lines.append(offer)
        elif len(self._words) < _KEPT and offer.text.strip() and self.ending is None:
            self._words.append(offer.text)

    def end(self, reason: str, goodbye: str) -> None:
        """The call is to end, with these words. Nothing where it is ending already."""
        if self.ending is None:
            self.add(WordsOffered(goodbye))
            self.ending = reason

    def take_words(self) -> str | None:
        """What to say, now that nobody speaks."""
        return self._words.popleft() if self._words else None

    def take_lines(self) -> list[Command]:
        """What to do on the line, now that all that was said has been played. What still waits to be said comes first."""
        if self._words:
            return []
        lines: list[Command] = [UseLine(line.request_id, line.action, line.target) for line in self._lines]
        self._lines.clear()
        if self.ending is not None and not self._ended:
            self._ended = True
            lines.append(EndCall(self.ending))
        return lines
