"""RTVI, what Pipecat's clients speak on the data channel (protocols.md 4), to Realtime's requests, and Realtime's events to RTVI. Pure.

A client that begins with `client-ready` is spoken to in RTVI from then on. Messages of ours follow RTVI 2: words come as `bot-output` when
they sound. What RTVI has and Realtime has not (`client-message`, the agent's user interface) is answered `error-response`.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Rtvi", "Translation", "is_rtvi"]

_LABEL: Final = "rtvi-ai"
_VERSION: Final = "2.2.0"
_MARK: Final = f'"{_LABEL}"'
_LONGEST_TRANSCRIPT: Final = 1 << 20
"""Letters of a turn that has not been settled: beyond it what comes is not shown before it is."""
_TRANSCRIBED: Final = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
"""RTVI always tells what the caller said."""
_SPEAKING: Final = {
    "input_audio_buffer.speech_started": ("user-started-speaking",),
    "input_audio_buffer.speech_stopped": ("user-stopped-speaking",),
    "output_audio_buffer.started": ("bot-tts-started", "bot-started-speaking"),
    "output_audio_buffer.stopped": ("bot-tts-stopped", "bot-stopped-speaking"),
    "output_audio_buffer.cleared": ("bot-tts-stopped", "bot-stopped-speaking"),
}
"""Messages without data."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What a message of the client becomes: requests to the session, messages back to the client, or the call's end."""

    requests: tuple[str, ...] = ()
    replies: tuple[str, ...] = ()
    ends: bool = False


def is_rtvi(message: str | bytes) -> bool:
    """Whether a message of the client's is RTVI's."""
    return isinstance(message, str) and _MARK in message and _object(message).get("label") == _LABEL


class Rtvi:
    """One client's."""

    def __init__(self) -> None:
        # Whether a response is being made.
        self._responding = False
        # What has been heard of the caller's turn so far, by item.
        self._heard: tuple[str, str] = ("", "")

    def hear(self, message: str) -> Translation:
        """A message of the client's."""
        given = _object(message)
        kind, data = given.get("type"), given.get("data")
        data = data if isinstance(data, dict) else {}
        match kind:
            case "client-ready":
                ready = {"version": _VERSION, "about": {"library": "vivavoce"}}
                return Translation((_request("session.update", session=_TRANSCRIBED),), (_message("bot-ready", ready, given.get("id")),))
            case "disconnect-bot":
                return Translation(ends=True)
            case "send-text":
                return Translation(self._text(data))
            case "llm-function-call-result":
                result = data.get("result")
                output = result if isinstance(result, str) else json.dumps(result)
                item = {"type": "function_call_output", "call_id": str(data.get("tool_call_id")), "output": output}
                return Translation((_request("conversation.item.create", item=item), _request("response.create")))
            case "client-message":
                why = {"error": "This server takes no messages of the client's own."}
                return Translation(replies=(_message("error-response", why, given.get("id")),))
            case _:
                return Translation()

    def tell(self, event_text: str, timestamp: str) -> tuple[str, ...]:
        """An event of the session's, at a time of the clock (ISO 8601)."""
        event = _object(event_text)
        kind = str(event.get("type"))
        if kind in _SPEAKING:
            return tuple(map(_message, _SPEAKING[kind]))
        match kind:
            case "conversation.item.input_audio_transcription.delta":
                return self._transcribed(event, timestamp)
            case "conversation.item.input_audio_transcription.completed":
                self._heard = ("", "")
                return (_transcription(event.get("transcript"), timestamp, final=True),)
            case "response.created":
                self._responding = True
                return (_message("bot-llm-started"),)
            case "response.done":
                self._responding = False
                return (_message("bot-llm-stopped"),)
            case "response.output_audio_transcript.delta":
                text = event.get("delta")
                output = {"text": text, "spoken": True, "aggregated_by": "word"}
                return (_message("bot-llm-text", {"text": text}), _message("bot-tts-text", {"text": text}), _message("bot-output", output))
            case "response.output_text.delta":
                text = event.get("delta")
                output = {"text": text, "spoken": False, "aggregated_by": "word"}
                return (_message("bot-llm-text", {"text": text}), _message("bot-output", output))
            case "response.function_call_arguments.done":
                call = {"function_name": event.get("name"), "tool_call_id": event.get("call_id")}
                return (_message("llm-function-call-in-progress", call | {"arguments": _object(str(event.get("arguments")))}),)
            case "error":
                error = event.get("error")
                why = error.get("message") if isinstance(error, dict) else ""
                return (_message("error", {"error": why, "fatal": False}),)
            case _:
                return ()

    def _text(self, data: dict[str, Any]) -> tuple[str, ...]:
        """What the user has typed: answered at once, and what is being answered is cut, unless the options say otherwise."""
        options = data.get("options")
        options = options if isinstance(options, dict) else {}
        content = [{"type": "input_text", "text": str(data.get("content", ""))}]
        requests = [_request("conversation.item.create", item={"type": "message", "role": "user", "content": content})]
        if options.get("run_immediately", True):
            if self._responding:
                requests.insert(0, _request("response.cancel"))
            spoken = {} if options.get("audio_response", True) else {"response": {"output_modalities": ["text"]}}
            requests.append(_request("response.create", **spoken))
        return tuple(requests)

    def _transcribed(self, event: dict[str, Any], timestamp: str) -> tuple[str, ...]:
        """RTVI tells the whole of what has been heard, each time."""
        item = str(event.get("item_id"))
        before = self._heard[1] if self._heard[0] == item else ""
        if len(before) > _LONGEST_TRANSCRIPT:
            return ()
        self._heard = (item, before + str(event.get("delta") or ""))
        return (_transcription(self._heard[1], timestamp, final=False),)


def _transcription(text: object, timestamp: str, *, final: bool) -> str:
    return _message("user-transcription", {"text": text, "user_id": "user", "timestamp": timestamp, "final": final})


def _message(kind: str, data: dict[str, Any] | None = None, message_id: object = None) -> str:
    body: dict[str, Any] = {"label": _LABEL, "type": kind}
    if message_id is not None:
        body["id"] = message_id
    return json.dumps(body if data is None else body | {"data": data}, separators=(",", ":"))


def _request(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind} | fields, separators=(",", ":"))


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
