"""Reading what a client sets (protocols.md 1.3, 1.13, 1.17): the fields of `session.update`, some of which `response.create` shares.

Either dialect's spelling is accepted. Every mistake raises `BadField`, and then nothing has changed.
"""

import json
from dataclasses import replace
from typing import Final, Literal

from agent.settings import (
    AudioEncoding,
    AudioFormat,
    Eagerness,
    Initiative,
    PlaybackOwner,
    SemanticVad,
    ServerVad,
    SessionKind,
    SessionSettings,
    ToolChoice,
    Transcription,
    TurnDetection,
)
from server.limits import Limits
from server.realtime.fields import Fields
from server.realtime.session_object import ECHO_CANCELLATION, ECHOED
from streaming import echo_canceller
from streaming.events import ToolSpec

__all__ = [
    "asks_for_server_tools",
    "limited_text",
    "merge_session",
    "read_format",
    "read_max_tokens",
    "read_modalities",
    "read_tool_choice",
    "read_tools",
    "read_voice",
]

_BETA_FORMATS: Final = {
    "pcm16": AudioFormat(),
    "g711_ulaw": AudioFormat(AudioEncoding.PCMU, 8_000),
    "g711_alaw": AudioFormat(AudioEncoding.PCMA, 8_000),
}
_PCM_RATES: Final = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""24 kHz is the protocol's only rate; the others are an extension, echoed to those who ask for them."""
_MAX_ECHOED_BYTES: Final = 8 << 10
_MAX_WAIT_MS: Final = 60_000
_MAX_TOKENS: Final = 4_096
_MAX_PROMPTS: Final = 16
_MAX_PROMPT: Final = 500
"""Idle prompts, and characters of each: they are spoken, and kept in the settings of every log line."""


def merge_session(
    current: SessionSettings, session: Fields, limits: Limits, *, kind: SessionKind | None = None, may_change_kind: bool = True
) -> SessionSettings:
    """`current` with the fields present in `session` changed, in either dialect's spelling; raises `BadField`, and then nothing has
    changed. `kind` overrides `session.type` (beta's `transcription_session.update`)."""
    changes: dict[str, object] = {}
    wanted = kind or _read_kind(session)
    if wanted is not None and wanted is not current.kind:
        if not may_change_kind:
            raise session.bad_value("type", "The type of a session cannot change after its first update.")
        changes["kind"] = wanted
    audio = session.child("audio") or Fields({}, session.param("audio"))
    changes |= _read_input(session, audio.child("input") or Fields({}, audio.param("input")))
    changes |= _read_output(current, session, audio.child("output") or Fields({}, audio.param("output")))
    changes |= _read_reply(current, session, limits)
    changes |= _read_extensions(session, current, limits)
    if current.playback is PlaybackOwner.SERVER:  # sound goes by the transport, in the transport's format
        changes.pop("input_format", None)
        changes.pop("output_format", None)
    changes["extras"] = _merge_extras(current.extras, session)
    # mypy cannot follow keyword arguments through a dict; every key above is a field, and the tests set each.
    return replace(current, **changes)  # type: ignore[arg-type]


def _read_kind(session: Fields) -> SessionKind | None:
    name = session.choice("type", [kind.value for kind in SessionKind])
    return SessionKind(name) if name else None


def _read_input(session: Fields, audio: Fields) -> dict[str, object]:
    """Input fields: GA's `audio.input.*` wins over beta's flat ones."""
    changes: dict[str, object] = {}
    for fields, key in ((session, "input_audio_format"), (audio, "format")):
        if (wire := read_format(fields, key)) is not None:
            changes["input_format"] = wire
    for fields, key in ((session, "input_audio_transcription"), (audio, "transcription")):
        if key in fields:
            changes["transcription"] = _read_transcription(fields.child(key))
    for fields, key in ((session, "input_audio_noise_reduction"), (audio, "noise_reduction")):
        if key in fields:
            child = fields.child(key)
            changes["noise_reduction"] = child.choice("type", ("near_field", "far_field")) if child else None
    for fields, key in ((session, "input_audio_echo_cancellation"), (audio, "echo_cancellation")):
        if key in fields:
            changes["echo_cancellation"] = _read_echo_cancellation(fields, key)
    for fields in (session, audio):
        if "turn_detection" in fields:
            changes["turn_detection"] = _read_turn_detection(fields.child("turn_detection"))
    return changes


