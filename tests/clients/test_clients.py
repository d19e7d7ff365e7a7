"""Third-party clients, unmodified, each from an environment of its own: a spoken turn, an interruption with truncate, a function call.

The server is the real one with a scripted model (`scripted_server.py`), so that what each client should receive is known to the word; one
test has the real models. What the model was told after the interruption is asserted too.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from streaming.audio import encode_pcm16, to_pcm16

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".clients"
WEATHER = HERE.parent / "golden" / "weather_question.flac"
FIRST, THIRD, ANSWER = "Hello there, this is the first answer.", "You interrupted me.", "It is sunny in Paris."
BYTES_A_WORD = 60 * 48
"""The scripted voice speaks 60 ms a word, 24 kHz PCM16."""


class Server:
    """A server in a process of its own; its first line has its address, further ones what its model was told."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1])
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = self._lines.get(timeout=120)
        assert ready.startswith("vivavoce ready on "), ready
        self.url = ready.split()[-1]

    def contexts(self) -> list[list[list[str]]]:
        """What the model was told since the last call, reply by reply."""
        told = []
        while not self._lines.empty():
            told.append(json.loads(self._lines.get()))
        return told

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._reader.join(timeout=30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._process.stdout.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server([sys.executable, str(HERE / "scripted_server.py")])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spoken question as raw 24 kHz PCM16."""
    pcm, rate = soundfile.read(WEATHER, dtype="float32")
    path = tmp_path_factory.mktemp("recording") / "weather.pcm"
    path.write_bytes(encode_pcm16(to_pcm16(np.asarray(soxr.resample(pcm, rate, 24_000), np.float32))))
    return path


def run(group: str, *arguments: str | Path) -> dict[str, Any]:
    """What the client of `group` received."""
    interpreter = Path("node") if group == "node" else ENVIRONMENTS / group / "bin" / "python"
    if not (ENVIRONMENTS / f"{group}.installed").exists():
        message = f"the {group} clients are not installed: run `make clients`"
        if os.environ.get("VIVAVOCE_REQUIRE_CLIENTS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    script, *rest = map(str, arguments)
    done = subprocess.run([interpreter, HERE / "scripts" / script, *rest], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def assert_heard_only(context: list[list[str]], most_words: int) -> None:
    """Of the long reply the model believes a beginning, to a whole word, that is no longer than what can have been played."""
    (said,) = [text for role, text in context if role == "assistant" and text.startswith("This is sentence")]
    words = said.split()
    long = " ".join(f"This is sentence number {number} of a story that is far too long." for number in range(1, 31)).split()
    assert words == long[: len(words)]
    assert 1 <= len(words) <= most_words


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_openai(server: Server, recording: Path, dialect: str) -> None:
    got = run("openai", "openai_realtime.py", dialect, server.url, recording)
    assert got["first"] == {"status": "completed", "text": FIRST, "audio_bytes": 7 * BYTES_A_WORD}
    assert (got["cancelled"]["status"], got["cancelled"]["reason"]) == ("cancelled", "turn_detected")
    assert got["truncated_ms"] == 400
    assert got["retrieved"].split() == ["This", "is", "sentence", "number", "1", "of"]  # 400 ms hold six words of 60 ms
    assert got["third"]["text"] == THIRD
    assert got["call"] == {"name": "get_weather", "arguments": {"city": "Paris"}, "status": "completed"}
    assert got["answer"] == {"status": "completed", "text": ANSWER, "audio_bytes": 5 * BYTES_A_WORD}
    assert got["event_ids_unique"]
    audio = "response.output_audio.delta" if dialect == "ga" else "response.audio.delta"
    assert got["types"][audio] > 4
    assert "error" not in got["types"]
    contexts = server.contexts()
    assert [len(context) for context in contexts] == [2, 4, 6, 8, 10]  # instructions, then question and answer in turns
    assert_heard_only(contexts[3], most_words=6)


def test_openai_agents(server: Server, recording: Path) -> None:
    got = run("openai", "openai_agents.py", server.url, recording)
    assert got["errors"] == []
    assert got["first_audio_bytes"] == 7 * BYTES_A_WORD
    assert (got["cities"], got["tool_output"]) == (["Paris"], "sunny")
    texts = [part.get("transcript") for item in got["history"] for part in item.get("content", []) if item.get("role") == "assistant"]
    assert [texts[0], *texts[2:]] == [FIRST, THIRD, ANSWER]
    assert_heard_only(server.contexts()[3], most_words=80)


def test_livekit(server: Server, recording: Path) -> None:
    got = run("livekit", "livekit_realtime.py", server.url, recording)
    assert got["errors"] == []
    assert (got["first"]["text"], got["third"]["text"], got["answer"]["text"]) == (FIRST, THIRD, ANSWER)
    assert got["first"]["audio_seconds"] == pytest.approx(7 * 0.06)
    assert got["long"]["audio_seconds"] < 19
    assert (got["called"]["calls"], got["cities"]) == (["get_weather"], ["Paris"])
    assert len(got["transcripts"]) == 4
    assert_heard_only(server.contexts()[3], most_words=6)


def test_pipecat(server: Server, recording: Path) -> None:
    got = run("pipecat", "pipecat_realtime.py", f"{server.url.replace('http', 'ws', 1)}/v1/realtime", recording)
    assert got["errors"] == []
    texts = [text.strip() for text in got["texts"] if text.strip()]
    assert [texts[0], *texts[2:]] == [FIRST, THIRD, ANSWER]
    assert got["cities"] == ["Paris"]
    assert got["frames"]["InterruptionFrame"] >= 1
    assert "conversation.item.truncate" in got["sent"]
    assert_heard_only(server.contexts()[3], most_words=80)


def test_openai_agents_in_javascript(server: Server, recording: Path) -> None:
    url = f"{server.url.replace('http', 'ws', 1)}/v1/realtime?model=pocket"
    got = run("node", "agents_realtime.mjs", ENVIRONMENTS / "node", url, recording)
    assert got["errors"] == []
    assert got["statuses"] == ["completed", "cancelled", "completed", "completed", "completed"]
    assert [got["texts"][0], *got["texts"][2:]] == [FIRST, THIRD, "", ANSWER]
    assert len(got["truncatedMs"]) >= 1
    assert got["cities"] == ["Paris"]
    assert got["types"]["conversation.item.retrieved"] >= 4
    assert_heard_only(server.contexts()[3], most_words=80)


@pytest.mark.models
def test_openai_with_the_real_models(parts: Path, recording: Path) -> None:
    server = Server([sys.executable, "-m", "server", "serve", "--port", "0"])
    try:
        got = run("openai", "openai_pocket.py", server.url, recording)
    finally:
        server.stop()
    assert "weather in paris" in got["transcript"].lower()
    assert got["answer"]["status"] == "completed"
    assert len(got["answer"]["text"].split()) >= 3
    assert got["answer"]["audio_bytes"] > 24_000
    assert got["call"]["name"] == "get_weather"
    assert "Paris" in got["call"]["arguments"]["city"]
