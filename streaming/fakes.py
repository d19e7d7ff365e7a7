"""A scripted engine: every door of `streaming.doors.Engine`, no model, the same every time. For tests, protocol work and page work.

It hears by loudness, "transcribes" a script, answers from a script and speaks a quiet 440 Hz tone, 60 ms a word, with exact word
positions. It reads no clock: everything advances with the audio fed and with `step()`, so a test decides how far a reply has come.
One word counts as one token. What it was told is kept for assertions: `contexts` (the messages each reply saw) and `orders`.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np

from streaming.audio import AudioFrame, Pcm16, Samples
from streaming.doors import EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    Adopt,
    AudioReady,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    DiscardTurn,
    Drop,
    EndOfTurnScore,
    EngineEvent,
    EngineOrder,
    FinishReason,
    Listened,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    SessionSpec,
    SetHistory,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    ToolCallReady,
    TranscriptDelta,
    TranscriptDone,
    Usage,
    WordMark,
)

__all__ = ["ReplyScript", "ScriptedEngine", "ScriptedReply", "split_clauses"]

_WINDOW: Final = 512
"""Samples per loudness window, 32 ms: Silero's, so that tests see the rhythm of the real Ear."""

_STOP_MS: Final = 100
"""Silence after which the Ear reports `SpeechStopped`, in ms (rounded to windows: 96)."""

_CLAUSE_WORDS: Final = 8
"""A clause without punctuation is cut after this many words."""

_TONE_HZ: Final = 440.0
_TONE_PEAK: Final = 1_600
"""About -26 dBFS: audible, and far above what the tests call silence."""

_T = TypeVar("_T")

_KEPT: Final = 1_000
"""How many contexts, orders and transcripts are remembered: more than any test makes, so that a soak test does not grow."""


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One reply: the words, then calls as (name, arguments as JSON text). `stall_after` stops it for good after so many words, until it is
    aborted (to interrupt a reply that is still being made, without timing); `error` ends it as failed after its words."""

    text: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()
    stall_after: int | None = None
    error: str | None = None


ReplyScript = Sequence[ScriptedReply] | Callable[[tuple[ContextMessage, ...]], ScriptedReply]
"""Replies in order, each session from the first (then "This is reply N."), or a function of the messages the model is told. A function
that raises makes `step` raise: the engine has died."""


@dataclass(frozen=True, slots=True)
class _Word:
    """A word with the space that follows it; `closes` where a clause ends with it."""

    text: str
    closes: bool


def split_clauses(text: str) -> list[list[str]]:
    """Clauses as lists of words, each word with the white space after it; joined they are `text` without white space around it. A clause
    ends with `. ! ? ; :` or after 8 words. Example: `"Yes. It is"` gives `[["Yes. "], ["It ", "is"]]`."""
    clauses: list[list[str]] = []
    open_clause: list[str] = []
    for word in re.findall(r"\S+\s*", text.strip()):
        open_clause.append(word)
        if word.rstrip().endswith((".", "!", "?", ";", ":")) or len(open_clause) == _CLAUSE_WORDS:
            clauses.append(open_clause)
            open_clause = []
    return [*clauses, open_clause] if open_clause else clauses


# ------------------------------------------------------------------------------------------------------------ hearing


class _Ear:
    """Loudness over windows as evidence of speech: `push` frames of any size, the events depend on positions only."""

    def __init__(self, speech_rms: float, end_of_turn_ms: int, end_of_turn_probability: float) -> None:
        self.config = ConfigureEar()
        # RMS of a window from which on it counts as speech.
        self._speech_rms = speech_rms
        self._stop_windows = round(_STOP_MS * SAMPLE_RATE / 1000 / _WINDOW)
        self._score_windows = max(self._stop_windows, round(end_of_turn_ms * SAMPLE_RATE / 1000 / _WINDOW))
        self._end_of_turn_probability = end_of_turn_probability
        # Samples that don't fill a window yet: fewer than 512.
        self._held: Samples = np.zeros(0, np.float32)
        # Position of the first held sample.
        self._at = 0
        # End of the last loud window; None before any speech and after the pause has been scored.
        self._loud_until: int | None = None
        self._speaking = False
        # Samples of loud windows so far.
        self.spoken = 0

    def push(self, frame: AudioFrame) -> list[EngineEvent]:
        if not len(self._held):
            self._at = frame.at
        pcm = np.concatenate((self._held, frame.pcm))
        whole = len(pcm) // _WINDOW * _WINDOW
        events: list[EngineEvent] = []
        for window in pcm[:whole].reshape(-1, _WINDOW):
            events.extend(self._window(window))
        self._held = pcm[whole:]
        return events

    def _window(self, window: Samples) -> list[EngineEvent]:
        """Evidence of one window, (512,), its `Listened` last."""
        start, self._at = self._at, self._at + _WINDOW
        events: list[EngineEvent] = []
        if math.sqrt(float(np.mean(np.square(window, dtype=np.float64)))) >= self._speech_rms:
            if not self._speaking:
                self._speaking = True
                events.append(SpeechStarted(start, 1.0))
            self._loud_until = self._at
            self.spoken += _WINDOW
        elif self._loud_until is not None:
            silent = (self._at - self._loud_until) // _WINDOW
            if silent == self._stop_windows:
                self._speaking = False
                events.append(SpeechStopped(self._loud_until, 0.0))
            if silent == self._score_windows:
                self._loud_until = None
                if self.config.end_of_turn:
                    events.append(EndOfTurnScore(self._at, self._end_of_turn_probability))
        events.append(Listened(self._at))
        return events


@dataclass(slots=True)
class _Turn:
    """The caller's open turn: its scripted words, and how many of them have been given as deltas."""

    item_id: str
    words: list[str]
    # Loud samples the Ear had counted when the turn began.
    spoken_before: int
    given: int = 0


