"""The seam between sound and models (`streaming`) and the conversation (`agent`).

Facts are named in the past tense and travel from the Ear and the engine to the agent. Orders are named in the imperative and
travel from the agent to the engine. Standard library only; everything compares, hashes and goes to JSON. PCM never crosses here:
the engine hands audio to playout under `(response_id, start, samples)` and the agent orders what happens to it.

Units, used by every field below:
  at, start, end    position in the session's input, in samples of 16 kHz (`SAMPLE_RATE`), counted from the first sample appended
  start, samples, played, sent (of a response)  samples at the response's own output rate (`RespondOptions.rate`), from its first
  probability, confidence  0.0 to 1.0

Ids: session, item, response and call ids are made by the agent (`agent.ids`) or, for items, by the client. The engine makes none.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

__all__ = [
    "NOTES",
    "SAMPLE_RATE",
    "Abort",
    "Adopt",
    "Audible",
    "AudioReady",
    "CommitTurn",
    "ConfigureEar",
    "ContextMessage",
    "DiscardTurn",
    "Drop",
    "EarEvent",
    "EndOfTurnScore",
    "EngineEvent",
    "EngineFailed",
    "EngineLost",
    "EngineOrder",
    "FinishReason",
    "Listened",
    "OverlapKind",
    "OverlapScore",
    "ReplyRestarted",
    "Respond",
    "RespondOptions",
    "ResponseFinished",
    "Role",
    "Say",
    "SessionSpec",
    "SetHistory",
    "SoundKind",
    "SoundStarted",
    "SoundStopped",
    "Speculate",
    "SpeechStarted",
    "SpeechStopped",
    "SpeechSuspected",
    "StartTurn",
    "TextDelta",
    "ToolArgumentsDelta",
    "ToolCallReady",
    "ToolSpec",
    "TranscriptDelta",
    "TranscriptDone",
    "TranscriptFailed",
    "TranscriptProvisional",
    "Usage",
    "WordMark",
]

SAMPLE_RATE: Final = 16_000
"""Input samples per second: the rate of Silero, Whisper and Smart Turn. Every `at` counts these."""


# ---------------------------------------------------------------------------------------------------- Ear -> agent


@dataclass(frozen=True, slots=True)
class SpeechSuspected:
    """The window from `at` on sounded like speech, or nearly; the next two decide, and then comes `SpeechStarted` with this `at` or the
    next window's, or nothing. Told in silence only, for what costs nothing if it is wrong. Example: `SpeechSuspected(at=4608)`."""

    at: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began at `at` (the onset, without prefix padding). Example: `SpeechStarted(at=4608, probability=0.97)`."""

    at: int
    probability: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """About 100 ms of silence followed the last speech sample, `at`. Evidence, not a decision: the turn may go on, and then
    another `SpeechStarted` follows. Example: `SpeechStopped(at=41984, probability=0.04)`."""

    at: int
    probability: float


@dataclass(frozen=True, slots=True)
class EndOfTurnScore:
    """The end-of-turn model, run on the audio up to `at`, believes with `probability` that the caller has finished.
    Only in a pause. Example: `EndOfTurnScore(at=45056, probability=0.93)`."""

    at: int
    probability: float


@dataclass(frozen=True, slots=True)
class Listened:
    """The Ear has heard everything up to `at`. Sent for every VAD window (32 ms), so that silence and speech durations are counted
    in audio, not in wall clock. `silence` is how many of the last samples held no speech, 0 while there is some: it grows for three windows
    before `SpeechStopped` says that this is a pause. `probability` is that of speech in the last window.
    Example: `Listened(at=45568, silence=512, probability=0.04)`."""

    at: int
    silence: int = 0
    probability: float = 0.0


class OverlapKind(Enum):
    """What the microphone hears while the agent speaks."""

    SPEECH = "speech"
    BACKCHANNEL = "backchannel"
    NOISE = "noise"
    ECHO = "echo"
    OTHERS = "others"


@dataclass(frozen=True, slots=True)
class OverlapScore:
    """What an overlap is believed to be from what was heard of it up to `at`; told several times while it lasts. SPEECH with a high
    probability is words that take the floor; with a low one it may be any word. OTHERS is speech too faint to be the caller's.
    Example: `OverlapScore(at=52000, kind=OverlapKind.BACKCHANNEL, probability=0.8)`."""

    at: int
    kind: OverlapKind
    probability: float


class SoundKind(Enum):
    """Sounds that are not speech, as far as they are told apart."""

    MUSIC = "music"
    LAUGHTER = "laughter"
    CRYING = "crying"
    COUGH = "cough"
    SNEEZE = "sneeze"
    APPLAUSE = "applause"
    CROWD = "crowd"
    DOG = "dog"
    CAT = "cat"
    BIRD = "bird"
    ALARM = "alarm"
    TELEPHONE = "telephone"
    DOOR = "door"
    TYPING = "typing"
    CLOCK = "clock"
    HORN = "horn"
    TRAFFIC = "traffic"
    TOOLS = "tools"
    WATER = "water"
    WIND = "wind"
    FIRE = "fire"
    GLASS = "glass"


@dataclass(frozen=True, slots=True)
class SoundStarted:
    """A sound that is not speech began at about `at` (to half a second), told up to a second later.
    Example: `SoundStarted(at=7680, kind=SoundKind.DOG, probability=0.9)`."""

    at: int
    kind: SoundKind
    probability: float


@dataclass(frozen=True, slots=True)
class SoundStopped:
    """It was last heard at about `at`; told when nothing of it has been heard for 1.4 s. Every `SoundStarted` has one, unless the call or
    the engine ends before. Example: `SoundStopped(at=30720, kind=SoundKind.DOG)`."""

    at: int
    kind: SoundKind


# ------------------------------------------------------------------------------------------------- engine -> agent


@dataclass(frozen=True, slots=True)
class TranscriptDelta:
    """Settled words of the user item `item_id`: append-only, never taken back before `TranscriptDone`. A delta that does not
    begin the item begins with the space that separates it. Example: `TranscriptDelta("item_1", "what is", 0.92, "en")`."""

    item_id: str
    text: str
    confidence: float
    language: str


@dataclass(frozen=True, slots=True)
class TranscriptProvisional:
    """What the open turn `item_id` says if it ends in the pause that began at `at` (the `SpeechStopped` of that position): all of its
    words, settled or not; "" where there are none. `speech` is how likely it is that anybody spoke. Told to nobody: it serves the decision
    and a speculation, and is void as soon as the caller goes on.
    Example: `TranscriptProvisional("item_1", 41984, "What is a tortoise?", 0.92)`."""

    item_id: str
    at: int
    text: str
    confidence: float
    speech: float = 1.0


@dataclass(frozen=True, slots=True)
class TranscriptDone:
    """The final text of a committed user item; replaces its deltas. Empty where no words were found; `speech` is how likely it is that
    anybody spoke. Example: `TranscriptDone("item_1", "What is a tortoise?", 0.92, "en")`."""

    item_id: str
    text: str
    confidence: float
    language: str
    speech: float = 1.0


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    """The item could not be transcribed. Example: `TranscriptFailed("item_1", "out of memory")`."""

    item_id: str
    error: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Reply text, as decoded. Example: `TextDelta("resp_1", "A tortoise is")`."""

    response_id: str
    text: str


