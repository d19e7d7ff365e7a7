"""What the caller has heard of a reply: its text against its samples, and where playback stands now.

Positions are samples at the reply's output rate, text is counted in characters. A cut never splits a word: it falls behind the last one
whose sound had ended.
"""

from bisect import bisect_right
from typing import Final

from streaming.events import SAMPLE_RATE, AudioReady

__all__ = ["SpokenText"]


class SpokenText:
    """The text of one audio reply, the samples of its words, and how much of it has left and been played."""

    def __init__(self, rate: int) -> None:
        self.rate: Final = rate
        # The reply's text so far, and how many samples have been synthesised of it.
        self.text = ""
        self.samples = 0
        # Ends of words, in samples and in characters, both rising.
        self._ends: list[int] = []
        self._text_ends: list[int] = []
        # Playback as last reported, and when.
        self.sent = 0
        self._played = 0
        self._reported_at = 0

    def add(self, ready: AudioReady) -> None:
        """A clause has been synthesised."""
        for word in ready.words:
            self._ends.append(word.end)
            self._text_ends.append(word.text_end)
        self.samples = ready.start + ready.samples
        if not self._ends or self._text_ends[-1] < ready.text_end:
            self._ends.append(self.samples)
            self._text_ends.append(ready.text_end)

    def report(self, sent: int, played: int, now: int) -> None:
        """Playout's account at session time `now`."""
        self.sent, self._played, self._reported_at = sent, played, now

    def played(self, now: int) -> int:
        """Samples heard by `now`: as last reported, and the time since at the pace of sound, but no more than were sent."""
        if not self._played:
            return 0
        return min(self.sent, self._played + (now - self._reported_at) * self.rate // SAMPLE_RATE)

    def audible(self, now: int) -> bool:
        """Whether the caller is hearing it, or about to."""
        return self.played(now) < self.samples

    def text_end(self, samples: int) -> int:
        """How many characters of the text `samples` hold: up to the end of their last whole word."""
        if samples >= self.samples and self._text_ends:
            return self._text_ends[-1]
        word = bisect_right(self._ends, samples)
        return self._text_ends[word - 1] if word else 0

    def milliseconds(self, samples: int) -> int:
        """Samples of this reply as milliseconds."""
        return samples * 1_000 // self.rate
