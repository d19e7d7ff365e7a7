"""PyPI `openai`: a spoken turn, an interruption with truncate, a function call; GA or beta.

`python openai_realtime.py ga|beta HTTP_URL RECORDING.pcm` prints one JSON object: what the client received.
"""

import asyncio
import base64
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from microphone import Microphone
from openai import AsyncOpenAI

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
GA = {
    "type": "realtime",
    "instructions": "Answer briefly.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {"transcription": {"model": "whisper-1"}, "turn_detection": {"type": "server_vad", "silence_duration_ms": 300}},
        "output": {"voice": "alloy"},
    },
    "tools": [TOOL],
}
BETA = {
    "instructions": "Answer briefly.",
    "modalities": ["text", "audio"],
    "voice": "alloy",
    "input_audio_transcription": {"model": "whisper-1"},
    "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
    "tools": [TOOL],
}


class Listener:
    """Every event the client received, and a way to wait for one."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []
        self.audio: Counter[str] = Counter()
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    async def listen(self) -> None:
        async for event in self.connection:
            self.events.append(event)
            if event.type in ("response.output_audio.delta", "response.audio.delta"):
                self.audio[event.response_id] += len(base64.b64decode(event.delta))
            self.queue.put_nowait(event)

    async def until(self, *kinds: str) -> Any:
        async with asyncio.timeout(30):
            while (event := await self.queue.get()).type not in kinds:
                if event.type == "error":
                    raise SystemExit(f"error event: {event.error}")
            return event

    async def until_error(self) -> Any:
        """The next event, errors included, that is one."""
        async with asyncio.timeout(30):
            while (event := await self.queue.get()).type != "error":
                pass
            return event


async def main(dialect: str, url: str, recording: Path) -> dict[str, Any]:
    client = AsyncOpenAI(api_key="unused", base_url=f"{url}/v1", websocket_base_url=f"{url.replace('http', 'ws', 1)}/v1")
    realtime = client.realtime if dialect == "ga" else client.beta.realtime
    async with realtime.connect(model="pocket") as connection:
        listener = Listener(connection)
        listening = asyncio.create_task(listener.listen())
        await listener.until("session.created")
        await connection.session.update(session=GA if dialect == "ga" else BETA)  # type: ignore[arg-type]
        await listener.until("session.updated")
        async with Microphone(lambda pcm: connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())) as microphone:
            report = await dialogue(listener, connection, microphone, recording)
        listening.cancel()
    report["types"] = Counter(event.type for event in listener.events)
    report["order"] = [event.type for event in listener.events if not event.type.endswith(".delta")]
    report["event_ids_unique"] = len({event.event_id for event in listener.events}) == len(listener.events)
    return report


async def dialogue(listener: Listener, connection: Any, microphone: Microphone, recording: Path) -> dict[str, Any]:
    """One spoken turn; a long answer interrupted and truncated; a function call and its answer."""
    await microphone.say(recording)
    heard = await listener.until("conversation.item.input_audio_transcription.completed")
    first = (await listener.until("response.done")).response

    await microphone.say(recording)
    delta = await listener.until("response.output_audio.delta", "response.audio.delta")
    await asyncio.sleep(0.5)  # half a second of the long answer has been played
    await microphone.say(recording)
    cancelled = (await listener.until("response.done")).response
    await connection.conversation.item.truncate(item_id=delta.item_id, content_index=0, audio_end_ms=400)
    truncated = await listener.until("conversation.item.truncated")
    await connection.conversation.item.retrieve(item_id=delta.item_id)
    retrieved = (await listener.until("conversation.item.retrieved")).item
    third = (await listener.until("response.done")).response

    await microphone.say(recording)
    call = (await listener.until("response.done")).response.output[0]
    await connection.conversation.item.create(
        item={"type": "function_call_output", "call_id": call.call_id, "output": json.dumps({"weather": "sunny"})}
    )
    await connection.response.create()
    answer = (await listener.until("response.done")).response
    return {
        "transcript": heard.transcript,
        "first": spoken(listener, first),
        "cancelled": {**spoken(listener, cancelled), "reason": cancelled.status_details and cancelled.status_details.reason},
        "truncated_ms": truncated.audio_end_ms,
        "retrieved": retrieved.content[0].transcript,
        "third": spoken(listener, third),
        "call": {"name": call.name, "arguments": json.loads(call.arguments), "status": call.status},
        "answer": spoken(listener, answer),
    }


def spoken(listener: Listener, response: Any) -> dict[str, Any]:
    """What came of a response."""
    text = "".join(part.transcript or "" for item in response.output if item.type == "message" for part in item.content)
    return {"status": response.status, "text": text, "audio_bytes": listener.audio[response.id]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))))
