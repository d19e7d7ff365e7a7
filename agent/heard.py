"""What the caller has heard of our replies: text against samples, where playback stands, and what a cut leaves.

Positions are samples at the reply's output rate, text is counted in characters. A cut never splits a word: it falls behind the last one
whose sound had ended.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agent.items import ContentPart, Item, Message, PartKind
from streaming.events import SAMPLE_RATE, AudioReady

__all__ = ["HeardReplies", "SpokenText"]


class SpokenText:
    """The text of one audio reply, the samples of its words, and how much of it has left and been played."""

    def __init__(self, rate: int, *, interruptible: bool = True) -> None:
        self.rate: Final = rate
        # Whether the caller's speech may end it.
        self.interruptible: Final = interruptible
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
        # Whether no more of it will be made.
        self.ended = False
        # Where the client says it stopped; it knows better than any estimate.
        self._truncated_at: int | None = None

    def add(self, ready: AudioReady) -> None:
        """A chunk of sound has been synthesised. One in which no word ends adds no text: what of it is heard counts with the chunk in which
        the word ends."""
        for word in ready.words:
            self._ends.append(word.end)
            self._text_ends.append(word.text_end)
        self.samples = ready.start + ready.samples
        if ready.text_end > (self._text_ends[-1] if self._text_ends else 0):
            self._ends.append(self.samples)
            self._text_ends.append(ready.text_end)

    def report(self, sent: int, played: int, now: int) -> None:
        """Playout's account at session time `now`; never goes back."""
        self.sent, self._played, self._reported_at = max(self.sent, sent), max(self._played, played), now

    def truncate(self, samples: int) -> int:
        """The client played `samples` and threw the rest away. What was cut once does not come back; returns what is left."""
        self._truncated_at = min(samples, self.samples if self._truncated_at is None else self._truncated_at)
        return self._truncated_at

    def played(self, now: int) -> int:
        """Samples heard by `now`: as the client said, else as last reported and the time since at the pace of sound, but no more than
        were sent."""
        if self._truncated_at is not None:
            return self._truncated_at
        if not self._played:
            return 0
        return min(self.sent, self._played + (now - self._reported_at) * self.rate // SAMPLE_RATE)

    def audible(self, now: int) -> bool:
        """Whether the caller is hearing it, or about to: from its first sound on, across gaps, to the end of playback."""
        if self._truncated_at is not None or not self.samples:
            return False
        return not self.ended or self.played(now) < self.samples

    def text_end(self, samples: int) -> int:
        """How many characters of the text `samples` hold: up to the end of their last whole word."""
        if samples >= self.samples and self._text_ends:
            return self._text_ends[-1]
        word = bisect_right(self._ends, samples)
        return self._text_ends[word - 1] if word else 0

    def milliseconds(self, samples: int) -> int:
        """Samples of this reply as milliseconds."""
        return samples * 1_000 // self.rate


class HeardReplies:
    """The conversation's audio replies, as far as they were heard. Holds as many as the conversation has items."""

    def __init__(self) -> None:
        # By item.
        self._spoken: dict[str, SpokenText] = {}
        # Items by response, of the replies whose sound may still be playing; several, where one began before another was played out.
        self._sounding: dict[str, str] = {}
        self._cut: dict[str, str] = {}
        # Items by response, of the replies that were stopped and that the client has not truncated.
        self._stopped: dict[str, str] = {}
        # Rises with every change of `cut`.
        self.version = 0

    @property
    def cut(self) -> Mapping[str, str]:
        """What was heard of the replies that were cut short, by item."""
        return self._cut

    def begin(self, response_id: str, item_id: str, spoken: SpokenText) -> None:
        """A reply has its message item; its sound will come. Nothing where it has begun before."""
        if item_id not in self._spoken:
            self._spoken[item_id] = spoken
            self._sounding[response_id] = item_id

    def spoken(self, item_id: str) -> SpokenText | None:
        """The words and sound of an item; None for anything but an audio reply."""
        return self._spoken.get(item_id)

    def report(self, response_id: str, sent: int, played: int, now: int) -> None:
        """Playout's account of a reply that has been made and sent; the last one says that it has been played."""
        item_id = self._sounding.get(response_id)
        if item_id is not None:
            self._spoken[item_id].report(sent, played, now)
            self.settle(response_id, now)

    def settle(self, response_id: str, now: int) -> None:
        """No more of this reply is made: it is forgotten here as soon as it has been played."""
        item_id = self._sounding.get(response_id)
        if item_id is None:
            return
        self._spoken[item_id].ended = True
        if not self._spoken[item_id].audible(now):
            del self._sounding[response_id]

    def audible(self, now: int) -> list[str]:
        """The responses whose sound the caller is hearing or about to hear, oldest first."""
        return [response_id for response_id, item_id in self._sounding.items() if self._spoken[item_id].audible(now)]

    def interruptible(self, now: int) -> list[str]:
        """Those of the audible responses that the caller's speech may end."""
        return [response_id for response_id in self.audible(now) if self._spoken[self._sounding[response_id]].interruptible]

    def sounding(self, now: int) -> tuple[str, SpokenText] | None:
        """The response that the caller is hearing, or about to hear, and its words; the newest of several."""
        audible = self.audible(now)
        return (audible[-1], self._spoken[self._sounding[audible[-1]]]) if audible else None

    def stop(self, response_id: str, now: int, *, flushed: bool = True) -> None:
        """The reply ends here: it counts as said as far as it was heard by `now`, or as sent, where the client plays out what it has."""
        item_id = self._sounding.pop(response_id, None)
        if item_id is not None:
            spoken = self._spoken[item_id]
            self._stopped[response_id] = item_id
            self._keep(item_id, spoken.played(now) if flushed else spoken.sent)

    def stopped_at(self, response_id: str, now: int) -> tuple[str, int] | None:
        """The item of a reply that was stopped, and how many milliseconds of it were heard."""
        item_id = self._stopped.get(response_id)
        if item_id is None:
            return None
        spoken = self._spoken[item_id]
        return item_id, spoken.milliseconds(spoken.played(now))

    def acknowledge(self, response_id: str, played_ms: int) -> None:
        """The client has played so much of a reply. Of one that was stopped, which it still played while the word of that was on its way,
        more was heard than was known."""
        item_id = self._stopped.get(response_id)
        if item_id is None:
            return
        spoken = self._spoken[item_id]
        samples = min(spoken.sent, played_ms * spoken.rate // 1_000)
        if spoken.text_end(samples) > len(self._cut[item_id]):
            self._keep(item_id, samples)

    def truncate(self, item_id: str, samples: int) -> None:
        """The client says how much of it was heard."""
        self._stopped = {response_id: stopped for response_id, stopped in self._stopped.items() if stopped != item_id}
        self._keep(item_id, self._spoken[item_id].truncate(samples))

    def forget(self, item_id: str) -> None:
        """The item has been deleted."""
        self._spoken.pop(item_id, None)
        self._cut.pop(item_id, None)
        self.version += 1
        self._sounding = {response_id: sounding for response_id, sounding in self._sounding.items() if sounding != item_id}
        self._stopped = {response_id: stopped for response_id, stopped in self._stopped.items() if stopped != item_id}

    def as_heard(self, item: Item) -> Item:
        """The item with the words that were heard, where it is a reply that was cut short."""
        if not isinstance(item, Message) or item.id not in self._cut:
            return item
        return replace(item, content=(ContentPart(PartKind.OUTPUT_AUDIO, self._cut[item.id]),))

    def _keep(self, item_id: str, samples: int) -> None:
        spoken = self._spoken[item_id]
        self._cut[item_id] = spoken.text[: spoken.text_end(samples)]
        self.version += 1
