"""PyPI `openai`: the caller speaks while a function call waits for its output; the output comes late, once in silence and once while an
answer is being made.

`python openai_pending_call.py HTTP_URL RECORDING.pcm` prints one JSON object: what the client received.
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
from openai_realtime import GA, Listener, spoken


async def main(url: str, recording: Path) -> dict[str, Any]:
    client = AsyncOpenAI(api_key="unused", base_url=f"{url}/v1")
    async with client.realtime.connect(model="pocket") as connection:
        listener = Listener(connection)
        listening = asyncio.create_task(listener.listen())
        await listener.until("session.created")
        await connection.session.update(session=GA)  # type: ignore[arg-type]
        await listener.until("session.updated")
        async with Microphone(lambda pcm: connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())) as microphone:
            rounds = [await dialogue(listener, connection, microphone, recording, speaking=speaking) for speaking in (False, True)]
        listening.cancel()
    return {"rounds": rounds, "types": Counter(event.type for event in listener.events)}


async def dialogue(listener: Listener, connection: Any, microphone: Microphone, recording: Path, *, speaking: bool) -> dict[str, Any]:
    """A call, a turn before its output, the output, the answer. With `speaking` the output is given while the turn is being answered."""
    await microphone.say(recording)
    call = (await listener.until("response.done")).response.output[0]
    await microphone.say(recording)
    if speaking:
        await listener.until("response.output_audio.delta")
    else:
        between = (await listener.until("response.done")).response
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    await connection.conversation.item.create(item=output)
    while (await listener.until("conversation.item.done")).item.type != "function_call_output":
        pass
    if speaking:
        await connection.response.create(event_id="early")
        refused = await listener.until_error()
        await connection.response.cancel()
        between = (await listener.until("response.done")).response
    await connection.response.create()
    answer = (await listener.until("response.done")).response
    return {
        "call": call.name,
        "between": spoken(listener, between),
        "refused": [refused.error.code, refused.error.event_id] if speaking else None,
        "answer": spoken(listener, answer),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
