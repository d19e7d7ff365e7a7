"""PyPI `livekit-plugins-openai`: the caller speaks while a function call waits for its output, which then comes late.

`python livekit_pending_call.py HTTP_URL RECORDING.pcm` prints one JSON object: what the client received.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai import realtime
from livekit_realtime import Listener, get_weather
from microphone import Microphone


async def main(url: str, recording: Path) -> dict[str, Any]:
    model = realtime.RealtimeModel(base_url=f"{url}/v1", api_key="unused", model="pocket")
    session = model.session()
    listener = Listener(session)

    async def push(pcm: bytes) -> None:
        session.push_audio(rtc.AudioFrame(pcm, 24_000, 1, len(pcm) // 2))

    await session.update_instructions("Answer briefly.")
    await session.update_tools([get_weather])
    async with Microphone(push) as microphone:
        await microphone.say(recording)
        called = await (await listener.next()).whole()
        await microphone.say(recording)
        between = await (await listener.next()).whole()
        call = called.calls[0]
        context = session.chat_ctx.copy()
        context.items.append(llm.FunctionCallOutput(call_id=call.call_id, name=call.name, output="sunny", is_error=False))
        await session.update_chat_ctx(context)
        reply = asyncio.ensure_future(session.generate_reply())
        answer = await (await listener.next()).whole()
        await reply
    await session.aclose()
    await model.aclose()
    return {"called": called.report(), "between": between.report(), "answer": answer.report(), "errors": listener.errors}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
