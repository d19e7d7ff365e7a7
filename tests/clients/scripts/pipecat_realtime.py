"""PyPI `pipecat-ai`: OpenAIRealtimeLLMService in a pipeline; a greeting, an interruption with truncate, a spoken turn, a function call.

`python pipecat_realtime.py WS_URL RECORDING.pcm` prints one JSON object: what the client received.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from loguru import logger
from microphone import Microphone
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMFullResponseStartFrame,
    LLMRunFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

CITIES: list[str] = []


class Wire:
    """What the service sent, audio left out."""

    def __init__(self, service: OpenAIRealtimeLLMService) -> None:
        self.sent: list[dict[str, Any]] = []
        self._send = service._ws_send
        service._ws_send = self._note  # type: ignore[method-assign]

    async def _note(self, message: dict[str, Any]) -> None:
        if message["type"] != "input_audio_buffer.append":
            self.sent.append(message)
        await self._send(message)


class Ears(FrameProcessor):
    """Behind the service: what a transport would play and a page would show."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: Counter[str] = Counter()
        self.texts: list[str] = []
        self.errors: list[str] = []
        self.audio_bytes: list[int] = []
        self.changed = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames[type(frame).__name__] += 1
        if isinstance(frame, TTSAudioRawFrame):
            self.audio_bytes[-1] += len(frame.audio)
        elif isinstance(frame, TTSStartedFrame):
            self.audio_bytes.append(0)
        elif isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        elif isinstance(frame, LLMFullResponseStartFrame):
            self.texts.append("")
        elif isinstance(frame, LLMTextFrame):
            self.texts[-1] += frame.text
        self.changed.set()
        await self.push_frame(frame, direction)

    async def until(self, name: str, count: int) -> None:
        """Wait for the `count`th frame of this kind; a pipeline that waits for ever can't be left by an exception, so the process ends."""
        try:
            async with asyncio.timeout(30):
                while self.frames[name] < count:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            print(f"no {name} number {count}; seen {dict(self.frames)}, errors {self.errors}", file=sys.stderr, flush=True)
            os._exit(1)

    async def silence(self) -> None:
        """Wait until no sound has come for a second: an interrupted reply is closed with fewer frames than a whole one."""
        heard = -1
        while heard != sum(self.audio_bytes):
            heard = sum(self.audio_bytes)
            await asyncio.sleep(1)


async def get_weather(params: Any) -> None:
    CITIES.append(params.arguments["city"])
    await params.result_callback({"weather": "sunny"})


async def main(url: str, recording: Path) -> dict[str, Any]:
    weather = FunctionSchema("get_weather", "The weather in a city", {"city": {"type": "string"}}, ["city"])
    properties = events.SessionProperties(
        instructions="Answer briefly.",
        audio=events.AudioConfiguration(
            input=events.AudioInput(
                transcription=events.InputAudioTranscription(), turn_detection=events.TurnDetection(silence_duration_ms=300)
            )
        ),
    )
    service = OpenAIRealtimeLLMService(
        api_key="unused", base_url=url, settings=OpenAIRealtimeLLMService.Settings(model="pocket", session_properties=properties)
    )
    service.register_function("get_weather", get_weather)
    wire, ears = Wire(service), Ears()
    context = LLMContext([{"role": "user", "content": "Say hello."}], ToolsSchema(standard_tools=[weather]))
    aggregators = LLMContextAggregatorPair(context)
    worker = PipelineWorker(
        Pipeline([aggregators.user(), service, ears, aggregators.assistant()]),
        params=PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=24_000),
        enable_rtvi=False,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())

    async def push(pcm: bytes) -> None:
        await worker.queue_frame(InputAudioRawFrame(audio=pcm, sample_rate=24_000, num_channels=1))

    await worker.queue_frame(LLMRunFrame())
    await ears.until("LLMFullResponseEndFrame", 1)
    async with Microphone(push) as microphone:
        await microphone.say(recording)
        await ears.until("TTSStartedFrame", 2)
        await asyncio.sleep(0.5)  # half a second of the long answer has been played
        await microphone.say(recording)
        await ears.until("TTSStartedFrame", 3)
        await ears.silence()
        await microphone.say(recording)
        await ears.until("TTSStartedFrame", 4)
        await ears.silence()
    await worker.queue_frame(EndFrame())
    await running
    return {
        "frames": ears.frames,
        "audio_bytes": ears.audio_bytes,
        "texts": ears.texts,
        "cities": CITIES,
        "errors": ears.errors,
        "truncated_ms": [message["audio_end_ms"] for message in wire.sent if message["type"] == "conversation.item.truncate"],
        "messages": [(message["role"], message.get("content")) for message in context.messages],
    }


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
