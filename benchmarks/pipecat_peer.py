"""pipecat with our weights behind our bench: one process, a pipeline a call, as its guide builds them.

    python3 -m venv .clients/peer
    .clients/peer/bin/pip install -e . -r benchmarks/pipecat_peer.txt
    .clients/peer/bin/python -m benchmarks.pipecat_peer --port 8790
    vivavoce bench load recordings/ --sessions 4 --url ws://127.0.0.1:8790/v1/realtime      # in a second terminal

The pipeline is pipecat's: its WebSocket transport, Silero VAD, Smart Turn, context aggregators and sentence aggregation, all at their
defaults. Its Whisper service runs faster-whisper on the files of our bundle, in int8. The language model and the voice have no service that
runs offline from these files (piper-tts is GPL), so two small ones wrap ours, in pipecat's own way: a token and a sentence at a time, in
worker threads. It is given what it would not have: weights are loaded once for all calls, and each call keeps its keys and values.

The wire is as much of the Realtime protocol as the bench's caller needs: audio both ways, when a response begins and ends.
"""

import argparse
import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final

import torch
import uvicorn
from fastapi import FastAPI, WebSocket
from faster_whisper import WhisperModel
from loguru import logger
from pipecat.audio.utils import create_stream_resampler
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputAudioRawFrame,
    OutputTransportMessageUrgentFrame,
    UserStartedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.services.whisper.stt import WhisperSTTService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

from server.wiring import engine_files
from streaming.audio import encode_pcm16
from streaming.batching import completed
from streaming.bundle import ensure_bundle
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel
from streaming.events import ContextMessage
from streaming.instructions import SPOKEN_INSTRUCTIONS
from streaming.load import EngineFiles
from streaming.manifest import load_manifest
from streaming.sampling import Sampler, Sampling
from streaming.text import TextDecoder
from streaming.tts import PhonemeVoice

_HEARD: Final = 16_000
_SPOKEN: Final = 24_000


class Weights:
    """What all calls of the process share."""

    def __init__(self, files: EngineFiles) -> None:
        torch.set_num_threads(files.threads)
        self.whisper = WhisperModel(str(files.recogniser), device="cpu", compute_type="int8")
        self.model = LlamaLanguageModel.load(files.language_model)
        self.template = ChatTemplate(self.model)
        self.voice = PhonemeVoice.load(files.voice)
        # A model is not for two threads at once.
        self.writing = ThreadPoolExecutor(1)
        self.speaking = ThreadPoolExecutor(1)


class Whisper(WhisperSTTService):
    """pipecat's own, with weights that are loaded already."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        super().__init__(device="cpu", settings=self.Settings(model="base"))

    def _load(self) -> None:
        self._model = self._weights.whisper


class Smol(LLMService):
    """SmolLM2 of the bundle, a token at a time."""

    def __init__(self, weights: Weights, most_tokens: int) -> None:
        settings = dict.fromkeys(("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed"))
        super().__init__(
            settings=LLMSettings(
                model="smollm2", system_instruction=None, max_tokens=most_tokens, filter_incomplete_user_turns=False,
                user_turn_completion_config=None, **settings,
            )
        )  # fmt: skip
        self._weights = weights
        self._most = most_tokens
        self._sequence = weights.model.sequence()
        self._sampler = Sampler(1)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            async for text in self._written(frame.context):
                await self.push_frame(LLMTextFrame(text))
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def _written(self, context: LLMContext) -> AsyncIterator[str]:
        weights, sequence, decoder = self._weights, self._sequence, TextDecoder(self._weights.model.token_texts())
        messages = tuple(ContextMessage(m["role"], str(n), str(m["content"])) for n, m in enumerate(context.get_messages()))
        prompt = weights.template.reply_prompt(messages, {}, weights.model.context - 512)
        off = partial(asyncio.get_running_loop().run_in_executor, weights.writing)
        await off(lambda: completed(weights.model.sync(sequence, prompt)))
        said: list[int] = []
        while len(said) < self._most:
            assert sequence.logits is not None
            token = self._sampler.choose(sequence.logits, said, Sampling())
            if token in weights.model.end_tokens:
                return
            said.append(token)
            if text := decoder.push(token):
                yield text
            await off(lambda token=token: completed(weights.model.append(sequence, token)))  # type: ignore[misc]


class Joe(TTSService):
    """Piper's joe of the bundle, a sentence at a time."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(
            push_start_frame=True, push_stop_frames=True, sample_rate=_SPOKEN, settings=TTSSettings(model=None, voice="joe", language=None)
        )
        self._weights = weights

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:
        async for frame in self._stream_audio_frames_from_iterator(self._sound(text), in_sample_rate=_SPOKEN, context_id=context_id):
            yield frame

    async def _sound(self, text: str) -> AsyncIterator[bytes]:
        speech: Iterator[Any] = self._weights.voice.speak(text, _SPOKEN)
        while chunk := await asyncio.get_running_loop().run_in_executor(self._weights.speaking, partial(next, speech, None)):
            yield encode_pcm16(chunk.pcm)


