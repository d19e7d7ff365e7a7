"""A request for a chat completion (OpenAI's `POST /v1/chat/completions`) as values. Pure.

Sound comes as `input_audio` parts: base64 of a WAV file. Other containers are refused, for nothing is unpacked here that strangers may have
packed. What cannot be done (several choices, log probabilities, a JSON schema, images) is refused by name; fields nobody reads are ignored.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from agent.settings import SessionSettings
from server.limits import Limits
from server.realtime.fields import Fields, parse_object
from server.realtime.session_update import limited_text, read_tool_choice, read_tools, read_voice
from streaming.audio import Samples, resample_clause
from streaming.events import SAMPLE_RATE, ContextMessage, RespondOptions
from streaming.wav import WavError, read_wav

__all__ = ["SPOKEN_RATE", "ChatRequest", "Heard", "read_chat"]

SPOKEN_RATE: Final = 24_000
"""Samples a second of a spoken answer: the service's."""

_MAX_TOKENS: Final = 4_096
_MAX_STOPS: Final = 4
_MAX_STOP: Final = 256
"""Strings that end an answer, and characters of each: the service's four, none longer than a sentence."""

_PIECE_SECONDS: Final = 28
"""Sound of one turn: as much as is kept of a session's input, less a little."""
_SEARCH_SECONDS: Final = 8
"""A longer recording is cut where the last so many seconds of a piece are quietest."""
_QUIET: Final = SAMPLE_RATE // 10
"""Loudness is compared over 100 ms: less than that is a pause within a word."""

_Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Sound of a message: float32 (n,) mono 16 kHz, of at most 28 s."""

    item_id: str
    pcm: Samples


@dataclass(frozen=True, slots=True, eq=False)
class ChatRequest:
    """What to answer and how. `messages` whose text is None are sound, in `heard`. `stops` end the answer before themselves. `sound` is how
    a spoken answer is sent, None for one in text. `usage` is whether a stream ends with the token counts, `transcripts` whether the words
    that were heard are told too (an extension)."""

    model: str
    messages: tuple[ContextMessage, ...]
    heard: tuple[Heard, ...]
    options: RespondOptions
    stops: tuple[str, ...] = ()
    seed: int = 0
    stream: bool = False
    usage: bool = False
    sound: Literal["wav", "pcm16"] | None = None
    transcripts: bool = False


def read_chat(body: bytes, defaults: SessionSettings, limits: Limits) -> ChatRequest:
    """The request in `body`, beginning from the server's `defaults`. Raises BadField. A second or so for minutes of sound: not for the
    event loop."""
    fields = parse_object(body)
    _refuse_what_is_not_done(fields)
    messages = _Messages(limits)
    if defaults.agent and defaults.system:  # the server's own agent answers: what a client adds comes behind it
        messages.told.append(ContextMessage("system", "", defaults.system))
    given = fields.children("messages")
    if not given:
        raise fields.bad_value("messages", "'messages' must hold at least one message.") if given == [] else fields.missing("messages")
    if len(given) > limits.max_items:
        raise fields.bad_value("messages", f"Too many messages: at most {limits.max_items}, but got {len(given)}.")
    for message in given:
        messages.read(message)
    sound = _read_sound(fields)
    stream = fields.flag("stream") or False
    if stream and sound == "wav":
        raise fields.bad_value("audio", "A spoken answer is streamed as 'pcm16', a WAV file is only sent whole.")
    stops = _read_stops(fields)
    if stops and sound is not None:
        raise fields.bad_value("stop", "A spoken answer can't be stopped at a string: 'stop' is for answers in text.")
    ours = fields.child("vivavoce") or Fields({}, "vivavoce")
    return ChatRequest(
        model=(fields.text("model") or defaults.model)[:128],
        messages=tuple(messages.told),
        heard=tuple(messages.heard),
        options=_read_options(fields, defaults, limits, audio=sound is not None),
        stops=stops,
        seed=fields.integer("seed", -(2**63), 2**63 - 1) or 0,
        stream=stream,
        usage=(fields.child("stream_options") or Fields({})).flag("include_usage") or False,
        sound=sound,
        transcripts=ours.flag("transcripts") or False,
    )


def _refuse_what_is_not_done(fields: Fields) -> None:
    if (fields.integer("n", 1, 128) or 1) != 1:
        raise fields.bad_value("n", "One answer is made at a time: 'n' must be 1.")
    if fields.flag("logprobs"):
        raise fields.bad_value("logprobs", "Log probabilities are not told: 'logprobs' must be false.")
    wanted = fields.child("response_format")
    if wanted is not None and wanted.choice("type", ("text", "json_object", "json_schema")) not in (None, "text"):
        raise wanted.bad_value("type", "Answers are plain text: 'response_format.type' must be 'text'. A tool gives JSON.")


def _read_sound(fields: Fields) -> Literal["wav", "pcm16"] | None:
    """How a spoken answer is sent, None where none is asked for."""
    modalities = fields.array("modalities")
    if modalities is not None and any(name not in ("text", "audio") for name in modalities):
        raise fields.bad_value("modalities", "'modalities' must be ['text'] or ['text', 'audio'].")
    audio = fields.child("audio")
    if modalities is None or "audio" not in modalities:
        return None
    if audio is None:
        raise fields.missing("audio")
    return "pcm16" if audio.choice("format", ("wav", "pcm16")) == "pcm16" else "wav"


def _read_options(fields: Fields, defaults: SessionSettings, limits: Limits, *, audio: bool) -> RespondOptions:
    tokens = fields.integer("max_completion_tokens", 1, _MAX_TOKENS) or fields.integer("max_tokens", 1, _MAX_TOKENS)
    temperature = fields.number("temperature", 0.0, 2.0)
    spoken = fields.child("audio") or Fields({}, "audio")
    voice = None if defaults.fixed_voice else read_voice(spoken)
    tools = read_tools(_flat_tools(fields), limits) or ()
    choice = read_tool_choice(_flat_choice(fields))
    return RespondOptions(
        audio=audio,
        rate=SPOKEN_RATE,
        voice=voice or defaults.voice,
        speed=defaults.speed,
        max_output_tokens=tokens,
        temperature=defaults.temperature if temperature is None else temperature,
        tools=tools,
        tool_choice="auto" if choice is None else choice.name if choice.mode == "function" else choice.mode,
    )


def _flat_tools(fields: Fields) -> Fields:
    """Tools in the Realtime protocol's form, which has no object `function` between."""
    tools = fields.children("tools")
    if tools is None:
        return Fields({})
    for tool in tools:
        tool.choice("type", ("function",))
    return Fields({"tools": [tool.need_child("function").raw | {"type": "function"} for tool in tools]})


