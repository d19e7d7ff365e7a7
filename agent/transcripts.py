"""What the caller said, on its way into the conversation: which final texts are due, and what the client may be told of the words before.

A delta never precedes the event that first names its item to the client (speech_started, or committed where there are no speech events);
until then its words are withheld. What belongs to no turn is stale.
"""

from collections.abc import Container
from dataclasses import replace

from agent.commands import Command, TranscriptionCompleted, TranscriptionDelta, TranscriptionFailed, TurnHeard
from agent.history import History
from agent.items import ContentPart, Message, PartKind
from agent.prompt import is_nobodys, is_unclear
from agent.style import Spoken, style_of
from agent.turns import TurnTaker
from streaming.events import TranscriptDelta, TranscriptDone, TranscriptFailed, TranscriptProvisional

__all__ = ["Transcripts"]


class Transcripts:
    """One session's. Final texts go into the history's items, whatever the client wants to know."""

    def __init__(self, history: History, turns: TurnTaker) -> None:
        # Whether the client wants transcription events, and to be told what was heard besides words.
        self.wanted = False
        self.wants_sounds = False
        self._history = history
        self._turns = turns
        # Audio items whose final text is still to come, how long each is in seconds, and when there was speech in it.
        self._due: dict[str, tuple[float, Spoken]] = {}
        # Audio items whose words the recogniser was not sure of: as many as the conversation has items.
        self._unclear: set[str] = set()
        # The newest item in which words to be sure of were found before its end; and the one that was nobody's, if it ends in the present
        # pause.
        self._worded: str | None = None
        self._nobodys: str | None = None
        # Settled words of the open turn, while the client does not know its item: as long as the turn.
        self._withheld = ""

    def is_due(self, item_id: str) -> bool:
        """Whether the final text of this item is still to come."""
        return item_id in self._due

    @property
    def any_due(self) -> bool:
        """Whether any final text is still to come."""
        return bool(self._due)

    def is_worded(self, item_id: str) -> bool:
        """Whether words were heard in this item before its end, and were to be sure of when it last was in doubt."""
        return self._worded == item_id

    def is_nobodys(self, item_id: str) -> bool:
        """Whether nobody spoke in this item, as far as was heard up to the present pause."""
        return self._nobodys == item_id

    @property
    def unclear(self) -> Container[str]:
        """Items of the caller whose words are there and are not to be relied on."""
        return self._unclear

    def turn_changed(self) -> None:
        """Another turn begins, or the open one was none."""
        self._withheld = ""
        self._nobodys = None

    def goes_on(self) -> None:
        """The caller speaks on after a pause: what was foreseen in it is void."""
        self._nobodys = None

    def turn_named(self, item_id: str) -> list[Command]:
        """The client has been told of the turn's item: now it may have the words."""
        words, self._withheld = self._withheld, ""
        return [TranscriptionDelta(item_id, words)] if words else []

    def expect(self, item_id: str, seconds: float, spoken: Spoken) -> None:
        """The turn has ended; its final text will come."""
        self._due[item_id] = seconds, spoken

    def forget(self, item_id: str) -> None:
        """The item has been deleted."""
        self._due.pop(item_id, None)
        self._unclear.discard(item_id)

    def foresee(self, words: TranscriptProvisional) -> None:
        """What the turn says if it ends in this pause."""
        if words.item_id == self._turns.open_item_id:
            self._worded = None if is_unclear(words.text, words.confidence) else words.item_id
        self._nobodys = words.item_id if is_nobodys(words.text, words.speech) and words.at == self._turns.paused_at else None

    def settle(self, event: TranscriptDelta) -> list[Command]:
        """More words of a turn."""
        is_open = event.item_id == self._turns.open_item_id
        if (is_open or event.item_id in self._due) and not is_unclear(event.text, event.confidence):
            self._worded = event.item_id
        if not self.wanted or not (is_open or event.item_id in self._due):
            return []
        if is_open and not self._turns.told:
            self._withheld += event.text
            return []
        return [TranscriptionDelta(event.item_id, event.text)]

    def finish(self, event: TranscriptDone | TranscriptFailed) -> list[Command]:
        """The final text of a turn, or that there is none."""
        due = self._due.pop(event.item_id, None)
        if due is None:
            return []
        seconds, spoken = due
        text = event.text if isinstance(event, TranscriptDone) else ""
        if isinstance(event, TranscriptDone) and event.item_id in self._history and is_unclear(text, event.confidence):
            self._unclear.add(event.item_id)
        item = self._write(event.item_id, text)
        told = [_heard(item, event, spoken)] if isinstance(event, TranscriptDone) and item is not None and self.wants_sounds else []
        if not self.wanted:
            return [*told]
        if isinstance(event, TranscriptFailed):
            return [TranscriptionFailed(event.item_id, event.error)]
        return [TranscriptionCompleted(event.item_id, text, seconds), *told]

    def _write(self, item_id: str, text: str) -> Message | None:
        """The item's words are known; returns the item, None where it has been deleted."""
        if item_id not in self._history:
            return None
        item = self._history.find(item_id, "")
        assert isinstance(item, Message)
        self._history.replace(replace(item, content=(ContentPart(PartKind.INPUT_AUDIO, text),)))
        return item

    def fail(self, error: str) -> list[Command]:
        """The engine is gone: nothing of what is due will come."""
        return [command for item_id in tuple(self._due) for command in self.finish(TranscriptFailed(item_id, error))]


def _heard(item: Message, done: TranscriptDone, spoken: Spoken) -> TurnHeard:
    return TurnHeard(item.id, item.sounds, done.confidence, done.speech, style_of(spoken, done.text))