@dataclass(frozen=True, slots=True)
class WordMark:
    """A word of the reply and where its sound ends. `text_end` counts characters of the reply up to and including the word
    and what follows it up to the next word; `end` is the sample (response output rate) by which it has been heard.
    Example: `WordMark(text_end=10, end=9216)`."""

    text_end: int
    end: int


@dataclass(frozen=True, slots=True)
class AudioReady:
    """A chunk of sound, a clause or a part of one, has been synthesised and handed to playout: samples `start` to `start + samples` of the
    response. `text_end` is how many characters of the reply have been said by its end. `words` are those whose sound ends in it, in order;
    the last one ends at `text_end`. Where no word ends there are none and `text_end` is the chunk's before (0 at first). A voice that knows
    no words gives none with a greater `text_end`; so does text that has no sound, with no samples. `exact` says whether word positions come
    from the voice's own durations or are interpolated within the clause.
    Example: `AudioReady("resp_1", 0, 24000, 20, (WordMark(2, 4000), WordMark(20, 24000)), True)`."""

    response_id: str
    start: int
    samples: int
    text_end: int
    words: tuple[WordMark, ...] = ()
    exact: bool = False


@dataclass(frozen=True, slots=True)
class ToolArgumentsDelta:
    """Arguments of a call that is being written, as JSON text: the deltas of a call are the beginning of what its `ToolCallReady` says. An
    engine that has them at once gives none. Example: `ToolArgumentsDelta("resp_1", 0, "get_weather", '{"city": ')`."""

    response_id: str
    index: int
    name: str
    delta: str


