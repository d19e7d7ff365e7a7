"""The session object as the server echoes it (protocols.md 1.3, 1.17), in either dialect. Reading one is `session_update`'s business."""

import json
from dataclasses import asdict
from typing import Final

from agent.settings import (
    AudioEncoding,
    AudioFormat,
    Initiative,
    PlaybackOwner,
    SemanticVad,
    ServerTool,
    ServerVad,
    SessionKind,
    SessionSettings,
    ToolChoice,
    Transcription,
    TurnDetection,
)
from server.realtime.dialect import Dialect
from streaming.events import ToolSpec

__all__ = ["ECHOED", "ECHO_CANCELLATION", "format_json", "session_json"]

ECHOED: Final = {"tracing": None, "prompt": None, "reasoning": None, "truncation": "auto", "include": None}
"""Fields kept only to be echoed, with the value the hosted service shows by default."""

ECHO_CANCELLATION: Final = "server_echo_cancellation"
"""The only kind there is."""

_BETA_NAMES: Final = {AudioEncoding.PCM16: "pcm16", AudioEncoding.PCMU: "g711_ulaw", AudioEncoding.PCMA: "g711_alaw"}
_BETA_TEMPERATURE: Final = 0.8


def session_json(session_id: str, settings: SessionSettings, expires_at: int, dialect: Dialect) -> dict[str, object]:
    """The full effective session. Nulls stand where the hosted service shows them, and no client read for protocols.md minds."""
    if dialect is Dialect.BETA:
        return _beta_session(session_id, settings, expires_at)
    transcribes = settings.kind is SessionKind.TRANSCRIPTION
    audio_input: dict[str, object] = {
        "format": format_json(settings.input_format, dialect),
        "transcription": _transcription_json(settings.transcription),
        "noise_reduction": {"type": settings.noise_reduction} if settings.noise_reduction else None,
        "turn_detection": _turn_detection_json(settings.turn_detection),
    }
    if settings.echo_cancellation:  # not in the hosted session object, so it is told to those only who have it
        audio_input["echo_cancellation"] = {"type": ECHO_CANCELLATION}
    head: dict[str, object] = {
        "type": settings.kind.value,
        "object": "realtime.transcription_session" if transcribes else "realtime.session",
        "id": session_id,
        "expires_at": expires_at,
    }
    extras = _extras_json(settings)
    if transcribes:
        return head | {"audio": {"input": audio_input}, "include": extras["include"]}
    audio_output = {"format": format_json(settings.output_format, dialect), "voice": settings.voice, "speed": settings.speed}
    return (
        head
        | {"model": settings.model, "output_modalities": ["audio" if settings.output_audio else "text"]}
        | {"instructions": settings.instructions, "audio": {"input": audio_input, "output": audio_output}}
        | _tools_and_limits(settings)
        | {"max_output_tokens": settings.max_output_tokens or "inf"}
        | extras
        | _extensions_json(settings)
    )


def _beta_session(session_id: str, settings: SessionSettings, expires_at: int) -> dict[str, object]:
    transcribes = settings.kind is SessionKind.TRANSCRIPTION
    common: dict[str, object] = {
        "id": session_id,
        "object": "realtime.transcription_session" if transcribes else "realtime.session",
        "expires_at": expires_at,
        "modalities": ["text", "audio"] if settings.output_audio else ["text"],
        "input_audio_format": _BETA_NAMES[settings.input_format.encoding],
        "input_audio_transcription": _transcription_json(settings.transcription),
        "input_audio_noise_reduction": {"type": settings.noise_reduction} if settings.noise_reduction else None,
        "turn_detection": _turn_detection_json(settings.turn_detection),
    }
    if settings.echo_cancellation:
        common["input_audio_echo_cancellation"] = {"type": ECHO_CANCELLATION}
    if transcribes:
        return common
    return (
        common
        | {"model": settings.model, "instructions": settings.instructions, "voice": settings.voice, "speed": settings.speed}
        | {"output_audio_format": _BETA_NAMES[settings.output_format.encoding]}
        | _tools_and_limits(settings)
        | {"temperature": _BETA_TEMPERATURE if settings.temperature is None else settings.temperature}
        | {"max_response_output_tokens": settings.max_output_tokens or "inf"}
        | _extensions_json(settings)
    )


