"""`--bundle cascade`, Whisper large-v3 and a chat endpoint: here the real Whisper base in its place, and an endpoint of this machine."""

from pathlib import Path

import pytest
from preset_server import ask, serve_preset


@pytest.mark.models
async def test_the_cascade_answers_a_spoken_turn(chat_server, wire, tmp_path: Path, parts: Path) -> None:
    (tmp_path / "whisper-large-v3").symlink_to(parts / "whisper-base")
    endpoint = await chat_server(wire["says"]("It is ", "raining."))
    async with serve_preset("cascade", tmp_path, parts, "--chat-url", endpoint.url, "--chat-model", "gpt-4o") as url:
        turn = await ask(url)
    assert turn.reply == "It is raining."
    assert turn.answered is not None
    assert endpoint.requests[-1]["model"] == "gpt-4o"
    assert "weather" in str(endpoint.requests[-1]["messages"]).lower()
