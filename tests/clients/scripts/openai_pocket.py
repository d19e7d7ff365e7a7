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
        # A small model may talk for a minute, and no reply is done before all but its last 10 s have been spoken.
        await connection.session.update(session={**GA, "tools": [], "max_output_tokens": 40})  # type: ignore[arg-type]
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
        "reason": answer.status_details and answer.status_details.reason,
        "call": {"name": call.name, "arguments": call.arguments, "status": call.status},
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