# ----------------------------------------------------------------------------------------------------------- speaking


@dataclass(slots=True)
class _Reply:
    """A reply being made: a plan of words and how far it has come."""

    response_id: str
    options: RespondOptions
    words: list[_Word]
    calls: tuple[tuple[str, str], ...]
    reason: FinishReason
    error: str | None
    stall_after: int | None
    input_tokens: int
    next_word: int = 0
    # Characters of the reply up to `next_word`.
    text_end: int = 0
    # Samples synthesised so far.
    samples: int = 0
    # Words of the clause that has no sound yet, as (text_end, end) marks: at most 8.
    marks: list[WordMark] = field(default_factory=list)

    def stalled(self) -> bool:
        return self.stall_after is not None and self.next_word >= self.stall_after


def _plan(order: Respond | Say, reply: ScriptedReply, context: tuple[ContextMessage, ...]) -> _Reply:
    """What `order` will give: the script, within what the options ask."""
    options = order.options
    text, calls = reply.text, reply.tool_calls
    if options.tool_choice == "none":
        calls = ()
    elif options.tool_choice == "required":
        text, calls = "", calls or tuple((tool.name, "{}") for tool in options.tools[:1])
    elif options.tool_choice != "auto":
        scripted = dict(calls)
        text, calls = "", ((options.tool_choice, scripted.get(options.tool_choice, "{}")),)
    words = [_Word(word, index == len(clause) - 1) for clause in split_clauses(text) for index, word in enumerate(clause)]
    reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    limit = options.max_output_tokens
    if limit is not None and len(words) > limit:
        words, calls, reason = words[:limit], (), FinishReason.LENGTH
        if words:
            words[-1] = replace(words[-1], closes=True)
    if reply.error is not None:
        calls, reason = (), FinishReason.ERROR
    input_tokens = sum(len((message.text or "").split()) for message in context)
    return _Reply(order.response_id, options, words, calls, reason, reply.error, reply.stall_after, input_tokens)


def _tone(start: int, samples: int, rate: int) -> Pcm16:
    """The voice: samples `start` to `start + samples` of an endless tone, so that clauses join without a click."""
    time = (np.arange(samples) + start) / rate
    pcm: Pcm16 = np.rint(_TONE_PEAK * np.sin(2 * np.pi * _TONE_HZ * time)).astype(np.int16)
    return pcm


# ------------------------------------------------------------------------------------------------------------- engine


@dataclass(slots=True)
class _Session:
    """What one session has said and been told."""

    ear: _Ear
    language: str
    turn: _Turn | None = None
    history: tuple[ContextMessage, ...] = ()
    # Final texts of audio items, the newest 1,000.
    transcripts: dict[str, str] = field(default_factory=dict)
    # Replies being made, in the order they were asked for: one of the conversation and those out of band.
    replies: dict[str, _Reply] = field(default_factory=dict)
    speculations: dict[str, Speculate] = field(default_factory=dict)
    turns_done: int = 0
    replies_begun: int = 0


