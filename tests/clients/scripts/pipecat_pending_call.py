"""PyPI `pipecat-ai`: the caller speaks while a function runs. It goes on and its result comes late, or the service cancels it.

`python pipecat_pending_call.py WS_URL RECORDING.pcm keep|cancel` prints one JSON object: what the client received.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from loguru import logger
from microphone import Microphone
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import EndFrame, InputAudioRawFrame, LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner
from pipecat_realtime import Ears, Wire


async def main(url: str, recording: Path, *, cancel: bool) -> dict[str, Any]:
    looked_up, called = asyncio.Event(), asyncio.Event()

    async def get_weather(params: Any) -> None:
        called.set()
        await looked_up.wait()
        await params.result_callback("sunny")

    weather = FunctionSchema("get_weather", "The weather in a city", {"city": {"type": "string"}}, ["city"])
    detection = events.TurnDetection(silence_duration_ms=300)
    audio = events.AudioConfiguration(input=events.AudioInput(transcription=events.InputAudioTranscription(), turn_detection=detection))
    properties = events.SessionProperties(instructions="Answer briefly.", audio=audio)
    service = OpenAIRealtimeLLMService(
        api_key="unused", base_url=url, settings=OpenAIRealtimeLLMService.Settings(model="pocket", session_properties=properties)
    )
    service.register_function("get_weather", get_weather, cancel_on_interruption=cancel)
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
    await ears.until("TTSStoppedFrame", 1)
    await ears.silence()
    async with Microphone(push) as microphone:
        await microphone.say(recording)
        await asyncio.wait_for(called.wait(), 30)
        await microphone.say(recording)
        await ears.until("TTSStoppedFrame", 2)
        await ears.silence()
        looked_up.set()
        if not cancel:
            await ears.until("TTSStoppedFrame", 3)
            await ears.silence()
    await worker.queue_frame(EndFrame())
    await running
    outputs = [message["item"] for message in wire.sent if message["type"] == "conversation.item.create"]
    return {
        "audio_bytes": sum(ears.audio_bytes),
        "texts": [text.strip() for text in ears.texts if text.strip()],
        "errors": ears.errors,
        "outputs": [item["output"] for item in outputs if item["type"] == "function_call_output"],
    }


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), cancel=sys.argv[3] == "cancel"))))
