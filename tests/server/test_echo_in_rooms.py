"""A loudspeaker that is heard by the microphone beside it, with real models: the agent is interrupted by the caller, and not by itself.
`benchmarks.echo` is the same for ten minutes, in real rooms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.dialogues.sources import read_recording, spoken_reply
from benchmarks.echo import EchoingCall, Exchange
from benchmarks.line import RecordedVoice
from benchmarks.rooms import EchoPath, room_response
from benchmarks.turn_taking import pocket_parts
from server.echo import EchoSuppressor
from streaming.echo_canceller import WebRtcEchoCanceller
from streaming.events import SAMPLE_RATE
from streaming.models.piper import Noise
from streaming.tts import PhonemeVoice

pytestmark = pytest.mark.models

REPLY = "The museum is open from ten in the morning until six in the evening, except on Mondays, and the last tour begins at five o'clock."


def test_the_agent_is_interrupted_by_the_caller_and_not_by_itself(parts: Path) -> None:
    golden = Path(__file__).resolve().parents[1] / "golden"
    question, wait = (read_recording(golden / f"{name}.flac") for name in ("weather_question", "dog-or-cat-3-nowait"))
    reply = spoken_reply(PhonemeVoice.load(parts / "piper-en-us-joe", noise=Noise(0.0, 0.0)), REPLY)
    script = [Exchange(question, "", reply), Exchange(question, "", reply, over=wait, over_after=2 * SAMPLE_RATE)]
    rng, length = np.random.default_rng(3), SAMPLE_RATE // 5
    room = room_response((rng.normal(0, 1, length) * np.exp(-np.arange(length) / 800)).astype(np.float32))
    voice = RecordedVoice()
    models = replace(pocket_parts(answers=False), voice=voice)
    call = EchoingCall(models, voice, script, EchoPath(-10, 80), room, 32.0, EchoSuppressor(WebRtcEchoCanceller()))
    result = call.run()
    assert (result.cut, result.self_turns, result.given_up) == (0, 0, None)
    assert (result.over, result.over_found) == (1, 1)
    assert result.erle_db is not None
    assert result.erle_db > 10
