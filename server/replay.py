"""Replaying a session's log: the same conversation, told the same, must order the same, bit for bit.

Reads what `server.recording` wrote. It opens no engine and no socket: whoever replays a log of another's server does nothing to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.commands import Command
from agent.conversation import Conversation
from agent.events import Event
from server.ledger import TurnLedger
from server.recording import LogEnd, LogHeader, Told, read_log

__all__ = ["Conversing", "Replayed", "replay"]

Conversing = Callable[[Event, int], list[Command]]
"""`Conversation.handle`."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One event of the log: its number from 1, what the log says of it, and what this version ordered or the exception it `failed` with."""

    number: int
    told: Told
    ordered: tuple[Command, ...]
    failed: str = ""

    @property
    def exact(self) -> bool:
        """Whether this version did what the log says."""
        return (self.ordered, self.failed) == (self.told.ordered, self.told.failed)


def replay(
    path: Path, converse: Callable[[str, int], Conversing] = lambda session_id, seed: Conversation(session_id, seed).handle
) -> Iterator[LogHeader | Replayed | TurnLedger | LogEnd]:
    """The log's lines in order, each event told to the conversation that `converse(session_id, seed)` makes. Goes on after an event that
    was not exact: what follows is then worth little. Raises LogError where the log can't be read on."""
    handle: Conversing | None = None
    number = 0
    for line in read_log(path):
        if isinstance(line, LogHeader):
            handle = converse(line.session_id, line.seed)
        if not isinstance(line, Told):
            yield line
            continue
        assert handle is not None, "the header comes first"
        number += 1
        yield _tell(number, line, handle)


def _tell(number: int, told: Told, handle: Conversing) -> Replayed:
    try:
        return Replayed(number, told, tuple(handle(told.event, told.now)))
    except Exception as error:  # noqa: BLE001  whatever it raised when it was recorded is what it should raise now
        return Replayed(number, told, (), repr(error))
