"""A bundle whose language model hears, tiny, as it is published: the real server answers a spoken turn from its sound."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from tiny_models import write_qwen2_audio
from torch.nn import functional

from agent.conversation import Conversation
from server.wiring import engine_files
from streaming.bundle import Bundle, ensure_bundle
from streaming.decoder import LlamaLanguageModel
from streaming.engine import SpeechEngine
from streaming.engine_session import EngineSession
from streaming.load import EngineFiles, load_parts
from streaming.manifest import load_manifest


@pytest.fixture
def hearing(tmp_path: Path) -> Path:
    """A folder in Qwen2-Audio's layout, written by transformers."""
    write_qwen2_audio(tmp_path)
    return tmp_path


@pytest.fixture
def engine(parts: Path, hearing: Path) -> SpeechEngine:
    """Of the pocket bundle with that folder as its language model, which needs no projector."""
    pocket = load_manifest("pocket")
    language_model, projector = pocket.part_for("language_model"), pocket.part_for("projector")
    manifest = replace(pocket, parts=tuple(part for part in pocket.parts if part != projector), hears="sound")
    folders = tuple(hearing if part == language_model else parts / part.name for part in manifest.parts)
    return SpeechEngine(load_parts(engine_files(Bundle(manifest, folders), 1)), threaded=False)


async def answered(start, dial, engine: SpeechEngine, recording: Path) -> EngineSession:
    """The session in which a server with this engine has answered a recording."""
    served = await start(engine, factory=Conversation)
    client = await dial(served)
    await client.send(type="session.update", session={"type": "realtime", "max_output_tokens": 12})
    await client.until("session.updated")
    pcm, rate = soundfile.read(recording, dtype="float32")
    sound = np.concatenate((soxr.resample(pcm, rate, 24_000), np.zeros(48_000)))
    for begin in range(0, len(sound), 24_000):
        await client.append(np.clip(sound[begin : begin + 24_000] * 32_767, -32_768, 32_767))
    done = await client.until("response.done")
    assert done["response"]["output"]
    (session,) = engine._sessions.values()
    return session


@pytest.mark.models
async def test_a_spoken_turn_is_answered_from_its_sound(start, dial, engine: SpeechEngine, questions: list[Path]) -> None:
    session = await answered(start, dial, engine, questions[0])
    rows = [token for token in session.sequence.tokens if token < 0]
    (heard,) = session._sounds.held.values()
    assert rows == heard.tokens  # all of the turn, and in no other way
    assert len(rows) > 25
    transcript = next(iter(session._transcripts.values()))
    assert transcript
    assert transcript not in engine._tools.writer.model.decode(session.sequence.tokens)


@pytest.mark.models
async def test_the_pocket_bundle_answers_from_rows_that_spell_what_was_said(start, dial, pocket: EngineFiles) -> None:
    projector = ensure_bundle(load_manifest("pocket")).part("projector") / "projector.safetensors"
    engine = SpeechEngine(load_parts(replace(pocket, projector=projector, hears="sound")), threaded=False)
    session = await answered(start, dial, engine, Path(__file__).parents[1] / "golden" / "weather_question.flac")
    model = engine._tools.writer.model
    assert isinstance(model, LlamaLanguageModel)
    (heard,) = session._sounds.held.values()
    entered = [token for token in session.sequence.tokens if token < 0]
    assert entered
    # Until the history has the reply the next prompt ends with these rows, whose last is computed again for what follows it.
    assert entered in (heard.tokens, heard.tokens[:-1])
    rows, table = (
        functional.normalize(part.float(), dim=1) for part in (torch.stack([heard.rows[n] for n in heard.tokens]), model.embedding)
    )
    spelled = model.decode((rows @ table.T).argmax(1).tolist()).lower()
    assert spelled.startswith("what is the")
    told = model.decode(session.sequence.tokens)
    assert "what is the" not in told.lower().partition("assistant")[0]  # by no words
