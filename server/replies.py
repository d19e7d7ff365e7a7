"""The replies one session has ordered of the engine: how many are being made, and what became of those that were prepared ahead."""

from typing import Final, Literal, Protocol

from streaming.events import Adopt, Drop, EngineOrder, Respond, ResponseFinished, Say, Speculate

__all__ = ["Outcome", "Replies", "SpeculationObserver"]

_DROPPED: Final = 8
"""Dropped speculations whose end is awaited. The engine ends each within a few steps; there are seldom two."""

Outcome = Literal["adopted", "dropped"]


class SpeculationObserver(Protocol):
    """Who wants to know what speculation brings and costs."""

    def speculated(self, outcome: Outcome) -> None:
        """A speculation has been decided."""

    def wasted(self, tokens: int) -> None:
        """A dropped one had decoded so many tokens."""


class Replies:
    """A speculation counts as being made from its adoption on: until then nobody waits for it."""

    def __init__(self, observer: SpeculationObserver) -> None:
        self._observer = observer
        # Ordered or adopted, and not finished.
        self._running: set[str] = set()
        # The speculation that is not decided yet, and its end where it has been made already.
        self._prepared: str | None = None
        self._made: ResponseFinished | None = None
        # Dropped speculations whose end is awaited, the oldest first.
        self._dropped: dict[str, None] = {}

    @property
    def count(self) -> int:
        """Replies being made."""
        return len(self._running)

    def ordered(self, order: EngineOrder) -> None:
        """An order of the conversation."""
        match order:
            case Respond(response_id) | Say(response_id):
                self._running.add(response_id)
            case Speculate(response_id):
                self._prepared, self._made = response_id, None
            case Adopt(response_id):
                if self._made is None:
                    self._running.add(response_id)
                self._prepared = self._made = None
                self._observer.speculated("adopted")
            case Drop(response_id):
                self._drop(response_id)

    def finished(self, finish: ResponseFinished) -> None:
        """The engine makes no more of a reply."""
        if finish.response_id == self._prepared:
            self._made = finish
        elif finish.response_id in self._dropped:
            del self._dropped[finish.response_id]
            self._observer.wasted(finish.usage.output_tokens)
        else:
            self._running.discard(finish.response_id)

    def _drop(self, response_id: str) -> None:
        self._observer.speculated("dropped")
        if self._made is not None:
            self._observer.wasted(self._made.usage.output_tokens)
        else:
            self._dropped[response_id] = None
            if len(self._dropped) > _DROPPED:
                del self._dropped[next(iter(self._dropped))]
        self._prepared = self._made = None
