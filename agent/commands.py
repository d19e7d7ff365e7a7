"""What the conversation orders: of playout, of the agent's code and the line, and of the protocol (`Notify`). Orders to the engine are in
`streaming.events`.

Each `Notify` variant is one server event of the OpenAI Realtime protocol, typed; the codec gives it the spelling of the client's dialect.
Nothing reaches a transport that is not here: playout sends audio only up to what `Release` allows.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from agent.items import Item, PartKind
from agent.settings import AudioFormat, SessionSettings
from agent.style import TurnStyle
from streaming.events import EngineOrder, SoundKind, Usage

__all__ = [
    "AgentOrder",
    "ArgumentsDelta",
    "ArgumentsDone",
    "AskAgent",
    "CallTool",
    "Command",
    "ContentPartAdded",
    "ContentPartDone",
    "Cut",
    "Duck",
    "EndCall",
    "ErrorRaised",
    "Hold",
    "InputCleared",
    "InputCommitted",
    "InputSoundStarted",
    "InputSoundStopped",
    "InputSpeechStarted",
    "InputSpeechStopped",
    "InputTimeoutTriggered",
    "ItemAdded",
    "ItemDeleted",
    "ItemDone",
    "ItemRetrieved",
    "ItemTruncated",
    "Notify",
    "OpenPlayout",
    "OutputAudioDone",
    "OutputCleared",
    "OutputItemAdded",
    "OutputItemDone",
    "OutputStarted",
    "OutputStopped",
    "OutputTextDelta",
    "OutputTextDone",
    "OutputTranscriptDelta",
    "OutputTranscriptDone",
    "PartRef",
    "PlayoutOrder",
    "Release",
    "ResponseCreated",
    "ResponseDone",
    "ResponseSnapshot",
    "ResponseStatus",
    "Resume",
    "ServerArgumentsDelta",
    "ServerArgumentsDone",
    "ServerCallMoved",
    "SessionCreated",
    "SessionUpdated",
    "ToolsListed",
    "TranscriptionCompleted",
    "TranscriptionDelta",
    "TranscriptionFailed",
    "TurnHeard",
    "UseLine",
]


# ------------------------------------------------------------------------------------------------- agent -> playout


@dataclass(frozen=True, slots=True)
class PartRef:
    """Where in a response a delta belongs."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int


@dataclass(frozen=True, slots=True)
class OpenPlayout:
    """Audio of this response will come: send it as deltas of `part`, in `format`."""

    part: PartRef
    format: AudioFormat


@dataclass(frozen=True, slots=True)
class Release:
    """Audio of the response may leave, up to sample `until`. Example: `Release("resp_1", 24000)`."""

    response_id: str
    until: int


@dataclass(frozen=True, slots=True)
class Duck:
    """Lower the gain of frames not yet sent."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Fall silent with the next frame, and keep the place."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Full gain again, at the same sample."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing more of the response leaves; queued audio is dropped."""

    response_id: str


PlayoutOrder = OpenPlayout | Release | Duck | Hold | Resume | Cut


# ---------------------------------------------------------------------------------------- agent -> the agent's code, the line


@dataclass(frozen=True, slots=True)
class CallTool:
    """Run a tool, once: `call_id` never comes again. `ToolReturned` is to follow. Example: `CallTool("item_1", "book", '{"at": 7}')`."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AskAgent:
    """The caller said `words` in item `item_id`: how is that answered? `TurnDecided` is to follow; the reply waits for it."""

    item_id: str
    words: str


@dataclass(frozen=True, slots=True)
class UseLine:
    """Transfer the call to `target`, or send it as DTMF digits. What was said before has been played out."""

    request_id: str
    action: Literal["transfer", "dtmf"]
    target: str


AgentOrder = CallTool | AskAgent | UseLine


@dataclass(frozen=True, slots=True)
class EndCall:
    """The call is over: the session ends as soon as what has been released has been played out. The last order that begins anything.
    Example: `EndCall("goodbye")`."""

    reason: str


# -------------------------------------------------------------------------------------------------- agent -> client


class ResponseStatus(Enum):
    """`response.status` on the wire."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ResponseSnapshot:
    """The response object (protocols.md 1.7) at this moment. `reason` is turn_detected, client_cancelled, max_output_tokens or
    None; `error` is a message for status FAILED. `conversation_id` None is out of band."""

    id: str
    status: ResponseStatus
    output: tuple[Item, ...]
    conversation_id: str | None
    output_audio: bool
    output_format: AudioFormat
    voice: str
    max_output_tokens: int | None
    temperature: float | None
    metadata: tuple[tuple[str, str], ...] | None
    reason: str | None = None
    error: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """session.created"""

    session_id: str
    settings: SessionSettings


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """session.updated"""

    session_id: str
    settings: SessionSettings


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """conversation.item.added; beta: conversation.item.created"""

    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemDone:
    """conversation.item.done; beta: nothing"""

    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    """conversation.item.retrieved"""

    item: Item


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    """conversation.item.deleted"""

    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """conversation.item.truncated"""

    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class TranscriptionDelta:
    """conversation.item.input_audio_transcription.delta"""

    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class TranscriptionCompleted:
    """conversation.item.input_audio_transcription.completed; `seconds` of audio is its usage"""

    item_id: str
    transcript: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    """conversation.item.input_audio_transcription.failed"""

    item_id: str
    message: str


