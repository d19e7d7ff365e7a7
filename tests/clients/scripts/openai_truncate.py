"""PyPI `openai`: answers cut by `conversation.item.truncate` at points drawn with a seed, and one beyond what was sent each time.

`python openai_truncate.py HTTP_URL SEED ANSWERS` prints one JSON object: for each answer where it was cut and what was left of it.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from typing import Any

from openai import AsyncOpenAI
from openai_realtime import GA, Listener

BYTES_A_MILLISECOND = 48


async def main(url: str, seed: int, answers: int) -> dict[str, Any]:
    draw = random.Random(seed)
    client = AsyncOpenAI(api_key="unused", base_url=f"{url}/v1")
    async with client.realtime.connect(model="pocket") as connection:
        listener = Listener(connection)
        listening = asyncio.create_task(listener.listen())
        await listener.until("session.created")
        await connection.session.update(session=GA)  # type: ignore[arg-type]
        await listener.until("session.updated")
        rounds = [await dialogue(listener, connection, draw, number) for number in range(answers)]
        listening.cancel()
    return {"rounds": rounds, "types": Counter(event.type for event in listener.events)}


async def dialogue(listener: Listener, connection: Any, draw: random.Random, number: int) -> dict[str, Any]:
    """A typed question and its answer, cut at one to three points, each beyond or before the one before it."""
    content = [{"type": "input_text", "text": f"Question {number}."}]
    await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    await connection.response.create()
    response = (await listener.until("response.done")).response
    item = response.output[0]
    sent_ms = listener.audio[response.id] // BYTES_A_MILLISECOND
    cuts = []
    for at in [draw.randint(0, sent_ms) for _ in range(draw.randint(1, 3))]:
        await connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=at)
        truncated = await listener.until("conversation.item.truncated")
        await connection.conversation.item.retrieve(item_id=item.id)
        left = (await listener.until("conversation.item.retrieved")).item
        cuts.append({"at": at, "said": [truncated.item_id == item.id, truncated.audio_end_ms], "left": left.content[0].transcript})
    beyond = sent_ms + draw.randint(100, 5_000)
    await connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=beyond, event_id=f"beyond_{number}")
    refused = (await listener.until_error()).error
    return {"sent_ms": sent_ms, "cuts": cuts, "refused": [refused.event_id, refused.param, refused.message]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
