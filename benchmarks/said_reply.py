"""One reply of a simulated call (`benchmarks.simulated_call`): what was made, sent and heard of it."""

from dataclasses import dataclass, field
from typing import Final

from streaming.events import AudioReady

__all__ = ["RATE", "SaidReply"]

RATE: Final = 24_000
"""Samples a second on the wire, both ways."""


@dataclass(slots=True)
class SaidReply:
    """Samples at 24 kHz, times in seconds since the call began."""

    response_id: str
    text: str = ""
    pcm: list[int] = field(default_factory=list)
    # Ends of words, in samples and in characters of the text.
    ends: list[tuple[int, int]] = field(default_factory=list)
    item_id: str = ""
    sent: int = 0
    given: str = ""
    # Whether words have left whose sound has not.
    ahead: bool = False
    # Its sound on the loudspeaker, as (start, samples), and whether the rest was thrown away.
    played: list[tuple[float, int]] = field(default_factory=list)
    flushed: bool = False
    # Whether the server has been told of that.
    truncated: bool = False
    # What the model is told of it, as of the last quiet point; "" where it is no part of the conversation.
    believed: str = ""
    # What `conversation.item.retrieve` gives, as of the last quiet point; and right after the truncation was confirmed.
    retrieved: str = ""
    retrieved_after_truncation: str | None = None

    def add(self, ready: AudioReady) -> None:
        """Sound was made. Text that ends without a word's end counts where the chunk ends."""
        self.ends += [(word.end, word.text_end) for word in ready.words]
        if ready.text_end > (self.ends[-1][1] if self.ends else 0):
            self.ends.append((ready.start + ready.samples, ready.text_end))

    def words_within(self, samples: float) -> str:
        """The text whose sound has ended after so many samples."""
        if samples >= len(self.pcm):
            samples = len(self.pcm)
        return self.text[: max((text_end for end, text_end in self.ends if end <= samples), default=0)]

    def play(self, start: float, samples: int) -> None:
        """So much more of it will sound from `start` on."""
        self.played.append((start, samples))

    def sounds(self, now: float) -> bool:
        """Whether it sounds, or is about to."""
        return not self.flushed and any(start + samples / RATE > now for start, samples in self.played)

    def flush(self, now: float) -> None:
        """Its rest is thrown away."""
        self.played = [(chunk[0], _played_of(chunk, now)) for chunk in self.played]
        self.flushed = True

    def heard_samples(self, now: float) -> int:
        """What the loudspeaker has played of it."""
        return sum(_played_of(chunk, now) for chunk in self.played)

    def sound_of(self, text: str) -> int:
        """The sample at which the last word of `text`, a beginning of its text, has been said."""
        return max((end for end, text_end in self.ends if text_end <= len(text)), default=0)


def _played_of(chunk: tuple[float, int], now: float) -> int:
    start, samples = chunk
    # A billionth of a second is floating point, not sound.
    return min(samples, max(0, int((now - start + 1e-9) * RATE)))