class ScriptedEngine:
    """`streaming.doors.Engine` from a script. Each session goes through the scripts on its own, from their beginning.

    Every `step` takes all waiting frames and orders, then makes one piece of one reply: at most `words_per_step` words and at most one
    clause, as `TextDelta` and, where the clause is complete, `SynthesisedAudio` and its `AudioReady`. A last step gives the calls and
    `ResponseFinished`. So an `Abort` between two steps always finds the reply in the middle.

    A speculation makes nothing until it is adopted, then it is a reply to the history of that moment.
    """

    def __init__(
        self,
        replies: ReplyScript = (),
        transcripts: Sequence[str] = (),
        *,
        words_per_step: int = _CLAUSE_WORDS,
        word_ms: int = 60,
        heard_word_ms: int = 250,
        speech_rms: float = 0.01,
        end_of_turn_ms: int = 200,
        end_of_turn_probability: float = 0.95,
    ) -> None:
        """`transcripts` are the turns' texts in order (then "turn N"); their words are given one per `heard_word_ms` of speech.
        `word_ms` is the sound of a reply's word; `speech_rms` the loudness (0 to 1) that counts as speech; a pause is scored with
        `end_of_turn_probability` once it has lasted `end_of_turn_ms`. Raises ValueError for a knob that is not positive."""
        if min(words_per_step, word_ms, heard_word_ms, end_of_turn_ms) < 1 or speech_rms <= 0:
            raise ValueError("words_per_step, word_ms, heard_word_ms, end_of_turn_ms and speech_rms must be positive")
        # The messages each reply saw, oldest first, audio items with their transcripts; the newest 1,000.
        self.contexts: list[tuple[ContextMessage, ...]] = []
        # Every order taken, as (session_id, order); the newest 1,000.
        self.orders: list[tuple[str, EngineOrder]] = []
        self._reply_script = replies
        self._transcript_script = tuple(transcripts)
        self._words_per_step = words_per_step
        self._word_ms = word_ms
        self._heard_word = heard_word_ms * SAMPLE_RATE // 1000
        self._new_ear = partial(_Ear, speech_rms, end_of_turn_ms, end_of_turn_probability)
        self._sessions: dict[str, _Session] = {}
        # Emptied by every step; its filling is bounded by whoever feeds.
        self._inbox: deque[tuple[str, AudioFrame | EngineOrder]] = deque()
        # Whose reply is served next: sessions take turns.
        self._served = 0

    def open(self, session_id: str, spec: SessionSpec) -> None:
        """Admit a session."""
        self._sessions[session_id] = _Session(self._new_ear(), spec.language or "en")

    def close(self, session_id: str) -> None:
        """Forget the session; what it still had waiting is ignored."""
        self._sessions.pop(session_id, None)

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        """Hear a frame at the next step."""
        self._inbox.append((session_id, frame))

    def order(self, session_id: str, order: EngineOrder) -> None:
        """Take an order at the next step."""
        self._inbox.append((session_id, order))

    def busy(self) -> bool:
        """Whether a frame or an order waits, or a reply can go on."""
        return bool(self._inbox) or bool(self._ready())

    def step(self) -> list[EngineOutput]:
        """Everything waiting, then one piece of one reply."""
        outputs: list[EngineOutput] = []
        while self._inbox:
            session_id, what = self._inbox.popleft()
            session = self._sessions.get(session_id)
            if session is not None:
                events = self._hear(session, what) if isinstance(what, AudioFrame) else self._take(session_id, session, what)
                outputs.extend(SessionEvent(session_id, event) for event in events)
        ready = self._ready()
        if ready:
            session_id, reply = ready[self._served % len(ready)]
            self._served += 1
            outputs.extend(self._piece(session_id, reply))
        return outputs

    def _ready(self) -> list[tuple[str, _Reply]]:
        return [(key, reply) for key, session in self._sessions.items() for reply in session.replies.values() if not reply.stalled()]

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
        return events

    def _transcript(self, session: _Session) -> str:
        number = session.turns_done
        return self._transcript_script[number] if number < len(self._transcript_script) else f"turn {number + 1}"

    def _commit(self, session: _Session, item_id: str) -> EngineEvent:
        """The open turn's text, or for a turn committed by hand the next of the script."""
        text = self._transcript(session)
        session.turn = None
        session.turns_done += 1
        session.transcripts[item_id] = text
        if len(session.transcripts) > _KEPT:
            del session.transcripts[next(iter(session.transcripts))]
        return TranscriptDone(item_id, text, 0.9, session.language)

    # -- orders

    def _take(self, session_id: str, session: _Session, order: EngineOrder) -> list[EngineEvent]:
        _remember(self.orders, (session_id, order))
        match order:
            case ConfigureEar():
                session.ear.config = order
                session.language = order.language or session.language
            case StartTurn(item_id):
                session.turn = _Turn(item_id, self._transcript(session).split(), session.ear.spoken)
            case CommitTurn(item_id):
                return [self._commit(session, item_id)]
            case DiscardTurn():
                session.turn = None
            case SetHistory(messages):
                session.history = messages
            case Respond() | Say():
                self._begin(session, order)
            case Abort(response_id):
                return _abort(session, response_id)
            case Speculate(response_id):
                session.speculations[response_id] = order
            case Adopt(response_id):
                if (speculation := session.speculations.pop(response_id, None)) is not None:
                    self._begin(session, Respond(response_id, speculation.options))
            case Drop(response_id):
                session.speculations.pop(response_id, None)
        return []

    def _begin(self, session: _Session, order: Respond | Say) -> None:
        if isinstance(order, Say):
            session.replies[order.response_id] = _plan(order, ScriptedReply(order.text), ())
            return
        told = session.history if order.options.context is None else order.options.context
        context = tuple(replace(m, text=session.transcripts.get(m.item_id, "")) if m.text is None else m for m in told)
        _remember(self.contexts, context)
        session.replies[order.response_id] = _plan(order, self._next_reply(session, context), context)

    def _next_reply(self, session: _Session, context: tuple[ContextMessage, ...]) -> ScriptedReply:
        number = session.replies_begun
        session.replies_begun += 1
        if callable(self._reply_script):
            return self._reply_script(context)
        return self._reply_script[number] if number < len(self._reply_script) else ScriptedReply(f"This is reply {number + 1}.")

    # -- speaking

    def _piece(self, session_id: str, reply: _Reply) -> list[EngineOutput]:
        """The next words of a reply, or its end."""
        if reply.next_word == len(reply.words):
            del self._sessions[session_id].replies[reply.response_id]
            return [SessionEvent(session_id, event) for event in _finish(reply)]
        until = min(len(reply.words), reply.next_word + self._words_per_step)
        if reply.stall_after is not None:
            until = min(until, reply.stall_after)
        text = ""
        closed = False
        while reply.next_word < until and not closed:
            word = reply.words[reply.next_word]
            text += word.text
            closed = word.closes
            reply.next_word += 1
            reply.text_end += len(word.text)
            reply.marks.append(WordMark(reply.text_end, reply.samples + self._word_samples(reply.options) * (len(reply.marks) + 1)))
        outputs: list[EngineOutput] = [SessionEvent(session_id, TextDelta(reply.response_id, text))]
        if closed:
            outputs.extend(_speak(session_id, reply))
        return outputs

    def _word_samples(self, options: RespondOptions) -> int:
        """Sound of one word in samples of the reply's rate."""
        return max(1, round(options.rate * self._word_ms / 1000 / options.speed))


