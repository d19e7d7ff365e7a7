"""A session's log holds every kind of event and command and gives it back equal; what is wrong with a log is said in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commands import Command, Duck
from agent.events import Event, Tick
from server.ledger import STAGES, TurnLedger
from server.recording import LogEnd, LogError, LogHeader, Recorder, Told, UnknownCommand, core_fingerprint, read_log
from streaming.events import ContextMessage, Listened, Respond, RespondOptions, SetHistory, SpeechStarted

TURN = TurnLedger("item_1", "resp_1", (1,) * len(STAGES), len(STAGES), played=960, reported=True)


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Path]:
    """`recorded((now, event, commands), ...)` is a log of that."""

    def record(*told: tuple[int, Event, list[Command]]) -> Path:
        recorder = Recorder(tmp_path / "new", "sess_1", 2**62)
        for now, event, commands in told:
            recorder.record(now, event, commands)
        recorder.close()
        return tmp_path / "new" / "sess_1.jsonl"

    return record


def damage(path: Path, change: Callable[[list[str]], list[str]]) -> str:
    """What is said of a log whose lines have been changed."""
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    with pytest.raises(LogError) as raised:
        list(read_log(path))
    return str(raised.value).removeprefix(str(path))


@given(st.lists(st.tuples(st.integers(0, 2**40), st.from_type(Event), st.lists(st.from_type(Command), max_size=3)), max_size=3), st.text())
@settings(max_examples=200, deadline=None)
def test_whatever_happens_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, told: list, failed: str) -> None:
    folder = tmp_path_factory.mktemp("log")
    recorder = Recorder(folder, "sess_1", 1)
    for now, event, commands in told:
        recorder.record(now, event, commands, failed)
    recorder.close()
    _, *lines = read_log(folder / "sess_1.jsonl")
    expected = [Told(now, event, tuple(commands), failed) for now, event, commands in told]
    # By their text, for not a number equals nothing.
    assert repr(lines) == repr([*expected, LogEnd(len(told), sum(len(commands) for _, _, commands in told))])


@pytest.mark.parametrize("kind", [*get_args(Event), *get_args(Command)], ids=lambda kind: kind.__name__)
def test_every_kind_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, kind: type) -> None:
    @given(st.from_type(kind))
    @settings(max_examples=20, deadline=None)
    def check(value: object) -> None:
        folder = tmp_path_factory.mktemp("log")
        recorder = Recorder(folder, "sess_1", 1)
        event, commands = (value, []) if kind in get_args(Event) else (Tick(), [value])
        recorder.record(0, event, commands)
        recorder.close()
        assert repr(list(read_log(folder / "sess_1.jsonl"))[1]) == repr(Told(0, event, tuple(commands)))

    check()


def test_the_first_line_says_who_recorded_it(recorded) -> None:
    header = next(read_log(recorded()))
    assert isinstance(header, LogHeader)
    assert (header.session_id, header.seed, header.core) == ("sess_1", 2**62, core_fingerprint())
    assert header.began.endswith("+00:00")


def test_of_the_history_only_what_is_new_is_written(recorded) -> None:
    said = tuple(ContextMessage("user", f"item_{number}", f"words {number}") for number in range(50))
    longer, cut = (*said, ContextMessage("assistant", "a", "Yes.")), said[:20]
    path = recorded((0, Tick(), [SetHistory(said)]), (1, Tick(), [SetHistory(longer)]), (2, Tick(), [SetHistory(cut), SetHistory(cut)]))
    assert [line.ordered for line in read_log(path) if isinstance(line, Told)] == [
        (SetHistory(said),),
        (SetHistory(longer),),
        (SetHistory(cut), SetHistory(cut)),
    ]
    assert path.read_text().count("words 7") == 1


def test_turns_are_among_the_events(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "sess_1", 1)
    recorder.record(0, Tick(), ())
    recorder.turn(TURN)
    recorder.close()
    assert list(read_log(tmp_path / "sess_1.jsonl"))[1:] == [Told(0, Tick()), TURN, LogEnd(1, 0)]


def test_an_event_that_orders_nothing_says_nothing_of_it(recorded) -> None:
    line = recorded((5, Listened(512), [])).read_text().splitlines()[1]
    assert line == '{"now":5,"event":"Listened","fields":{"at":512,"silence":0,"probability":0.0}}'


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda lines: lines[:-1], " has no end: the session is still going on, or the server was killed"),
        (lambda lines: [*lines[:-1], lines[-1][:-3]], " breaks off in line 4"),
        (lambda lines: [*lines[:2], lines[3]], "line 3 counts 2 events and 0 commands, but the log has 1 and 0: lines are missing"),
        (lambda lines: [*lines, lines[1]], "line 5 comes after the log's end"),
        (lambda lines: [lines[0], "{\n", *lines[2:]], "line 2 is damaged: "),
        (lambda lines: [lines[0], "[]\n", *lines[2:]], "line 2 is none of a log"),
        (lambda lines: [lines[0], '{"now":1}\n', *lines[2:]], "line 2 is none of a log"),
        (lambda lines: [lines[0], lines[1].replace("}}", '},"ordered":[3]}'), *lines[2:]], "line 2 is damaged: "),
        (lambda lines: [lines[0], lines[1].replace("Listened", "Smelled"), *lines[2:]], "line 2 has an event, Smelled, that this version"),
        (lambda lines: [lines[0], lines[1].replace("512", '"x"'), *lines[2:]], "line 2 has an event, Listened, that this version"),
        (lambda lines: ["[1]\n", *lines[1:]], "line 1 should say who recorded it"),
        (lambda lines: ["null\n", *lines[1:]], "line 1 should say who recorded it"),
        (lambda lines: ['{"a":1}\n', *lines[1:]], "line 1 should say who recorded it: this is no log of vivavoce"),
        (
            lambda lines: ['{"session_id":"s","seed":1}\n', *lines[1:]],
            "line 1 says that the log's format is 1, and this version reads 2: it does not say what",
        ),
        (lambda lines: [lines[0].replace('log":2', 'log":3')], "the log's format is 3, and this version reads 2: take the version that"),
        (lambda lines: [lines[0].replace("seed", "salt")], "line 1 is damaged: "),
        (lambda lines: lines[:0], " has no end"),
    ],
)
def test_what_is_wrong_with_a_log_is_said(recorded, change, complaint) -> None:
    said = damage(recorded((5, Listened(512), []), (6, Listened(1024), [])), change)
    assert complaint in said
    assert "\n" not in said


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot read .*none\.jsonl: No such file"):
        list(read_log(tmp_path / "none.jsonl"))
    (tmp_path / "noise.jsonl").write_bytes(bytes(range(256)))
    with pytest.raises(LogError):
        list(read_log(tmp_path / "noise.jsonl"))


def test_a_command_that_is_unknown_here_is_kept_as_it_is(recorded) -> None:
    path = recorded((5, Tick(), [Respond("resp_1", RespondOptions()), Duck("resp_1")]))
    path.write_text(path.read_text().replace('"Duck"', '"Whisper"').replace('"options"', '"choices"'))
    told = list(read_log(path))[1]
    assert isinstance(told, Told)
    respond, duck = told.ordered
    assert isinstance(respond, UnknownCommand)
    assert duck == UnknownCommand("Whisper", '{"response_id": "resp_1"}')


def test_secrets_and_sound_are_not_in_a_log() -> None:
    """No event and no command has a field for them; this fails where one gets a field of bytes."""

    def holds_bytes(kind: object) -> bool:
        inner = [kind.type for kind in getattr(kind, "__dataclass_fields__", {}).values()]
        return kind is bytes or any(holds_bytes(one) for one in [*inner, *get_args(kind)])

    assert [kind for kind in (*get_args(Event), *get_args(Command)) if holds_bytes(kind)] == []


def test_a_folder_that_cannot_be_written_ends_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    recorder = Recorder(blocker / "sub", "sess_1", 1)
    recorder.record(0, Tick(), ())
    recorder.close()
    assert "is not recorded any further" in caplog.text


def test_a_full_disk_ends_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is Linux's")
    (tmp_path / "sess_1.jsonl").symlink_to(full)
    recorder = Recorder(tmp_path, "sess_1", 1)
    for now in range(1_000):
        recorder.record(now, SpeechStarted(now, 0.5), ())
    recorder.close()
    assert caplog.text.count("is not recorded any further") == 1


def test_what_cannot_be_written_ends_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(tmp_path, "sess_1", 1)
    recorder.record(0, Tick(), ())
    recorder.record(1, Tick(), (Respond("resp_1", object()),))
    recorder.record(2, Tick(), ())
    recorder.close()
    assert caplog.text.count("is not recorded any further") == 1
    lines = read_log(tmp_path / "sess_1.jsonl")
    assert [type(next(lines)), next(lines)] == [LogHeader, Told(0, Tick())]
    with pytest.raises(LogError, match="has no end"):
        next(lines)
