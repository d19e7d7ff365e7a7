"""What a client is told of our playback where we own it (protocols.md 1.9, 1.15): that a reply has begun to sound, has been played to its
end, or was cut, and then how much of its item was heard.
"""

from agent.commands import Command, Cut, ItemTruncated, OutputCleared, OutputStarted, OutputStopped
from agent.events import ClearOutput, Event, PlaybackProgress
from agent.heard import HeardReplies
from agent.responses import Responses
from agent.settings import PlaybackOwner

__all__ = ["OutputBuffer"]


class OutputBuffer:
    """Follows every event and what it ordered."""

    def __init__(self, heard: HeardReplies, responses: Responses) -> None:
        self._heard = heard
        self._responses = responses
        # Responses that sound.
        self._playing: set[str] = set()
        # The last that has begun to.
        self._last = ""

    def follow(self, event: Event, commands: list[Command], owner: PlaybackOwner, now: int) -> list[Command]:
        """`commands`, and what the client is to know besides."""
        if owner is not PlaybackOwner.SERVER:
            return commands
        if isinstance(event, PlaybackProgress):
            return self._progressed(event, commands, now)
        told: list[Command] = []
        truncated: list[Command] = []
        for command in commands:
            told.append(command)
            if isinstance(command, Cut) and command.response_id in self._playing:
                self._playing.discard(command.response_id)
                told.append(OutputCleared(command.response_id))
                if (stopped := self._heard.stopped_at(command.response_id, now)) is not None:
                    item_id, heard_ms = stopped
                    truncated.append(ItemTruncated(item_id, 0, heard_ms))
        if isinstance(event, ClearOutput) and not any(isinstance(command, OutputCleared) for command in told):
            told.append(OutputCleared(self._last))  # a client waits for it, though nothing sounds
        return [*told, *truncated]

    def _progressed(self, progress: PlaybackProgress, commands: list[Command], now: int) -> list[Command]:
        response_id = progress.response_id
        begun = progress.sent > 0 and response_id not in self._playing
        if begun:
            self._playing.add(response_id)
            self._last = response_id
        over = progress.played == progress.sent and not self._responses.is_running(response_id)
        if over and response_id in self._playing and response_id not in self._heard.audible(now):
            self._playing.discard(response_id)
            commands = [*commands, OutputStopped(response_id)]
        return [OutputStarted(response_id), *commands] if begun else commands