@dataclass(frozen=True, slots=True)
class ToolCallReady:
    """The model calls a tool; `arguments` is a JSON object as text. `index` counts the calls of this response from 0; the agent
    gives each its `call_id`. Example: `ToolCallReady("resp_1", 0, "get_weather", '{"city": "Bern"}')`."""

    response_id: str
    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one response. `cached` were already in the KV when the response was ordered."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    audio_tokens: int = 0


class FinishReason(Enum):
    """Why a response ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ABORTED = "aborted"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ResponseFinished:
    """Nothing more comes of this response: every `TextDelta`, `AudioReady` and `ToolCallReady` preceded it. `error` is set when the
    reason is ERROR. Example: `ResponseFinished("resp_1", FinishReason.STOP, None, Usage(40, 32, 25))`."""

    response_id: str
    reason: FinishReason
    error: str | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class ReplyRestarted:
    """The engine died while it made this response: of its text only the first `text_end` characters will be spoken, and it goes on from
    there. Example: `ReplyRestarted("resp_1", 0)`."""

    response_id: str
    text_end: int


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The engine died; another is being started and told what this session needs. Orders may go on: they wait for it. The facts before
    this one have ended what it will not get. Example: `EngineLost("the engine process exited with -9")`."""

    error: str


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """The engine refused the session, or none could be found to go on with it; `error` says what happened. Nothing more comes.
    Example: `EngineFailed("BufferError: 24 windows of sound wait for a pass")`."""

    error: str


EarEvent = SpeechSuspected | SpeechStarted | SpeechStopped | EndOfTurnScore | OverlapScore | SoundStarted | SoundStopped | Listened
EngineEvent = (
    EarEvent
    | TranscriptDelta
    | TranscriptProvisional
    | TranscriptDone
    | TranscriptFailed
    | TextDelta
    | AudioReady
    | ToolArgumentsDelta
    | ToolCallReady
    | ResponseFinished
    | ReplyRestarted
    | EngineLost
    | EngineFailed
)


# ------------------------------------------------------------------------------------------------- agent -> engine

NOTES: Final = "notes"
"""`item_id` of a system message about what is not among the messages any more. Like the instructions, which it follows, it is never left
out."""

Role = Literal["system", "user", "assistant", "tool_call", "tool_result"]


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """One message of what the model believes was said. `text` None means "whatever the engine has transcribed for this audio
    item". `complete` False closes an assistant message that was cut to what was heard. For `tool_call` and `tool_result`, `name` and
    `call_id` are set and `text` is the arguments or the output. Example: `ContextMessage("user", "item_1", None)`."""

    role: Role
    item_id: str
    text: str | None
    name: str = ""
    call_id: str = ""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function the model may call; `parameters` is its JSON Schema as text.
    Example: `ToolSpec("get_weather", "Weather in a city", '{"type": "object", "properties": {"city": {"type": "string"}}}')`."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True, slots=True)
