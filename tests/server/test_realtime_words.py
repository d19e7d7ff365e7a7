"""A bundle whose recogniser is Voxtral Realtime, tiny and random, as it is published: the real server hears a spoken turn and answers."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import VoxtralRealtimeConfig, VoxtralRealtimeForConditionalGeneration

from agent.conversation import Conversation
from server.wiring import engine_files
from streaming.bundle import Bundle
from streaming.engine import SpeechEngine
from streaming.load import load_parts
from streaming.manifest import load_manifest
from streaming.realtime_words import RealtimeRecogniser

RESERVED = 44


@pytest.fixture
def transcribing(tmp_path: Path) -> Path:
    """A folder in Voxtral Realtime's layout, written by transformers; a token is a word, and chosen without a doubt."""
    torch.manual_seed(5)
    audio = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    text = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    model = VoxtralRealtimeForConditionalGeneration(VoxtralRealtimeConfig(audio_config=audio, text_config=text))
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.3)
    model.model.language_model.norm.weight.data *= 50
    model.save_pretrained(tmp_path)
    control = ["<unk>", "<s>", "</s>", *(f"<SPECIAL_{n}>" for n in range(3, 32)), "[STREAMING_PAD]", "[STREAMING_WORD]"]
    words = [f" w{n}" for n in range(300 - RESERVED)]
    tekken = {
        "config": {"default_vocab_size": 300, "default_num_special_tokens": RESERVED},
        "vocab": [{"rank": n, "token_bytes": base64.b64encode(word.encode()).decode()} for n, word in enumerate(words)],
        "special_tokens": [{"rank": n, "token_str": name} for n, name in enumerate(control)],
    }
    (tmp_path / "tekken.json").write_text(json.dumps(tekken))
    return tmp_path


@pytest.fixture
def engine(parts: Path, transcribing: Path) -> SpeechEngine:
    """Of the pocket bundle with that folder as its transcript."""
    manifest = load_manifest("pocket")
    transcript = manifest.part_for("transcript")
    folders = tuple(transcribing if part == transcript else parts / part.name for part in manifest.parts)
    loaded = load_parts(engine_files(Bundle(manifest, folders), 1))
    assert isinstance(loaded.recogniser, RealtimeRecogniser)
    return SpeechEngine(loaded, threaded=False)


@pytest.mark.models
async def test_a_spoken_turn_is_transcribed_and_answered(start, dial, engine: SpeechEngine, questions: list[Path]) -> None:
    served = await start(engine, factory=Conversation)
    client = await dial(served)
    transcription = {"model": "voxtral-realtime"}
    session = {"type": "realtime", "max_output_tokens": 12, "audio": {"input": {"transcription": transcription}}}
    await client.send(type="session.update", session=session)
    await client.until("session.updated")
    pcm, rate = soundfile.read(questions[0], dtype="float32")
    sound = np.concatenate((soxr.resample(pcm, rate, 24_000), np.zeros(48_000)))
    for begin in range(0, len(sound), 24_000):
        await client.append(np.clip(sound[begin : begin + 24_000] * 32_767, -32_768, 32_767))
    done = await client.until("response.done")
    assert done["response"]["output"]
    told = "conversation.item.input_audio_transcription."
    (completed,) = [event for event in client.got if event["type"] == f"{told}completed"]
    words = str(completed["transcript"]).split()
    assert len(words) > 10
    assert set(words) <= {f"w{n}" for n in range(300)}
