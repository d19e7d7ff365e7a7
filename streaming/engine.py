"""The engine that hears, thinks and speaks: sessions, and which piece of work comes next.

Doors only note what is wanted; `step` does one piece of at most some tens of milliseconds. The Ear and the voice run on lanes of
their own (`streaming.lane`), so that speech is noticed while a model computes and synthesis runs beside decoding; everything else runs
in `step`, on one thread. Which piece is most urgent: replies being decoded, then final transcripts (a reply waits for them),
then the transcript at a pause (the turn may end here), then transcripts of running speech, then prefill of settled words.
"""

import logging
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial

from streaming.audio import AudioFrame
from streaming.decoder import ContextFullError, TokenSequence
from streaming.doors import EngineOutput, SessionEvent
from streaming.ear import Ear
from streaming.events import (
    Abort,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    DiscardTurn,
    EarEvent,
    EngineEvent,
    EngineFailed,
    EngineOrder,
    Listened,
    Respond,
    Say,
    SessionSpec,
    SetHistory,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
)
from streaming.hearing import InputRing, Turn
from streaming.lane import Lane
from streaming.replying import Reply, Writer, say
from streaming.sampling import Sampler
from streaming.speaking import Speaker
from streaming.transcriber import Recogniser, Transcriber
from streaming.tts import Voice
from streaming.turn import EndOfTurnModel
from streaming.vad import SpeechModel

