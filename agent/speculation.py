"""The reply that is prepared at a pause, before it is known whether the turn ends there.

What the engine tells of it is withheld here, so that until it is adopted nothing of it reaches the client, the history or playout. It is
good for one pause, one text and one belief of the conversation; as soon as any of them has changed it is dropped.
"""

from dataclasses import dataclass, field
from typing import Final

from agent.settings import SessionKind, SessionSettings
from streaming.events import AudioReady, ResponseFinished, TextDelta, ToolCallReady, TranscriptProvisional

__all__ = ["Speculation", "Withheld", "speculates"]

Withheld = TextDelta | AudioReady | ToolCallReady | ResponseFinished
"""What an engine tells of a reply."""

_FREE: Final = ("auto", "none")
"""Tool choices that leave the model free to speak; a forced call is never speculated about."""


@dataclass(slots=True)
class Speculation:
    """One that is under way. `basis` is what the reply is made from besides the words: equal as long as the same reply would be made."""

    response_id: str
    words: TranscriptProvisional
    basis: tuple[object, ...]
    # What has been told of it, in order: at most what one clause and its sound give, or a short reply.
    withheld: list[Withheld] = field(default_factory=list)

    def withhold(self, event: Withheld) -> None:
        """The engine tells of it. A call of a tool would be a side effect, and is not kept."""
        if not isinstance(event, ToolCallReady):
            self.withheld.append(event)


def speculates(settings: SessionSettings) -> bool:
    """Whether a session with these settings prepares replies: those it makes by itself, in words."""
    detection = settings.turn_detection
    return (
        settings.speculation
        and settings.kind is SessionKind.REALTIME
        and detection is not None
        and detection.create_response
        and settings.tool_choice.mode in _FREE
    )