def _speak(session_id: str, reply: _Reply) -> list[EngineOutput]:
    """The sound of the clause that has just been completed."""
    marks, reply.marks = tuple(reply.marks), []
    if not reply.options.audio:
        return []
    start, reply.samples = reply.samples, marks[-1].end
    samples = reply.samples - start
    ready = AudioReady(reply.response_id, start, samples, marks[-1].text_end, marks, exact=True)
    return [
        SynthesisedAudio(session_id, reply.response_id, start, _tone(start, samples, reply.options.rate)),
        SessionEvent(session_id, ready),
    ]


def _finish(reply: _Reply) -> list[EngineEvent]:
    """The calls, then the end."""
    calls = (ToolCallReady(reply.response_id, index, name, arguments) for index, (name, arguments) in enumerate(reply.calls))
    return [*calls, ResponseFinished(reply.response_id, reply.reason, reply.error, _usage(reply))]


def _abort(session: _Session, response_id: str) -> list[EngineEvent]:
    reply = session.replies.pop(response_id, None)
    return [] if reply is None else [ResponseFinished(response_id, FinishReason.ABORTED, None, _usage(reply))]


def _usage(reply: _Reply) -> Usage:
    spoken = reply.next_word if reply.options.audio else 0
    return Usage(input_tokens=reply.input_tokens, output_tokens=reply.next_word, audio_tokens=spoken)


def _remember(kept: list[_T], what: _T) -> None:
    kept.append(what)
    del kept[:-_KEPT]