@dataclass(frozen=True, slots=True)
class InputCommitted:
    """input_audio_buffer.committed"""

    item_id: str
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class InputCleared:
    """input_audio_buffer.cleared"""


@dataclass(frozen=True, slots=True)
class InputSpeechStarted:
    """input_audio_buffer.speech_started; `audio_start_ms` includes the prefix padding"""

    audio_start_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class InputSpeechStopped:
    """input_audio_buffer.speech_stopped; `audio_end_ms` includes the trailing silence"""

    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class InputSoundStarted:
    """vivavoce.sound.started (extension): told once it is known, up to a second after `audio_start_ms`"""

    kind: SoundKind
    audio_start_ms: int
    probability: float


@dataclass(frozen=True, slots=True)
class InputSoundStopped:
    """vivavoce.sound.stopped (extension): it was last heard at `audio_end_ms`"""

    kind: SoundKind
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class TurnHeard:
    """vivavoce.turn.heard (extension): what there is to say of a turn of the caller besides its words, with its final text. `confidence` is
    the mean probability of a token, `speech` how likely it is that anybody spoke."""

    item_id: str
    sounds: tuple[SoundKind, ...]
    confidence: float
    speech: float
    style: TurnStyle


@dataclass(frozen=True, slots=True)
class InputTimeoutTriggered:
    """input_audio_buffer.timeout_triggered"""

    audio_start_ms: int
    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    """response.created"""

    response: ResponseSnapshot


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """response.done"""

    response: ResponseSnapshot


@dataclass(frozen=True, slots=True)
class OutputItemAdded:
    """response.output_item.added"""

    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class OutputItemDone:
    """response.output_item.done"""

    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class ContentPartAdded:
    """response.content_part.added; `kind` OUTPUT_AUDIO is spelled "audio" here, OUTPUT_TEXT "text" """

    part: PartRef
    kind: PartKind


@dataclass(frozen=True, slots=True)
class ContentPartDone:
    """response.content_part.done"""

    part: PartRef
    kind: PartKind
    text: str


@dataclass(frozen=True, slots=True)
class OutputTextDelta:
    """response.output_text.delta"""

    part: PartRef
    delta: str


@dataclass(frozen=True, slots=True)
class OutputTextDone:
    """response.output_text.done"""

    part: PartRef
    text: str


@dataclass(frozen=True, slots=True)
class OutputAudioDone:
    """response.output_audio.done"""

    part: PartRef


@dataclass(frozen=True, slots=True)
class OutputStarted:
    """output_audio_buffer.started, where we own playback"""

    response_id: str


@dataclass(frozen=True, slots=True)
class OutputStopped:
    """output_audio_buffer.stopped, where we own playback: it has been played to its end"""

    response_id: str


@dataclass(frozen=True, slots=True)
class OutputCleared:
    """output_audio_buffer.cleared, where we own playback; `response_id` is "" where none has ever sounded"""

    response_id: str


@dataclass(frozen=True, slots=True)
class OutputTranscriptDelta:
    """response.output_audio_transcript.delta"""

    part: PartRef
    delta: str


@dataclass(frozen=True, slots=True)
class OutputTranscriptDone:
    """response.output_audio_transcript.done"""

    part: PartRef
    transcript: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """response.function_call_arguments.delta"""

    part: PartRef
    call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ArgumentsDone:
    """response.function_call_arguments.done"""

    part: PartRef
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ServerArgumentsDelta:
    """response.mcp_call_arguments.delta"""

    part: PartRef
    delta: str


@dataclass(frozen=True, slots=True)
class ServerArgumentsDone:
    """response.mcp_call_arguments.done"""

    part: PartRef
    arguments: str


@dataclass(frozen=True, slots=True)
class ServerCallMoved:
    """response.mcp_call.in_progress, .completed, .failed"""

    item_id: str
    output_index: int
    to: Literal["in_progress", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class ToolsListed:
    """mcp_list_tools.in_progress, .completed"""

    item_id: str
    to: Literal["in_progress", "completed"]


@dataclass(frozen=True, slots=True)
class ErrorRaised:
    """error; `event_id` is the client's id of the message at fault"""

    code: str | None
    message: str
    param: str | None = None
    event_id: str | None = None
    kind: Literal["invalid_request_error", "server_error"] = "invalid_request_error"


Notify = (
    SessionCreated
    | SessionUpdated
    | ItemAdded
    | ItemDone
    | ItemRetrieved
    | ItemDeleted
    | ItemTruncated
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | InputCommitted
    | InputCleared
    | InputSpeechStarted
    | InputSpeechStopped
    | InputSoundStarted
    | InputSoundStopped
    | TurnHeard
    | InputTimeoutTriggered
    | ResponseCreated
    | ResponseDone
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | OutputAudioDone
    | OutputStarted
    | OutputStopped
    | OutputCleared
    | OutputTranscriptDelta
    | OutputTranscriptDone
    | ArgumentsDelta
    | ArgumentsDone
    | ServerArgumentsDelta
    | ServerArgumentsDone
    | ServerCallMoved
    | ToolsListed
    | ErrorRaised
)
Command = EngineOrder | PlayoutOrder | AgentOrder | EndCall | Notify
