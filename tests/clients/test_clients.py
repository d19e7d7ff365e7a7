"""Third-party clients, unmodified, each from an environment of its own: a spoken turn, an interruption with truncate, a function call;
speech while a call waits for its output, handoff, truncate at random points.

The server is the real one with a scripted model (`scripted_server.py`), so that what each client should receive is known to the word; one
test has the real models. What the model was told after the interruption is asserted too.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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

TURNS = ["Hello.", "Tell me a story.", "Stop, please.", "How is the weather in Paris?"]
"""What the server hears the caller say, turn by turn; every turn's sound is the same recording."""

FIRST, THIRD, ANSWER = "Hello there, this is the first answer.", "You interrupted me.", "It is sunny in Paris."
LONG = " ".join(f"This is sentence number {number} of a story that is far too long." for number in range(1, 31))
"""390 words, 23 s: still being sent when it is interrupted, for at most 10 s leave ahead of real time."""

REPLIES = [
    {"text": FIRST, "tool_calls": []},
    {"text": LONG, "tool_calls": []},
    {"text": THIRD, "tool_calls": []},
    {"text": "", "tool_calls": [["get_weather", '{"city": "Paris"}']]},
    {"text": ANSWER, "tool_calls": []},
]

BYTES_A_WORD = 60 * 48
"""The scripted voice speaks 60 ms a word, 24 kHz PCM16."""

UNHEARD_WORDS = 80
"""Of the long reply at least so much, 5 s, has been sent and not been heard: half of the 10 s that leave ahead, on a slow machine too."""


class Server:
    """A server in a process of its own; its first line has its address, further ones what its model was told."""

    def __init__(self, command: list[str]) -> None:
        root = HERE.parents[1]
        # It serves the packages beside these tests, not others that may be installed.
        environment = os.environ | {"PYTHONPATH": str(root)}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)
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
            line = self._lines.get()
            assert line, "the server has ended"
            told.append(json.loads(line))
        return told

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._reader.join(timeout=30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("")  # the server has ended: whoever waits for its address need wait no longer
        self._process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path, assert_replays: Callable[[Path], None]) -> Iterator[Callable[..., Server]]:
    """`serve(command)` starts a server; when the test is over, every session it had is replayed from its log."""
    begun: list[Server] = []

    def start(*command: str | Path) -> Server:
        begun.append(Server([sys.executable, *map(str, command)]))
        return begun[-1]

    yield start
    for server in begun:
        server.stop()
    logs = list((tmp_path / "logs").iterdir())
    assert logs
    for log in logs:
        assert_replays(log)


