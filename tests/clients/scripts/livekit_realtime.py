"""PyPI `livekit-plugins-openai`: RealtimeModel without a LiveKit server; a spoken turn, an interruption with truncate, a function call.

`python livekit_realtime.py HTTP_URL RECORDING.pcm` prints one JSON object: what the client received.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai import realtime
from microphone import Microphone

CITIES: list[str] = []


@llm.function_tool
async def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: Name of the city
    """
    CITIES.append(city)
    return "sunny"


class Listener:
    """Generations as they are created, and everything else that a session raises."""

    def __init__(self, session: Any) -> None:
        self.generations: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
        self.transcripts: list[str] = []
        self.errors: list[str] = []
        self.speech_started = asyncio.Event()
        session.on("generation_created", self.generations.put_nowait)
        session.on("error", lambda event: self.errors.append(str(event.error)))
        session.on("input_speech_started", lambda _: self.speech_started.set())
        session.on("input_audio_transcription_completed", self._transcribed)

    def _transcribed(self, event: llm.InputTranscriptionCompleted) -> None:
        if event.is_final:
            self.transcripts.append(event.transcript)

    async def next(self) -> "Generation":
        async with asyncio.timeout(30):
            return Generation(await self.generations.get())


class Generation:
    """A reply being received."""

    def __init__(self, event: llm.GenerationCreatedEvent) -> None:
        self.event = event
        self.message_id = ""
        self.text = ""
        self.audio_seconds = 0.0
        self.calls: list[llm.FunctionCall] = []
        self.first_audio = asyncio.Event()
        self.done = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        await asyncio.gather(self._receive_messages(), self._receive_calls())

    async def _receive_messages(self) -> None:
        async for message in self.event.message_stream:
            self.message_id = message.message_id
            await asyncio.gather(self._receive_text(message), self._receive_audio(message))

    async def _receive_text(self, message: llm.MessageGeneration) -> None:
        async for text in message.text_stream:
            self.text += text

    async def _receive_audio(self, message: llm.MessageGeneration) -> None:
        async for frame in message.audio_stream:
            self.audio_seconds += frame.duration
            self.first_audio.set()

    async def _receive_calls(self) -> None:
        async for call in self.event.function_stream:
            self.calls.append(call)

    async def whole(self) -> "Generation":
        async with asyncio.timeout(30):
            await self.done
        return self

    def report(self) -> dict[str, Any]:
        return {"text": self.text, "audio_seconds": self.audio_seconds, "calls": [call.name for call in self.calls]}


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
        first = await (await listener.next()).whole()

        await microphone.say(recording)
        long = await listener.next()
        await long.first_audio.wait()
        await asyncio.sleep(0.5)  # half a second of the long answer has been played
        listener.speech_started.clear()
        await microphone.say(recording)
        await listener.speech_started.wait()
        session.truncate(message_id=long.message_id, modalities=["audio"], audio_end_ms=400)
        await long.whole()
        third = await (await listener.next()).whole()

        await microphone.say(recording)
        called = await (await listener.next()).whole()
        call = called.calls[0]
        output = await get_weather(**json.loads(call.arguments))
        context = session.chat_ctx.copy()
        context.items.append(llm.FunctionCallOutput(call_id=call.call_id, name=call.name, output=output, is_error=False))
        await session.update_chat_ctx(context)
        reply = asyncio.ensure_future(session.generate_reply())
        answer = await (await listener.next()).whole()
        await reply
    history = [(item.type, getattr(item, "role", ""), getattr(item, "text_content", "")) for item in session.chat_ctx.items]
    await session.aclose()
    await model.aclose()
    return {
        "first": first.report(),
        "long": long.report(),
        "third": third.report(),
        "called": called.report(),
        "cities": CITIES,
        "answer": answer.report(),
        "transcripts": listener.transcripts,
        "errors": listener.errors,
        "history": history,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
