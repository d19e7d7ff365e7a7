"""Every bundle that is shipped beside the pocket one, started by its flag with tiny models in the layout of the published ones, answers a
spoken turn. What the tiny models are, `tiny_models` says; where real weights are in the pocket bundle, those are taken."""

from collections.abc import Callable
from pathlib import Path

import pytest
from preset_server import ask, serve_preset
from tiny_models import (
    ANSWER,
    write_audio_tokens,
    write_ctc,
    write_omni,
    write_phi3,
    write_qwen2_audio,
    write_qwen3,
    write_ultravox,
    write_voxtral,
    write_voxtral_realtime,
)
from tiny_qwen_audio import write_qwen_audio

from streaming.manifest import load_manifest, shipped_bundles

Write = Callable[[Path, Path], None]
"""Puts a bundle's tiny parts into a folder; the second holds the pocket bundle's."""


def voxtral_realtime(models: Path, _: Path) -> None:
    write_voxtral_realtime(models / "voxtral-mini-4b-realtime-2602")
    write_qwen3(models / "qwen3-4b-instruct-2507")


def edge(models: Path, parts: Path) -> None:
    (models / "whisper-small").symlink_to(parts / "whisper-base")
    write_phi3(models / "phi-3-mini-4k-instruct" / "Phi-3-mini-4k-instruct-q4.gguf")


PRESETS: dict[str, Write] = {
    "edge": edge,
    "qwen-audio": lambda models, _: write_qwen_audio(models / "qwen-audio-chat"),
    "qwen2-audio": lambda models, _: write_qwen2_audio(models / "qwen2-audio-7b-instruct"),
    "qwen2.5-omni": lambda models, _: write_omni(models / "qwen2.5-omni-7b"),
    "voxtral": lambda models, _: write_voxtral(models / "voxtral-mini-3b-2507"),
    "ultravox": lambda models, _: write_ultravox(models / "ultravox-v0_5-llama-3_1-8b"),
}
RECOGNISERS: dict[str, Write] = {
    "voxtral-realtime": voxtral_realtime,
    "wav2vec2": lambda models, _: write_ctc(models / "wav2vec2-base-960h", hubert=False),
    "hubert": lambda models, _: write_ctc(models / "hubert-large-ls960-ft", hubert=True),
}
ELSEWHERE = {"pocket", "pocket-kokoro", "cascade"}
"""Those whose models are real, and one that is started in `tests/server/upstream`."""


def test_no_bundle_is_left_out() -> None:
    assert set(shipped_bundles()) == set(PRESETS) | set(RECOGNISERS) | ELSEWHERE


@pytest.mark.models
@pytest.mark.parametrize("name", PRESETS)
async def test_a_bundle_of_the_fields_models_answers_a_spoken_turn(tmp_path: Path, parts: Path, name: str) -> None:
    PRESETS[name](tmp_path, parts)
    async with serve_preset(name, tmp_path, parts) as url:
        turn = await ask(url)
    assert turn.reply == ANSWER
    assert turn.answered is not None  # it was heard
    assert "weather" in turn.transcript.lower()


@pytest.mark.models
@pytest.mark.parametrize("name", RECOGNISERS)
async def test_a_bundle_with_another_recogniser_answers_what_that_understood(tmp_path: Path, parts: Path, name: str) -> None:
    RECOGNISERS[name](tmp_path, parts)
    async with serve_preset(name, tmp_path, parts) as url:
        turn = await ask(url)
    assert turn.transcript.strip().lower() == "a"
    assert turn.reply
    assert turn.answered is not None


AUDIO_TOKENS = """
name = "spoken-tokens"
description = "A language model whose vocabulary ends with audio"
languages = ["en"]
share = { pocket = ["whisper-base", "piper-en-us-joe", "smart-turn-v3.2"] }

[parts.own]
description = "Sound as tokens"
version = "1"
licence = "mine"
roles = ["language_model"]
sources = [{ kind = "folder", path = "own", files = [{ name = "*.json" }, { name = "*.safetensors" }, { name = "codec/*" }] }]
"""


@pytest.mark.models
async def test_a_bundle_of_ones_own_whose_vocabulary_holds_audio_answers_too(tmp_path: Path, parts: Path) -> None:
    write_audio_tokens(tmp_path / "own")
    (tmp_path / "spoken.toml").write_text(AUDIO_TOKENS)
    async with serve_preset(str(tmp_path / "spoken.toml"), tmp_path, parts) as url:
        turn = await ask(url)
    assert turn.reply == ANSWER
    assert turn.answered is not None


@pytest.mark.models
async def test_kokoro_speaks_in_the_pocket_bundle(tmp_path: Path, parts: Path, kokoro: Path) -> None:
    assert kokoro.parent == parts
    async with serve_preset("pocket-kokoro", tmp_path, parts) as url:
        turn = await ask(url)
    (created,) = [arrival.event for arrival in turn.arrivals if arrival.kind == "response.created"]
    assert created["response"]["audio"]["output"]["voice"] == "af_heart"
    assert "weather" in turn.transcript.lower()
    assert turn.answered is not None


@pytest.mark.models
async def test_tiny_models_stand_for_what_the_manifest_names(tmp_path: Path, parts: Path) -> None:
    """No part of a preset is left to the cache by a wrong name."""
    for name, write in {**PRESETS, **RECOGNISERS}.items():
        folder = tmp_path / name
        folder.mkdir()
        write(folder, parts)
        lacking = {part.name for part in load_manifest(name).parts if not (parts / part.name).exists()}
        assert {path.name for path in folder.iterdir()} == lacking
