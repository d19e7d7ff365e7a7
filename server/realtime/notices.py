"""What the conversation tells the client (protocols.md 1.6, 1.7), in the spelling of its dialect.

Absent fields are left out rather than null, except where a client needs the key (checklist 5 and 7).
"""

import base64
from typing import Final, assert_never

from agent.commands import (
    ArgumentsDelta,
    ArgumentsDone,
    ContentPartAdded,
    ContentPartDone,
    ErrorRaised,
    InputCleared,
    InputCommitted,
    InputSoundStarted,
    InputSoundStopped,
    InputSpeechStarted,
    InputSpeechStopped,
    InputTimeoutTriggered,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    Notify,
    OutputAudioDone,
    OutputCleared,
    OutputItemAdded,
    OutputItemDone,
    OutputStarted,
    OutputStopped,
    OutputTextDelta,
    OutputTextDone,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    PartRef,
    ResponseCreated,
    ResponseDone,
    ResponseSnapshot,
    ResponseStatus,
    ServerArgumentsDelta,
    ServerArgumentsDone,
    ServerCallMoved,
    SessionCreated,
    SessionUpdated,
    ToolsListed,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
    TurnHeard,
)
from agent.items import PartKind
from agent.settings import SessionKind
from server.realtime.dialect import Dialect
from server.realtime.item_object import item_json
from server.realtime.session_object import format_json, session_json
from streaming.events import Usage

__all__ = ["audio_delta", "notice_json"]

_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription."

_SessionNotice = SessionCreated | SessionUpdated | ErrorRaised
_InputNotice = (
    InputCommitted
    | InputCleared
    | InputSpeechStarted
    | InputSpeechStopped
    | InputTimeoutTriggered
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
)
_ItemNotice = ItemAdded | ItemDone | ItemRetrieved | ItemDeleted | ItemTruncated
_PartNotice = (
    ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | OutputAudioDone
    | OutputTranscriptDelta
    | OutputTranscriptDone
    | ArgumentsDelta
    | ArgumentsDone
)
_SoundNotice = InputSoundStarted | InputSoundStopped | TurnHeard
_ServerToolNotice = ServerArgumentsDelta | ServerArgumentsDone | ServerCallMoved | ToolsListed


def notice_json(notice: Notify, dialect: Dialect, expires_at: int) -> dict[str, object] | None:
    """The event without its `event_id`; None where the dialect has no such event. `expires_at` is the session's, in unix seconds."""
    match notice:
        case SessionCreated() | SessionUpdated() | ErrorRaised():
            return _session_notice(notice, dialect, expires_at)
        case ItemAdded() | ItemDone() | ItemRetrieved() | ItemDeleted() | ItemTruncated():
            return _item_notice(notice, dialect)
        case ResponseCreated(response):
            return {"type": "response.created", "response": _response_json(response, dialect)}
        case ResponseDone(response):
            return {"type": "response.done", "response": _response_json(response, dialect)}
        case OutputItemAdded() | OutputItemDone():
            kind = "added" if isinstance(notice, OutputItemAdded) else "done"
            return {
                "type": f"response.output_item.{kind}",
                "response_id": notice.response_id,
                "output_index": notice.output_index,
                "item": item_json(notice.item, dialect),
            }
        case (
            InputCommitted()
            | InputCleared()
            | InputSpeechStarted()
            | InputSpeechStopped()
            | InputTimeoutTriggered()
            | TranscriptionDelta()
            | TranscriptionCompleted()
            | TranscriptionFailed()
        ):
            return _input_notice(notice)
        case InputSoundStarted() | InputSoundStopped() | TurnHeard():
            return _sound_notice(notice)
        case ServerArgumentsDelta() | ServerArgumentsDone() | ServerCallMoved() | ToolsListed():
            return _server_tool_notice(notice)
        case OutputStarted(response_id):
            return {"type": "output_audio_buffer.started", "response_id": response_id}
        case OutputStopped(response_id):
            return {"type": "output_audio_buffer.stopped", "response_id": response_id}
        case OutputCleared(response_id):
            return {"type": "output_audio_buffer.cleared", "response_id": response_id}
        case _:
            return _part_notice(notice, dialect)


def audio_delta(part: PartRef, payload: bytes, dialect: Dialect) -> dict[str, object]:
    """`response.output_audio.delta`: samples in the response's format."""
    return {"type": _audio(dialect) + ".delta"} | _place(part) | {"delta": base64.b64encode(payload).decode("ascii")}


