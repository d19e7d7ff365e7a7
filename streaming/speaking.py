"""The voice side of one reply: clauses in, numbered audio out, on the voice's lane.

Everything a response says after its text goes through its `Speaker` in order, the end included, so that `ResponseFinished` follows the last
`AudioReady` and nothing follows `ResponseFinished`.
"""

import logging
import threading
from collections.abc import Callable

from streaming.doors import EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import AudioReady, FinishReason, RespondOptions, ResponseFinished, Usage, WordMark
from streaming.lane import Lane
from streaming.text import Clause
from streaming.tts import Voice

__all__ = ["Speaker"]

log = logging.getLogger(__name__)


class Speaker:
    """Speaks the clauses of one response. `say` and `finish` are called by the engine's thread; the work runs on the lane."""

    def __init__(
        self, lane: Lane, voice: Voice, emit: Callable[[EngineOutput], None], session_id: str, response_id: str, options: RespondOptions
    ) -> None:
        self._lane = lane
        self._voice = voice
        self._emit = emit
        self._session_id = session_id
        self._response_id = response_id
        self._options = options
        # Samples of the response synthesised so far. Only the lane's thread touches it.
        self._cursor = 0
        # Set by the engine's thread, read by the lane's: the clauses still queued are not worth speaking.
        self._aborted = threading.Event()
        self._failure: str | None = None

    def say(self, clause: Clause) -> None:
        """Queue a clause."""
        if self._options.audio:
            self._lane.put(lambda: self._speak(clause))

    def abort(self) -> None:
        """Speak nothing more; `finish` is still due."""
        self._aborted.set()

    def finish(self, reason: FinishReason, error: str | None = None, usage: Usage | None = None) -> None:
        """Queue the end of the response."""
        self._lane.put(lambda: self._finish(reason, error, usage or Usage()))

    def _speak(self, clause: Clause) -> None:
        if self._aborted.is_set() or self._failure is not None:
            return
        try:
            speech = self._voice.speak(clause.spoken, self._options.rate, self._options.speed)
        except Exception as error:
            log.exception("the voice failed on a clause of %s", self._response_id)
            self._failure = f"the voice failed: {type(error).__name__}: {error}"
            return
        if self._aborted.is_set():
            return
        start = self._cursor
        self._cursor += len(speech.pcm)
        words = tuple(WordMark(clause.reply_position(word.text_end), start + word.end) for word in speech.words)
        self._emit(SynthesisedAudio(self._session_id, self._response_id, start, speech.pcm))
        ready = AudioReady(self._response_id, start, len(speech.pcm), clause.end, words, speech.exact)
        self._emit(SessionEvent(self._session_id, ready))

    def _finish(self, reason: FinishReason, error: str | None, usage: Usage) -> None:
        if self._failure is not None and reason is not FinishReason.ABORTED:
            reason, error = FinishReason.ERROR, self._failure
        if self._aborted.is_set():
            reason = FinishReason.ABORTED
        self._emit(SessionEvent(self._session_id, ResponseFinished(self._response_id, reason, error, usage)))