class RespondOptions:
    """How to make one reply. `rate` is the output sample rate the voice's audio is resampled to, once, by the engine;
    `tool_choice` is "auto", "none", "required" or the name of the function that must be called; `max_output_tokens` None is
    bounded by the context only. `context` None means the session's history (`SetHistory`)."""

    audio: bool = True
    rate: int = 24_000
    voice: str = ""
    speed: float = 1.0
    max_output_tokens: int | None = None
    temperature: float | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    context: tuple[ContextMessage, ...] | None = None


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a session needs from the engine when it opens. `seed` seeds sampling, so that a replay repeats."""

    seed: int = 0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigureEar:
    """How the Ear listens from now on: speech `threshold`, whether to run the end-of-turn model at pauses, and the language hint of the
    transcript (None: the bundle's). Example: `ConfigureEar(threshold=0.5, end_of_turn=True, language="en")`."""

    threshold: float = 0.5
    end_of_turn: bool = True
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Audible:
    """Sample `sample` of the response, which has `rate` samples a second, was being heard when the input stood at `at`, the onset of speech
    over it, as far as is known (a client's buffers may delay it by some 100 ms). Example: `Audible("resp_1", 9600, 24000, 48000)`."""

    response_id: str
    sample: int
    rate: int
    at: int


@dataclass(frozen=True, slots=True)
class StartTurn:
    """The caller began to speak: transcribe from `start` on, under this item id, and prefill settled words. `over` is what of ours they
    speak over, if they do: then `OverlapScore`s are wanted until the turn is committed, discarded, or started anew without it.
    Example: `StartTurn("item_1", start=0)`."""

    item_id: str
    start: int
    over: Audible | None = None


@dataclass(frozen=True, slots=True)
class CommitTurn:
    """The caller's turn is the input from `start` to `end`; its final transcript is wanted. Works without a `StartTurn` too (a manual
    commit). With `transcript` (a `TranscriptProvisional` of the pause it ended in) its words are known: no other pass is made, and no
    `TranscriptDone` follows. Example: `CommitTurn("item_1", start=0, end=48000)`."""

    item_id: str
    start: int
    end: int
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class DiscardTurn:
    """Forget the open turn and the input before `end` (the client cleared its buffer, or it was no speech)."""

    end: int


@dataclass(frozen=True, slots=True)
class SetHistory:
    """The conversation as the model should believe it, without the open turn. The engine keeps the longest common prefix of tokens
    and rewinds the rest."""

    messages: tuple[ContextMessage, ...]


@dataclass(frozen=True, slots=True)
class Respond:
    """Make a reply. Waits for the transcripts its context needs."""

    response_id: str
    options: RespondOptions


@dataclass(frozen=True, slots=True)
class Say:
    """Speak words that no model of the engine has made: a greeting, an apology, a filler, the reply of a language model elsewhere. With
    `more` the response stays open, and the next `Say` of its id goes on with it, with the options of the first; each begins a clause.
    Example: `Say("resp_1", "A tortoise is", RespondOptions(), more=True)`."""

    response_id: str
    text: str
    options: RespondOptions
    more: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop a response; ends in `ResponseFinished(ABORTED)` unless it had already finished."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Speculate:
    """Prepare the reply to the open turn `item_id` as if it had ended with the words `text`, on the history as last set, up to its first
    clause and that clause's sound. What comes of it (`TextDelta`, `AudioReady`, ...) is told as of any reply, and is the agent's to
    withhold; no tool is called. At most one a session: another replaces it. The engine may put it off for as long as it likes.
    Example: `Speculate("resp_1", "item_1", "What is a tortoise?", RespondOptions())`."""

    response_id: str
    item_id: str
    text: str
    options: RespondOptions


@dataclass(frozen=True, slots=True)
class Adopt:
    """The speculation was right: it becomes the response, and nothing of it is made again. Follows the `CommitTurn` with its words."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Drop:
    """The speculation was wrong: it is forgotten without trace. Ends in `ResponseFinished(ABORTED)` unless it
    had already finished; its usage says what was wasted."""

    response_id: str


EngineOrder = ConfigureEar | StartTurn | CommitTurn | DiscardTurn | SetHistory | Respond | Say | Abort | Speculate | Adopt | Drop