__all__ = ["Parts", "SpeechEngine"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """The models of a bundle, loaded."""

    vad: SpeechModel
    end_of_turn: EndOfTurnModel
    recogniser: Recogniser
    writer: Writer
    voice: Voice


@dataclass(slots=True)
class _Session:
    """What one session holds on the engine's thread."""

    id: str
    spec: SessionSpec
    sequence: TokenSequence
    sampler: Sampler
    language: str | None
    ring: InputRing = field(default_factory=InputRing)
    # The Ear has heard this far; where the present pause began (None: the caller is speaking, or has not yet), and how far the Ear had
    # heard when it said so.
    listened: int = 0
    pause: int | None = None
    heard_before_pause: int = 0
    # The turn being spoken, and turns whose final transcript is due, oldest first.
    turn: Turn | None = None
    ending: deque[Turn] = field(default_factory=deque)
    # Final texts of audio items, for `ContextMessage.text` None; only of items in the history.
    transcripts: dict[str, str] = field(default_factory=dict)
    history: tuple[ContextMessage, ...] = ()
    replies: dict[str, Reply] = field(default_factory=dict)
    # Work under way: the oldest ending turn's final pass, the prefill of what is known of the next prompt.
    final: Iterator[None] | None = None
    prefill: Iterator[None] | None = None
    # Something is known of the next prompt that has not been prefilled.
    unfilled: bool = True


class SpeechEngine:
    """See `streaming.doors.Engine`. `early`, if given, receives every output the moment it exists, on whichever thread made it;
    otherwise `step` returns them. `threaded` False runs the lanes inside `step` and the doors: deterministic, for tests."""

    def __init__(self, parts: Parts, early: Callable[[EngineOutput], None] | None = None, *, threaded: bool = True) -> None:
        self._parts = parts
        self._writer = parts.writer
        self._outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
        self._emit = early or self._outputs.put
        # What was knocked at the doors, and what the Ear found, in order; bounded by what the server lets a session send.
        self._inbox: queue.SimpleQueue[tuple[str, Callable[[], None]]] = queue.SimpleQueue()
        self._ears = Lane("ear", threaded=threaded)
        self._voices = Lane("voice", threaded=threaded)
        # Ears belong to their lane, everything else of a session to the engine's thread.
        self._ear_of: dict[str, Ear] = {}
        self._sessions: dict[str, _Session] = {}
        # Called, on any thread, when there is something in the inbox.
        self._wake: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------------------------------------------ doors

    def on_work(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, on any thread, whenever `step` has something new to do."""
        self._wake = wake

    def open(self, session_id: str, spec: SessionSpec) -> None:
        self._ears.put(partial(self._open_ear, session_id))
        self._note(session_id, partial(self._open, session_id, spec))

    def close(self, session_id: str) -> None:
        self._ears.put(partial(self._close_ear, session_id))
        self._note(session_id, partial(self._close, session_id))

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        self._note(session_id, partial(self._keep, session_id, frame))
        self._ears.put(partial(self._listen, session_id, frame))

    def order(self, session_id: str, order: EngineOrder) -> None:
        match order:
            case ConfigureEar():
                self._ears.put(partial(self._configure_ear, session_id, order))
            case CommitTurn(end=end) | DiscardTurn(end=end):
                self._ears.put(partial(self._forget, session_id, end))
        self._note(session_id, partial(self._obey, session_id, order))

    def busy(self) -> bool:
        return not self._inbox.empty() or not self._outputs.empty() or self._most_urgent() is not None

    def step(self) -> list[EngineOutput]:
        self._take_inbox()
        work = self._most_urgent()
        if work is not None:
            work()
        outputs = []
        while not self._outputs.empty():
            outputs.append(self._outputs.get())
        return outputs

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
                self._tell(session_id, EngineFailed(f"{type(error).__name__}: {error}"))
                self._close(session_id)

    def _tell(self, session_id: str, event: EngineEvent) -> None:
        self._emit(SessionEvent(session_id, event))

    # -------------------------------------------------------------------------------------------- the Ear's lane

    def _open_ear(self, session_id: str) -> None:
        self._ear_of[session_id] = Ear(self._parts.vad, self._parts.end_of_turn)

    def _close_ear(self, session_id: str) -> None:
        self._ear_of.pop(session_id, None)

    def _configure_ear(self, session_id: str, order: ConfigureEar) -> None:
        if (ear := self._ear_of.get(session_id)) is not None:
            ear.configure(order)

    def _forget(self, session_id: str, end: int) -> None:
        if (ear := self._ear_of.get(session_id)) is not None:
            ear.forget(end)

    def _listen(self, session_id: str, frame: AudioFrame) -> None:
        if (ear := self._ear_of.get(session_id)) is None:
            return
        for event in ear.push(frame):
            self._note(session_id, partial(self._heard, session_id, event))
            self._tell(session_id, event)

    # -------------------------------------------------------------------------------------- the engine's thread

    def _open(self, session_id: str, spec: SessionSpec) -> None:
        sequence = self._writer.model.sequence()
        self._sessions[session_id] = _Session(session_id, spec, sequence, Sampler(spec.seed), spec.language)

    def _close(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            for reply in session.replies.values():
                reply.abort()

    def _keep(self, session_id: str, frame: AudioFrame) -> None:
        if (session := self._sessions.get(session_id)) is not None:
            session.ring.append(frame)

    def _heard(self, session_id: str, event: EarEvent) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        match event:
            case Listened(at):
                session.listened = at
                if session.turn is not None:
                    session.turn.listen(session.ring, at)
            case SpeechStarted():
                session.pause = None
                if session.turn is not None:
                    session.turn.resume(session.ring, session.listened)
            case SpeechStopped(at):
                session.pause, session.heard_before_pause = at, session.listened
                if session.turn is not None:
                    session.turn.pause(at)

    def _obey(self, session_id: str, order: EngineOrder) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        match order:
            case ConfigureEar(language=language):
                session.language = language or session.spec.language
            case StartTurn():
                self._start_turn(session, order)
            case CommitTurn():
                self._commit_turn(session, order)
            case DiscardTurn():
                session.turn = None
            case SetHistory(messages):
                self._set_history(session, messages)
            case Respond():
                self._start_reply(session, order)
            case Say():
                self._say(session, order)
            case Abort(response_id):
                if (reply := session.replies.pop(response_id, None)) is not None:
                    reply.abort()
            case _:
                raise ValueError(f"session {session_id}: this engine does not take {type(order).__name__}")

    def _transcriber(self, session: _Session) -> Transcriber:
        return Transcriber(self._parts.recogniser, session.language)

    def _start_turn(self, session: _Session, order: StartTurn) -> None:
        session.turn = turn = Turn(order.item_id, order.start, self._transcriber(session))
        if session.pause is None:
            turn.listen(session.ring, session.listened)
        else:  # the order came late: take what would have been taken had it come in time
            turn.listen(session.ring, session.heard_before_pause)
            turn.pause(session.pause)

    def _commit_turn(self, session: _Session, order: CommitTurn) -> None:
        turn = session.turn
        if turn is None or turn.item_id != order.item_id:
            turn = Turn(order.item_id, order.start, self._transcriber(session))
        session.turn, session.prefill = None, None
        turn.commit(session.ring, order.end)
        session.ending.append(turn)

    def _set_history(self, session: _Session, messages: tuple[ContextMessage, ...]) -> None:
        session.history = messages
        session.unfilled, session.prefill = True, None
        kept = {message.item_id for message in messages}
        for item_id in [item_id for item_id in session.transcripts if item_id not in kept]:
            del session.transcripts[item_id]

    def _speaker(self, session: _Session, order: Respond | Say) -> Speaker:
        return Speaker(self._voices, self._parts.voice, self._emit, session.id, order.response_id, order.options)

    def _start_reply(self, session: _Session, order: Respond) -> None:
        options = order.options
        session.prefill = None
        # A reply with a context of its own runs beside the conversation's, so it may not rewind its sequence.
        sequence = session.sequence if options.context is None else self._writer.model.sequence()
        session.replies[order.response_id] = Reply(
            self._writer,
            sequence,
            session.sampler,
            self._speaker(session, order),
            partial(self._tell, session.id),
            order.response_id,
            options,
            session.history if options.context is None else options.context,
            session.transcripts,
        )

    def _say(self, session: _Session, order: Say) -> None:
        say(self._speaker(session, order), partial(self._tell, session.id), order.response_id, order.text)

    # ------------------------------------------------------------------------------------------------- scheduling

    def _most_urgent(self) -> Callable[[], None] | None:
        """The next piece of work, or None. Sessions take turns within a class of urgency."""
        for kind in (
            self._reply_work,
            self._final_work,
            partial(self._turn_work, True),
            partial(self._turn_work, False),
            self._prefill_work,
        ):
            for session in self._sessions.values():
                if (work := kind(session)) is not None:
                    return partial(self._do, session, work)
        return None

    def _do(self, session: _Session, work: Iterator[None]) -> None:
        """One piece of `work`; then the session goes to the end of the queue."""
        next(work, None)
        for response_id in [response_id for response_id, reply in session.replies.items() if reply.done]:
            del session.replies[response_id]
            session.unfilled = True
        if session.id in self._sessions:
            self._sessions[session.id] = self._sessions.pop(session.id)

    def _reply_work(self, session: _Session) -> Iterator[None] | None:
        """The oldest reply whose transcripts are there."""
        waiting = {turn.item_id for turn in session.ending}
        return next((reply.work for reply in session.replies.values() if reply.ready(waiting)), None)

    def _final_work(self, session: _Session) -> Iterator[None] | None:
        """The final transcript of the oldest turn that has ended."""
        if session.final is None and session.ending:
            session.final = self._conclude(session, session.ending[0])
        return session.final

    def _turn_work(self, paused: bool, session: _Session) -> Iterator[None] | None:
        """The transcript of the open turn: of one that may end here (`paused`), or of one that goes on."""
        turn = session.turn
        if turn is None or turn.paused is not paused:
            return None
        if turn.work is None and turn.due:
            turn.work = self._hear(session, turn)
        return turn.work

    def _prefill_work(self, session: _Session) -> Iterator[None] | None:
        """What is known of the next prompt, while no reply is using the sequence."""
        if session.replies or session.ending:
            return None
        if session.prefill is None and session.unfilled:
            session.prefill = self._prefill(session)
        return session.prefill

    # ------------------------------------------------------------------------------------------------------- work

    def _hear(self, session: _Session, turn: Turn) -> Generator[None, None, None]:
        """One pass over the open turn; tells what it settled."""
        try:
            hypothesis = yield from turn.hear()
            if hypothesis.settled_new:
                session.unfilled, session.prefill = True, None
                delta = TranscriptDelta(turn.item_id, hypothesis.settled_new, hypothesis.confidence, turn.language)
                self._tell(session.id, delta)
        except Exception:
            log.exception("session %s: a pass over %s failed", session.id, turn.item_id)  # the final one will say so
        finally:
            turn.work = None

    def _conclude(self, session: _Session, turn: Turn) -> Generator[None, None, None]:
        """The final transcript of a turn that has ended."""
        try:
            if turn.work is not None:
                yield from turn.work
            transcript = yield from turn.conclude()
            session.transcripts[turn.item_id] = transcript.text
            done = TranscriptDone(turn.item_id, transcript.text, transcript.confidence, transcript.language)
            self._tell(session.id, done)
        except Exception as error:
            log.exception("session %s: the transcript of %s failed", session.id, turn.item_id)
            session.transcripts[turn.item_id] = turn.settled
            self._tell(session.id, TranscriptFailed(turn.item_id, f"{type(error).__name__}: {error}"))
        finally:
            session.ending.popleft()
            session.final = None

    def _prefill(self, session: _Session) -> Generator[None, None, None]:
        """Bring the sequence in line with the history and the words that have settled."""
        session.unfilled = False
        settled = session.turn.settled if session.turn is not None else ""
        try:
            prompt = self._writer.template.listening_prompt(session.history, session.transcripts, settled, self._writer.budget)
            for _ in self._writer.model.sync(session.sequence, prompt):
                yield
        except ContextFullError:
            log.warning("session %s: the turn being spoken does not fit the context", session.id)
        except Exception:
            log.exception("session %s: prefill failed", session.id)  # the reply will say so
        finally:
            session.prefill = None
