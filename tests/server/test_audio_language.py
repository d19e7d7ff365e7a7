"""A bundle whose language model hears, tiny, as it is published: the real server answers a spoken turn from its sound."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from tiny_models import write_qwen2_audio

from agent.conversation import Conversation
from server.wiring import engine_files
from streaming.bundle import Bundle
from streaming.engine import SpeechEngine
from streaming.load import load_parts
from streaming.manifest import load_manifest


@pytest.fixture
def hearing(tmp_path: Path) -> Path:
    """A folder in Qwen2-Audio's layout, written by transformers."""
    write_qwen2_audio(tmp_path)
    return tmp_path


@pytest.fixture
def engine(parts: Path, hearing: Path) -> SpeechEngine:
    """Of the pocket bundle with that folder as its language model."""
    manifest = load_manifest("pocket")
    language_model = manifest.part_for("language_model")
    folders = tuple(hearing if part == language_model else parts / part.name for part in manifest.parts)
    return SpeechEngine(load_parts(engine_files(Bundle(manifest, folders), 1)), threaded=False)


@pytest.mark.models
async def test_a_spoken_turn_is_answered_from_its_sound(start, dial, engine: SpeechEngine, questions: list[Path]) -> None:
    served = await start(engine, factory=Conversation)
    client = await dial(served)
    await client.send(type="session.update", session={"type": "realtime", "max_output_tokens": 12})
    await client.until("session.updated")
    pcm, rate = soundfile.read(questions[0], dtype="float32")
    sound = np.concatenate((soxr.resample(pcm, rate, 24_000), np.zeros(48_000)))
    for begin in range(0, len(sound), 24_000):
        await client.append(np.clip(sound[begin : begin + 24_000] * 32_767, -32_768, 32_767))
    done = await client.until("response.done")
    assert done["response"]["output"]
    (session,) = engine._sessions.values()
    rows = [token for token in session.sequence.tokens if token < 0]
    (heard,) = session._sounds.held.values()
    assert rows == heard.tokens  # all of the turn, and in no other way
    assert len(rows) > 25
    transcript = next(iter(session._transcripts.values()))
    assert transcript
    assert transcript not in engine._tools.writer.model.decode(session.sequence.tokens)