def _flat_choice(fields: Fields) -> Fields:
    """The same of `tool_choice`."""
    value = fields.raw.get("tool_choice")
    if not isinstance(value, dict):
        return Fields({"tool_choice": value})
    name = fields.need_child("tool_choice").need_child("function").need_text("name")
    return Fields({"tool_choice": {"type": "function", "name": name}})


def _read_stops(fields: Fields) -> tuple[str, ...]:
    value = fields.raw.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise fields.wrong_type("stop", "a string or an array of strings")
    if len(stops) > _MAX_STOPS or any(not 0 < len(stop) <= _MAX_STOP for stop in stops):
        raise fields.bad_value("stop", f"'stop' holds at most {_MAX_STOPS} strings of 1 to {_MAX_STOP} characters.")
    return tuple(stops)


# ------------------------------------------------------------------------------------------------------------ messages


@dataclass(slots=True)
class _Messages:
    """Reads messages in order. What one says in several parts becomes several, which the model is told as one."""

    limits: Limits
    told: list[ContextMessage] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    # Names of the functions that were called, by the id of the call.
    called: dict[str, str] = field(default_factory=dict)
    text_bytes: int = 0
    samples: int = 0

    def read(self, message: Fields) -> None:
        """One message of the request. Raises BadField."""
        match message.choice("role", ("system", "developer", "user", "assistant", "tool")):
            case "user":
                self._say(message, "user")
            case "assistant":
                if message.child("audio") is not None and message.raw.get("content") is None:
                    raise message.bad_value("audio", "The sound of earlier answers is not kept here: send its transcript as 'content'.")
                if message.raw.get("content") is not None:
                    self._say(message, "assistant")
                self._call(message)
            case "tool":
                call_id = message.need_text("tool_call_id")
                text = " ".join(part.need_text("text") for part in self._parts(message))
                self._add(ContextMessage("tool_result", self._id(), self._bounded(message, text), self.called.get(call_id, ""), call_id))
            case None:
                raise message.missing("role")
            case _:
                self._say(message, "system")

    def _say(self, message: Fields, role: Literal["system", "user", "assistant"]) -> None:
        for part in self._parts(message):
            kind = part.choice("type", ("text", "refusal", "input_audio", "image_url", "file"))
            if kind == "input_audio" and role == "user":
                self._hear(part.need_child("input_audio"))
            elif kind in ("text", None):
                text = limited_text(part, "text", self.limits)
                if text is None:
                    raise part.missing("text")
                # Instructions have no id, as in a session: so the model's own are not said besides.
                item_id = "" if role == "system" and not self.told else self._id()
                self._add(ContextMessage(role, item_id, self._bounded(part, text)))
            elif kind == "refusal":
                self._add(ContextMessage(role, self._id(), self._bounded(part, part.text("refusal") or "")))
            else:
                raise part.bad_value("type", f"A message of the {role} can't hold '{kind}' here.")

    def _parts(self, message: Fields) -> list[Fields]:
        """The parts of a message, a plain string as one."""
        content = message.raw.get("content")
        if isinstance(content, str):
            return [Fields({"type": "text", "text": content}, message.param("content"))]
        parts = message.children("content")
        if parts is None:
            raise message.missing("content")
        return parts

    def _call(self, message: Fields) -> None:
        for call in message.children("tool_calls") or ():
            function = call.need_child("function")
            name, call_id = function.need_text("name")[:128], call.need_text("id")[:128]
            self.called[call_id] = name
            arguments = self._bounded(function, limited_text(function, "arguments", self.limits) or "{}")
            self._add(ContextMessage("tool_call", self._id(), arguments, name, call_id))

    def _hear(self, audio: Fields) -> None:
        kind = audio.text("format") or "wav"
        if kind != "wav":
            raise audio.bad_value("format", f"Sound is read from 'wav' (PCM) only, not from '{kind[:16]}': convert it first.")
        try:
            wav = read_wav(base64.b64decode(audio.need_text("data"), validate=True))
        except WavError as error:
            raise audio.bad_value("data", f"'{audio.param('data')}' can't be read: {error}.") from error
        except ValueError as error:
            raise audio.bad_value("data", f"'{audio.param('data')}' is not base64.") from error
        if not len(wav.samples):
            raise audio.bad_value("data", f"'{audio.param('data')}' is a WAV file without a sample of sound.")
        self.samples += round(len(wav.samples) * SAMPLE_RATE / wav.rate)
        most = self.limits.max_chat_seconds
        if self.samples > most * SAMPLE_RATE:
            raise audio.bad_value("data", f"Too much sound: at most {most:g} seconds in all messages together.")
        for piece in _pieces(resample_clause(wav.samples, wav.rate, SAMPLE_RATE)):
            self.heard.append(Heard(self._id(), piece))
            self._add(ContextMessage("user", self.heard[-1].item_id, None))

    def _add(self, message: ContextMessage) -> None:
        self.told.append(message)

    def _id(self) -> str:
        return f"item_{len(self.told)}"

    def _bounded(self, fields: Fields, text: str) -> str:
        self.text_bytes += len(text.encode())
        if self.text_bytes > self.limits.max_items_bytes:
            raise fields.bad_value("text", f"Too much text: at most {self.limits.max_items_bytes} bytes in all messages together.")
        return text


def _pieces(pcm: Samples) -> Iterator[Samples]:
    """Sound in pieces a turn can hold, cut where it is quietest."""
    limit, search = _PIECE_SECONDS * SAMPLE_RATE, _SEARCH_SECONDS * SAMPLE_RATE
    while len(pcm) > limit:
        cut = limit - search + _quietest(pcm[limit - search : limit])
        yield pcm[:cut]
        pcm = pcm[cut:]
    yield pcm


def _quietest(pcm: Samples) -> int:
    """The middle of the 100 ms with the least power."""
    power = np.square(pcm[: len(pcm) // _QUIET * _QUIET]).reshape(-1, _QUIET).mean(axis=1)
    return int(power.argmin()) * _QUIET + _QUIET // 2
