"""What the conversation is told: the client's requests, the agent's code, what playout has done, and the passing of time.

Facts of the Ear and the engine come from `streaming.events`. Requests are already parsed and typed by the protocol's codec; `event_id` is
the client's own id of the message, echoed in errors. `at` is the input position (samples of 16 kHz) reached when the message came.
"""

from dataclasses import dataclass
from typing import Literal

from agent.items import Item
from agent.settings import AudioFormat, SessionSettings, ToolChoice
from streaming.events import EngineEvent, ToolSpec

__all__ = [
    "AgentChanged",
    "AgentEvent",
    "CancelResponse",
    "ClearInput",
    "ClearOutput",
    "ClientRequest",
    "CommitInput",
    "CreateItem",
    "CreateResponse",
    "DeleteItem",
    "EndRequested",
    "Event",
    "FactPinned",
    "InterjectionWanted",
    "ItemReference",
    "LineRequested",
    "PlaybackProgress",
    "PlaybackReported",
    "RefuseRequest",
    "RetrieveItem",
    "SessionOpened",
    "Tick",
    "ToolReturned",
    "TruncateItem",
    "TurnDecided",
    "UpdateSession",
    "WordsOffered",
]


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """The first event of every session. Example: `SessionOpened(SessionSettings())`."""

    settings: SessionSettings


@dataclass(frozen=True, slots=True)
class Tick:
    """The moment `Conversation.deadline()` asked for has come."""


@dataclass(frozen=True, slots=True)
class UpdateSession:
    """`session.update`, already merged with the settings in force (atomic: a bad update never gets here)."""

    event_id: str | None
    settings: SessionSettings


@dataclass(frozen=True, slots=True)
class CommitInput:
    """`input_audio_buffer.commit`: the buffer ends at `at`."""

    event_id: str | None
    at: int


@dataclass(frozen=True, slots=True)
class ClearInput:
    """`input_audio_buffer.clear`: everything before `at` is forgotten."""

    event_id: str | None
    at: int


@dataclass(frozen=True, slots=True)
class ClearOutput:
    """`output_audio_buffer.clear`: whatever sounds falls silent, where we own playback."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class CreateItem:
    """`conversation.item.create`. `item.id` is "" where the client gave none. `previous_item_id` None appends, "root" is the front."""

    event_id: str | None
    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class RetrieveItem:
    """`conversation.item.retrieve`."""

    event_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class TruncateItem:
    """`conversation.item.truncate`: the caller heard `audio_end_ms` milliseconds of this item."""

    event_id: str | None
    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """`conversation.item.delete`."""

    event_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemReference:
    """An item of the conversation, named in `response.create`'s `input`."""

    item_id: str


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """`response.create`. None means the session's value; `input` replaces the conversation as context (empty: no context);
    `in_conversation` False is an out-of-band response; `metadata` holds (key, value) pairs, None where none was sent; `interruptible` False
    (extension) is a message that the caller hears to its end, whatever they say."""

    event_id: str | None
    in_conversation: bool = True
    input: tuple[Item | ItemReference, ...] | None = None
    instructions: str | None = None
    output_audio: bool | None = None
    output_format: AudioFormat | None = None
    voice: str | None = None
    tools: tuple[ToolSpec, ...] | None = None
    tool_choice: ToolChoice | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    temperature: float | None = None
    metadata: tuple[tuple[str, str], ...] | None = None
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class CancelResponse:
    """`response.cancel`; `response_id` None means the conversation's own."""

    event_id: str | None
    response_id: str | None


@dataclass(frozen=True, slots=True)
class PlaybackReported:
    """Extension `vivavoce.playback`: the client has played `played_ms` of the response."""

    event_id: str | None
    response_id: str
    played_ms: int


@dataclass(frozen=True, slots=True)
class RefuseRequest:
    """A message the codec could not accept; the conversation reports it and goes on. `code` is one of `protocols.md` 1.12."""

    event_id: str | None
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class PlaybackProgress:
    """From playout: of the response, `sent` samples have left the server and `played` are believed heard (exact where we own
    playback or get acks, else estimated from time). Example: `PlaybackProgress("resp_1", sent=24000, played=9600)`."""

    response_id: str
    sent: int
    played: int


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A tool that the server ran has ended: `output`, or `error` where it failed (None where not). `say` is what is told to the caller
    instead of letting the model word it. Example: `ToolReturned("item_1", '{"table": 4}')`."""

    call_id: str
    output: str
    error: str | None = None
    say: str = ""


@dataclass(frozen=True, slots=True)
class TurnDecided:
    """The agent's code has heard the caller's item `item_id` (`AskAgent`): the answer is the fixed words `say`, or a call of `tool`, or,
    where both are "", the model's affair."""

    item_id: str
    say: str = ""
    tool: str = ""


@dataclass(frozen=True, slots=True)
class WordsOffered:
    """The agent's code wants these fixed words said as soon as nobody speaks."""

    text: str


@dataclass(frozen=True, slots=True)
class AgentChanged:
    """The conversation is handed to another agent; `settings` are its own (`SessionSettings.handed_to`)."""

    settings: SessionSettings


@dataclass(frozen=True, slots=True)
class FactPinned:
    """The agent's code wants the model to know this for the rest of the call. Example: `FactPinned("Gold customer.")`."""

    text: str


@dataclass(frozen=True, slots=True)
class LineRequested:
    """The agent's code wants something done on the line: transfer to `target`, or send it as DTMF digits. The answer to `request_id` is
    given by whoever owns the line."""

    request_id: str
    action: Literal["transfer", "dtmf"]
    target: str


@dataclass(frozen=True, slots=True)
class EndRequested:
    """The agent's code ends the call: what is being said and what has been offered is heard out, the goodbye is said, and nothing else is
    begun. Example: `EndRequested("booked")`."""

    reason: str


@dataclass(frozen=True, slots=True)
class InterjectionWanted:
    """The agent's code wants to speak while the caller does: `text`, or, where it is "", a reply of the model. Where the session's agent
    `interjects`, it takes the turn at the caller's next breath; else the words wait until nobody speaks."""

    text: str = ""


AgentEvent = ToolReturned | TurnDecided | WordsOffered | AgentChanged | FactPinned | LineRequested | EndRequested | InterjectionWanted
"""What the code of an agent (`server.agents`) does."""

ClientRequest = (
    UpdateSession
    | CommitInput
    | ClearInput
    | ClearOutput
    | CreateItem
    | RetrieveItem
    | TruncateItem
    | DeleteItem
    | CreateResponse
    | CancelResponse
    | PlaybackReported
    | RefuseRequest
)
Event = SessionOpened | Tick | ClientRequest | AgentEvent | PlaybackProgress | EngineEvent
