"""The scripted engine's replies: what a script says, cut into clauses and spoken as a quiet tone with exact word positions."""

import re
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streaming.audio import Pcm16
from streaming.doors import EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import (
    AudioReady,
    ContextMessage,
    FinishReason,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    TextDelta,
    ToolCallReady,
    Usage,
    WordMark,
)

__all__ = ["CLAUSE_WORDS", "ReplyInProgress", "ScriptedReply", "split_clauses"]

CLAUSE_WORDS: Final = 8
"""A clause without punctuation is cut after this many words."""

_TONE_HZ: Final = 440.0
_TONE_PEAK: Final = 1_600
"""About -26 dBFS: audible, and far above what the tests call silence."""


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One reply: the words, then calls as (name, arguments as JSON text). `stall_after` stops it for good after so many words, until it is
    aborted (to interrupt a reply that is still being made, without timing); `error` ends it as failed after its words."""

    text: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()
    stall_after: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    """A word with the space that follows it; `closes` where a clause ends with it."""

    text: str
    closes: bool


def split_clauses(text: str) -> list[list[str]]:
    """Clauses as lists of words, each word with the white space after it; joined they are `text` without white space around it. A clause
    ends with `. ! ? ; :` or after 8 words. Example: `"Yes. It is"` gives `[["Yes. "], ["It ", "is"]]`."""
    return _clauses_of(text.strip())


def _clauses_of(text: str) -> list[list[str]]:
    clauses: list[list[str]] = []
    open_clause: list[str] = []
    for word in re.findall(r"\s*\S+\s*", text):
        open_clause.append(word)
        if word.rstrip().endswith((".", "!", "?", ";", ":")) or len(open_clause) == CLAUSE_WORDS:
            clauses.append(open_clause)
            open_clause = []
    return [*clauses, open_clause] if open_clause else clauses


class ReplyInProgress:
    """A reply being made: the script within what the options ask, and how far it has come."""

    def __init__(
        self,
        session_id: str,
        order: Respond | Say,
        reply: ScriptedReply,
        context: tuple[ContextMessage, ...],
        word_ms: int,
        chunk_ms: int | None = None,
    ) -> None:
        """`word_ms` is the sound of one word at speed 1; a clause's sound comes in chunks of `chunk_ms`, whole with None. `context` only
        counts as input tokens, a word each."""
        self.response_id = order.response_id
        self.session_id = session_id
        self._options = order.options
        # Sound of one word, in samples of the reply's rate.
        self._word_samples = max(1, round(order.options.rate * word_ms / 1000 / order.options.speed))
        self._chunk_samples = None if chunk_ms is None else max(1, order.options.rate * chunk_ms // 1000)
        self._words, self._calls, self._reason = _plan(reply, order.options)
        self._error = reply.error
        self._stall_after = reply.stall_after
        # More words are to come.
        self._open = False
        self._input_tokens = sum(len((message.text or "").split()) for message in context)
        # How many words have been given, and the characters of them.
        self._given = 0
        self._text_end = 0
        # Samples synthesised so far, and the characters of the words that end in them.
        self._samples = 0
        self._spoken_to = 0
        # Marks of the clause that has no sound yet: at most 8.
        self._marks: list[WordMark] = []

    @property
    def stalled(self) -> bool:
        """Nothing more will come of itself: only an abort ends it, or more words."""
        if self._open and self._given == len(self._words):
            return True
        return self._stall_after is not None and self._given >= self._stall_after

    @property
    def finished(self) -> bool:
        """Every word has been given; only `finish` is left."""
        return self._given == len(self._words)

    def extend(self, text: str, *, more: bool) -> None:
        """Words from outside, to be spoken to their end; whether others follow."""
        self._open = more
        self._words += [_Word(word, index == len(clause) - 1) for clause in _clauses_of(text) for index, word in enumerate(clause)]

    def push(self, words: int) -> list[EngineOutput]:
        """At most so many more words and at most to the end of the clause; its sound where it ends."""
        text, closed = "", False
        stop = self._given + words if self._stall_after is None else min(self._given + words, self._stall_after)
        for word in self._words[self._given : stop]:
            text += word.text
            self._given += 1
            self._text_end += len(word.text)
            self._marks.append(WordMark(self._text_end, self._samples + self._word_samples * (len(self._marks) + 1)))
            if word.closes:
                closed = True
                break
        outputs: list[EngineOutput] = [self._event(TextDelta(self.response_id, text))]
        return [*outputs, *self._speak()] if closed else outputs

    def finish(self) -> list[EngineOutput]:
        """The calls, then the end."""
        calls = (ToolCallReady(self.response_id, index, name, arguments) for index, (name, arguments) in enumerate(self._calls))
        end = ResponseFinished(self.response_id, self._reason, self._error, self._usage())
        return [*(self._event(call) for call in calls), self._event(end)]

    def abort(self) -> ResponseFinished:
        """The end before its time."""
        return ResponseFinished(self.response_id, FinishReason.ABORTED, None, self._usage())

    def _speak(self) -> list[EngineOutput]:
        """The sound of the clause that has just been completed."""
        marks, self._marks = tuple(self._marks), []
        if not self._options.audio:
            return []
        outputs: list[EngineOutput] = []
        end = marks[-1].end
        while self._samples < end:
            start, self._samples = self._samples, end if self._chunk_samples is None else min(end, self._samples + self._chunk_samples)
            words = tuple(mark for mark in marks if start < mark.end <= self._samples)
            if words:
                self._spoken_to = words[-1].text_end
            pcm = _tone(start, self._samples - start, self._options.rate)
            ready = AudioReady(self.response_id, start, len(pcm), self._spoken_to, words, exact=True)
            outputs += [SynthesisedAudio(self.session_id, self.response_id, start, pcm), self._event(ready)]
        return outputs

    def _usage(self) -> Usage:
        spoken = self._given if self._options.audio else 0
        return Usage(input_tokens=self._input_tokens, output_tokens=self._given, audio_tokens=spoken)

    def _event(self, event: TextDelta | AudioReady | ToolCallReady | ResponseFinished) -> SessionEvent:
        return SessionEvent(self.session_id, event)


_Calls = tuple[tuple[str, str], ...]


def _plan(reply: ScriptedReply, options: RespondOptions) -> tuple[list[_Word], _Calls, FinishReason]:
    """The script within the options: tool choice first, then the token limit, which leaves no room for calls."""
    text, calls = reply.text, reply.tool_calls
    if options.tool_choice == "none":
        calls = ()
    elif options.tool_choice == "required":
        text, calls = "", calls or tuple((tool.name, "{}") for tool in options.tools[:1])
    elif options.tool_choice != "auto":
        text, calls = "", ((options.tool_choice, dict(calls).get(options.tool_choice, "{}")),)
    words = [_Word(word, index == len(clause) - 1) for clause in split_clauses(text) for index, word in enumerate(clause)]
    limit = options.max_output_tokens
    if reply.error is not None:
        return words, (), FinishReason.ERROR
    if limit is not None and len(words) > limit:
        return [*words[: limit - 1], replace(words[limit - 1], closes=True)] if limit else [], (), FinishReason.LENGTH
    return words, calls, FinishReason.TOOL_CALLS if calls else FinishReason.STOP


def _tone(start: int, samples: int, rate: int) -> Pcm16:
    """The voice: samples `start` to `start + samples` of an endless tone, so that clauses join without a click."""
    time = (np.arange(samples) + start) / rate
    pcm: Pcm16 = np.rint(_TONE_PEAK * np.sin(2 * np.pi * _TONE_HZ * time)).astype(np.int16)
    return pcm
