"""PyPI `openai` against the real models: a spoken question and its answer, then a function that must be called.

`python openai_pocket.py HTTP_URL RECORDING.pcm` prints one JSON object: what the client received.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

from microphone import Microphone
from openai import AsyncOpenAI
from openai_realtime import GA, Listener, spoken


async def main(url: str, recording: Path) -> dict[str, Any]:
    client = AsyncOpenAI(api_key="unused", base_url=f"{url}/v1")
    async with client.realtime.connect(model="pocket") as connection:
        listener = Listener(connection)
        listening = asyncio.create_task(listener.listen())
        await listener.until("session.created")
        await connection.session.update(session={**GA, "tools": []})  # type: ignore[arg-type]
        async with Microphone(lambda pcm: connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())) as microphone:
            await microphone.say(recording)
            heard = await listener.until("conversation.item.input_audio_transcription.completed")
            answer = (await listener.until("response.done")).response
        choice = {"type": "function", "name": "get_weather"}
        await connection.response.create(response={"tools": GA["tools"], "tool_choice": choice})  # type: ignore[arg-type]
        call = (await listener.until("response.done")).response.output[0]
        listening.cancel()
    return {
        "transcript": heard.transcript,
        "answer": spoken(listener, answer),
        "call": {"name": call.name, "arguments": json.loads(call.arguments)},
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
