"""A scripted engine: every door of `streaming.doors.Engine`, no model, the same every time. For tests, protocol work and page work.

It hears by loudness, "transcribes" a script, answers from a script and speaks a quiet 440 Hz tone, 60 ms a word, with exact word
positions. It reads no clock: everything advances with the audio fed and with `step()`, so a test decides how far a reply has come.
One word counts as one token. What it was told is kept for assertions: `contexts` (the messages each reply saw) and `orders`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from streaming.audio import AudioFrame
from streaming.doors import EngineLoad, EngineOutput, SessionEvent
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    Adopt,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    DiscardTurn,
    Drop,
    EngineEvent,
    EngineOrder,
    OverlapKind,
    OverlapScore,
    Respond,
    Say,
    SessionSpec,
    SetHistory,
    Speculate,
    StartTurn,
    TranscriptDelta,
    TranscriptDone,
)
from streaming.fake_ear import LoudnessEar
from streaming.fake_voice import CLAUSE_WORDS, ReplyInProgress, ScriptedReply

__all__ = ["ReplyScript", "ScriptedEngine", "ScriptedReply", "load_scripted"]

_T = TypeVar("_T")

_KEPT: Final = 1_000
"""How many contexts, orders and transcripts are remembered: more than any test makes, so that a soak test does not grow."""

_OVERLAP_JUDGED: Final = SAMPLE_RATE // 4
"""Speech over a reply that is judged, always as meant for us: 250 ms, as the real engine's first words of it."""

ReplyScript = Sequence[ScriptedReply] | Callable[[tuple[ContextMessage, ...]], ScriptedReply]
"""Replies in order, each session from the first (then "This is reply N."), or a function of the messages the model is told. A function
that raises makes `step` raise: the engine has died."""


@dataclass(slots=True)
class _Turn:
    """The caller's open turn: its scripted words, and how many of them have been given as deltas."""

    item_id: str
    words: list[str]
    # Loud samples the Ear had counted when the turn began.
    spoken_before: int
    given: int = 0
    # Where it is told to be speech, if it is one over a reply.
    judged_at: int | None = None


@dataclass(slots=True)
class _Session:
    """What one session has said and been told."""

    ear: LoudnessEar
    language: str
    turn: _Turn | None = None
    history: tuple[ContextMessage, ...] = ()
    # Final texts of audio items, the newest 1,000.
    transcripts: dict[str, str] = field(default_factory=dict)
    # Replies being made, in the order they were asked for: one of the conversation and those out of band.
    replies: dict[str, ReplyInProgress] = field(default_factory=dict)
    speculations: dict[str, Speculate] = field(default_factory=dict)
    turns_done: int = 0
    replies_begun: int = 0


