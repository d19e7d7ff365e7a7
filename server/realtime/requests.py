"""Client messages (protocols.md 1.5) as typed requests of the conversation; either dialect's spelling, any mistake a `RefuseRequest`.

`input_audio_buffer.append` becomes `AppendAudio`: it goes to the Ear, not to the conversation.
"""

import binascii
from dataclasses import dataclass
from typing import Final

from agent.events import (
    CancelResponse,
    ClearInput,
    ClearOutput,
    ClientRequest,
    CommitInput,
    CreateItem,
    CreateResponse,
    DeleteItem,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    TruncateItem,
    UpdateSession,
)
from agent.settings import AudioFormat, PlaybackOwner, SessionKind, SessionSettings
from server.limits import Limits
from server.realtime.fields import BadField, Fields
from server.realtime.item_object import read_context_item, read_item, read_item_id
from server.realtime.session_update import (
    limited_text,
    merge_session,
    read_format,
    read_max_tokens,
    read_modalities,
    read_tool_choice,
    read_tools,
    read_voice,
)

__all__ = ["AppendAudio", "ClientMessage", "Situation", "read_request", "refusal"]

_MAX_MS: Final = 100_000_000
"""A day in milliseconds: above any position a session can reach."""
_MAX_METADATA: Final = 16
_MAX_METADATA_KEY: Final = 64
_MAX_METADATA_VALUE: Final = 512
_MAX_INPUT_ITEMS: Final = 256
_WEBRTC_ONLY: Final = "output_audio_buffer.clear"


@dataclass(frozen=True, slots=True)
class AppendAudio:
    """`input_audio_buffer.append`: bytes in the session's input format, cut anywhere."""

    event_id: str | None
    audio: bytes


ClientMessage = ClientRequest | AppendAudio


@dataclass(frozen=True, slots=True)
class Situation:
    """What a message's meaning depends on: the settings in force, the input position reached (16 kHz samples), and whether
    `session.type` may still be chosen."""

    settings: SessionSettings
    at: int = 0
    may_change_kind: bool = True


def refusal(event_id: str | None, bad: BadField) -> RefuseRequest:
    """A field's mistake as the conversation reports it."""
    return RefuseRequest(event_id, bad.code, bad.message, bad.param)


def read_request(message: Fields, situation: Situation, limits: Limits) -> ClientMessage:
    """The request in a parsed message."""
    event_id: str | None = None
    try:
        event_id = message.text("event_id")
        kind = message.text("type")
        if kind is None:
            raise BadField("invalid_event", "The message has no 'type'.", "type")
        return _read(kind, event_id, message, situation, limits)
    except BadField as bad:
        return refusal(event_id, bad)


def _read(kind: str, event_id: str | None, message: Fields, situation: Situation, limits: Limits) -> ClientMessage:
    match kind:
        case "input_audio_buffer.append":
            if situation.settings.input_format.told_rate is not None:
                raise BadField("invalid_event", "The sound of this call comes by its own transport, not in messages.", "type")
            return AppendAudio(event_id, _read_audio(message))
        case "input_audio_buffer.commit":
            return CommitInput(event_id, situation.at)
        case "input_audio_buffer.clear":
            return ClearInput(event_id, situation.at)
        case "session.update" | "transcription_session.update":
            beta_kind = SessionKind.TRANSCRIPTION if kind == "transcription_session.update" else None
            session = message.need_child("session")
            may_change = situation.may_change_kind
            return UpdateSession(event_id, merge_session(situation.settings, session, limits, kind=beta_kind, may_change_kind=may_change))
        case "response.create":
            return _read_response(event_id, message.child("response") or Fields({}, "response"), situation.settings, limits)
        case "response.cancel":
            return CancelResponse(event_id, message.text("response_id"))
        case "output_audio_buffer.clear" if situation.settings.playback is PlaybackOwner.SERVER:
            return ClearOutput(event_id)
        case "vivavoce.playback":
            if situation.settings.playback is not PlaybackOwner.ACKED:
                raise BadField("invalid_event", "Turn playback reports on first: session.vivavoce.playback.", "type")
            return PlaybackReported(event_id, message.need_text("response_id"), message.need_integer("played_ms", 0, _MAX_MS))
        case _:
            return _read_about_item(kind, event_id, message, limits)