def _read_output(current: SessionSettings, session: Fields, audio: Fields) -> dict[str, object]:
    changes: dict[str, object] = {}
    for fields, key in ((session, "output_audio_format"), (audio, "format")):
        if (wire := read_format(fields, key)) is not None:
            changes["output_format"] = wire
    for fields in (session, audio):
        if (voice := read_voice(fields)) is not None and not current.fixed_voice:
            changes["voice"] = voice
        if (speed := fields.number("speed", 0.25, 1.5)) is not None:
            changes["speed"] = speed
    return changes


def _read_reply(current: SessionSettings, session: Fields, limits: Limits) -> dict[str, object]:
    """How replies are made: words, tools, lengths. The instructions of an agent that the server has defined stay its own."""
    changes: dict[str, object] = {}
    if "instructions" in session and not current.agent:
        changes["instructions"] = limited_text(session, "instructions", limits) or ""
    if (output_audio := read_modalities(session)) is not None:
        changes["output_audio"] = output_audio
    if (tools := read_tools(session, limits)) is not None:
        changes["tools"] = tools
    if asks_for_server_tools(session, current):
        changes["shows_tools"] = True
    if (choice := read_tool_choice(session)) is not None:
        changes["tool_choice"] = choice
    if (parallel := session.flag("parallel_tool_calls")) is not None:
        changes["parallel_tool_calls"] = parallel
    if (tokens := read_max_tokens(session)) is not None:
        changes["max_output_tokens"] = None if tokens == "inf" else tokens
    if (temperature := session.number("temperature", 0.0, 2.0)) is not None:
        changes["temperature"] = temperature
    return changes


def _read_extensions(session: Fields, current: SessionSettings, limits: Limits) -> dict[str, object]:
    """Fields of our own. What an agent that the server has defined says by itself stays its own."""
    ours = session.child("vivavoce")
    if ours is None:
        return {}
    initiative = ours.child("initiative")
    wanted: dict[str, object | None] = {
        "wants_ledger": ours.flag("ledger"),
        "wants_sounds": ours.flag("sounds"),
        "tells_sounds": ours.flag("tell_sounds"),
        "speculation": ours.flag("speculation"),
        "min_interruption_ms": ours.integer("min_interruption_ms", 0, _MAX_WAIT_MS),
        "shows_tools": ours.flag("tools"),
        "initiative": None if initiative is None or current.agent else _read_initiative(initiative, current.initiative, limits),
    }
    if (acked := ours.flag("playback")) is not None and current.playback is not PlaybackOwner.SERVER:
        wanted["playback"] = PlaybackOwner.ACKED if acked else PlaybackOwner.CLIENT
    return {name: value for name, value in wanted.items() if value is not None}


