"""A session's log holds every kind of event and gives it back equal."""

import json
from pathlib import Path

import pytest

from agent.events import (
    CancelResponse,
    ClearInput,
    CommitInput,
    CreateItem,
    CreateResponse,
    DeleteItem,
    Event,
    ItemReference,
    PlaybackProgress,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    SessionOpened,
    Tick,
    TruncateItem,
    UpdateSession,
)
from agent.items import ContentPart, FunctionCall, FunctionCallOutput, ItemStatus, Message, PartKind
from agent.settings import AudioEncoding, AudioFormat, Eagerness, SemanticVad, ServerVad, SessionSettings, ToolChoice, Transcription
from server.recording import Recorder, read_recording
from streaming.events import (
    AudioReady,
    EndOfTurnScore,
    EngineFailed,
    EngineLost,
    FinishReason,
    Listened,
    OverlapKind,
    OverlapScore,
    ReplyRestarted,
    ResponseFinished,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    ToolCallReady,
    ToolSpec,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    TranscriptProvisional,
    Usage,
    WordMark,
)

EVENTS: list[Event] = [
    SessionOpened(SessionSettings()),
    UpdateSession(
        "e1",
        SessionSettings(
            instructions="Bé brief.",
            input_format=AudioFormat(AudioEncoding.PCMA, 8_000),
            transcription=Transcription("w", "de"),
            turn_detection=SemanticVad(Eagerness.LOW, create_response=False),
            tools=(ToolSpec("f", "d", "{}"),),
            tool_choice=ToolChoice("function", "f"),
            extras=(("tracing", "null"),),
        ),
    ),
    UpdateSession(None, SessionSettings(turn_detection=ServerVad(threshold=0.1))),
    UpdateSession(None, SessionSettings(turn_detection=None)),
    Tick(),
    CommitInput("e", 5),
    ClearInput(None, 6),
    CreateItem(None, Message("m", "user", (ContentPart(PartKind.INPUT_TEXT, "Hi"), ContentPart(PartKind.INPUT_AUDIO, None))), "root"),
    CreateItem(None, FunctionCall("i", "c", "f", "{}", ItemStatus.INCOMPLETE), None),
    CreateItem(None, FunctionCallOutput("", "c", "out"), None),
    RetrieveItem(None, "i"),
    TruncateItem(None, "i", 0, 1500),
    DeleteItem(None, "i"),
    CreateResponse(None, input=(ItemReference("i"), Message("", "system", ())), max_output_tokens="inf", metadata=(("a", "b"),), tools=()),
    CreateResponse(None, max_output_tokens=5, temperature=0.1, output_format=AudioFormat()),
    CancelResponse("e", None),
    PlaybackReported(None, "r", 5),
    RefuseRequest("e", "invalid_value", "No.", "x"),
    PlaybackProgress("r", 5, 4),
    SpeechStarted(1, 0.1 + 0.2),
    SpeechStopped(2, 0.3),
    EndOfTurnScore(3, 0.4),
    Listened(4),
    OverlapScore(5, OverlapKind.ECHO, 0.5),
    TranscriptDelta("i", " yóu", 0.9, "en"),
    TranscriptProvisional("i", 7, "you", 0.9),
    TranscriptDone("i", "you", 0.9, "en"),
    TranscriptFailed("i", "why"),
    TextDelta("r", "text"),
    AudioReady("r", 0, 5, 4, (WordMark(4, 5),), True),
    ToolCallReady("r", 0, "f", "{}"),
    ResponseFinished("r", FinishReason.LENGTH, None, Usage(1, 2, 3, 4)),
    ReplyRestarted("r", 0),
    EngineFailed("dead"),
    EngineLost("dying"),
]


def test_every_event_comes_back_equal(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "new", "sess_1", 2**62)
    for now, event in enumerate(EVENTS):
        recorder.record(now, event)
    recorder.close()
    path = tmp_path / "new" / "sess_1.jsonl"
    assert list(read_recording(path)) == list(enumerate(EVENTS))
    assert json.loads(path.read_text().splitlines()[0]) == {"session_id": "sess_1", "seed": 2**62}


def test_the_list_above_is_complete() -> None:
    assert {type(event) for event in EVENTS} == set(Event.__args__)


def test_a_folder_that_cannot_be_written_ends_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    recorder = Recorder(blocker / "sub", "sess_1", 1)
    recorder.record(0, Tick())
    recorder.close()
    assert "is not recorded any further" in caplog.text


def test_a_full_disk_ends_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is Linux's")
    (tmp_path / "sess_1.jsonl").symlink_to(full)
    recorder = Recorder(tmp_path, "sess_1", 1)
    for now in range(1_000):
        recorder.record(now, SpeechStarted(now, 0.5))
    recorder.close()
    assert caplog.text.count("is not recorded any further") == 1
