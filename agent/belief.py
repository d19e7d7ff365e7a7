"""The conversation as the model should believe it, ordered of the engine whenever it has changed."""

from collections.abc import Sequence

from agent.commands import Command
from agent.heard import HeardReplies
from agent.history import History
from agent.memory import Memory
from agent.responses import Responses
from agent.settings import SessionSettings
from streaming.events import Adopt, ContextMessage, Respond, Say, SetHistory, Speculate

__all__ = ["Belief"]


class Belief:
    """One session's, as last ordered."""

    def __init__(self, history: History, heard: HeardReplies, responses: Responses, memory: Memory) -> None:
        self._history = history
        self._heard = heard
        self._responses = responses
        self._memory = memory
        self._ordered: tuple[ContextMessage, ...] | None = None
        # What it was made from: building it at every event would be work without end.
        self._made_from: tuple[object, ...] = ()

    def put_into(self, commands: Sequence[Command], settings: SessionSettings, *, calm: bool) -> list[Command]:
        """The commands, and the belief where it has changed: before the first reply it is for. A reply that is being made keeps the belief
        it began with. While all is `calm` the beginning of a long conversation may become notes."""
        if calm and self._memory.cover():
            self._made_from = ()
        current = self._responses.current
        running = None if current is None else current.message_id
        made_from = (settings.system, running, self._history.version, self._heard.version)
        if made_from == self._made_from:
            return list(commands)
        self._made_from = made_from
        items = tuple(item for item in self._history.items if item.id != running)
        believed = self._memory.context(settings.system, items)
        if believed == self._ordered:
            return list(commands)
        self._ordered = believed
        replies = (Respond, Say, Speculate, Adopt)
        first = next((index for index, command in enumerate(commands) if isinstance(command, replies)), len(commands))
        return [*commands[:first], SetHistory(believed), *commands[first:]]
