"""`vivavoce replay`: the same log gives the same commands, and where it does not, both sides are shown."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from typer.testing import CliRunner

import server.replay_view
from agent.commands import CallTool, Cut
from agent.conversation import Conversation
from agent.events import CommitInput, CreateResponse, EndRequested, Event, SessionOpened, Tick, ToolReturned
from agent.settings import ServerTool, ServerVad, SessionSettings
from server.cli import app
from server.ledger import STAGES, TurnLedger
from server.recording import Recorder
from server.replay import Replayed, replay
from server.replay_view import replay_logs
from streaming.events import (
    CommitTurn,
    FinishReason,
    Listened,
    Respond,
    ResponseFinished,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    ToolCallReady,
    ToolSpec,
    TranscriptDone,
)

SCRIPT: list[tuple[int, Event]] = [
    (0, SessionOpened(SessionSettings(turn_detection=ServerVad()))),
    (600, SpeechStarted(0, 0.9)),
    *((16 * at, Listened(16 * at)) for at in range(32, 1_600, 32)),
    (26_000, SpeechStopped(16_000, 0.1)),
    *((26_000 + 16 * at, Listened(25_600 + 16 * at)) for at in range(32, 640, 32)),
]


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """`record(events, conversation)` plays a script to a conversation and keeps the log."""

    def play(script: Sequence[tuple[int, Event]] = SCRIPT, *, seed: int = 7, answer: str | None = "Hello.") -> Path:
        path, conversation = tmp_path / "sess_1.jsonl", Conversation("sess_1", 7)
        recorder = Recorder(tmp_path, "sess_1", seed)
        ordered: list[object] = []
        for now, event in script:
            commands = conversation.handle(event, now)
            ordered += commands
            recorder.record(now, event, commands)
        respond = next((command for command in ordered if type(command).__name__ == "Respond"), None)
        commit = next((command for command in ordered if type(command).__name__ == "CommitTurn"), None)
        if commit is not None and respond is None and answer is not None:
            more = TranscriptDone(commit.item_id, "What is a tortoise?", 0.9, "en")
            recorder.record(40_000, more, conversation.handle(more, 40_000))
        recorder.turn(TurnLedger("item_1", "resp_1", tuple(range(0, 16 * len(STAGES), 16)), 448))
        recorder.turn(TurnLedger("item_1", "resp_1", tuple(range(0, 16 * len(STAGES), 16)), 448, played=960, reported=True))
        recorder.close()
        return path

    return play


def printed(*logs: Path, show: bool = False) -> tuple[int, str, str]:
    """The exit code, what is said, and what is complained of."""
    out, errors = io.StringIO(), io.StringIO()
    code = replay_logs(
        logs, show=show, out=Console(file=out, width=200, highlight=False), errors=Console(file=errors, width=200, highlight=False)
    )
    return code, out.getvalue(), errors.getvalue()


def test_the_same_log_gives_the_same_commands(record) -> None:
    steps = [line for line in replay(record()) if isinstance(line, Replayed)]
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.exact for step in steps)
    assert sum(len(step.ordered) for step in steps) > 10


def test_an_exact_log_is_one_line(record) -> None:
    path = record()
    steps = [line for line in replay(path) if isinstance(line, Replayed)]
    commands = sum(len(step.ordered) for step in steps)
    assert printed(path) == (0, f"sess_1: {len(steps)} events, {commands} commands, exact\n", "")


def test_what_this_version_orders_otherwise_is_shown_from_both_sides(record) -> None:
    path = record(seed=8)  # other ids: the first event that orders something with one
    code, out, errors = printed(path)
    assert (code, errors) == (1, "")
    assert out.startswith("sess_1: event 2, at 0:00.037, is not exact\n  told  SpeechStarted(at=0, probability=0.9)\n")
    before = [line for line in out.splitlines() if line.startswith("- log   StartTurn(item_id='item_")]
    after = [line for line in out.splitlines() if line.startswith("+ here  StartTurn(item_id='item_")]
    assert len(before) == len(after) == 1
    assert "please report it with this log" in out


def test_of_an_event_only_the_commands_that_differ_are_shown(record) -> None:
    path = record()
    path.write_text(path.read_text().replace('"threshold":0.5,"end_of_turn":false', '"threshold":0.75,"end_of_turn":false'))
    _, out, _ = printed(path)
    assert "event 1, at 0:00.000, is not exact" in out
    assert "- log   ConfigureEar(threshold=0.75, end_of_turn=False, language=None)\n+ here  ConfigureEar(threshold=0.5" in out
    assert out.count("  both  1 commands alike") == 2


def test_another_version_is_named(record, monkeypatch) -> None:
    path = record(seed=8)
    path.write_text(path.read_text().replace('"version":"', '"version":"0.0.'))
    monkeypatch.setattr(server.replay_view, "core_fingerprint", lambda: "0123456789ab")
    _, out, _ = printed(path)
    assert "Recorded by vivavoce 0.0." in out
    assert "(core 0123456789ab)" in out


def test_an_event_that_the_conversation_raised_at_is_exact_if_it_raises_again(tmp_path: Path) -> None:
    conversation = Conversation("sess_1", 7)
    recorder = Recorder(tmp_path, "sess_1", 7)
    with pytest.raises(Exception, match="CLOSED") as raised:
        conversation.handle(Tick(), 5)
    recorder.record(5, Tick(), (), repr(raised.value))
    recorder.close()
    path = tmp_path / "sess_1.jsonl"
    assert [line.exact for line in replay(path) if isinstance(line, Replayed)] == [True]
    assert "-> raised IllegalEventError" in printed(path, show=True)[1]
    path.write_text(path.read_text().replace("IllegalEventError", "ValueError"))
    code, out, _ = printed(path)
    assert code == 1
    assert "- log   raised ValueError" in out
    assert "+ here  raises IllegalEventError" in out


def test_the_dialogue_is_shown_to_be_read(record) -> None:
    code, out, _ = printed(record(), show=True)
    assert code == 0
    assert "   0:00.037  ear      SpeechStarted at=0:00.000 probability=0.9\n               -> engine   StartTurn item_id=item_" in out
    assert "-> engine   CommitTurn item_id=item_" in out
    assert "engine   TranscriptDone item_id=item_" in out
    assert "turn     answered after 28 ms: decision 1, transcript 2" in out
    assert "turn     heard 60 ms after its first sample left, as the client reports" in out
    assert "events that ordered nothing are not shown)" in out
    shown = sum(step.ordered != () for step in replay(record()) if isinstance(step, Replayed) and isinstance(step.told.event, Listened))
    assert out.count("Listened") == shown > 0


def test_it_is_shown_who_did_what_and_of_whom_it_was_ordered(tmp_path: Path) -> None:
    recorder, conversation, ordered = Recorder(tmp_path, "sess_1", 7), Conversation("sess_1", 7), []

    def tell(event: Event) -> None:
        ordered.extend(commands := conversation.handle(event, 0))
        recorder.record(0, event, commands)

    tell(SessionOpened(SessionSettings(server_tools=(ServerTool(ToolSpec("book", "Books", "{}"), "own"),))))
    tell(CreateResponse(None))
    response_id = next(command.response_id for command in ordered if isinstance(command, Respond))
    tell(ToolCallReady(response_id, 0, "book", "{}"))
    call = next(command for command in ordered if isinstance(command, CallTool))
    tell(ResponseFinished(response_id, FinishReason.TOOL_CALLS))
    tell(ToolReturned(call.call_id, "done"))
    tell(ResponseFinished(ordered[-1].response_id, FinishReason.STOP))
    tell(EndRequested("all done"))
    recorder.close()
    out = printed(tmp_path / "sess_1.jsonl", show=True)[1]
    assert "  client   CreateResponse" in out
    assert "-> engine   Respond " in out
    assert "  engine   ToolCallReady " in out
    assert "-> agent    CallTool " in out
    assert "  agent    ToolReturned " in out
    assert '-> session  EndCall reason="all done"' in out


def test_a_log_that_breaks_off_is_replayed_up_to_there(record) -> None:
    path = record()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:10]) + lines[10][:20])
    code, out, errors = printed(path)
    assert (code, out) == (1, "sess_1: 9 events, 5 commands, exact up to where the log ends\n")
    assert errors == f"vivavoce: {path} breaks off in line 11: the server was killed or its disk was full\n"


def test_every_log_is_replayed_whatever_the_others_are(record, tmp_path: Path) -> None:
    good = record()
    code, out, errors = printed(tmp_path / "none.jsonl", good, good)
    assert (code, out.count("exact")) == (1, 2)
    assert errors.startswith("vivavoce: cannot read ")


def test_the_command(record) -> None:
    result = CliRunner().invoke(app, ["replay", str(record())])
    assert (result.exit_code, result.stdout.count("exact")) == (0, 1)
    assert CliRunner().invoke(app, ["replay"]).exit_code == 2


def test_long_values_are_cut(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "sess_1", 7)
    conversation = Conversation("sess_1", 7)
    opened = SessionOpened(SessionSettings(instructions="Be brief. " * 30, turn_detection=None))
    events = [opened, CommitInput("e", 100), TextDelta("resp_x", "words " * 40), ResponseFinished("resp_x", FinishReason.STOP)]
    for now, event in enumerate(events):
        recorder.record(now, event, conversation.handle(event, now))
    recorder.close()
    out = printed(tmp_path / "sess_1.jsonl", show=True)[1]
    assert max(len(line) for line in out.splitlines()) < 260
    assert "reason=stop" in out
    assert '-> client   ErrorRaised code="input_audio_buffer_commit_empty"' in out


# ---------------------------------------------------------------------------------------------------- the waterfall

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """A log of two answered turns: 100 ms in seven stages, interrupted, and 20 ms prepared in a pause, heard after 30."""
    recorder = Recorder(tmp_path, "sess_1", 7)
    said = [
        (TranscriptDone("item_1", "Tea & <b>two</b>\x00 sugars?", 0.9, "en"), ()),
        (TextDelta("resp_1", "Of "), ()),
        (TextDelta("resp_1", "course. " * 30), (Cut("resp_1"), CommitTurn("item_2", 0, 100, "And milk?"))),
    ]
    for event, commands in said:
        recorder.record(16_000 * 61, event, commands)
    recorder.turn(TurnLedger("item_1", "resp_1", (640, 320, 160, 0, 160, 160, 80, 80), 1_600))
    recorder.turn(TurnLedger("item_1", "resp_1", (640, 320, 160, 0, 160, 160, 80, 80), 1_600, played=960))
    recorder.turn(TurnLedger("item_2", "resp_2", (320, 0, 0, 0, 0, 0, 0, 0), 320, speculated=True))
    recorder.turn(TurnLedger("item_2", "resp_2", (320, 0, 0, 0, 0, 0, 0, 0), 320, speculated=True, played=160, reported=True))
    recorder.close()
    return tmp_path / "sess_1.jsonl"


def drawn(log: Path, picture: Path) -> ET.Element:
    """The picture of a log; it does not matter that this version orders something else."""
    silent = Console(file=io.StringIO())
    replay_logs([log], picture, show=False, out=silent, errors=silent)
    return ET.fromstring(picture.read_text())


def test_a_waterfall_has_a_row_for_each_turn(answered: Path, tmp_path: Path) -> None:
    picture = drawn(answered, tmp_path / "new" / "turns.svg")
    texts = ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]
    assert texts[0] == "From the caller's last word to the answer's first sound"
    assert texts[1].startswith("sess_1, recorded ")
    first, second = (text for text in texts if text.startswith("1:01"))
    assert first.startswith("1:01  Tea & <b>two</b> sugars?  \u2192  Of course. course.")
    assert first.endswith("\u2026")
    assert second == "1:01  And milk?"
    assert [text for text in texts if " ms, " in text] == ["100 ms, interrupted", "20 ms, prepared in a pause, heard 30"]
    bars = [rect for rect in picture.iter(f"{SVG}rect") if rect.get("height") == "22"]
    assert len(bars) == 2 * len(STAGES)
    widths = [float(bar.get("width", "")) for bar in bars]
    assert sum(widths[:8]) == pytest.approx(5 * sum(widths[8:]), abs=1)


def test_a_picture_that_cannot_be_drawn_is_one_line(record, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "sess_2", 7)
    recorder.close()
    result = CliRunner().invoke(app, ["replay", str(tmp_path / "sess_2.jsonl"), "--waterfall", str(tmp_path / "turns.svg")])
    assert (result.exit_code, result.stderr) == (1, "vivavoce: nothing to draw: no turn in this log was answered with sound\n")
    assert not (tmp_path / "turns.svg").exists()
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["replay", str(record()), "--waterfall", str(tmp_path / "file" / "turns.svg")])
    assert (result.exit_code, result.stderr.startswith("vivavoce: cannot write ")) == (1, True)
    result = CliRunner().invoke(app, ["replay", str(record()), str(record()), "--waterfall", str(tmp_path / "turns.svg")])
    assert (result.exit_code, result.stderr) == (2, "vivavoce: a waterfall is drawn of one log: name only that\n")
    result = CliRunner().invoke(app, ["replay", str(record()), "--waterfall", str(tmp_path / "turns.svg")])
    assert (result.exit_code, "turns.svg: 1 turn" in result.stdout.replace("\n", "")) == (0, True)
