"""The engine: every session's hearing, thinking and speaking in one loop of batches.

Doors only note what is wanted; `step` takes what was noted, asks every session for the work that could go on, and makes one batch of
calls to one model (`streaming.scheduler`), at most some tens of milliseconds. The Ears and the voice run on lanes of their own
(`streaming.lane`), so that speech is noticed while a model computes and synthesis runs beside decoding. `docs/engine.md` has the picture.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from streaming.audio import AudioFrame
from streaming.doors import EngineLoad, EngineOutput, SessionEvent, SynthesisedAudio
from streaming.ear import Ear, Ears
from streaming.engine_session import EngineSession, SessionTools
from streaming.events import CommitTurn, ConfigureEar, DiscardTurn, EarEvent, EngineFailed, EngineOrder, ResponseFinished, SessionSpec
from streaming.lane import Lane
from streaming.load_meter import LoadMeter
from streaming.recognition import WordRecogniser
from streaming.replying import Writer
from streaming.scheduler import Job, Urgency, choose, run
from streaming.sound_events import SoundClassifier
from streaming.tts import Voice
from streaming.turn import EndOfTurnModel
from streaming.vad import SpeechModel

__all__ = ["Parts", "SpeechEngine"]

log = logging.getLogger(__name__)

_SPECULATE_BELOW: Final = 0.6
"""Share of the engine's time in use beyond which it does not speculate, nor name sounds: others would wait for what comes of that."""

_KV_BYTES: Final = 2 << 30
"""Keys and values of all sessions; beyond it idle ones give theirs up, the longest idle first. 21 sessions of SmolLM2-135M with all
their 4,096 positions, or 170 with up to 512."""


_What = TypeVar("_What")


@dataclass(frozen=True, slots=True)
class Parts:
    """The models of a bundle, loaded."""

    vad: SpeechModel
    end_of_turn: EndOfTurnModel
    recogniser: WordRecogniser
    writer: Writer
    voice: Voice
    sounds: SoundClassifier | None = None


