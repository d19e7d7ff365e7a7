"""The session object: what a client may set (OpenAI Realtime GA, `session.update`), as frozen values checked at construction.

Free-form JSON that we only echo (tracing, prompt, reasoning, ...) is kept as JSON text, so that settings stay hashable.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Literal

from streaming.events import ToolSpec

__all__ = [
    "AudioEncoding",
    "AudioFormat",
    "Eagerness",
    "Initiative",
    "PlaybackOwner",
    "SemanticVad",
    "ServerTool",
    "ServerVad",
    "SessionKind",
    "SessionSettings",
    "ToolChoice",
    "Transcription",
    "TurnDetection",
]


class AudioEncoding(Enum):
    """How samples are coded on the wire; the value is the GA spelling."""

    PCM16 = "audio/pcm"
    PCMU = "audio/pcmu"
    PCMA = "audio/pcma"


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding and rate in Hz; G.711 is always 8 kHz, PCM16 24 kHz unless a client asked otherwise. `told_rate` is the rate a client is
    told where sound goes by a transport of its own, and not in the client's messages."""

    encoding: AudioEncoding = AudioEncoding.PCM16
    rate: int = 24_000
    told_rate: int | None = None


class Eagerness(Enum):
    """How soon semantic_vad takes the turn; AUTO is MEDIUM."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class ServerVad:
    """Turn detection by silence alone, obeyed exactly as sent."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int | None = None
    create_response: bool = True
    interrupt_response: bool = True


@dataclass(frozen=True, slots=True)
class SemanticVad:
    """Turn detection by the end-of-turn model."""

    eagerness: Eagerness = Eagerness.AUTO
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection = ServerVad | SemanticVad


@dataclass(frozen=True, slots=True)
class Transcription:
    """Ask for transcripts of what the caller says. Any `model` name is accepted; the bundle's recogniser is used."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class PlaybackOwner(Enum):
    """Who knows what is being played, and can stop it (design.md section 6, "Who owns playback")."""

    CLIENT = "the client, and it does not say"
    ACKED = "the client, which says every 100 ms what it has played"
    SERVER = "the server: nothing but the next frames is ahead of it"


class SessionKind(Enum):
    """`session.type` on the wire."""

    REALTIME = "realtime"
    TRANSCRIPTION = "transcription"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`mode` auto, none, required, or function with `name` set."""

    mode: Literal["auto", "none", "required", "function"] = "auto"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Initiative:
    """What the agent says by itself; "" and () are nothing. `idle_prompts` follow one another, each after `idle_ms` of silence, then
    `goodbye` ends the call. `filler` is said once while a tool keeps the caller waiting, after `filler_ms` of silence. With `interjects` it
    may speak while the caller does."""

    greeting: str = ""
    idle_prompts: tuple[str, ...] = ()
    idle_ms: int = 10_000
    goodbye: str = ""
    filler: str = "One moment."
    filler_ms: int = 1_500
    interjects: bool = False


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that the server runs. `server_label` names who offers it (an agent, an MCP server) to clients that want to see calls.
    `timeout_ms` bounds one call. `needs_approval` asks the client before each."""

    spec: ToolSpec
    server_label: str
    timeout_ms: int = 20_000
    needs_approval: bool = False


_MOST_FACTS: Final = 64
"""Facts that are kept: they stand in front of every prompt, and a small model's context is short."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """The effective session. `None` for `turn_detection` is manual (push to talk), for `transcription` off, for
    `max_output_tokens` "inf". `extras` holds (key, JSON text) of fields that are only echoed."""

    kind: SessionKind = SessionKind.REALTIME
    model: str = "pocket"
    instructions: str = ""
    output_audio: bool = True
    input_format: AudioFormat = field(default_factory=AudioFormat)
    output_format: AudioFormat = field(default_factory=AudioFormat)
    noise_reduction: str | None = None
    echo_cancellation: bool | None = None
    """`input_audio_echo_cancellation` (Azure's Voice Live): our own voice is taken out of the caller's sound. None where nobody has said:
    then the transport decides."""
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = field(default_factory=ServerVad)
    voice: str = "joe"
    speed: float = 1.0
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    temperature: float | None = None
    extras: tuple[tuple[str, str], ...] = ()
    playback: PlaybackOwner = PlaybackOwner.CLIENT
    """ACKED is the extension `vivavoce.playback`; SERVER is a property of the transport, no client's to ask for."""
    min_interruption_ms: int = 0
    """Extension `vivavoce.min_interruption_ms`: the least speech over a reply that may end it."""
    wants_ledger: bool = False
    """Extension `vivavoce.ledger`: the client is told the latency ledger of each turn."""
    wants_sounds: bool = False
    """Extension `vivavoce.sounds`: the client is told of sounds that are not speech, and of each turn what was heard besides words."""
    tells_sounds: bool = False
    """Extension `vivavoce.tell_sounds`: the language model is told of them too, in brackets behind the caller's words."""
    speculation: bool = True
    """Extension `vivavoce.speculation`: a reply is prepared at every pause that may end the turn. Off to compare."""
    shows_tools: bool = False
    """Extension `vivavoce.tools`: the client is told of calls that the server runs, as `mcp_*` items."""
    initiative: Initiative = field(default_factory=Initiative)
    agent: str = ""
    """The name of the agent that the server has defined, "" where the client defines it. The instructions are then the server's."""
    server_tools: tuple[ServerTool, ...] = ()
    """Offered to the model beside the client's `tools`, in the conversation's own responses."""
    asks_agent: bool = False
    """Whether the agent's code decides how each turn of the caller is answered (`AskAgent`)."""
    model_hears: bool = False
    """Whether the language model is told a turn by its sound: then a reply need not wait for the transcript. A property of the bundle, no
    client's to ask for."""
    fixed_voice: bool = False
    """Whether the voice is the agent's and not the client's to choose."""

    facts: tuple[str, ...] = ()
    """What the agent's code has pinned: told to the model for the rest of the call."""

    def handed_to(self, agent: "SessionSettings") -> "SessionSettings":
        """These settings with another agent in charge: what defines an agent is the other's, what the client has chosen stays."""
        detection = self.turn_detection
        if isinstance(detection, SemanticVad) and isinstance(agent.turn_detection, SemanticVad):
            theirs = agent.turn_detection
            detection = replace(detection, eagerness=theirs.eagerness, interrupt_response=theirs.interrupt_response)
        return replace(
            self,
            instructions=agent.instructions,
            voice=agent.voice if agent.fixed_voice else self.voice,
            temperature=agent.temperature,
            turn_detection=detection,
            initiative=agent.initiative,
            agent=agent.agent,
            server_tools=agent.server_tools,
            asks_agent=agent.asks_agent,
            fixed_voice=agent.fixed_voice,
        )

    def knowing(self, fact: str) -> "SessionSettings":
        """These settings with another fact pinned; the oldest goes where there are too many."""
        if not fact.strip() or fact in self.facts:
            return self
        return replace(self, facts=(*self.facts, fact)[-_MOST_FACTS:])

    @property
    def system(self) -> str:
        """The instructions as the model is told them, with what is known."""
        return "\n".join(part for part in (self.instructions, *self.facts) if part)

    @property
    def answers_turns(self) -> bool:
        """Whether a turn that is detected is answered without being asked."""
        return self.kind is SessionKind.REALTIME and self.turn_detection is not None and self.turn_detection.create_response
