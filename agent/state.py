"""What the conversation as a whole is doing: one state, one place where it changes.

It follows from who has the floor (`agent.turns`), whether a reply is being made (`agent.responses`) and whether one sounds (`agent.heard`);
replies out of band do not count.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

__all__ = ["MOVES", "IllegalEventError", "State", "StateMachine"]


class State(Enum):
    """One of these at any time."""

    CLOSED = "the session has not been opened"
    LISTENING = "nobody speaks, nothing is being made"
    CALLER_SPEAKING = "the caller has the floor"
    THINKING = "a reply is being made; nothing of it can be heard yet"
    SPEAKING = "our sound plays, or is about to"
    OVERLAP = "somebody speaks while our sound plays; not yet known whether to us"


MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.CLOSED: frozenset({State.LISTENING, State.THINKING}),
    State.LISTENING: frozenset({State.CALLER_SPEAKING, State.THINKING, State.SPEAKING}),
    State.CALLER_SPEAKING: frozenset({State.LISTENING, State.THINKING, State.SPEAKING}),
    State.THINKING: frozenset({State.LISTENING, State.CALLER_SPEAKING, State.SPEAKING}),
    State.SPEAKING: frozenset({State.LISTENING, State.CALLER_SPEAKING, State.THINKING, State.OVERLAP}),
    State.OVERLAP: frozenset({State.LISTENING, State.CALLER_SPEAKING, State.THINKING, State.SPEAKING}),
}
"""What may follow each state; docs/conversation.md draws it."""


class IllegalEventError(Exception):
    """An event that can't happen now: a fault of ours, never of the client."""

    def __init__(self, event: object, state: State) -> None:
        super().__init__(f"{type(event).__name__} while {state.name}: {state.value}")


class StateMachine:
    """Holds the state."""

    def __init__(self) -> None:
        self.state = State.CLOSED

    def move(self, state: State) -> None:
        """Go on to `state`, which may be the present one."""
        assert state is self.state or state in MOVES[self.state], f"from {self.state.name} to {state.name}"
        self.state = state
