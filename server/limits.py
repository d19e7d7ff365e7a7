"""What one client may ask of the server: sizes, counts, times. Each bound has its reason beside it."""

from dataclasses import dataclass

__all__ = ["Limits", "SessionSlots"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server; `max_sessions` counts over all clients, everything else is per session. Sizes in bytes, times in seconds."""

    max_sessions: int = 8
    """Sessions at once: the models of a small machine serve few well."""
    max_engine_busy: float = 0.85
    """Share of the engine's time above which no call is admitted that would, like the present ones, take it there. Beyond it waiting grows
    faster than work: the rest is for the moments in which several callers finish at once."""
    max_frame_bytes: int = 16 << 20
    """One WebSocket message: an append may be 15 MiB, with JSON around it (protocols.md 1.2)."""
    max_text_bytes: int = 64 << 10
    """One text of a client (instructions, a message's part, a tool's output): beyond the context of any model served here."""
    max_items: int = 2_000
    """Items in a conversation: hours of dialogue."""
    max_items_bytes: int = 4 << 20
    """All items of a conversation together: a client may not fill the server's memory with history no model will read."""
    max_replies: int = 8
    """Responses at once, the conversation's and those out of band."""
    max_tools: int = 128
    """Tools of a session."""
    max_tools_bytes: int = 256 << 10
    """All tool schemas of a session together."""
    max_input_lead: float = 30.0
    """Audio accepted ahead of the engine and of real time; beyond it the socket is not read (backpressure, nothing is lost)."""
    max_outbox_bytes: int = 4 << 20
    """Events waiting for a client that does not read. The 10 s of audio a client may be ahead are 0.7 MiB."""
    send_timeout: float = 20.0
    """A client that has not taken a byte for this long is not there."""
    max_chat_bytes: int = 16 << 20
    """The body of one request for a chat completion: six minutes of 16 kHz WAV in base64."""
    max_chat_seconds: float = 300.0
    """Sound of one such request, and of its spoken answer: more words than the context of a small model holds."""
    connect_seconds: float = 20.0
    """How long a WebRTC call may take from its answer until sound flows and its data channel is open."""
    session_seconds: float = 3600.0
    """A session's life (the hosted service's is an hour too)."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"the limit {name} must be above 0")


class SessionSlots:
    """Counts the sessions that are open."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many sessions are open."""
        return self._taken

    def take(self) -> bool:
        """Take a slot; False where there is none. Every taken slot is given back."""
        if self._taken >= self._capacity:
            return False
        self._taken += 1
        return True

    def give_back(self) -> None:
        """A session has ended."""
        assert self._taken > 0
        self._taken -= 1