class SpeechEngine:
    """See `streaming.doors.Engine`. `early`, if given, receives every output the moment it exists, on whichever thread made it;
    otherwise `step` returns them. `threaded` False runs the lanes inside `step` and the doors: deterministic, for tests."""

    def __init__(
        self,
        parts: Parts,
        early: Callable[[EngineOutput], None] | None = None,
        *,
        threaded: bool = True,
        clock: Callable[[], float] = time.monotonic,
        kv_bytes: int = _KV_BYTES,
    ) -> None:
        self._outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
        self._pass_on = early or self._outputs.put
        # What was knocked at the doors, and what the Ears found, in order; bounded by what the server lets a session send.
        self._inbox: queue.SimpleQueue[tuple[str, Callable[[], None]]] = queue.SimpleQueue()
        self._ears = Ears(parts.vad, parts.end_of_turn, parts.sounds)
        # Whether there is time to name sounds: read on the Ears' lane, so no more than a flag.
        self._spare = True
        self._listening = Lane("ear", threaded=threaded)
        # Whether a job of that lane will hear what has come; any thread asks for one.
        self._will_listen = False
        self._will_listen_lock = threading.Lock()
        voices = Lane("voice", threaded=threaded)
        self._tools = SessionTools(parts.recogniser, parts.writer, parts.voice, voices, self._emit, clock, parts.sounds)
        self._sessions: dict[str, EngineSession] = {}
        self._clock = clock
        self._kv_bytes = kv_bytes
        self._meter = LoadMeter(clock())
        # Whether the last step found something to do: then there may be more.
        self._working = False
        # Called, on any thread, when there is something in the inbox.
        self._wake: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------------------------------------------ doors

    def on_work(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, on any thread, whenever `step` has something new to do."""
        self._wake = wake

    def open(self, session_id: str, spec: SessionSpec) -> None:
        self._listening.put(partial(self._ears.open, session_id), urgent=True)
        self._note(session_id, partial(self._open, session_id, spec))

    def close(self, session_id: str) -> None:
        self._listening.put(partial(self._ears.close, session_id), urgent=True)
        self._note(session_id, partial(self._close, session_id))

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        self._note(session_id, partial(self._tell, session_id, EngineSession.keep, frame))
        self._tell_ear(session_id, Ear.push, frame)
        self._want_listen()

    def order(self, session_id: str, order: EngineOrder) -> None:
        match order:
            case ConfigureEar():
                self._tell_ear(session_id, Ear.configure, order)
            case CommitTurn(end=end) | DiscardTurn(end=end):
                self._tell_ear(session_id, Ear.forget, end)
        self._note(session_id, partial(self._tell, session_id, EngineSession.obey, order))

    def busy(self) -> bool:
        return self._working or not self._inbox.empty() or not self._outputs.empty()

    def step(self) -> list[EngineOutput]:
        self._take_inbox()
        batch = choose(self._find_work())
        self._working = bool(batch)
        if batch:
            begun = self._clock()
            speculation = all(job.urgency is Urgency.SPECULATION for job in batch)
            run(batch)
            now = self._clock()
            for job in batch:
                job.served(now)
            self._meter.worked(begun, now, counts=not speculation)
            self._make_room()
        self._report()
        outputs = []
        while not self._outputs.empty():
            outputs.append(self._outputs.get())
        return outputs

    # -------------------------------------------------------------------------------------------- the Ears' lane

    def _listen(self) -> None:
        """Hear a window of every session that has one, score a pause and name sounds; then whatever has come meanwhile, so that nobody
        waits for the sound that another has sent at once."""
        with self._will_listen_lock:
            self._will_listen = False
        self._report_heard(self._ears.judge())
        self._report_heard(self._ears.score())
        self._report_heard(self._ears.name_sounds(spare=self._spare))
        if self._ears.pending:
            self._want_listen()

    def _want_listen(self) -> None:
        """Have the lane hear what has come, once for all who ask before it does."""
        with self._will_listen_lock:
            wanted, self._will_listen = not self._will_listen, True
        if wanted:
            self._listening.put(self._listen)

    def _tell_ear(self, session_id: str, method: Callable[[Ear, _What], None], what: _What) -> None:
        self._listening.put(partial(self._ears.tell, session_id, method, what), urgent=True)

    def _report_heard(self, found: Sequence[tuple[str, EarEvent | EngineFailed]]) -> None:
        """Tell what the Ears found."""
        for session_id, event in found:
            if isinstance(event, EngineFailed):
                self._note(session_id, partial(self._fail, session_id, event))
            else:
                self._note(session_id, partial(self._tell, session_id, EngineSession.heard, event))
                self._emit(SessionEvent(session_id, event))

    # -------------------------------------------------------------------------------------- the engine's thread

    def _note(self, session_id: str, job: Callable[[], None]) -> None:
        self._inbox.put((session_id, job))
        self._wake()

    def _take_inbox(self) -> None:
        """Do what was noted. What fails ends its session, with a word, and no other."""
        while not self._inbox.empty():
            session_id, job = self._inbox.get()
            try:
                job()
            except Exception as error:
                log.exception("session %s failed", session_id)
                self._fail(session_id, EngineFailed(f"{type(error).__name__}: {error}"))

    def _fail(self, session_id: str, failed: EngineFailed) -> None:
        """The session can't go on; it hears why."""
        self._emit(SessionEvent(session_id, failed))
        self._listening.put(partial(self._ears.close, session_id), urgent=True)
        self._close(session_id)

    def _open(self, session_id: str, spec: SessionSpec) -> None:
        self._sessions[session_id] = EngineSession(session_id, spec, self._tools)

    def _close(self, session_id: str) -> None:
        if (session := self._sessions.pop(session_id, None)) is not None:
            session.close()

    def _tell(self, session_id: str, method: Callable[[EngineSession, _What], None], what: _What) -> None:
        """Hand a session what came for it; one that has closed gets nothing."""
        if (session := self._sessions.get(session_id)) is not None:
            method(session, what)

    def _emit(self, output: EngineOutput) -> None:
        session = None if isinstance(output, EngineLoad) else self._sessions.get(output.session_id)
        if session is not None and isinstance(output, SynthesisedAudio):
            session.sounds(output)
        elif session is not None and isinstance(output, SessionEvent) and isinstance(output.event, ResponseFinished):
            session.finished(output.event.response_id)
        self._pass_on(output)

    def _find_work(self) -> list[Job]:
        """Every job that could go on, each at its next call."""
        speculate = self._spare = self._meter.busy(self._clock()) < _SPECULATE_BELOW
        return [job for session in self._sessions.values() for job in _at_their_calls(session, speculate=speculate)]

    def _make_room(self) -> None:
        """Keep the sessions' keys and values within their bound."""
        held = sum(session.sequence.cache.bytes for session in self._sessions.values())
        for session in sorted(self._sessions.values(), key=lambda session: session.used_at):
            if held <= self._kv_bytes:
                return
            if session.idle and session.sequence.cache.bytes:
                held -= session.sequence.cache.bytes
                session.evict()

    def _report(self) -> None:
        load = self._meter.report(self._clock(), len(self._sessions))
        if load is not None:
            self._emit(load)


def _at_their_calls(session: EngineSession, *, speculate: bool) -> list[Job]:
    """The session's jobs, each at its next call. What ends without one may make room for another (a transcript for the reply that waits for
    it), so then it is asked again."""
    while True:
        jobs = session.jobs(speculate=speculate)
        for job in jobs:
            if job.call is None:
                job.advance()
        if not any(job.done for job in jobs):
            return jobs