def _session_notice(notice: _SessionNotice, dialect: Dialect, expires_at: int) -> dict[str, object]:
    match notice:
        case ErrorRaised():
            error = {
                "type": notice.kind,
                "code": notice.code,
                "message": notice.message,
                "param": notice.param,
                "event_id": notice.event_id,
            }
            return {"type": "error", "error": error}
        case SessionCreated() | SessionUpdated():
            transcribes = notice.settings.kind is SessionKind.TRANSCRIPTION and dialect is Dialect.BETA
            name = "transcription_session" if transcribes else "session"
            verb = "created" if isinstance(notice, SessionCreated) else "updated"
            return {"type": f"{name}.{verb}", "session": session_json(notice.session_id, notice.settings, expires_at, dialect)}


def _input_notice(notice: _InputNotice) -> dict[str, object]:
    match notice:
        case InputCommitted():
            return {
                "type": "input_audio_buffer.committed",
                "previous_item_id": notice.previous_item_id,
                "item_id": notice.item_id,
            }
        case InputCleared():
            return {"type": "input_audio_buffer.cleared"}
        case InputSpeechStarted(audio_start_ms, item_id):
            return {"type": "input_audio_buffer.speech_started", "audio_start_ms": audio_start_ms, "item_id": item_id}
        case InputSpeechStopped(audio_end_ms, item_id):
            return {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": audio_end_ms, "item_id": item_id}
        case InputTimeoutTriggered(audio_start_ms, audio_end_ms, item_id):
            return {
                "type": "input_audio_buffer.timeout_triggered",
                "audio_start_ms": audio_start_ms,
                "audio_end_ms": audio_end_ms,
                "item_id": item_id,
            }
        case TranscriptionDelta(item_id, delta):
            return {"type": _TRANSCRIPTION + "delta", "item_id": item_id, "content_index": 0, "delta": delta}
        case TranscriptionCompleted(item_id, transcript, seconds):
            usage = {"type": "duration", "seconds": seconds}
            text = {"item_id": item_id, "content_index": 0, "transcript": transcript}
            return {"type": _TRANSCRIPTION + "completed"} | text | {"usage": usage}
        case TranscriptionFailed(item_id, message):
            # No "param": JS agents refuses a null here.
            error = {"type": "transcription_error", "code": "transcription_failed", "message": message}
            return {"type": _TRANSCRIPTION + "failed", "item_id": item_id, "content_index": 0, "error": error}


def _sound_notice(notice: _SoundNotice) -> dict[str, object]:
    match notice:
        case InputSoundStarted(kind, audio_start_ms, probability):
            sure = round(probability, 2)
            return {"type": "vivavoce.sound.started", "kind": kind.value, "audio_start_ms": audio_start_ms, "probability": sure}
        case InputSoundStopped(kind, audio_end_ms):
            return {"type": "vivavoce.sound.stopped", "kind": kind.value, "audio_end_ms": audio_end_ms}
        case TurnHeard(item_id, sounds, confidence, speech, style):
            return {
                "type": "vivavoce.turn.heard",
                "item_id": item_id,
                "sounds": [kind.value for kind in sounds],
                "confidence": round(confidence, 2),
                "speech": round(speech, 2),
                "style": {
                    "words_per_second": style.words_per_second,
                    "pauses": style.pauses,
                    "longest_pause_ms": style.longest_pause_ms,
                    "hesitations": list(style.hesitations),
                },
            }


def _item_notice(notice: _ItemNotice, dialect: Dialect) -> dict[str, object] | None:
    match notice:
        case ItemAdded(item, previous):
            name = "created" if dialect is Dialect.BETA else "added"
            return {"type": f"conversation.item.{name}", "previous_item_id": previous, "item": item_json(item, dialect)}
        case ItemDone(item, previous):
            if dialect is Dialect.BETA:
                return None
            return {"type": "conversation.item.done", "previous_item_id": previous, "item": item_json(item, dialect)}
        case ItemRetrieved(item):
            return {"type": "conversation.item.retrieved", "item": item_json(item, dialect)}
        case ItemDeleted(item_id):
            return {"type": "conversation.item.deleted", "item_id": item_id}
        case ItemTruncated(item_id, content_index, audio_end_ms):
            where = {"item_id": item_id, "content_index": content_index}
            return {"type": "conversation.item.truncated"} | where | {"audio_end_ms": audio_end_ms}


def _part_notice(notice: _PartNotice, dialect: Dialect) -> dict[str, object]:
    place = _place(notice.part)
    text = "response.text" if dialect is Dialect.BETA else "response.output_text"
    match notice:
        case ContentPartAdded(_, kind):
            return {"type": "response.content_part.added"} | place | {"part": _part_json(kind, "")}
        case ContentPartDone(_, kind, words):
            return {"type": "response.content_part.done"} | place | {"part": _part_json(kind, words)}
        case OutputTextDelta(_, delta):
            return {"type": text + ".delta"} | place | {"delta": delta}
        case OutputTextDone(_, words):
            return {"type": text + ".done"} | place | {"text": words}
        case OutputAudioDone():
            return {"type": _audio(dialect) + ".done"} | place
        case OutputTranscriptDelta(_, delta):
            return {"type": _audio(dialect) + "_transcript.delta"} | place | {"delta": delta}
        case OutputTranscriptDone(_, transcript):
            return {"type": _audio(dialect) + "_transcript.done"} | place | {"transcript": transcript}
        case ArgumentsDelta(part, call_id, delta):
            return {"type": "response.function_call_arguments.delta"} | _call_place(part, call_id) | {"delta": delta}
        case ArgumentsDone(part, call_id, name, arguments):
            done = {"name": name, "arguments": arguments}
            return {"type": "response.function_call_arguments.done"} | _call_place(part, call_id) | done
        case _:
            assert_never(notice)


def _audio(dialect: Dialect) -> str:
    return "response.audio" if dialect is Dialect.BETA else "response.output_audio"


def _place(part: PartRef) -> dict[str, object]:
    return {
        "response_id": part.response_id,
        "item_id": part.item_id,
        "output_index": part.output_index,
        "content_index": part.content_index,
    }


def _server_tool_notice(notice: _ServerToolNotice) -> dict[str, object]:
    match notice:
        case ServerArgumentsDelta(part, delta):
            # npm's agents SDK wants the field that the hosted service pads its events with.
            return {"type": "response.mcp_call_arguments.delta"} | _output_place(part) | {"delta": delta, "obfuscation": ""}
        case ServerArgumentsDone(part, arguments):
            return {"type": "response.mcp_call_arguments.done"} | _output_place(part) | {"arguments": arguments}
        case ServerCallMoved(item_id, output_index, to):
            return {"type": f"response.mcp_call.{to}", "item_id": item_id, "output_index": output_index}
        case ToolsListed(item_id, to):
            return {"type": f"mcp_list_tools.{to}", "item_id": item_id}


def _output_place(part: PartRef) -> dict[str, object]:
    return {"response_id": part.response_id, "item_id": part.item_id, "output_index": part.output_index}


def _call_place(part: PartRef, call_id: str) -> dict[str, object]:
    return _output_place(part) | {"call_id": call_id}


def _part_json(kind: PartKind, words: str) -> dict[str, object]:
    """Parts are spelled shorter than the same parts inside items (checklist 6)."""
    return {"type": "audio", "transcript": words} if kind is PartKind.OUTPUT_AUDIO else {"type": "text", "text": words}


def _response_json(response: ResponseSnapshot, dialect: Dialect) -> dict[str, object]:
    wire_format = format_json(response.output_format, dialect)
    if dialect is Dialect.BETA:
        form: dict[str, object] = {
            "modalities": ["text", "audio"] if response.output_audio else ["text"],
            "voice": response.voice,
            "output_audio_format": wire_format,
            "temperature": response.temperature,
        }
    else:
        form = {
            "output_modalities": ["audio" if response.output_audio else "text"],
            "audio": {"output": {"format": wire_format, "voice": response.voice}},
        }
    return {
        "object": "realtime.response",
        "id": response.id,
        "status": response.status.value,
        "status_details": _status_details(response),
        "output": [item_json(item, dialect) for item in response.output],
        "conversation_id": response.conversation_id,
        "max_output_tokens": response.max_output_tokens or "inf",
        "metadata": None if response.metadata is None else dict(response.metadata),
        "usage": None if response.usage is None else _usage_json(response.usage),
    } | form


def _status_details(response: ResponseSnapshot) -> dict[str, object] | None:
    if response.status in (ResponseStatus.IN_PROGRESS, ResponseStatus.COMPLETED):
        return None
    details: dict[str, object] = {"type": response.status.value}
    if response.reason is not None:
        details["reason"] = response.reason
    if response.error is not None:
        details["error"] = {"type": "server_error", "code": "server_error", "message": response.error}
    return details


def _usage_json(usage: Usage) -> dict[str, object]:
    """Token counts; the caller's audio is counted as what it became for the model."""
    text_in = usage.input_tokens - usage.audio_tokens
    return {
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": text_in,
            "audio_tokens": usage.audio_tokens,
            "image_tokens": 0,
            "cached_tokens": usage.cached_tokens,
            "cached_tokens_details": {"text_tokens": usage.cached_tokens, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
    }
