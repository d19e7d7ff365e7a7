"""Answers in the shape of OpenAI's chat completions, whole or as chunks of a stream. Pure."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.auth import Refusal
from server.chat.completion import CalledTool, Ended, Piece, SpokenSound, WrittenText
from server.chat.request import SPOKEN_RATE, ChatRequest
from streaming.audio import Pcm16, encode_pcm16
from streaming.events import Usage
from streaming.wav import wav_bytes

__all__ = ["AnswerWriter"]


@dataclass(frozen=True, slots=True)
class AnswerWriter:
    """Writes one answer. `created` in unix seconds."""

    answer_id: str
    created: int
    request: ChatRequest

    def whole(self, pieces: Sequence[Piece]) -> dict[str, object]:
        """The answer as one object; `pieces` end in `Ended`."""
        ended = pieces[-1]
        assert isinstance(ended, Ended)
        text = "".join(piece.text for piece in pieces if isinstance(piece, WrittenText))
        message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None}
        calls = [self._call(piece) for piece in pieces if isinstance(piece, CalledTool)]
        if calls:
            message |= {"tool_calls": calls, "content": text or None}
        if self.request.sound is not None:
            sound = [piece.pcm for piece in pieces if isinstance(piece, SpokenSound)]
            data = self._coded(np.concatenate(sound) if sound else np.zeros(0, np.int16))
            spoken = {"id": self._audio_id, "expires_at": self._expires_at, "data": data, "transcript": text}
            message |= {"audio": spoken, "content": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ended.reason}
        answer = self._object("chat.completion") | {"choices": [choice], "usage": _usage(ended.usage)}
        return answer | self._extension(ended)

    def opening(self) -> str:
        """The first event of a stream."""
        return self._chunk({"role": "assistant"} | ({"content": ""} if self.request.sound is None else {}))

    def event(self, piece: Piece) -> str:
        """The event, or events, of a piece."""
        match piece:
            case WrittenText(text) if self.request.sound is None:
                return self._chunk({"content": text})
            case WrittenText(text):
                return self._chunk({"audio": {"id": self._audio_id, "transcript": text}})
            case SpokenSound(pcm):
                return self._chunk({"audio": {"id": self._audio_id, "data": self._coded(pcm)}})
            case CalledTool(index):
                return self._chunk({"tool_calls": [{"index": index} | self._call(piece)]})
            case Ended():
                return self._ending(piece)

    def failure(self, refusal: Refusal) -> str:
        """The last event of a stream that breaks off."""
        return f"data: {json.dumps(refusal.to_json())}\n\n"

    def _ending(self, ended: Ended) -> str:
        events = ""
        if self.request.sound is not None:
            events += self._chunk({"audio": {"id": self._audio_id, "expires_at": self._expires_at}})
        events += self._chunk({}, ended.reason, self._extension(ended))
        if self.request.usage:
            events += _event(self._object("chat.completion.chunk") | {"choices": [], "usage": _usage(ended.usage)})
        return events + "data: [DONE]\n\n"

    def _chunk(self, delta: Mapping[str, object], reason: str | None = None, extension: dict[str, object] | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event(self._object("chat.completion.chunk") | {"choices": [choice]} | (extension or {}))

    def _object(self, kind: str) -> dict[str, object]:
        return {"id": self.answer_id, "object": kind, "created": self.created, "model": self.request.model}

    def _extension(self, ended: Ended) -> dict[str, object]:
        return {"vivavoce": {"transcripts": list(ended.transcripts)}} if self.request.transcripts else {}

    def _call(self, called: CalledTool) -> dict[str, object]:
        function = {"name": called.name, "arguments": called.arguments}
        return {"id": f"call_{self.answer_id[-12:]}_{called.index}", "type": "function", "function": function}

    @property
    def _audio_id(self) -> str:
        return f"audio_{self.answer_id[-12:]}"

    @property
    def _expires_at(self) -> int:
        """Of a spoken answer: its sound is not kept, so no later request can name it."""
        return self.created

    def _coded(self, pcm: Pcm16) -> str:
        data = wav_bytes(pcm, SPOKEN_RATE) if self.request.sound == "wav" else encode_pcm16(pcm)
        return base64.b64encode(data).decode()


def _event(content: Mapping[str, object]) -> str:
    """ASCII JSON: half a surrogate pair in a model's text must not end a stream."""
    return f"data: {json.dumps(content, separators=(',', ':'))}\n\n"


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": usage.audio_tokens},
        "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0},
    }