def _read_about_item(kind: str, event_id: str | None, message: Fields, limits: Limits) -> ClientMessage:
    """`conversation.item.*`."""
    match kind:
        case "conversation.item.create":
            previous = read_item_id(message, "previous_item_id") if message.raw.get("previous_item_id") != "" else None
            return CreateItem(event_id, read_item(message.need_child("item"), limits), previous)
        case "conversation.item.retrieve":
            return RetrieveItem(event_id, message.need_text("item_id"))
        case "conversation.item.delete":
            return DeleteItem(event_id, message.need_text("item_id"))
        case "conversation.item.truncate":
            index = message.integer("content_index", 0, 1_000) or 0
            # Some clients compute the position in floating point.
            played = message.number("audio_end_ms", 0, _MAX_MS)
            if played is None:
                raise message.missing("audio_end_ms")
            return TruncateItem(event_id, message.need_text("item_id"), index, int(played))
        case _:
            raise BadField("invalid_event", _unknown(kind), "type")


def _unknown(kind: str) -> str:
    if kind == _WEBRTC_ONLY:
        return f"'{kind}' is for WebRTC and SIP, where the server owns playback; on a WebSocket, stop playing and truncate the item."
    return f"Unknown event type '{kind[:64]}'."


def _read_audio(message: Fields) -> bytes:
    """Base64 in the standard alphabet, padded, nothing else (RFC 4648 section 4)."""
    audio = message.need_text("audio")
    try:
        return binascii.a2b_base64(audio, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise message.bad_value("audio", "'audio' is not valid base64.") from error


def _read_response(event_id: str | None, response: Fields, settings: SessionSettings, limits: Limits) -> CreateResponse:
    output = (response.child("audio") or Fields({}, "response.audio")).child("output") or Fields({}, "response.audio.output")
    tokens = read_max_tokens(response)
    context = response.children("input")
    if context is not None and len(context) > _MAX_INPUT_ITEMS:
        raise response.bad_value("input", f"Too many input items: at most {_MAX_INPUT_ITEMS}, but got {len(context)}.")
    in_conversation = response.choice("conversation", ("auto", "none")) != "none"
    # What the server's agent is told in its own conversation is not the client's to say.
    instructions = None if settings.agent and in_conversation else limited_text(response, "instructions", limits)
    voice = None if settings.fixed_voice else read_voice(output) or read_voice(response)
    return CreateResponse(
        event_id,
        in_conversation=in_conversation,
        input=None if context is None else tuple(read_context_item(item, limits) for item in context),
        instructions=instructions,
        output_audio=read_modalities(response),
        output_format=_read_output_format(response, output, settings),
        voice=voice,
        tools=read_tools(response, limits),
        tool_choice=read_tool_choice(response),
        max_output_tokens=tokens,
        temperature=response.number("temperature", 0.0, 2.0),
        metadata=_read_metadata(response),
        interruptible=(response.child("vivavoce") or Fields({}, "response.vivavoce")).flag("interruptible") is not False,
    )


def _read_output_format(response: Fields, output: Fields, settings: SessionSettings) -> AudioFormat | None:
    """The format of this response's sound; the transport's own where it has one, whatever is asked for."""
    wanted = read_format(output, "format") or read_format(response, "output_audio_format")
    return None if settings.playback is PlaybackOwner.SERVER else wanted


def _read_metadata(response: Fields) -> tuple[tuple[str, str], ...] | None:
    metadata = response.child("metadata")
    if metadata is None:
        return None
    if len(metadata.raw) > _MAX_METADATA:
        raise response.bad_value("metadata", f"Too many metadata pairs: at most {_MAX_METADATA}, but got {len(metadata.raw)}.")
    pairs = []
    for key in metadata.raw:
        value = metadata.need_text(key)
        if len(key) > _MAX_METADATA_KEY or len(value) > _MAX_METADATA_VALUE:
            limits = f"{_MAX_METADATA_KEY} characters a key, {_MAX_METADATA_VALUE} a value"
            raise metadata.bad_value(key[:_MAX_METADATA_KEY], f"Metadata is too long: at most {limits}.")
        pairs.append((key, value))
    return tuple(pairs)
