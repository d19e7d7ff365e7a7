"""The chat protocol as values: the request that asks for a reply, and what its stream says. Pure.

The shape is OpenAI's `POST /chat/completions` with `stream: true`, as vLLM, Ollama, llama.cpp and others serve it too. Two requests of one
conversation begin with the same bytes as far as the conversation is the same, so that a server that keeps prefixes finds them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.upstream.errors import UpstreamError
from streaming.events import ContextMessage, FinishReason, RespondOptions, Usage
from streaming.instructions import SPOKEN_INSTRUCTIONS

__all__ = ["CallDelta", "Delta", "ReplyEnded", "StreamReader", "TokensUsed", "WordsDelta", "request_body"]


@dataclass(frozen=True, slots=True)
class WordsDelta:
    """More words of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of the arguments of a call, counted from 0."""

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """What the reply has cost."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """All of it has come: `calls` are name and arguments, a JSON object, of each."""

    reason: FinishReason
    calls: tuple[tuple[str, str], ...]


Delta = WordsDelta | CallDelta | TokensUsed | ReplyEnded


# ------------------------------------------------------------------------------------------------------------- request


def request_body(
    model: str, context: Sequence[ContextMessage], texts: Mapping[str, str], options: RespondOptions, *, limit_name: str = "max_tokens"
) -> bytes:
    """JSON. `texts` are the words of the caller's audio items. What changes from turn to turn stands last. Where a session gives no
    instructions of its own the model is told that it is heard and not read."""
    body: dict[str, object] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if options.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)},
            }
            for tool in options.tools
        ]
        free = options.tool_choice in ("auto", "none", "required")
        body["tool_choice"] = options.tool_choice if free else {"type": "function", "function": {"name": options.tool_choice}}
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.max_output_tokens is not None:
        body[limit_name] = options.max_output_tokens
    instructed = any(message.role == "system" and not message.item_id for message in context)
    default = [] if instructed or not options.audio else [{"role": "system", "content": SPOKEN_INSTRUCTIONS}]
    body["messages"] = [*default, *_messages(context, texts)]
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _messages(context: Sequence[ContextMessage], texts: Mapping[str, str]) -> list[dict[str, object]]:
    """The protocol wants every call answered at once: a result stands behind its call, wherever it came in the conversation."""
    results = {message.call_id: message.text or "" for message in context if message.role == "tool_result"}
    messages: list[dict[str, object]] = []
    calls: list[ContextMessage] = []
    for message in context:
        if message.role == "tool_call":
            calls.append(message)
            continue
        messages += _called(calls, results)
        calls = []
        words = texts.get(message.item_id, "") if message.text is None else message.text
        if message.role != "tool_result" and words:
            messages.append({"role": message.role, "content": words})
    return messages + _called(calls, results)


def _called(calls: Sequence[ContextMessage], results: Mapping[str, str]) -> list[dict[str, object]]:
    """Calls made at once, and what became of each."""
    if not calls:
        return []
    made = [{"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.text or "{}"}} for call in calls]
    answers: list[dict[str, object]] = [
        {"role": "tool", "tool_call_id": call.call_id, "content": results.get(call.call_id, "There is no result yet.")} for call in calls
    ]
    return [{"role": "assistant", "content": None, "tool_calls": made}, *answers]


# -------------------------------------------------------------------------------------------------------------- stream


@dataclass(slots=True)
class _Call:
    name: str = ""
    call_id: str = ""
    arguments: str = ""


@dataclass(slots=True)
class StreamReader:
    """`push` the data of each event. Raises UpstreamError for what is no chat completion. `reason` is how the reply ended, None before."""

    reason: FinishReason | None = None
    # Whether the server has said that nothing follows.
    closed: bool = False
    _calls: list[_Call] = field(default_factory=list)
    # Which call an index of the stream means.
    _places: dict[int, int] = field(default_factory=dict)

    def push(self, data: str) -> list[Delta]:
        """What an event says."""
        if data.strip() == "[DONE]":
            self.closed = True
            return []
        chunk = _object(_parsed(data), "an event")
        if (error := chunk.get("error")) is not None:
            message = error.get("message") if isinstance(error, dict) else error
            raise UpstreamError(f"it reported an error: {str(message)[:200]}")
        deltas: list[Delta] = []
        for choice in _list(chunk.get("choices"), "choices")[:1]:
            deltas += self._choice(_object(choice, "a choice"))
        if (usage := chunk.get("usage")) is not None:
            deltas.append(TokensUsed(_usage(_object(usage, "usage"))))
        return deltas

    def end(self) -> ReplyEnded:
        """The stream is over. Raises UpstreamError where the reply is not, or a call's arguments are no JSON object."""
        if self.reason is None:
            raise UpstreamError("its answer broke off", passing=True)
        made = []
        for call in self._calls:
            arguments = call.arguments.strip() or "{}"
            if not call.name or not isinstance(_parsed(arguments), dict):
                raise UpstreamError(f"it called {call.name[:64] or 'no tool'} with arguments that are no JSON object")
            made.append((call.name, arguments))
        return ReplyEnded(self.reason, tuple(made))

    def _choice(self, choice: dict[str, object]) -> list[Delta]:
        delta = _object(choice.get("delta") or {}, "a delta")
        deltas: list[Delta] = []
        if words := delta.get("content"):
            deltas.append(WordsDelta(_text(words, "content")))
        for call in _list(delta.get("tool_calls"), "tool_calls"):
            deltas += self._call(_object(call, "a tool call"))
        if (reason := choice.get("finish_reason")) is not None:
            self.reason = FinishReason.LENGTH if reason == "length" else FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
            if reason == "content_filter":
                raise UpstreamError("its content filter stopped the reply")
        return deltas

    def _call(self, delta: dict[str, object]) -> list[Delta]:
        function = _object(delta.get("function") or {}, "a function")
        name, arguments = _text(function.get("name") or "", "a name"), _text(function.get("arguments") or "", "arguments")
        call_id, said = _text(delta.get("id") or "", "an id"), delta.get("index")
        index = said if isinstance(said, int) else 0
        place = self._places.get(index)
        # Some servers give every call the index 0, or none, and an id of its own.
        if place is None or (call_id and self._calls[place].call_id not in ("", call_id)):
            place = self._places[index] = len(self._calls)
            self._calls.append(_Call(name, call_id))
        call = self._calls[place]
        call.name = call.name or name
        call.arguments += arguments
        return [CallDelta(place, call.name, arguments)] if call.name else []


def _usage(usage: dict[str, object]) -> Usage:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(usage.get("prompt_tokens")), _count(cached), _count(usage.get("completion_tokens")))


def _parsed(data: str) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        raise UpstreamError("it sent what is no JSON") from None
    return value


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise UpstreamError(f"it sent what is no chat completion: {what} is no object")
    return value


def _list(value: object, what: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise UpstreamError(f"it sent what is no chat completion: {what} is no list")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UpstreamError(f"it sent what is no chat completion: {what} is no text")
    return value


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
