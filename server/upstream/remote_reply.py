"""One reply whose sound comes from a realtime service, on its way to the conversation: resampled, numbered, its words laid over it.

A service says its words, but not when they sound: they are laid over the sound at the pace at which it speaks, which is learned. The voice
here speaks in between where the caller would be left in silence; what the service sends meanwhile waits.
"""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from server.apology import APOLOGY, UNABLE
from server.engine_link import Fact
from server.owed_replies import shifted
from server.upstream.link import Local
from server.upstream.service import REPLY_RATE
from streaming.audio import Pcm16, Pcm16Decoder, StreamResampler, to_pcm16, to_samples
from streaming.doors import SynthesisedAudio
from streaming.events import (
    Abort,
    AudioReady,
    EngineEvent,
    FinishReason,
    ReplyRestarted,
    RespondOptions,
    ResponseFinished,
    Say,
    TextDelta,
    Usage,
    WordMark,
)

__all__ = ["Pace", "RemoteReply"]

_WORD: Final = re.compile(r"\s*\S+\s*")
_LEAST_LEARNED: Final = 20
"""Characters of a reply from which on it says something about the pace."""
_MOST_WAITING: Final = 2_000
"""Pieces that wait while the voice here says a sentence: minutes of sound."""


@dataclass(slots=True)
class Pace:
    """Characters a second of a service's voice: English at an even pace has 15; then as it turned out to be."""

    per_second: float = 15.0

    def learn(self, characters: int, seconds: float) -> None:
        """A reply has been spoken."""
        if characters >= _LEAST_LEARNED and seconds > 0:
            self.per_second = min(30.0, max(6.0, (self.per_second + characters / seconds) / 2))