def _tools_and_limits(settings: SessionSettings) -> dict[str, object]:
    return {
        "tools": [*_tools_json(settings.tools), *(_server_tools_json(settings.server_tools) if settings.shows_tools else [])],
        "tool_choice": _tool_choice_json(settings.tool_choice),
        "parallel_tool_calls": settings.parallel_tool_calls,
    }


def _extras_json(settings: SessionSettings) -> dict[str, object]:
    extras = dict(settings.extras)
    echoed = {key: json.loads(extras[key]) if key in extras else default for key, default in ECHOED.items()}
    if echoed["reasoning"] is None:
        del echoed["reasoning"]  # not in the hosted default session, and a null may be refused
    return echoed


def _extensions_json(settings: SessionSettings) -> dict[str, object]:
    """Ours are echoed only to clients that changed one: others need not know."""
    ours: dict[str, object] = {
        "playback": settings.playback is PlaybackOwner.ACKED,
        "ledger": settings.wants_ledger,
        "sounds": settings.wants_sounds,
        "tell_sounds": settings.tells_sounds,
        "speculation": settings.speculation,
        "min_interruption_ms": settings.min_interruption_ms,
        "tools": settings.shows_tools,
    }
    defaults = {"speculation": True, "min_interruption_ms": 0}
    if not settings.agent and settings.initiative != Initiative():
        ours["initiative"] = asdict(settings.initiative)
    usual = all(value == defaults.get(name, False) for name, value in ours.items())
    return {} if usual else {"vivavoce": ours}


def format_json(wire: AudioFormat, dialect: Dialect) -> object:
    """An audio format in the dialect's spelling; G.711 has no rate field."""
    if dialect is Dialect.BETA:
        return _BETA_NAMES[wire.encoding]
    if wire.encoding is AudioEncoding.PCM16:
        return {"type": wire.encoding.value, "rate": wire.told_rate or wire.rate}
    return {"type": wire.encoding.value}


def _tools_json(tools: tuple[ToolSpec, ...]) -> list[dict[str, object]]:
    """Function tools as the client sent them."""
    return [
        {"type": "function", "name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
        for tool in tools
    ]


def _server_tools_json(tools: tuple[ServerTool, ...]) -> list[dict[str, object]]:
    """The tools that the server runs, by label."""
    wire: list[dict[str, object]] = []
    for label in dict.fromkeys(tool.server_label for tool in tools):
        own = [tool for tool in tools if tool.server_label == label]
        always = [tool.spec.name for tool in own if tool.needs_approval]
        never = [tool.spec.name for tool in own if not tool.needs_approval]
        approval: object = {"always": {"tool_names": always}, "never": {"tool_names": never}}
        if not always or not never:
            approval = "always" if always else "never"
        wire.append({"type": "mcp", "server_label": label, "allowed_tools": [tool.spec.name for tool in own], "require_approval": approval})
    return wire


def _tool_choice_json(choice: ToolChoice) -> object:
    """A mode's name, or the function that must be called."""
    return {"type": "function", "name": choice.name} if choice.mode == "function" else choice.mode


def _transcription_json(transcription: Transcription | None) -> dict[str, object] | None:
    if transcription is None:
        return None
    fields = {"model": transcription.model, "language": transcription.language, "prompt": transcription.prompt}
    return {key: value for key, value in fields.items() if value is not None}


def _turn_detection_json(detection: TurnDetection | None) -> dict[str, object] | None:
    """All fields, `interrupt_response` above all: the agents SDKs read it from here (checklist 3)."""
    match detection:
        case None:
            return None
        case ServerVad():
            own: dict[str, object] = {
                "type": "server_vad",
                "threshold": detection.threshold,
                "prefix_padding_ms": detection.prefix_padding_ms,
                "silence_duration_ms": detection.silence_duration_ms,
                "idle_timeout_ms": detection.idle_timeout_ms,
            }
        case SemanticVad():
            own = {"type": "semantic_vad", "eagerness": detection.eagerness.value}
    return own | {"create_response": detection.create_response, "interrupt_response": detection.interrupt_response}
