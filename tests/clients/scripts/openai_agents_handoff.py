"""PyPI `openai-agents`: the caller speaks while a tool still runs; then an agent hands the caller over to another.

`python openai_agents_handoff.py HTTP_URL RECORDING.pcm` prints one JSON object: what the client received.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner
from microphone import Microphone
from openai_agents import Listener


async def main(url: str, recording: Path) -> dict[str, Any]:
    looked_up, invoices = asyncio.Event(), []

    @function_tool
    async def get_weather(city: str) -> str:
        """The weather in a city."""
        await looked_up.wait()
        return f"sunny in {city}"

    @function_tool
    def get_invoice(number: int) -> str:
        """An invoice."""
        invoices.append(number)
        return "paid"

    billing = RealtimeAgent(name="billing", instructions="You are billing.", tools=[get_invoice], handoff_description="Invoices")
    agent = RealtimeAgent(name="weather", instructions="Answer briefly.", tools=[get_weather], handoffs=[billing])
    settings = {"input_audio_transcription": {"model": "gpt-4o-mini-transcribe"}}
    config = {"api_key": "unused", "url": f"{url.replace('http', 'ws', 1)}/v1/realtime?model=pocket", "initial_model_settings": settings}
    async with await RealtimeRunner(agent).run(model_config=config) as session:  # type: ignore[arg-type]
        listener = Listener(session)
        listening = asyncio.create_task(listener.listen())
        async with Microphone(session.send_audio) as microphone:
            await microphone.say(recording)
            await listener.count("tool_start", 1)
            await listener.count("agent_end", 1)
            await microphone.say(recording)
            await listener.count("agent_end", 2)
            looked_up.set()
            await listener.count("agent_end", 3)
            await microphone.say(recording)
            await listener.count("agent_end", 5)  # that of the call, then that of the other agent's answer
            await microphone.say(recording)
            await listener.count("agent_end", 7)
        listening.cancel()
    return {
        "errors": listener.errors,
        "types": listener.types,
        "raw_types": Counter(listener.raw),
        "audio_bytes": list(listener.audio.values()),
        "tool_outputs": [event.output for event in listener.events if event.type == "tool_end"],
        "handoffs": [[event.from_agent.name, event.to_agent.name] for event in listener.events if event.type == "handoff"],
        "invoices": invoices,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))), default=str))
