"""PyPI `openai-agents`: a spoken turn, an interruption, a function call. It validates every server event against openai-python's types.

`python openai_agents.py HTTP_URL RECORDING.pcm` prints one JSON object: what the client received.
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

CITIES: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    CITIES.append(city)
    return "sunny"


class Listener:
    """Every event the session raised, and a way to wait for one."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.types: Counter[str] = Counter()
        self.errors: list[str] = []
        self.audio: Counter[str] = Counter()
        self.raw: list[str] = []
        self.events: list[Any] = []
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    async def listen(self) -> None:
        async for event in self.session:
            self.types[event.type] += 1
            self.events.append(event)
            if event.type == "error":
                self.errors.append(str(event.error))
            elif event.type == "audio":
                self.audio[event.audio.response_id] += len(event.audio.data)
            elif event.type == "raw_model_event":
                self.raw.append(event.data.type)
            self.queue.put_nowait(event)

    async def until(self, kind: str) -> Any:
        async with asyncio.timeout(30):
            while (event := await self.queue.get()).type != kind:
                pass
            return event

    async def count(self, kind: str, times: int) -> None:
        """Wait until so many events of a kind have come, whatever came between."""
        async with asyncio.timeout(30):
            while self.types[kind] < times:
                await self.queue.get()


async def main(url: str, recording: Path) -> dict[str, Any]:
    agent = RealtimeAgent(name="Weather", instructions="Answer briefly.", tools=[get_weather])
    settings = {"input_audio_transcription": {"model": "gpt-4o-mini-transcribe"}}
    config = {"api_key": "unused", "url": f"{url.replace('http', 'ws', 1)}/v1/realtime?model=pocket", "initial_model_settings": settings}
    async with await RealtimeRunner(agent).run(model_config=config) as session:  # type: ignore[arg-type]
        listener = Listener(session)
        listening = asyncio.create_task(listener.listen())
        async with Microphone(session.send_audio) as microphone:
            await microphone.say(recording)
            await listener.until("agent_end")
            await microphone.say(recording)
            await listener.until("audio")
            await asyncio.sleep(0.5)  # half a second of the long answer has been played
            await microphone.say(recording)
            await listener.until("audio_interrupted")
            await listener.until("agent_end")
            await listener.until("agent_end")  # the cancelled answer's end, then that of the one to the interruption
            await microphone.say(recording)
            called = await listener.until("tool_end")
            await listener.until("audio")
            await listener.until("agent_end")
        history = [item.model_dump() for item in session._history]  # what a user of the SDK is shown
        listening.cancel()
    return {
        "types": listener.types,
        "errors": listener.errors,
        "raw_types": Counter(listener.raw),
        "audio_bytes": list(listener.audio.values()),
        "cities": CITIES,
        "tool_output": called.output,
        "history": history,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))), default=str))