def _read_initiative(wire: Fields, current: Initiative, limits: Limits) -> Initiative:
    """What the agent says by itself; what is left out stays as it is."""
    prompts = wire.array("idle_prompts")
    if prompts is not None and (len(prompts) > _MAX_PROMPTS or not all(isinstance(text, str) and text.strip() for text in prompts)):
        raise wire.bad_value("idle_prompts", f"'{wire.param('idle_prompts')}' must be at most {_MAX_PROMPTS} texts, none of them empty.")
    changes: dict[str, object | None] = {
        "greeting": limited_text(wire, "greeting", limits),
        "idle_prompts": None if prompts is None else tuple(str(text)[:_MAX_PROMPT] for text in prompts),
        "idle_ms": wire.integer("idle_ms", 1_000, 3_600_000),
        "goodbye": limited_text(wire, "goodbye", limits),
        "filler": limited_text(wire, "filler", limits),
        "filler_ms": wire.integer("filler_ms", 0, _MAX_WAIT_MS),
        "interjects": wire.flag("interjects"),
    }
    return replace(current, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


def _merge_extras(current: tuple[tuple[str, str], ...], session: Fields) -> tuple[tuple[str, str], ...]:
    """Fields that are only echoed, as JSON text; null takes a field back to its default."""
    extras = dict(current)
    for key in ECHOED:
        if key not in session:
            continue
        text = json.dumps(session.raw[key], separators=(",", ":"))
        if len(text) > _MAX_ECHOED_BYTES:
            raise session.bad_value(key, f"'{session.param(key)}' is longer than {_MAX_ECHOED_BYTES} bytes.")
        if session.raw[key] is None:
            extras.pop(key, None)
        else:
            extras[key] = text
    return tuple(sorted(extras.items()))


def limited_text(fields: Fields, key: str, limits: Limits) -> str | None:
    """A string of at most `max_text_bytes` in UTF-8."""
    text = fields.text(key)
    if text is not None and len(text.encode()) > limits.max_text_bytes:
        raise fields.bad_value(
            key, f"'{fields.param(key)}' is too long: at most {limits.max_text_bytes} bytes, but got {len(text.encode())}."
        )
    return text


def read_format(fields: Fields, key: str) -> AudioFormat | None:
    """An audio format: beta's string or GA's object."""
    value = fields.raw.get(key)
    if isinstance(value, str):
        if value not in _BETA_FORMATS:
            raise fields.not_among(key, value, tuple(_BETA_FORMATS))
        return _BETA_FORMATS[value]
    wire = fields.child(key)
    if wire is None:
        return None
    name = wire.choice("type", [encoding.value for encoding in AudioEncoding])
    if name is None:
        raise wire.missing("type")
    encoding = AudioEncoding(name)
    rates = _PCM_RATES if encoding is AudioEncoding.PCM16 else (8_000,)
    rate = wire.integer("rate", 0, 1_000_000)
    if rate is not None and rate not in rates:
        raise wire.bad_value("rate", f"Invalid value: {rate}. Supported values are: {', '.join(map(str, rates))}.")
    return AudioFormat(encoding, rate or (24_000 if encoding is AudioEncoding.PCM16 else 8_000))


def read_voice(fields: Fields) -> str | None:
    """A voice's name, or an object with its `id`. Every name is accepted: the bundle's nearest voice speaks."""
    if isinstance(fields.raw.get("voice"), dict):
        return fields.need_child("voice").need_text("id")[:64]
    voice = fields.text("voice")
    return voice[:64] if voice else None


def read_modalities(fields: Fields) -> bool | None:
    """Whether replies are spoken: GA's `output_modalities`, beta's `modalities`. Audio always comes with its text."""
    for key in ("output_modalities", "modalities"):
        values = fields.array(key)
        if values is None:
            continue
        if not values or any(value not in ("audio", "text") for value in values):
            raise fields.bad_value(key, f"Invalid value for '{fields.param(key)}': expected ['audio'] or ['text'].")
        return "audio" in values
    return None


def read_max_tokens(fields: Fields) -> int | Literal["inf"] | None:
    """A reply's token limit: 1 to 4096, or "inf"."""
    for key in ("max_output_tokens", "max_response_output_tokens"):
        if fields.raw.get(key) == "inf":
            return "inf"
        if (tokens := fields.integer(key, 1, _MAX_TOKENS)) is not None:
            return tokens
    return None


def read_tools(fields: Fields, limits: Limits) -> tuple[ToolSpec, ...] | None:
    """The function tools of a session or a response."""
    tools = fields.children("tools")
    if tools is None:
        return () if "tools" in fields else None
    if len(tools) > limits.max_tools:
        raise fields.bad_value("tools", f"Too many tools: at most {limits.max_tools}, but got {len(tools)}.")
    read = tuple(_read_tool(tool) for tool in tools if tool.text("type") != "mcp")
    if sum(len(json.dumps([tool.name, tool.description])) + len(tool.parameters) for tool in read) > limits.max_tools_bytes:
        raise fields.bad_value("tools", f"The tools are too large: at most {limits.max_tools_bytes} bytes together.")
    return read


def asks_for_server_tools(session: Fields, current: SessionSettings) -> bool:
    """Whether the client names tools that the server runs (`{"type": "mcp", "server_label": ...}`) and so wants to see their calls. Which
    there are is the server's affair: an address is never followed, and raises BadField, as does a label that it does not have."""
    named = [tool for tool in session.children("tools") or () if tool.text("type") == "mcp"]
    labels = tuple(dict.fromkeys(tool.server_label for tool in current.server_tools))
    for tool in named:
        if (key := next((key for key in ("server_url", "connector_id", "tunnel_id") if tool.raw.get(key)), None)) is not None:
            raise tool.bad_value(key, "This server calls the MCP servers of its operator only; name one by its 'server_label'.")
        label = tool.need_text("server_label")
        if label not in labels:
            raise tool.not_among("server_label", label, labels)
    return bool(named)


def _read_tool(tool: Fields) -> ToolSpec:
    kind = tool.text("type") or "function"
    if kind != "function":
        raise tool.not_among("type", kind, ("function", "mcp"))
    name = tool.need_text("name")
    if not 0 < len(name) <= 128:
        raise tool.bad_value("name", f"'{tool.param('name')}' must have 1 to 128 characters.")
    schema = tool.child("parameters")
    parameters = schema.raw if schema else {"type": "object", "properties": {}}
    return ToolSpec(name, tool.text("description") or "", json.dumps(parameters, separators=(",", ":")))


def read_tool_choice(fields: Fields) -> ToolChoice | None:
    """Which tool, if any, a reply must call."""
    value = fields.raw.get("tool_choice")
    if isinstance(value, dict):
        choice = fields.need_child("tool_choice")
        if choice.text("type") != "function":
            raise choice.not_among("type", str(value.get("type")), ("function",))
        return ToolChoice("function", choice.need_text("name"))
    match fields.choice("tool_choice", ("auto", "none", "required")):
        case "auto":
            return ToolChoice("auto")
        case "none":
            return ToolChoice("none")
        case "required":
            return ToolChoice("required")
        case _:
            return None


def _read_echo_cancellation(fields: Fields, key: str) -> bool:
    """Azure's Voice Live spells it `{"type": "server_echo_cancellation"}`; null is off."""
    wire = fields.child(key)
    if wire is None or wire.choice("type", (ECHO_CANCELLATION,)) is None:
        return False
    if not echo_canceller.available():
        raise fields.bad_value(key, "This server has no echo cancellation: install it with `pip install 'vivavoce[echo]'`.")
    return True


def _read_transcription(wire: Fields | None) -> Transcription | None:
    return Transcription(wire.text("model"), wire.text("language"), wire.text("prompt")) if wire else None


def _read_turn_detection(wire: Fields | None) -> TurnDetection | None:
    """A whole leaf: what it omits goes back to its default. Azure spells null `{"type": "none"}`."""
    if wire is None:
        return None
    kind = wire.choice("type", ("server_vad", "semantic_vad", "none"))
    if kind == "none":
        return None
    creates, interrupts = wire.flag("create_response"), wire.flag("interrupt_response")
    create_response, interrupt_response = creates is not False, interrupts is not False
    if kind == "semantic_vad":
        eagerness = wire.choice("eagerness", [level.value for level in Eagerness])
        return SemanticVad(Eagerness(eagerness or "auto"), create_response, interrupt_response)
    default = ServerVad()
    threshold = wire.number("threshold", 0.0, 1.0)
    padding = wire.integer("prefix_padding_ms", 0, _MAX_WAIT_MS)
    silence = wire.integer("silence_duration_ms", 0, _MAX_WAIT_MS)
    return ServerVad(
        threshold=default.threshold if threshold is None else threshold,
        prefix_padding_ms=default.prefix_padding_ms if padding is None else padding,
        silence_duration_ms=default.silence_duration_ms if silence is None else silence,
        idle_timeout_ms=wire.integer("idle_timeout_ms", 1, 3_600_000),
        create_response=create_response,
        interrupt_response=interrupt_response,
    )