class RemoteReply:
    """Ends, whatever happens, in one `ResponseFinished`."""

    def __init__(self, local: Local, response_id: str, options: RespondOptions, pace: Pace, forget: Callable[[], object]) -> None:
        """`forget` is called at its end."""
        self.options = options
        # Its words as the conversation knows them, those of the voice here included.
        self.text = ""
        # Whether the service has said anything of it, and how often it has been asked.
        self.begun = False
        self.tries = 0
        self._local = local
        self._response_id = response_id
        self._pace = pace
        self._forget = forget
        self._bytes = Pcm16Decoder()
        self._resampler = StreamResampler(REPLY_RATE, options.rate)
        self._samples = 0
        # Ends of words, in characters and samples, both rising; and what of both the voice here has said in between.
        self._text_ends: list[int] = []
        self._ends: list[int] = []
        self._ours_text = self._ours_samples = 0
        # The voice here speaks, from this character and sample on; what comes meanwhile waits.
        self._speaking: tuple[int, int] | None = None
        self._waiting: deque[Callable[[], None]] = deque(maxlen=_MOST_WAITING)
        self._finish: ResponseFinished | None = None
        self._over = False

    # ------------------------------------------------------------------------------------------------- from the service

    def words(self, text: str) -> None:
        """More words."""
        self.begun = True
        self._in_turn(partial(self._write, text))

    def sound(self, pcm: bytes) -> None:
        """More sound."""
        self.begun = True
        if self.options.audio:
            self._in_turn(partial(self._sound, pcm))

    def call(self, fact: EngineEvent) -> None:
        """More of a call."""
        self.begun = True
        self._in_turn(partial(self._local.tell, fact))

    def finish(self, reason: FinishReason, error: str | None, usage: Usage) -> None:
        """All of it has come."""
        if reason is FinishReason.ERROR:
            self.fail(error or "the reply could not be made", usage)
        else:
            self._in_turn(partial(self._end, ResponseFinished(self._response_id, reason, error, usage)))

    def fail(self, error: str, usage: Usage | None = None) -> None:
        """It does not come, or not to its end: the caller hears that."""
        finish = ResponseFinished(self._response_id, FinishReason.ERROR, error, usage or Usage())
        self._in_turn(partial(self._excuse, finish))

    def apologise(self) -> None:
        """It takes its time: the caller hears that."""
        if self.options.audio and not self.begun and self._speaking is None:
            self._say(f"{APOLOGY} ")

    # ------------------------------------------------------------------------------------------------ from the session

    def abort(self) -> None:
        """It is not wanted any more."""
        self._waiting.clear()
        aborted = ResponseFinished(self._response_id, FinishReason.ABORTED)
        if self._speaking is None:
            self._tell_end(aborted)
        else:
            self._finish = aborted
            self._local.order(Abort(self._response_id))

    def hear(self, fact: Fact) -> None:
        """The voice here tells of what it says of it."""
        assert self._speaking is not None
        text, samples = self._speaking
        match fact:
            case TextDelta():
                self.text += fact.text
            case ReplyRestarted(text_end=text_end):
                self.text = self.text[: text + text_end]
                fact = replace(fact, text_end=text + text_end)
            case SynthesisedAudio():
                fact = replace(fact, start=fact.start + samples)
                self._samples = max(self._samples, fact.start + len(fact.pcm))
            case AudioReady():
                fact = shifted(fact, text, samples)
                self._mark(fact)
            case ResponseFinished(reason=reason):
                self._spoke(fact if reason is not FinishReason.STOP else None)
                return
        self._local.tell(fact)

    def milliseconds(self, characters: int) -> int:
        """How much of the service's sound has been heard when the first `characters` of the text have."""
        word = bisect_right(self._text_ends, characters)
        heard = self._ends[word - 1] if word else 0
        return max(0, heard - self._ours_samples) * 1_000 // self.options.rate

    # ---------------------------------------------------------------------------------------------------------- inside

    def _in_turn(self, piece: Callable[[], None]) -> None:
        """Now, or when the voice here has finished."""
        if self._over:
            return
        if self._speaking is None:
            piece()
        else:
            self._waiting.append(piece)

    def _write(self, text: str) -> None:
        if text:
            self.text += text
            self._local.tell(TextDelta(self._response_id, text))

    def _sound(self, pcm: bytes) -> None:
        self._emit(to_pcm16(self._resampler.push(to_samples(self._bytes.push(pcm)))))

    def _emit(self, pcm: Pcm16, *, last: bool = False) -> None:
        """Sound, and the words that end in it: as many as its time holds at the present pace, of the last all."""
        start, self._samples = self._samples, self._samples + len(pcm)
        if len(pcm):
            self._local.tell(SynthesisedAudio(self._local.session_id, self._response_id, start, pcm))
        told = self._text_ends[-1] if self._text_ends else 0
        seconds = (self._samples - self._ours_samples) / self.options.rate
        due = len(self.text) if last else min(len(self.text), self._ours_text + int(seconds * self._pace.per_second))
        ends = [word.end() for word in _WORD.finditer(self.text, told) if word.end() <= due]
        if ends and not last and ends[-1] == len(self.text) and not self.text[-1].isspace():
            ends.pop()  # it may still be growing
        words = tuple(WordMark(end, start + len(pcm) * (place + 1) // len(ends)) for place, end in enumerate(ends))
        text_end = words[-1].text_end if words else told
        if len(pcm) or words:
            ready = AudioReady(self._response_id, start, len(pcm), text_end, words if len(pcm) else ())
            self._mark(ready)
            self._local.tell(ready)

    def _emit_rest(self) -> None:
        """What the resampler holds, and the words that have not been laid over any sound."""
        if self.options.audio:
            self._emit(to_pcm16(self._resampler.flush()), last=True)

    def _mark(self, ready: AudioReady) -> None:
        for word in ready.words:
            self._text_ends.append(word.text_end)
            self._ends.append(word.end)
        if ready.text_end > (self._text_ends[-1] if self._text_ends else 0):
            self._text_ends.append(ready.text_end)
            self._ends.append(ready.start + ready.samples)

    def _end(self, finish: ResponseFinished) -> None:
        if self.options.audio and self._samples > self._ours_samples:
            seconds = (self._samples - self._ours_samples) / self.options.rate
            self._pace.learn(len(self.text) - self._ours_text, seconds)
            self._emit_rest()
        self._tell_end(finish)

    def _excuse(self, finish: ResponseFinished) -> None:
        if not self.options.audio:
            self._tell_end(finish)
            return
        self._emit_rest()
        self._finish = finish
        self._say(f" {UNABLE}" if self.text else UNABLE)

    def _say(self, words: str) -> None:
        self._speaking = len(self.text), self._samples
        self._local.order(Say(self._response_id, words, self.options))

    def _spoke(self, failed: ResponseFinished | None) -> None:
        """The voice here has finished."""
        assert self._speaking is not None
        text, samples = self._speaking
        self._speaking = None
        self._ours_text += len(self.text) - text
        self._ours_samples += self._samples - samples
        if self._finish is not None or failed is not None:
            self._tell_end(self._finish or failed)
            return
        while self._waiting and self._speaking is None:
            self._waiting.popleft()()

    def _tell_end(self, finish: ResponseFinished | None) -> None:
        assert finish is not None
        if not self._over:
            self._over = True
            self._forget()
            self._local.tell(finish)