@pytest.fixture
def server(serve: Callable[..., Server], tmp_path: Path) -> Server:
    """A server with a script of a model."""
    return serve(HERE / "scripted_server.py", json.dumps({"transcripts": TURNS, "replies": REPLIES}), tmp_path / "logs")


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
    script, *rest = map(str, arguments)
    done = subprocess.run([interpreter, HERE / "scripts" / script, *rest], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def words_in(audio_bytes: int) -> int:
    """How many of the scripted voice's words are whole in so much audio."""
    return audio_bytes // BYTES_A_WORD


def assert_told(contexts: list[list[list[str]]], turns: list[str]) -> list[str]:
    """Five replies were made, each told all that was said before; returns the words of the long reply that the model believes were heard.

    They are its beginning, end at a whole word, and stay the same from then on."""
    assert [len(context) for context in contexts] == [2, 4, 6, 8, 10]  # instructions, then question and answer in turns
    assert [[text for role, text in context if role == "user"] for context in contexts[:4]] == [turns[:count] for count in range(1, 5)]
    said = [text for role, text in contexts[4] if role == "assistant"]
    assert [said[0], *said[2:]] == [FIRST, THIRD]
    assert [role for role, _ in contexts[4][-2:]] == ["tool_call", "tool_result"]
    assert all([text for role, text in context if role == "assistant"][1] == said[1] for context in contexts[2:])
    words = said[1].split()
    assert words == LONG.split()[: len(words)]
    assert words
    return words


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_openai(server: Server, recording: Path, dialect: str) -> None:
    got = run("openai", "openai_realtime.py", dialect, server.url, recording)
    assert got["transcript"] == TURNS[0]
    assert got["first"] == {"status": "completed", "text": FIRST, "audio_bytes": 7 * BYTES_A_WORD}
    assert (got["cancelled"]["status"], got["cancelled"]["reason"]) == ("cancelled", "turn_detected")
    assert LONG.startswith(got["cancelled"]["text"])
    assert words_in(got["cancelled"]["audio_bytes"]) > UNHEARD_WORDS
    assert got["truncated_ms"] == 400
    assert got["retrieved"].split() == LONG.split()[:6]  # 400 ms hold six words of 60 ms
    assert got["third"] == {"status": "completed", "text": THIRD, "audio_bytes": 3 * BYTES_A_WORD}
    assert got["call"] == {"name": "get_weather", "arguments": {"city": "Paris"}, "status": "completed"}
    assert got["answer"] == {"status": "completed", "text": ANSWER, "audio_bytes": 5 * BYTES_A_WORD}
    assert got["event_ids_unique"]
    audio = "response.output_audio.delta" if dialect == "ga" else "response.audio.delta"
    assert got["types"][audio] > 4
    assert "error" not in got["types"]
    assert assert_told(server.contexts(), TURNS) == LONG.split()[:6]


def test_openai_chat_completions(tmp_path: Path) -> None:
    """Whole, streamed, spoken, refused. Completions have no conversation, so there is no log to replay."""
    pcm, rate = soundfile.read(WEATHER, dtype="int16")
    soundfile.write(tmp_path / "weather.wav", pcm, rate)
    script = json.dumps({"transcripts": TURNS, "replies": REPLIES})
    server = Server([sys.executable, str(HERE / "scripted_server.py"), script, str(tmp_path / "logs")])
    try:
        got = run("openai", "openai_chat.py", server.url, tmp_path / "weather.wav")
        contexts = server.contexts()
    finally:
        server.stop()
    assert (got["models"], got["text"], got["finish_reason"]) == (["pocket"], FIRST, "stop")
    assert got["total_tokens"] > 7
    assert (got["streamed"], got["completion_tokens"]) == ("Hello there, this is the", 7)
    assert (got["spoken"], got["audio_bytes"]) == (FIRST, 44 + 7 * BYTES_A_WORD)
    assert got["refused"] == {"status": 400, "code": "invalid_value", "param": "messages[1].content[0].input_audio.format"}
    assert contexts == [[["system", "Answer briefly."], ["user", TURNS[0]]]] * 3


def test_openai_agents(server: Server, recording: Path) -> None:
    got = run("openai", "openai_agents.py", server.url, recording)
    assert got["errors"] == []
    first, sent, third, answer = got["audio_bytes"]
    assert [first, third, answer] == [7 * BYTES_A_WORD, 3 * BYTES_A_WORD, 5 * BYTES_A_WORD]
    assert (got["cities"], got["tool_output"]) == (["Paris"], "sunny")
    heard = assert_told(server.contexts(), TURNS)
    assert len(heard) <= words_in(sent) - UNHEARD_WORDS
    spoken = [(item["role"], item["content"][0]["transcript"].strip()) for item in got["history"] if item["type"] == "message"]
    assert [text for role, text in spoken if role == "user"] == TURNS
    # The SDK truncates by itself and shows what it reads back with conversation.item.retrieve: what the model was told.
    assert [text for role, text in spoken if role == "assistant"] == [FIRST, " ".join(heard), THIRD, ANSWER]


def test_livekit(server: Server, recording: Path) -> None:
    got = run("livekit", "livekit_realtime.py", server.url, recording)
    assert got["errors"] == []
    assert (got["first"]["text"], got["third"]["text"], got["answer"]["text"]) == (FIRST, THIRD, ANSWER)
    assert [got[reply]["audio_seconds"] for reply in ("first", "third", "answer")] == pytest.approx([7 * 0.06, 3 * 0.06, 5 * 0.06])
    assert LONG.startswith(got["long"]["text"])
    assert got["long"]["audio_seconds"] / 0.06 > UNHEARD_WORDS
    assert (got["called"]["calls"], got["cities"]) == (["get_weather"], ["Paris"])
    assert got["transcripts"] == TURNS
    assert assert_told(server.contexts(), TURNS) == LONG.split()[:6]  # the script truncates at 400 ms


def test_pipecat(server: Server, recording: Path) -> None:
    got = run("pipecat", "pipecat_realtime.py", f"{server.url.replace('http', 'ws', 1)}/v1/realtime", recording)
    assert got["errors"] == []
    texts = [text.strip() for text in got["texts"] if text.strip()]
    assert [texts[0], *texts[2:]] == [FIRST, THIRD, ANSWER]
    assert LONG.startswith(texts[1])
    first, sent, third, answer = got["audio_bytes"]
    assert [first, third, answer] == [7 * BYTES_A_WORD, 3 * BYTES_A_WORD, 5 * BYTES_A_WORD]
    assert got["cities"] == ["Paris"]
    assert got["frames"]["InterruptionFrame"] >= 1
    assert got["truncated_ms"]
    greeting, *turns = [text for role, text in got["messages"] if role == "user"]
    assert turns == TURNS[:3]
    heard = assert_told(server.contexts(), [greeting, *turns])
    assert len(heard) <= words_in(sent) - UNHEARD_WORDS


def test_openai_agents_in_javascript(server: Server, recording: Path) -> None:
    url = f"{server.url.replace('http', 'ws', 1)}/v1/realtime?model=pocket"
    got = run("node", "agents_realtime.mjs", ENVIRONMENTS / "node", url, recording)
    assert got["errors"] == []
    assert got["statuses"] == ["completed", "cancelled", "completed", "completed", "completed"]
    assert got["reasons"] == [None, "turn_detected", None, None, None]
    assert [got["texts"][0], *got["texts"][2:]] == [FIRST, THIRD, "", ANSWER]
    assert LONG.startswith(got["texts"][1])
    first, sent, third, call, answer = got["audioBytes"]
    assert [first, third, call, answer] == [7 * BYTES_A_WORD, 3 * BYTES_A_WORD, 0, 5 * BYTES_A_WORD]
    assert got["interruptions"] >= 1
    assert got["truncatedMs"]
    assert got["cities"] == ["Paris"]
    assert got["transcripts"] == TURNS
    assert got["types"]["conversation.item.retrieved"] >= 4
    heard = assert_told(server.contexts(), TURNS)
    assert len(heard) <= words_in(sent) - UNHEARD_WORDS


# ------------------------------------------------------------------------------------- calls that wait, handoff, truncate

WAIT, BILLING, PAID = "Still looking, one moment please.", "Billing here, how can I help?", "It is paid."
WEATHER_CALL = {"text": "", "tool_calls": [["get_weather", '{"city": "Paris"}']]}


def said(text: str) -> dict[str, object]:
    """A reply of words only."""
    return {"text": text, "tool_calls": []}


@pytest.fixture
def scripted(serve: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """`scripted(replies)` is a server whose model gives these."""

    def start(replies: list[dict[str, object]]) -> Server:
        return serve(HERE / "scripted_server.py", json.dumps({"transcripts": TURNS, "replies": replies}), tmp_path / "logs")

    return start


def test_openai_speaks_while_a_call_waits(scripted: Callable[..., Server], recording: Path) -> None:
    server = scripted([WEATHER_CALL, said(WAIT), said(ANSWER), WEATHER_CALL, said(LONG), said(ANSWER)])
    got = run("openai", "openai_pending_call.py", server.url, recording)
    quiet, speaking = got["rounds"]
    assert [one["call"] for one in got["rounds"]] == ["get_weather"] * 2
    assert quiet["between"] == {"status": "completed", "text": WAIT, "audio_bytes": 5 * BYTES_A_WORD}
    assert speaking["between"]["status"] == "cancelled"
    assert speaking["refused"] == ["conversation_already_has_active_response", "early"]
    whole = {"status": "completed", "text": ANSWER, "audio_bytes": 5 * BYTES_A_WORD}
    assert [one["answer"] for one in got["rounds"]] == [whole] * 2
    assert (got["types"]["response.created"], got["types"]["error"]) == (6, 1)
    contexts = server.contexts()
    assert [[role for role, _ in context[1:]] for context in contexts[:3]] == [
        ["user"],
        ["user", "tool_call", "user"],
        ["user", "tool_call", "user", "assistant", "tool_result"],
    ]
    assert contexts[2][-1] == ["tool_result", "sunny"]
    assert [role for role, _ in contexts[5][6:]] == ["assistant", "user", "tool_call", "user", "tool_result"]
    assert len(contexts) == 6


def test_livekit_speaks_while_a_call_waits(scripted: Callable[..., Server], recording: Path) -> None:
    server = scripted([WEATHER_CALL, said(WAIT), said(ANSWER)])
    got = run("livekit", "livekit_pending_call.py", server.url, recording)
    assert got["errors"] == []
    assert (got["called"]["calls"], got["between"]["text"], got["answer"]["text"]) == (["get_weather"], WAIT, ANSWER)
    assert [role for role, _ in server.contexts()[-1][1:]] == ["user", "tool_call", "user", "assistant", "tool_result"]


@pytest.mark.parametrize("cancel", [False, True])
def test_pipecat_speaks_while_a_function_runs(scripted: Callable[..., Server], recording: Path, cancel: bool) -> None:
    """It keeps the call waiting, or settles it as soon as the caller speaks: before that turn is answered."""
    # The cancelled call's output counts as asked, but nothing is asked of the model for it.
    server = scripted([said(FIRST), WEATHER_CALL, *([said("")] if cancel else []), said(WAIT), said(ANSWER)])
    url = f"{server.url.replace('http', 'ws', 1)}/v1/realtime"
    got = run("pipecat", "pipecat_pending_call.py", url, recording, "cancel" if cancel else "keep")
    assert got["errors"] == []
    contexts = server.contexts()
    roles = [role for role, _ in contexts[-1][1:]]
    if cancel:
        assert (got["outputs"], got["texts"], got["audio_bytes"]) == (["CANCELLED"], [FIRST, WAIT], (7 + 5) * BYTES_A_WORD)
        assert roles == ["user", "assistant", "user", "tool_call", "tool_result", "user"]
    else:
        assert (got["outputs"], got["texts"], got["audio_bytes"]) == (['"sunny"'], [FIRST, WAIT, ANSWER], (7 + 5 + 5) * BYTES_A_WORD)
        assert roles == ["user", "assistant", "user", "tool_call", "user", "assistant", "tool_result"]
    assert len(contexts) == (3 if cancel else 4)


HANDED_OVER = [
    WEATHER_CALL,
    said(WAIT),
    said(ANSWER),
    {"text": "", "tool_calls": [["transfer_to_billing", "{}"]]},
    said(BILLING),
    {"text": "", "tool_calls": [["get_invoice", '{"number": 7}']]},
    said(PAID),
]
HANDED_OVER_BYTES = [count * BYTES_A_WORD for count in (5, 5, 6, 3)]


def assert_handed_over(contexts: list[list[list[str]]]) -> None:
    """Each reply was made once, with the instructions of the agent in charge; the output that came late is where it came."""
    assert [context[0] for context in contexts] == [["system", "Answer briefly."]] * 4 + [["system", "You are billing."]] * 3
    roles = [role for role, _ in contexts[-1][1:]]
    assert roles == [
        *("user", "tool_call", "user", "assistant", "tool_result", "assistant"),
        *("user", "tool_call", "tool_result", "assistant"),
        *("user", "tool_call", "tool_result"),
    ]
    assert [text for role, text in contexts[-1] if role == "assistant"] == [WAIT, ANSWER, BILLING]


def test_openai_agents_speak_while_a_tool_runs_and_hand_over(scripted: Callable[..., Server], recording: Path) -> None:
    server = scripted(HANDED_OVER)
    got = run("openai", "openai_agents_handoff.py", server.url, recording)
    assert got["errors"] == []
    assert got["audio_bytes"] == HANDED_OVER_BYTES
    assert (got["tool_outputs"], got["handoffs"], got["invoices"]) == (["sunny in Paris", "paid"], [["weather", "billing"]], [7])
    assert_handed_over(server.contexts())


def test_openai_agents_in_javascript_speak_while_a_tool_runs_and_hand_over(scripted: Callable[..., Server], recording: Path) -> None:
    server = scripted(HANDED_OVER)
    url = f"{server.url.replace('http', 'ws', 1)}/v1/realtime?model=pocket"
    got = run("node", "agents_handoff.mjs", ENVIRONMENTS / "node", url, recording)
    assert got["errors"] == []
    assert got["statuses"] == ["completed"] * 7
    assert [count for count in got["audioBytes"] if count] == HANDED_OVER_BYTES
    assert (got["outputs"], got["handoffs"], got["invoices"]) == (["sunny in Paris", "paid"], [["weather", "billing"]], [7])
    assert_handed_over(server.contexts())


def test_openai_truncates_at_random_points(scripted: Callable[..., Server]) -> None:
    answers = [" ".join(f"word{number}" for number in range(3 * (answer % 7) + 1)) + "." for answer in range(20)]
    server = scripted([said(text) for text in answers])
    got = run("openai", "openai_truncate.py", server.url, "20261123", str(len(answers)))
    left = []
    for number, (text, one) in enumerate(zip(answers, got["rounds"], strict=True)):
        words, shortest = text.split(), len(text.split())
        assert one["sent_ms"] == 60 * len(words)
        for cut in one["cuts"]:
            assert cut["said"] == [True, cut["at"]]
            shortest = min(shortest, cut["at"] // 60)  # what was cut does not come back
            assert cut["left"].split() == words[:shortest]
        left.append(words[:shortest])
        event_id, param, message = one["refused"]
        assert (event_id, param) == (f"beyond_{number}", "audio_end_ms")
        assert "is already shorter than" in message
    assert got["types"]["error"] == len(answers)
    # The model's belief is the words that are left, before each question.
    for number, context in enumerate(server.contexts()):
        assert [text.split() for role, text in context if role == "assistant" and text] == [words for words in left[:number] if words]


@pytest.mark.models
def test_openai_with_the_real_models(serve: Callable[..., Server], tmp_path: Path, parts: Path, recording: Path) -> None:
    server = serve("-m", "server", "serve", "--port", "0", "--record", tmp_path / "logs")
    got = run("openai", "openai_pocket.py", server.url, recording)
    assert "weather in paris" in got["transcript"].lower()
    assert (got["answer"]["status"], got["reason"]) in (("completed", None), ("incomplete", "max_output_tokens"))
    assert len(got["answer"]["text"].split()) >= 3
    assert got["answer"]["audio_bytes"] > 24_000
    assert (got["call"]["status"], got["call"]["name"]) == ("completed", "get_weather")
    arguments = json.loads(got["call"]["arguments"])
    assert list(arguments) == ["city"]
    assert isinstance(arguments["city"], str)
