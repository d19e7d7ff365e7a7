"""OpenAI Realtime as a service behind us, in its GA dialect, with turns by hand (protocols.md 1.3 to 1.12, "Manual"). Sans-IO.

Its conversation is kept the same as ours: what was said by others is put in, what was deleted here is deleted there, and what was not
heard is truncated.
"""

import base64
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from server.upstream.json_fields import count_at, object_at, parsed, sound_at, text_at
from server.upstream.service import (
    REPLY_RATE,
    Address,
    CallMade,
    CallWritten,
    Heard,
    ReplyDone,
    ReplySound,
    ReplyWords,
    ServiceEvent,
    ServiceReady,
    key_of,
    split_instructions,
    websocket_scheme,
)
from streaming.audio import Pcm16, encode_pcm16
from streaming.events import ContextMessage, FinishReason, Respond, RespondOptions, ToolSpec, Usage

__all__ = ["OpenAIService", "openai_address"]

log = logging.getLogger(__name__)

_OURS: Final = "vivavoce_response"
"""The key of `response.metadata` under which a response has our id."""
_PENDING: Final = ""
"""The service's id of an item that it has not named yet."""
_FORMAT: Final = {"type": "audio/pcm", "rate": REPLY_RATE}
_SOUND: Final = ("response.output_audio.delta", "response.audio.delta")
_WORDS: Final = ("response.output_audio_transcript.delta", "response.audio_transcript.delta", "response.output_text.delta")
_COMMIT: Final = "commit_"
_BUSY: Final = "conversation_already_has_active_response"


