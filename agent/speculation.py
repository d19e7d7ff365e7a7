"""The reply that is prepared at a pause, before it is known whether the turn ends there.

What the engine tells of it is withheld here, so that until it is adopted nothing of it reaches the client, the history or playout. It is
good for one pause, one text and one belief of the conversation; as soon as any of them has changed it is dropped.
"""

from dataclasses import dataclass, field
from typing import Final

from agent.commands import Command
from agent.prompt import is_unclear
from agent.responses import Responses
from agent.settings import SessionSettings
from agent.turns import TurnEnded, TurnTaker
from streaming.events import (
    AudioReady,
    Drop,
    FinishReason,
    ResponseFinished,
    Speculate,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
    TranscriptProvisional,
)

__all__ = ["Speculation", "Speculator"]

_Withheld = TextDelta | AudioReady | ToolArgumentsDelta | ToolCallReady | ResponseFinished
"""What an engine tells of a reply."""

_FREE: Final = ("auto", "none")
"""Tool choices that leave the model free to speak; a forced call is never speculated about."""


_MOST_WITHHELD: Final = 1_000
"""What is kept of one: a clause and its sound, or a short reply, are tens of events. More is a fault of the engine."""


@dataclass(slots=True)
class Speculation:
    """One that is under way. `basis` is what the reply is made from besides the words: equal as long as the same reply would be made."""

    response_id: str
    words: TranscriptProvisional
    basis: tuple[object, ...]
    # What has been told of it, in order.
    withheld: list[_Withheld] = field(default_factory=list)
    # It came to nothing that may be adopted: the reply is made after the turn.
    failed: bool = False


class Speculator:
    """One session's: at most one at a time, and each ends in one `Adopt` or `Drop`."""

    def __init__(self, turns: TurnTaker, responses: Responses) -> None:
        self._turns = turns
        self._responses = responses
        self._current: Speculation | None = None
        # What was withheld of the one that has just become a reply.
        self._released: list[_Withheld] = []

    def hear_out(self, words: TranscriptProvisional, note: str, settings: SessionSettings, basis: tuple[object, ...]) -> list[Command]:
        """What the turn says if it ends in this pause: the reply to that, with the `note` behind it, is prepared where there may be one."""
        if words.item_id != self._turns.open_item_id or words.at != self._turns.paused_at:
            return []  # late: the caller has gone on
        if self._current is not None and self._current.words.text == words.text:
            return []
        dropped = self.drop()
        prepared = self._responses.prepare(settings) if not is_unclear(words.text, words.confidence) and _speculates(settings) else None
        if prepared is None:
            return dropped
        response_id, options = prepared
        self._current = Speculation(response_id, words, basis)
        return [*dropped, Speculate(response_id, words.item_id, words.text + note, options)]

    def withhold(self, event: _Withheld) -> bool:
        """Whether the engine tells of the reply that is being prepared: that is kept back. With a call of a tool, which would be a side
        effect, or an error there is nothing to adopt."""
        current = self._current
        if current is None or event.response_id != current.response_id:
            return False
        match event:
            case ToolArgumentsDelta() | ToolCallReady():
                current.failed = True
            case ResponseFinished(_, reason) if reason not in (FinishReason.STOP, FinishReason.LENGTH):
                current.failed = True
            case _ if len(current.withheld) >= _MOST_WITHHELD:
                current.failed = True
            case _:
                current.withheld.append(event)
        return True

    def drop_stale(self, basis: tuple[object, ...]) -> list[Command]:
        """Drop the reply that is being prepared if it would not be made any more."""
        current = self._current
        if current is None:
            return []
        words = current.words
        good = words.item_id == self._turns.open_item_id and words.at == self._turns.paused_at and current.basis == basis
        return [] if good and not current.failed else self.drop()

    def take(self, turn: TurnEnded, basis: tuple[object, ...]) -> Speculation | None:
        """The reply that was prepared for this turn, if it is the one that is wanted; one that is not is stale. It is to be begun, and then
        told what `release` gives."""
        current = self._current
        if current is None or not turn.detected or current.words.item_id != turn.item_id or current.basis != basis:
            return None
        self._current, self._released = None, current.withheld
        return current

    def release(self) -> list[_Withheld]:
        """What was withheld of the reply that has just begun, in order: to be told now, as if the engine had."""
        released, self._released = self._released, []
        return released

    def drop(self) -> list[Command]:
        """The reply that is being prepared is not wanted."""
        current, self._current = self._current, None
        return [] if current is None else [Drop(current.response_id)]


def _speculates(settings: SessionSettings) -> bool:
    """Whether a session with these settings prepares replies: those it makes by itself, in words, without asking the agent's code."""
    return settings.speculation and settings.answers_turns and not settings.asks_agent and settings.tool_choice.mode in _FREE
