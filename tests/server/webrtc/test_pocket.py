"""The pocket bundle over WebRTC: real models, real Opus, a caller of recordings who is answered and interrupts."""

import functools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from agent.conversation import Conversation
from server.engine_process import ProcessEngineLink
from streaming.load import EngineFiles, load_engine

GOLDEN = Path(__file__).parents[2] / "golden" / "weather_question.flac"
RATE = 48_000


@pytest.mark.models
@pytest.mark.timeout(300)
async def test_a_caller_is_answered_and_may_interrupt(start, ring, pocket: EngineFiles) -> None:
    served = await start(link=ProcessEngineLink(functools.partial(load_engine, pocket)), factory=Conversation)
    caller = await ring(served)
    detection = {"type": "semantic_vad", "eagerness": "high"}
    heard = {"transcription": {"model": "whisper-1"}, "turn_detection": detection}
    session = {"type": "realtime", "instructions": "Tell a long story.", "audio": {"input": heard}}
    caller.send(type="session.update", session=session)
    await caller.until("session.updated")
    pcm, rate = soundfile.read(GOLDEN, dtype="float32")
    question = np.clip(soxr.resample(pcm, rate, RATE) * 32_767, -32_768, 32_767).astype(np.int16)
    caller.mouth.say(question)
    transcript = await caller.until("conversation.item.input_audio_transcription.completed", patience=120)
    assert "weather" in transcript["transcript"].lower()
    started = await caller.until("output_audio_buffer.started", patience=120)
    await caller.hears(RATE // 2)
    begin = len(caller.got)
    caller.mouth.say(question)
    cleared = await caller.until("output_audio_buffer.cleared", begin, patience=120)
    assert cleared["response_id"] == started["response_id"]
    truncated = await caller.until("conversation.item.truncated", begin)
    assert truncated["audio_end_ms"] > 300
    await caller.until("output_audio_buffer.started", begin, patience=120)
    assert [event["error"] for event in caller.got if event["type"] == "error"] == []