def openai_address(url: str, model: str, key: str) -> Address:
    """Where a session with `model` is; `url` ends in `/v1` or in `/realtime`, its scheme may be HTTP's."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    path = path if path.endswith("/realtime") else f"{path}/realtime"
    return Address(
        urlunsplit((websocket_scheme(parts.scheme), parts.netloc, path, urlencode({"model": model}), "")),
        {"Authorization": f"Bearer {key}"} if key else {},
    )


@dataclass(slots=True)
class _Made:
    """A response of ours in the making there."""

    order: Respond
    # Its ids there, of the response and of its message, once known; and its calls by item, in order.
    response_id: str = ""
    message_id: str = ""
    calls: dict[str, str] = field(default_factory=dict)
    done: bool = False
    stopped: bool = False


@dataclass(slots=True)
class _Known:
    """An item of ours that is there too: its id there, its words as they are there, and of which response of ours it is the message."""

    item_id: str
    text: str | None
    response_id: str | None = None


class OpenAIService:
    """`server.upstream.service.Service`."""

    def __init__(self, voice: str = "") -> None:
        """`voice` "" is the service's own choice."""
        self._voice = voice
        self._instructions = ""
        self._tools: tuple[ToolSpec, ...] = ()
        self._known: dict[str, _Known] = {}
        # Turns whose items there have no name yet, oldest first.
        self._committed: deque[str] = deque()
        self._made: dict[str, _Made] = {}
        # Calls that were made and are in no message yet, oldest first: name, arguments and id there.
        self._calls: deque[tuple[str, str, str]] = deque(maxlen=256)
        self._call_ids: dict[str, str] = {}
        # Requests refused because another response was not over; asked again when it is.
        self._again: list[str] = []
        # What `read` wants to have sent.
        self._late: list[str] = []

    @property
    def input_rate(self) -> int:
        return REPLY_RATE

    @property
    def listens(self) -> bool:
        return True

    def opening(self) -> list[str]:
        output: dict[str, object] = {"format": _FORMAT}
        if self._voice:
            output["voice"] = self._voice
        audio = {"input": {"format": _FORMAT, "turn_detection": None}, "output": output}
        return [_event("session.update", session={"type": "realtime", "output_modalities": ["audio"], "audio": audio})]

    def prepare(self, options: RespondOptions | None) -> bool:  # noqa: ARG002 (everything can be changed on the way)
        return False

    # ---------------------------------------------------------------------------------------------------- conversation

    def believe(self, messages: Sequence[ContextMessage], texts: Mapping[str, str], replies: Mapping[str, Heard]) -> list[str]:
        instructions, said = split_instructions(messages)
        sent = self._instruct(instructions)
        kept = {key_of(message) for message in said}
        for item_id in [item_id for item_id, known in self._known.items() if item_id not in kept and known.item_id != _PENDING]:
            if item_id not in self._committed:
                sent.append(_event("conversation.item.delete", item_id=self._known.pop(item_id).item_id))
        previous: str | None = "root"
        for message in said:
            sent += self._believe(message, texts, replies, previous)
            known = self._known.get(key_of(message))
            previous = previous if known is None else known.item_id or None
        return sent

    def lacks(self, messages: Sequence[ContextMessage], texts: Mapping[str, str]) -> bool:
        return any(one.text is None and key_of(one) not in self._known and one.item_id not in texts for one in messages)

    def _instruct(self, instructions: str) -> list[str]:
        if instructions == self._instructions:
            return []
        self._instructions = instructions
        return [_event("session.update", session={"type": "realtime", "instructions": instructions})]

    def _believe(self, message: ContextMessage, texts: Mapping[str, str], replies: Mapping[str, Heard], previous: str | None) -> list[str]:
        """What makes one message the same there."""
        known = self._known.get(key_of(message))
        if known is None and message.role == "assistant":
            known = self._claim(message, replies)
        if known is None:
            return self._create(message, texts, previous)
        if message.role != "assistant" or known.text == message.text or message.text is None:
            return []
        known.text = message.text
        if known.response_id is None:  # words that were said here: they are put in anew
            del self._known[key_of(message)]
            return [_event("conversation.item.delete", item_id=known.item_id), *self._create(message, texts, previous)]
        if (reply := replies.get(known.response_id)) is None:
            return []
        heard = reply.milliseconds(len(message.text))
        return [_event("conversation.item.truncate", item_id=known.item_id, content_index=0, audio_end_ms=heard)]

    def _claim(self, message: ContextMessage, replies: Mapping[str, Heard]) -> _Known | None:
        """The message of a response of theirs, which has no name of ours yet."""
        claimed = {known.response_id for known in self._known.values()}
        for response_id, made in self._made.items():
            reply = replies.get(response_id)
            if reply is not None and made.message_id and response_id not in claimed and reply.text.startswith(message.text or ""):
                known = self._known[key_of(message)] = _Known(made.message_id, reply.text, response_id)
                return known
        return None

    def _create(self, message: ContextMessage, texts: Mapping[str, str], previous: str | None) -> list[str]:
        text = texts.get(message.item_id) if message.text is None else message.text
        if message.role == "tool_call":
            if (made := next((call for call in self._calls if call[:2] == (message.name, text)), None)) is not None:
                self._calls.remove(made)
                self._call_ids[message.call_id] = made[2]
                self._known[key_of(message)] = _Known(_PENDING, text)
                return []
            item: dict[str, object] = {"type": "function_call", "call_id": message.call_id, "name": message.name, "arguments": text}
        elif message.role == "tool_result":
            call_id = self._call_ids.get(message.call_id, message.call_id)
            item = {"type": "function_call_output", "call_id": call_id, "output": text or ""}
        elif text:
            part = {"type": "output_text" if message.role == "assistant" else "input_text", "text": text}
            item = {"type": "message", "role": message.role, "content": [part]}
        else:
            return []
        key = key_of(message)
        self._known[key] = _Known(key, text)
        place = {} if previous is None or previous == _PENDING else {"previous_item_id": previous}
        if message.role == "tool_result":
            place = {}
        return [_event("conversation.item.create", item={"id": key, **item}, **place)]

    # ------------------------------------------------------------------------------------------------------ the caller

    def listen(self) -> list[str]:
        return [_event("input_audio_buffer.clear")]

    def sound(self, pcm: Pcm16) -> list[str]:
        return [_event("input_audio_buffer.append", audio=base64.b64encode(encode_pcm16(pcm)).decode())]

    def commit(self, item_id: str) -> list[str]:
        key = key_of(ContextMessage("user", item_id, None))
        self._committed.append(key)
        self._known[key] = _Known(_PENDING, None)
        return [_event("input_audio_buffer.commit", event_id=f"{_COMMIT}{key}")]

    def discard(self) -> list[str]:
        return [_event("input_audio_buffer.clear")]

    # --------------------------------------------------------------------------------------------------------- replies

    def respond(self, order: Respond, texts: Mapping[str, str]) -> list[str]:
        sent = self._forget_unheard() if order.options.context is None else []
        self._made[order.response_id] = _Made(order)
        return [*sent, *self._offer(order.options.tools), self._request(order, texts)]

    def stop(self, response_id: str) -> list[str]:
        made = self._made.get(response_id)
        if made is None or made.done:
            return []
        made.stopped = True
        return [_event("response.cancel", response_id=made.response_id)] if made.response_id else []

    def _forget_unheard(self) -> list[str]:
        """Replies of which nothing was heard are in nobody's history."""
        claimed = {known.response_id for known in self._known.values()}
        over = [response_id for response_id, made in self._made.items() if made.done or made.stopped]
        sent = []
        for response_id in over:
            made = self._made[response_id]
            if made.message_id and response_id not in claimed and made.order.options.context is None:
                sent.append(_event("conversation.item.delete", item_id=made.message_id))
                made.message_id = ""  # if some of it was heard after all, its words are put in anew
            if made.done:
                del self._made[response_id]
        return sent

    def _offer(self, tools: tuple[ToolSpec, ...]) -> list[str]:
        if tools == self._tools:
            return []
        self._tools = tools
        return [_event("session.update", session={"type": "realtime", "tools": [_tool(tool) for tool in tools]})]

    def _request(self, order: Respond, texts: Mapping[str, str]) -> str:
        options = order.options
        response: dict[str, object] = {"metadata": {_OURS: order.response_id}}
        response["output_modalities"] = ["audio" if options.audio else "text"]
        if options.tools:
            free = options.tool_choice in ("auto", "none", "required")
            response["tool_choice"] = options.tool_choice if free else {"type": "function", "name": options.tool_choice}
        if options.max_output_tokens is not None:
            response["max_output_tokens"] = options.max_output_tokens
        if options.context is not None:
            instructions, said = split_instructions(options.context)
            items = [item for item in (_input(message, texts) for message in said) if item is not None]
            response |= {"conversation": "none", "instructions": instructions, "input": items}
        return _event("response.create", event_id=f"ask_{order.response_id}", response=response)

    # --------------------------------------------------------------------------------------------------------- reading

    def read(self, message: str) -> list[ServiceEvent]:
        event = parsed(message)
        kind = text_at(event, "type")
        if kind == "session.updated":
            return [ServiceReady()]
        if kind == "error":
            return self._error(object_at(event, "error"))
        if kind == "input_audio_buffer.committed" and self._committed:
            ours = self._committed.popleft()
            if (known := self._known.get(ours)) is not None:
                known.item_id = text_at(event, "item_id")
            return []
        if kind == "response.created":
            return self._created(object_at(event, "response"))
        return self._reply(kind, event) if kind.startswith("response.") else []

    def take_late(self) -> list[str]:
        """What is to be sent because of what was read."""
        late, self._late = self._late, []
        return late

    def _created(self, response: dict[str, object]) -> list[ServiceEvent]:
        made = self._made.get(text_at(object_at(response, "metadata"), _OURS))
        if made is not None:
            made.response_id = text_at(response, "id")
            if made.stopped:
                self._late.append(_event("response.cancel", response_id=made.response_id))
        return []

    def _reply(self, kind: str, event: dict[str, object]) -> list[ServiceEvent]:
        if kind == "response.done":
            return self._done(object_at(event, "response"))
        found = self._of(text_at(event, "response_id"))
        if found is None:
            return []
        ours, made = found
        item = object_at(event, "item")
        if kind == "response.output_item.added":
            if text_at(item, "type") == "message":
                made.message_id = made.message_id or text_at(item, "id")
            elif text_at(item, "type") == "function_call":
                made.calls[text_at(item, "id")] = text_at(item, "name")
        if made.stopped:
            return []
        if kind in _SOUND:
            return [ReplySound(ours, sound_at(event, "delta"))]
        if kind in _WORDS:
            return [ReplyWords(ours, text_at(event, "delta"))]
        if kind == "response.function_call_arguments.delta" and text_at(event, "item_id") in made.calls:
            index, name = _place(made, text_at(event, "item_id"))
            return [CallWritten(ours, index, name, text_at(event, "delta"))]
        if kind == "response.output_item.done" and text_at(item, "id") in made.calls and text_at(item, "status") != "incomplete":
            index, name = _place(made, text_at(item, "id"))
            arguments = text_at(item, "arguments") or "{}"
            self._calls.append((name, arguments, text_at(item, "call_id")))
            return [CallMade(ours, index, name, arguments)]
        return []

    def _done(self, response: dict[str, object]) -> list[ServiceEvent]:
        again, self._again = self._again, []
        self._late += again
        found = self._of(text_at(response, "id"))
        if found is None:
            return []
        ours, made = found
        made.done = True
        if made.stopped:
            return []
        status, details = text_at(response, "status"), object_at(response, "status_details")
        usage = _usage(object_at(response, "usage"))
        if status == "incomplete" and text_at(details, "reason") != "content_filter":
            return [ReplyDone(ours, FinishReason.LENGTH, None, usage)]
        if status == "completed":
            return [ReplyDone(ours, FinishReason.TOOL_CALLS if made.calls else FinishReason.STOP, None, usage)]
        why = text_at(object_at(details, "error"), "message") or text_at(details, "reason") or status
        return [ReplyDone(ours, FinishReason.ERROR, f"its reply ended as {status}: {why[:200]}", usage)]

    def _error(self, error: dict[str, object]) -> list[ServiceEvent]:
        """An error about a request for a reply ends that; whatever else it was, the conversation goes on."""
        about = text_at(error, "event_id")
        if about.startswith(_COMMIT) and (key := about.removeprefix(_COMMIT)) in self._committed:
            self._committed.remove(key)
            del self._known[key]  # it is told in words
        asked = about.removeprefix("ask_")
        made = self._made.get(asked)
        code, message = text_at(error, "code"), text_at(error, "message")[:200]
        if made is None or made.done:
            log.warning("the realtime service reports %s: %s", code or "an error", message)
            return []
        if code == _BUSY:
            self._again.append(self._request(made.order, {}))
            return []
        made.done = True
        return [] if made.stopped else [ReplyDone(asked, FinishReason.ERROR, f"it refused the reply: {message}", Usage())]

    def _of(self, response_id: str) -> tuple[str, _Made] | None:
        """Our response of this id there."""
        return next(((ours, made) for ours, made in self._made.items() if response_id and made.response_id == response_id), None)


def _place(made: _Made, item_id: str) -> tuple[int, str]:
    return list(made.calls).index(item_id), made.calls[item_id]


def _event(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind, **fields}, ensure_ascii=False)


def _tool(tool: ToolSpec) -> dict[str, object]:
    return {"type": "function", "name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}


def _input(message: ContextMessage, texts: Mapping[str, str]) -> dict[str, object] | None:
    """A message of a reply's own context."""
    text = texts.get(message.item_id, "") if message.text is None else message.text
    match message.role:
        case "tool_call":
            return {"type": "function_call", "call_id": message.call_id, "name": message.name, "arguments": text}
        case "tool_result":
            return {"type": "function_call_output", "call_id": message.call_id, "output": text}
    part = {"type": "output_text" if message.role == "assistant" else "input_text", "text": text}
    return {"type": "message", "role": message.role, "content": [part]} if text else None


def _usage(usage: dict[str, object]) -> Usage:
    cached = count_at(object_at(usage, "input_token_details"), "cached_tokens")
    audio = count_at(object_at(usage, "output_token_details"), "audio_tokens")
    return Usage(count_at(usage, "input_tokens"), cached, count_at(usage, "output_tokens"), audio)
