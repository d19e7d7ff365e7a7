"""Gemini Live as a service behind us, with turns by hand (protocols.md 2, "Gemini Live"). Sans-IO.

Its turn and ours are not the same thing: a call of a tool ends our reply and not its turn, and it speaks as soon as an activity ends. So an
activity is ended only when a reply is wanted, and the caller's sound over its voice is held back until the conversation has decided to
interrupt it: then the beginning of the activity stops it. Its conversation can't be changed afterwards. What was not heard is told it in
words.
"""

import base64
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from server.upstream.errors import UpstreamError
from server.upstream.json_fields import count_at, object_at, objects_at, parsed, sound_at, text_at
from server.upstream.service import (
    Address,
    CallMade,
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
from streaming.events import SAMPLE_RATE, ContextMessage, FinishReason, Respond, RespondOptions, ToolSpec, Usage

__all__ = ["GeminiService", "Setup", "Setups", "gemini_address"]

_PATH: Final = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"


def gemini_address(url: str, key: str) -> Address:
    """Where a session is; `url` is the host, its scheme may be HTTP's."""
    parts = urlsplit(url)
    path = parts.path if "BidiGenerateContent" in parts.path else parts.path.rstrip("/") + _PATH
    return Address(urlunsplit((websocket_scheme(parts.scheme), parts.netloc, path, "", "")), {"x-goog-api-key": key} if key else {})


@dataclass(slots=True)
class _Turn:
    """A turn of the service that has not been completed: for which reply it speaks, None for none any more."""

    response_id: str | None
    # Its reply's end has been told.
    done: bool = False
    # It waits for the results of its calls, by their ids there.
    calling: tuple[str, ...] = ()
    cancelled: bool = False
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a connection is set up with, for good."""

    instructions: str = ""
    tools: tuple[ToolSpec, ...] = ()


class GeminiService:
    """`server.upstream.service.Service`."""

    def __init__(self, model: str, voice: str, memory: "Setups") -> None:
        """`voice` "" is the service's own choice; `memory` is the session's, over its connections."""
        self._model = model
        self._voice = voice
        self._memory = memory
        self._setup = memory.wanted
        # Items that it knows, with their words where we have told it; and those it said itself that were cut.
        self._known: dict[str, str | None] = {}
        self._said: deque[str] = deque(maxlen=64)
        # An activity is open; sound has come in it; a turn in it has been committed.
        self._active = False
        self._committed = False
        self._turns: deque[_Turn] = deque()
        # Calls in no message yet, oldest first: name, arguments and id there; then ids there by ours; and results it has not been given.
        self._calls: deque[tuple[str, str, str]] = deque(maxlen=256)
        self._call_ids: dict[str, str] = {}
        self._results: list[dict[str, object]] = []

    @property
    def input_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def listens(self) -> bool:
        return not any(turn.response_id is not None and not turn.done for turn in self._turns)

    def opening(self) -> list[str]:
        generation: dict[str, object] = {"responseModalities": ["AUDIO"]}
        if self._voice:
            generation["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": self._voice}}}
        setup: dict[str, object] = {
            "model": f"models/{self._model.removeprefix('models/')}",
            "generationConfig": generation,
            "realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}, "activityHandling": "START_OF_ACTIVITY_INTERRUPTS"},
            "outputAudioTranscription": {},
        }
        if self._setup.instructions:
            setup["systemInstruction"] = {"parts": [{"text": self._setup.instructions}]}
        if self._setup.tools:
            setup["tools"] = [{"functionDeclarations": [_declared(tool) for tool in self._setup.tools]}]
        return [_message("setup", setup)]

    def prepare(self, options: RespondOptions | None) -> bool:
        if options is not None and options.context is None:
            self._memory.wanted = Setup(self._memory.wanted.instructions, options.tools)
        return self._memory.wanted != self._setup

    # ---------------------------------------------------------------------------------------------------- conversation

    def believe(self, messages: Sequence[ContextMessage], texts: Mapping[str, str], replies: Mapping[str, Heard]) -> list[str]:
        instructions, said = split_instructions(messages)
        self._memory.wanted = Setup(instructions, self._memory.wanted.tools)
        news: list[dict[str, object]] = []
        for message in said:
            news += self._news(message, texts, replies)
        return [_message("clientContent", {"turns": news, "turnComplete": False})] if news else []

    def lacks(self, messages: Sequence[ContextMessage], texts: Mapping[str, str]) -> bool:
        return any(one.text is None and key_of(one) not in self._known and one.item_id not in texts for one in messages)

    def _news(self, message: ContextMessage, texts: Mapping[str, str], replies: Mapping[str, Heard]) -> list[dict[str, object]]:
        """What it does not know of a message, as turns."""
        text = texts.get(message.item_id) if message.text is None else message.text
        item_id = key_of(message)
        if item_id in self._known:
            before = self._known[item_id]
            if message.role != "assistant" or before is None or text is None or before == text:
                return []
            self._known[item_id] = text
            return [_said("user", f"(I interrupted you. Of your last answer I heard only: {text!r})")]
        if text is None:
            return []
        self._known[item_id] = text
        match message.role:
            case "assistant":
                return self._claim(item_id, text, replies)
            case "tool_call":
                made = next((call for call in self._calls if call[:2] == (message.name, text)), None)
                if made is None:
                    return [_said("model", f"(I call {message.name} with {text})")]
                self._calls.remove(made)
                self._call_ids[message.call_id] = made[2]
                return []
            case "tool_result":
                call_id = self._call_ids.pop(message.call_id, "")
                if not call_id:
                    return [_said("user", f"(Result of {message.name}: {text})")]
                self._results.append({"id": call_id, "name": message.name, "response": {"output": text}})
                return []
        return [_said("user", text)] if text else []

    def _claim(self, item_id: str, text: str, replies: Mapping[str, Heard]) -> list[dict[str, object]]:
        """A message of the assistant: of a reply made there, or words that were said here."""
        for response_id in self._said:
            reply = replies.get(response_id)
            if reply is not None and reply.text.startswith(text):
                self._said.remove(response_id)
                self._known[item_id] = reply.text
                return self._news(ContextMessage("assistant", item_id, text), {}, replies)
        return [_said("model", text)] if text else []

    # ------------------------------------------------------------------------------------------------------ the caller

    def listen(self) -> list[str]:
        return []  # an activity begins with its first sound; what was heard in one that is open stays in it

    def sound(self, pcm: Pcm16) -> list[str]:
        data = base64.b64encode(encode_pcm16(pcm)).decode()
        begun = [] if self._active else [_message("realtimeInput", {"activityStart": {}})]
        self._active = True
        return [*begun, _message("realtimeInput", {"audio": {"data": data, "mimeType": f"audio/pcm;rate={SAMPLE_RATE}"}})]

    def commit(self, item_id: str) -> list[str]:
        self._known[key_of(ContextMessage("user", item_id, None))] = None
        self._committed = self._active
        return []

    def discard(self) -> list[str]:
        return []  # the activity stays open: its sound belongs to the next turn

    # --------------------------------------------------------------------------------------------------------- replies

    def respond(self, order: Respond, texts: Mapping[str, str]) -> list[str]:  # noqa: ARG002 (the service has them)
        if order.options.context is not None:
            raise UpstreamError("Gemini Live makes no replies with instructions or input of their own")
        sent, results, calling = [], self._results, next((turn for turn in self._turns if turn.calling and not turn.cancelled), None)
        self._results = []
        if results:
            sent.append(_message("toolResponse", {"functionResponses": results}))
        if results and calling is not None and not self._committed:
            calling.response_id, calling.done, calling.calling = order.response_id, False, ()
            self._said.append(order.response_id)
            return sent
        if self._committed:
            self._active = self._committed = False
            sent.append(_message("realtimeInput", {"activityEnd": {}}))
        else:
            sent.append(_message("clientContent", {"turnComplete": True}))
        self._turns.append(_Turn(order.response_id))
        self._said.append(order.response_id)
        return sent

    def stop(self, response_id: str) -> list[str]:
        for turn in self._turns:
            if turn.response_id == response_id:
                turn.response_id = None  # the next activity stops it; until then it speaks to nobody
        return []

    # --------------------------------------------------------------------------------------------------------- reading

    def take_late(self) -> list[str]:
        return []

    def read(self, message: str) -> list[ServiceEvent]:
        told = parsed(message)
        if "setupComplete" in told:
            return [ServiceReady()]
        events: list[ServiceEvent] = []
        if usage := object_at(told, "usageMetadata"):
            self._count(usage)
        if "toolCallCancellation" in told:
            self._cancel(object_at(told, "toolCallCancellation").get("ids"))
        if content := object_at(told, "serverContent"):
            events += self._content(content)
        if call := object_at(told, "toolCall"):
            events += self._call(objects_at(call, "functionCalls"))
        return events

    def _content(self, content: dict[str, object]) -> list[ServiceEvent]:
        events: list[ServiceEvent] = []
        parts = objects_at(object_at(content, "modelTurn"), "parts")
        if parts:
            self._pass_over()
        turn = self._turns[0] if self._turns else None
        if turn is not None and content.get("interrupted"):
            turn.cancelled = True
        ours = turn.response_id if turn is not None and not turn.done else None
        if ours is not None:
            words = text_at(object_at(content, "outputTranscription"), "text")
            sounds = [ReplySound(ours, sound_at(object_at(part, "inlineData"), "data")) for part in parts if "inlineData" in part]
            events += [ReplyWords(ours, words), *sounds] if words else sounds
        if turn is not None and (content.get("generationComplete") or content.get("turnComplete")):
            events += self._end(turn)
        if content.get("turnComplete") and self._turns:
            self._turns.popleft()
        return events

    def _end(self, turn: _Turn) -> list[ServiceEvent]:
        """Its reply has been made."""
        if turn.done or turn.response_id is None:
            return []
        turn.done = True
        return [ReplyDone(turn.response_id, FinishReason.STOP, None, turn.usage)]

    def _call(self, calls: list[dict[str, object]]) -> list[ServiceEvent]:
        self._pass_over()
        if not self._turns or not calls:
            return []
        turn = self._turns[0]
        turn.calling = tuple(text_at(call, "id") for call in calls)
        if turn.response_id is None or turn.done:
            return []
        events: list[ServiceEvent] = []
        for index, call in enumerate(calls):
            name, arguments = text_at(call, "name"), json.dumps(object_at(call, "args"), ensure_ascii=False)
            self._calls.append((name, arguments, text_at(call, "id")))
            events.append(CallMade(turn.response_id, index, name, arguments))
        turn.done = True
        return [*events, ReplyDone(turn.response_id, FinishReason.TOOL_CALLS, None, turn.usage)]

    def _cancel(self, ids: object) -> None:
        """It does not want the results of these calls any more: what comes of them is told it in words."""
        if not isinstance(ids, list):
            return
        for turn in self._turns:
            turn.cancelled |= any(call_id in ids for call_id in turn.calling)
        self._call_ids = {ours: theirs for ours, theirs in self._call_ids.items() if theirs not in ids}
        self._results = [result for result in self._results if result["id"] not in ids]

    def _pass_over(self) -> None:
        """A turn that was interrupted, or has said all, is over when the next one speaks, whether it was completed or not."""
        while len(self._turns) > 1 and (self._turns[0].cancelled or self._turns[0].done):
            self._turns.popleft()

    def _count(self, usage: dict[str, object]) -> None:
        if self._turns:
            prompt, cached = count_at(usage, "promptTokenCount"), count_at(usage, "cachedContentTokenCount")
            self._turns[0].usage = Usage(prompt, cached, count_at(usage, "responseTokenCount"))


@dataclass(slots=True)
class Setups:
    """What the next connection of a session is to be set up with."""

    wanted: Setup = Setup()


def _message(kind: str, value: dict[str, object]) -> str:
    return json.dumps({kind: value}, ensure_ascii=False)


def _said(role: str, text: str) -> dict[str, object]:
    return {"role": role, "parts": [{"text": text}]}


def _declared(tool: ToolSpec) -> dict[str, object]:
    # JSON Schema as it is: `parameters` takes only a part of it.
    return {"name": tool.name, "description": tool.description, "parametersJsonSchema": json.loads(tool.parameters)}
