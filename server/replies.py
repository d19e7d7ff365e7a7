"""The replies one session has ordered of the engine: how many are being made, and what became of those that were prepared ahead."""

from collections.abc import Callable
from typing import Final

from streaming.events import Adopt, Drop, EngineOrder, Respond, ResponseFinished, Say, Speculate

__all__ = ["Replies"]

_DROPPED: Final = 8
"""Dropped speculations whose end is awaited. The engine ends each within a few steps; there are seldom two."""


class Replies:
    """A speculation is a reply from its adoption on: until then nobody waits for it. `on_speculation` is told once of each: whether it was
    adopted, and how many tokens were decoded in vain."""

    def __init__(self, on_speculation: Callable[[bool, int], None]) -> None:
        self._on_speculation = on_speculation
        # Ordered or adopted, and not finished.
        self._running: set[str] = set()
        # The speculation that is neither adopted nor dropped, and its end where all of it has been made.
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
                self._on_speculation(True, 0)
            case Drop(response_id):
                self._drop(response_id)

    def finished(self, finish: ResponseFinished) -> None:
        """The engine makes no more of a reply."""
        if finish.response_id == self._prepared:
            self._made = finish
        elif finish.response_id in self._dropped:
            del self._dropped[finish.response_id]
            self._on_speculation(False, finish.usage.output_tokens)
        else:
            self._running.discard(finish.response_id)

    def _drop(self, response_id: str) -> None:
        made, self._prepared, self._made = self._made, None, None
        if made is not None:
            self._on_speculation(False, made.usage.output_tokens)
            return
        self._dropped[response_id] = None
        if len(self._dropped) > _DROPPED:
            del self._dropped[next(iter(self._dropped))]
            self._on_speculation(False, 0)
