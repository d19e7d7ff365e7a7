"""A bundle whose recogniser is Voxtral Realtime, tiny, as it is published: started by its flag it hears a spoken turn and answers."""

from pathlib import Path

import pytest
from preset_server import ask, serve_preset
from tiny_models import write_voxtral_realtime

BUNDLE = """
name = "written-while-heard"
description = "Voxtral Realtime hears"
languages = ["en"]
share = { pocket = ["smollm2-135m-instruct", "piper-en-us-joe", "smart-turn-v3.2"] }

[parts.own]
description = "Voxtral Realtime"
version = "1"
licence = "mine"
roles = ["encoder", "transcript"]
languages = ["en", "de"]
sources = [{ kind = "folder", path = "own", files = [{ name = "*.json" }, { name = "*.safetensors" }] }]
"""


@pytest.mark.models
async def test_a_spoken_turn_is_transcribed_and_answered(tmp_path: Path, parts: Path) -> None:
    write_voxtral_realtime(tmp_path / "own")
    (tmp_path / "bundle.toml").write_text(BUNDLE)
    async with serve_preset(str(tmp_path / "bundle.toml"), tmp_path, parts) as url:
        turn = await ask(url)
    assert turn.transcript == "A"
    assert turn.reply
    assert turn.answered is not None
