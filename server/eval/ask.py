"""A server asked: chat completions with sound or text, of ours or of any that speaks OpenAI's schema."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx2

from server.bench.recordings import BenchError, server_at
from server.caller_wire import ROOM_SECONDS, again_after
from server.eval.errors import EvalError
from streaming.audio import Samples, to_pcm16
from streaming.events import SAMPLE_RATE
from streaming.wav import wav_bytes

__all__ = ["Answer", "Asker", "Part", "open_asker", "sound_part", "text_part"]

_PATIENCE_SECONDS: Final = 300.0
"""For one answer: the slowest machine on five minutes of sound."""

Part = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `heard` are the words the server heard, where it says so; `error` is why there is no answer."""

    text: str = ""
    heard: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """A server's chat completions. `model` is the name sent."""

    client: httpx2.AsyncClient
    model: str

    async def ask(self, parts: Sequence[Part], *, system: str = "", most_tokens: int = 256) -> Answer:
        """The answer to one message of the user, chosen greedily. A server that is full is asked again; other failures are in `error`."""
        messages: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": list(parts)})
        return await self.complete(messages, most_tokens)

    async def complete(self, messages: Sequence[Mapping[str, object]], most_tokens: int) -> Answer:
        """The answer to a conversation."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": most_tokens,
            "vivavoce": {"transcripts": True},
        }
        patience = ROOM_SECONDS
        while True:
            try:
                response = await self.client.post("chat/completions", json=body)
            except httpx2.HTTPError as error:
                return Answer(error=f"{type(error).__name__}: {error}")
            if response.status_code == 200:
                return _answer(response)
            wait = again_after(response.status_code, response.headers.get("Retry-After"))
            if wait is None or wait > patience:
                return Answer(error=f"HTTP {response.status_code}: {response.text[:200]}")
            patience -= wait
            await asyncio.sleep(wait)


def sound_part(pcm: Samples) -> Part:
    """16 kHz sound as a part of a message."""
    data = base64.b64encode(wav_bytes(to_pcm16(pcm), SAMPLE_RATE)).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def text_part(text: str) -> Part:
    """Text as a part of a message."""
    return {"type": "text", "text": text}


@contextlib.asynccontextmanager
async def open_asker(url: str | None, api_key: str | None, model: str, arguments: Sequence[str] = ()) -> AsyncIterator[Asker]:
    """The server at `url` (with its `/v1`), or one of our own for the run, started with `arguments`. Raises EvalError where none
    answers."""
    try:
        async with server_at(url, arguments) as address:
            base = address.removesuffix("/realtime").replace("ws", "http", 1) if url is None else url
            headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
            async with httpx2.AsyncClient(base_url=f"{base.rstrip('/')}/", headers=headers, timeout=_PATIENCE_SECONDS) as client:
                await _greet(client, base)
                yield Asker(client, model)
    except BenchError as error:
        raise EvalError(str(error)) from error


async def _greet(client: httpx2.AsyncClient, base: str) -> None:
    try:
        response = await client.get("models")
    except httpx2.HTTPError as error:
        raise EvalError(f"no server answers at {base}: start one with `vivavoce serve` ({type(error).__name__})") from error
    if response.status_code == 401:
        raise EvalError(f"the server at {base} wants another API key: give it one with --api-key KEY")


def _answer(response: httpx2.Response) -> Answer:
    try:
        body = response.json()
        text = body["choices"][0]["message"]["content"]
        heard = body.get("vivavoce", {}).get("transcripts", [])
        return Answer(str(text or ""), " ".join(map(str, heard)))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return Answer(error=f"it answered what is no chat completion ({type(error).__name__})")