@dataclass
class Call:
    """What the wire and the pipeline both know of a call."""

    response_id: str = ""


class RealtimeWire(FrameSerializer):
    """Audio and events as JSON."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        self._resampler = create_stream_resampler()

    async def serialize(self, frame: Frame) -> str | None:
        if isinstance(frame, OutputAudioRawFrame):
            audio = base64.b64encode(frame.audio).decode()
            return json.dumps({"type": "response.output_audio.delta", "response_id": self._call.response_id, "delta": audio})
        return json.dumps(frame.message) if isinstance(frame, OutputTransportMessageUrgentFrame) else None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        event = json.loads(data)
        if event.get("type") != "input_audio_buffer.append":
            return None
        pcm = await self._resampler.resample(base64.b64decode(event["audio"]), _SPOKEN, _HEARD)
        return InputAudioRawFrame(pcm, _HEARD, 1) if pcm else None


class Telling(FrameProcessor):
    """Before the transport: says when the caller begins, and when a response begins and ends."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        self._numbers = count(1)
        # The response under way, and whether all its words have been written.
        self._active = False
        self._written = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case UserStartedSpeakingFrame():
                await self._tell({"type": "input_audio_buffer.speech_started"})
            case InterruptionFrame() if self._active:
                await self._done("cancelled")
            case LLMFullResponseStartFrame():
                self._active, self._written = True, False
                self._call.response_id = f"resp_{next(self._numbers)}"
                await self._tell({"type": "response.created", "response": {"id": self._call.response_id}})
            case LLMFullResponseEndFrame():
                self._written = True
            case BotStoppedSpeakingFrame() if self._active and self._written:
                await self._done("completed")
        await self.push_frame(frame, direction)

    async def _done(self, status: str) -> None:
        self._active = False
        await self._tell({"type": "response.done", "response": {"id": self._call.response_id, "status": status}})

    async def _tell(self, event: dict[str, object]) -> None:
        await self.push_frame(OutputTransportMessageUrgentFrame(message=event))


async def agree(socket: WebSocket) -> int:
    """The protocol's first words; gives the most tokens of an answer."""
    await socket.accept()
    await socket.send_json({"type": "session.created", "session": {}})
    while (event := await socket.receive_json()).get("type") != "session.update":
        pass
    await socket.send_json({"type": "session.updated", "session": {"type": "realtime"}})
    return int(event["session"].get("max_output_tokens") or 160)


async def hold(socket: WebSocket, weights: Weights) -> None:
    """One call, to its end."""
    most_tokens, call = await agree(socket), Call()
    params = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=RealtimeWire(call))
    transport = FastAPIWebsocketTransport(socket, params)
    context = LLMContext([{"role": "system", "content": SPOKEN_INSTRUCTIONS}])
    user, assistant = LLMContextAggregatorPair(context, user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer()))
    stages = [
        transport.input(),
        Whisper(weights),
        user,
        Smol(weights, most_tokens),
        Joe(weights),
        Telling(call),
        transport.output(),
        assistant,
    ]
    worker = PipelineWorker(
        Pipeline(stages), params=PipelineParams(audio_in_sample_rate=_HEARD, audio_out_sample_rate=_SPOKEN), enable_rtvi=False
    )

    @transport.event_handler("on_client_disconnected")
    async def end(_transport: object, _socket: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8790)
    options = parser.parse_args()
    logger.remove()
    weights = Weights(engine_files(ensure_bundle(load_manifest("pocket")), 1))
    app = FastAPI()

    @app.websocket("/v1/realtime")
    async def call(socket: WebSocket) -> None:
        await hold(socket, weights)

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