class ScriptedEngine:
    """`streaming.doors.Engine` from a script. Each session goes through the scripts on its own, from their beginning.

    Every `step` takes all waiting frames and orders, then makes one piece of one reply: at most `words_per_step` words and at most one
    clause, as `TextDelta` and, where the clause is complete, each chunk's `SynthesisedAudio` and `AudioReady`. A last step gives the calls
    and `ResponseFinished`. So an `Abort` between two steps always finds the reply in the middle.

    A speculation makes nothing until it is adopted, then it is a reply to the history of that moment.
    """

    def __init__(
        self,
        replies: ReplyScript = (),
        transcripts: Sequence[str | None] = (),
        *,
        words_per_step: int = CLAUSE_WORDS,
        word_ms: int = 60,
        chunk_ms: int | None = None,
        heard_word_ms: int = 250,
        speech_rms: float = 0.01,
        end_of_turn_ms: int = 200,
        end_of_turn_probability: float = 0.95,
    ) -> None:
        """`transcripts` are the turns' texts in order (then "turn N"); their words are given one per `heard_word_ms` of speech; the text of
        one that is None never comes. `word_ms` is the sound of a reply's word; a clause's sound comes in chunks of `chunk_ms` (None:
        whole); `speech_rms` the loudness (0 to 1) that counts as speech; a pause is scored with `end_of_turn_probability` once it has
        lasted `end_of_turn_ms`. Raises ValueError for a knob that is not positive."""
        if min(words_per_step, word_ms, heard_word_ms, end_of_turn_ms) < 1 or speech_rms <= 0 or (chunk_ms is not None and chunk_ms < 1):
            raise ValueError("words_per_step, word_ms, chunk_ms, heard_word_ms, end_of_turn_ms and speech_rms must be positive")
        # The messages each reply saw, oldest first, audio items with their transcripts; the newest 1,000.
        self.contexts: list[tuple[ContextMessage, ...]] = []
        # Every order taken, as (session_id, order); the newest 1,000.
        self.orders: list[tuple[str, EngineOrder]] = []
        self._reply_script = replies
        self._transcript_script = tuple(transcripts)
        self._words_per_step = words_per_step
        self._word_ms = word_ms
        self._chunk_ms = chunk_ms
        self._heard_word = heard_word_ms * SAMPLE_RATE // 1000
        self._new_ear = partial(LoudnessEar, speech_rms, end_of_turn_ms, end_of_turn_probability)
        self._sessions: dict[str, _Session] = {}
        # Emptied by every step; its filling is bounded by whoever feeds.
        self._inbox: deque[tuple[str, AudioFrame | EngineOrder]] = deque()
        # Whose reply is served next: sessions take turns.
        self._served = 0
        # A report for the next step to give.
        self._load: EngineLoad | None = None
        # Doors may be knocked at on another thread than the one that steps.
        self._lock = threading.Lock()
        self._wake: Callable[[], None] = lambda: None

    def on_work(self, wake: Callable[[], None]) -> None:
        """Have `wake` called whenever `step` has something new to do."""
        self._wake = wake

    def report_load(self, busy: float) -> None:
        """Say at the next step that the engine is this busy."""
        with self._lock:
            self._load = EngineLoad(busy, len(self._sessions))
        self._wake()

    def open(self, session_id: str, spec: SessionSpec) -> None:
        """Admit a session."""
        with self._lock:
            self._sessions[session_id] = _Session(self._new_ear(), spec.language or "en")

    def close(self, session_id: str) -> None:
        """Forget the session; what it still had waiting is ignored."""
        with self._lock:
            self._sessions.pop(session_id, None)

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        """Hear a frame at the next step."""
        self._inbox.append((session_id, frame))
        self._wake()

    def order(self, session_id: str, order: EngineOrder) -> None:
        """Take an order at the next step."""
        self._inbox.append((session_id, order))
        self._wake()

    def busy(self) -> bool:
        """Whether a frame or an order waits, or a reply can go on."""
        with self._lock:
            return bool(self._inbox) or self._load is not None or bool(self._ready())

    def step(self) -> list[EngineOutput]:
        """Everything waiting, then one piece of one reply."""
        with self._lock:
            return self._step()

    def _step(self) -> list[EngineOutput]:
        outputs: list[EngineOutput] = [] if self._load is None else [self._load]
        self._load = None
        while self._inbox:
            session_id, what = self._inbox.popleft()
            session = self._sessions.get(session_id)
            if session is not None:
                events = self._hear(session, what) if isinstance(what, AudioFrame) else self._take(session_id, session, what)
                outputs.extend(SessionEvent(session_id, event) for event in events)
        ready = self._ready()
        if ready:
            outputs.extend(self._serve(ready[self._served % len(ready)]))
            self._served += 1
        return outputs

    def _serve(self, reply: ReplyInProgress) -> list[EngineOutput]:
        """The next words of a reply, or its end."""
        if not reply.finished:
            return reply.push(self._words_per_step)
        del self._sessions[reply.session_id].replies[reply.response_id]
        return reply.finish()

    def _ready(self) -> list[ReplyInProgress]:
        return [reply for session in self._sessions.values() for reply in session.replies.values() if not reply.stalled]

    # -- hearing

    def _hear(self, session: _Session, frame: AudioFrame) -> list[EngineEvent]:
        events = session.ear.push(frame)
        turn = session.turn
        if turn is not None:
            due = min(len(turn.words), (session.ear.spoken - turn.spoken_before) // self._heard_word)
            events.extend(
                TranscriptDelta(turn.item_id, turn.words[index] if index == 0 else f" {turn.words[index]}", 0.9, session.language)
                for index in range(turn.given, due)
            )
            turn.given = max(turn.given, due)
            heard = frame.at + len(frame.pcm)
            if turn.judged_at is not None and heard >= turn.judged_at:
                turn.judged_at = None
                events.append(OverlapScore(heard, OverlapKind.SPEECH, 0.95))
        return events

    def _transcript(self, session: _Session) -> str | None:
        number = session.turns_done
        return self._transcript_script[number] if number < len(self._transcript_script) else f"turn {number + 1}"

    def _commit(self, session: _Session, order: CommitTurn) -> list[EngineEvent]:
        """The text that is known, of an open turn, or for a turn committed by hand the next of the script."""
        text = self._transcript(session) if order.transcript is None else order.transcript
        session.turn = None
        session.turns_done += 1
        if text is None:
            return []
        session.transcripts[order.item_id] = text
        if len(session.transcripts) > _KEPT:
            del session.transcripts[next(iter(session.transcripts))]
        return [TranscriptDone(order.item_id, text, 0.9, session.language)] if order.transcript is None else []

    # -- orders

    def _take(self, session_id: str, session: _Session, order: EngineOrder) -> list[EngineEvent]:
        _remember(self.orders, (session_id, order))
        match order:
            case ConfigureEar():
                session.ear.config = order
                session.language = order.language or session.language
            case StartTurn(item_id, over=over):
                session.turn = _Turn(item_id, (self._transcript(session) or "").split(), session.ear.spoken)
                session.turn.judged_at = None if over is None else over.at + _OVERLAP_JUDGED
            case CommitTurn():
                return self._commit(session, order)
            case DiscardTurn():
                session.turn = None
            case SetHistory(messages):
                session.history = messages
            case Say(response_id, text, more=more) if (open_reply := session.replies.get(response_id)) is not None:
                open_reply.extend(text, more=more)
            case Respond() | Say():
                self._begin(session_id, session, order)
            case Abort(response_id):
                reply = session.replies.pop(response_id, None)
                return [] if reply is None else [reply.abort()]
            case Speculate(response_id):
                session.speculations[response_id] = order
            case Adopt(response_id):
                if (speculation := session.speculations.pop(response_id, None)) is not None:
                    self._begin(session_id, session, Respond(response_id, speculation.options))
            case Drop(response_id):
                session.speculations.pop(response_id, None)
        return []

    def _begin(self, session_id: str, session: _Session, order: Respond | Say) -> None:
        context: tuple[ContextMessage, ...] = ()
        if isinstance(order, Say):
            reply = ScriptedReply()
        else:
            told = session.history if order.options.context is None else order.options.context
            context = tuple(replace(m, text=session.transcripts.get(m.item_id, "")) if m.text is None else m for m in told)
            _remember(self.contexts, context)
            reply = self._next_reply(session, context)
        begun = ReplyInProgress(session_id, order, reply, context, self._word_ms, self._chunk_ms)
        session.replies[order.response_id] = begun
        if isinstance(order, Say):
            begun.extend(order.text, more=order.more)

    def _next_reply(self, session: _Session, context: tuple[ContextMessage, ...]) -> ScriptedReply:
        number = session.replies_begun
        session.replies_begun += 1
        if callable(self._reply_script):
            return self._reply_script(context)
        return self._reply_script[number] if number < len(self._reply_script) else ScriptedReply(f"This is reply {number + 1}.")


def _remember(kept: list[_T], what: _T) -> None:
    kept.append(what)
    del kept[:-_KEPT]


def load_scripted(
    _early: Callable[[EngineOutput], None],
    replies: Sequence[ScriptedReply] = (),
    transcripts: Sequence[str | None] = (),
    seconds: float = 0.0,
) -> ScriptedEngine:
    """A `ScriptedEngine` as a process of its own loads it, which takes `seconds`: `partial(load_scripted, replies=..., transcripts=...)`
    can be pickled."""
    time.sleep(seconds)
    return ScriptedEngine(replies, transcripts)
