"""The voice side of one reply: clauses in, numbered audio out a chunk at a time, on the voice's lane.

Everything a response says after its text goes through its `Speaker` in order, the end included, so that `ResponseFinished` follows the last
`AudioReady` and nothing follows `ResponseFinished`. After each chunk the speaker goes to the back of the lane's queue: replies that are
spoken at the same time take turns, and the first chunk of a reply comes before later ones of others.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streaming.doors import EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import AudioReady, FinishReason, RespondOptions, ResponseFinished, Usage, WordMark
from streaming.lane import Lane
from streaming.text import Clause
from streaming.tts import Speech, Voice

__all__ = ["Speaker"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the response, as `finish` was told it."""

    reason: FinishReason
    error: str | None
    usage: Usage


@dataclass(slots=True)
class _Spoken:
    """The clause being spoken: its chunks to come, and the sample of the response it begins at."""

    clause: Clause
    chunks: Iterator[Speech]
    start: int


class Speaker:
    """Speaks the clauses of one response. `say`, `abort` and `finish` are called by the engine's thread; the work runs on the lane."""

    def __init__(
        self, lane: Lane, voice: Voice, emit: Callable[[EngineOutput], None], session_id: str, response_id: str, options: RespondOptions
    ) -> None:
        self._lane = lane
        self._voice = voice
        self._emit = emit
        self._session_id = session_id
        self._response_id = response_id
        self._options = options
        # What is still to be done, in order: bounded by the length of a reply. Filled by the engine's thread, emptied by the lane's, and
        # both may find that no job is queued: hence the lock, which is never held while anything is done.
        self._waiting: deque[Clause | _End] = deque()
        self._queued = False
        self._lock = threading.Lock()
        # Set by the engine's thread, read by the lane's: what is still to be said is not worth saying.
        self._aborted = threading.Event()
        # Only the lane's thread writes the rest. The clause under way; samples of the response synthesised and characters said so far.
        self._spoken: _Spoken | None = None
        self._cursor = 0
        self._text_end = 0
        self._failure: str | None = None

    @property
    def waiting(self) -> bool:
        """Whether a clause waits for the one being spoken."""
        return bool(self._waiting)

    @property
    def failed(self) -> bool:
        """Whether the voice has failed: there will be no more sound."""
        return self._failure is not None

    def say(self, clause: Clause) -> None:
        """Queue a clause."""
        if self._options.audio:
            self._add(clause)

    def abort(self) -> None:
        """Speak nothing more than the chunk under way, which is thrown away; `finish` is still due, unless it was called before."""
        self._aborted.set()
        # Other replies' chunks are not waited for.
        self._lane.put(self._advance, urgent=True)

    def finish(self, reason: FinishReason, error: str | None = None, usage: Usage | None = None) -> None:
        """Queue the end of the response."""
        self._add(_End(reason, error, usage or Usage()))

    def _add(self, what: Clause | _End) -> None:
        with self._lock:
            self._waiting.append(what)
            queue, self._queued = not self._queued, True
        if queue:
            self._lane.put(self._advance, urgent=self._cursor == 0 or self._aborted.is_set())

    def _advance(self) -> None:
        """One chunk, or the end; then to the back of the queue."""
        while not self._chunk():
            with self._lock:
                if not self._waiting:
                    self._queued = False
                    return
                what = self._waiting.popleft()
            if isinstance(what, Clause):
                self._begin(what)
            else:
                self._finish(what)
        self._lane.put(self._advance)

    def _begin(self, clause: Clause) -> None:
        if not self._aborted.is_set() and self._failure is None:
            self._spoken = _Spoken(clause, self._speak(clause, prompt=self._cursor == 0), self._cursor)

    def _speak(self, clause: Clause, *, prompt: bool) -> Iterator[Speech]:
        # A generator, so that whatever the voice raises, it raises when a chunk is asked for.
        yield from self._voice.speak(clause.spoken, self._options.rate, self._options.speed, prompt=prompt, name=self._options.voice)

    def _chunk(self) -> bool:
        """The next chunk of the clause under way; False where there is none."""
        if (spoken := self._spoken) is None:
            return False
        speech = None if self._aborted.is_set() else self._synthesise(spoken)
        if self._aborted.is_set() or self._failure is not None:
            self._spoken = None
        elif speech is None:
            self._spoken = None
            if self._text_end < spoken.clause.end:  # nothing to say, but its text goes with what was said before
                self._tell(AudioReady(self._response_id, self._cursor, 0, spoken.clause.end))
        else:
            words = tuple(WordMark(spoken.clause.reply_position(word.text_end), spoken.start + word.end) for word in speech.words)
            text_end = words[-1].text_end if words else self._text_end
            start, self._cursor = self._cursor, self._cursor + len(speech.pcm)
            self._emit(SynthesisedAudio(self._session_id, self._response_id, start, speech.pcm))
            self._tell(AudioReady(self._response_id, start, len(speech.pcm), text_end, words, speech.exact))
        return self._spoken is not None

    def _synthesise(self, spoken: _Spoken) -> Speech | None:
        try:
            return next(spoken.chunks, None)
        except Exception as error:
            log.exception("the voice failed on a clause of %s", self._response_id)
            self._failure = f"the voice failed: {type(error).__name__}: {error}"
            return None

    def _tell(self, ready: AudioReady) -> None:
        self._text_end = ready.text_end
        self._emit(SessionEvent(self._session_id, ready))

    def _finish(self, end: _End) -> None:
        reason, error = end.reason, end.error
        if self._failure is not None and reason is not FinishReason.ABORTED:
            reason, error = FinishReason.ERROR, self._failure
        if self._aborted.is_set():
            reason = FinishReason.ABORTED
        self._emit(SessionEvent(self._session_id, ResponseFinished(self._response_id, reason, error, end.usage)))
