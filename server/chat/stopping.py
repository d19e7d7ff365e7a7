"""Strings that end an answer, found in text that comes in pieces. Pure."""

from collections.abc import Sequence

__all__ = ["StopWords"]


class StopWords:
    """Passes text on, up to the first of `stops`, which is left out. What may be the beginning of one waits for what follows."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        # Less than the longest stop.
        self._held = ""
        # Whether one has come: nothing follows.
        self.found = False

    def push(self, text: str) -> str:
        """What of the text so far is no part of a stop."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        """What was waiting: no stop follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
