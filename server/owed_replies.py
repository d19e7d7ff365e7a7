"""The replies an engine owes a session, and what becomes of each when it dies. Pure.

A reply of which no sound has been handed out is made again by the next engine, once, after an apology that needs none, in the same
response: its text and sound follow the apology's. Of any other the rest is given up.
"""

from dataclasses import dataclass, replace

from server.apology import FixedSpeech
from server.engine_link import Fact
from streaming.doors import SynthesisedAudio
from streaming.events import (
    Abort,
    Adopt,
    AudioReady,
    Drop,
    FinishReason,
    ReplyRestarted,
    Respond,
    ResponseFinished,
    Say,
    Speculate,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
    WordMark,
)

__all__ = ["OwedReplies", "ReplyFact", "ReplyOrder", "shifted"]

ReplyOrder = Respond | Say | Speculate | Adopt | Drop | Abort
ReplyFact = TextDelta | AudioReady | ToolArgumentsDelta | ToolCallReady | ResponseFinished | SynthesisedAudio


@dataclass(slots=True)
class _Reply:
    """One that has not ended."""

    order: Respond | Say | Speculate
    # The characters and samples the session has been told of, and those of them that are before what the present engine makes.
    text: int = 0
    samples: int = 0
    text_before: int = 0
    samples_before: int = 0
    # A tool was called: a side effect, which is not to happen twice.
    called: bool = False
    # A speculation, neither adopted nor dropped.
    speculative: bool = False
    # Aborted or dropped: only its end is due.
    ended: bool = False
    # The engine that was making it has died; the next one has not been told of it.
    lost: bool = False
    repeats: int = 0

    @property
    def sounded(self) -> bool:
        """Whether what can't be taken back has been told: of speech its sound, of a text reply its words, of any a call."""
        return self.called or (self.samples if self.order.options.audio else self.text) > (
            self.samples_before if self.order.options.audio else self.text_before
        )


class OwedReplies:
    """Those of one session. Bounded by what the server lets a session ask for at once."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        # In the order they were asked for.
        self._replies: dict[str, _Reply] = {}

    # ------------------------------------------------------------------------------------------------------------- orders

    def order(self, order: ReplyOrder, apology: FixedSpeech | None, *, dead: bool) -> list[Fact]:
        """Note an order. While there is no engine (`dead`), returns what the session is told at once."""
        reply = self._replies.get(order.response_id)
        match order:
            case Say() if reply is not None and isinstance(reply.order, Say):
                reply.order = replace(reply.order, text=reply.order.text + order.text, more=order.more)
            case Respond() | Say():
                reply = self._replies[order.response_id] = _Reply(order, lost=dead)
                return self._apologise(reply, apology) if dead else []
            case Speculate():
                self._replies[order.response_id] = _Reply(order, speculative=True, lost=dead)
            case Adopt() if reply is not None:
                reply.speculative = False
                return self._repair(reply, "the engine stopped while it prepared the reply", apology) if reply.lost else []
            case Abort() | Drop() if reply is not None:
                reply.ended = True
                return [self._end(reply, FinishReason.ABORTED)] if reply.lost else []
        return []

    # -------------------------------------------------------------------------------------------------------------- facts

    def tell(self, fact: ReplyFact) -> list[Fact]:
        """What the session is told of an engine's `fact`."""
        reply = self._replies.get(fact.response_id)
        if reply is None:
            return [fact]
        match fact:
            case TextDelta(text=text):
                reply.text += len(text)
            case SynthesisedAudio():
                fact = replace(fact, start=fact.start + reply.samples_before) if reply.samples_before else fact
                reply.samples = max(reply.samples, fact.start + len(fact.pcm))
            case AudioReady():
                fact = shifted(fact, reply.text_before, reply.samples_before)
            case ToolArgumentsDelta() | ToolCallReady():
                reply.called = True
            case ResponseFinished():
                del self._replies[fact.response_id]
        return [fact]

    # ------------------------------------------------------------------------------------------------------------- dying

    def lose(self, error: str, apology: FixedSpeech | None) -> list[Fact]:
        """The engine has died. Returns what the session is told."""
        facts: list[Fact] = []
        for reply in tuple(self._replies.values()):
            reply.lost = True
            if reply.ended:
                facts.append(self._end(reply, FinishReason.ABORTED))
            elif not reply.speculative:  # it is dropped, unless it has just been adopted
                facts += self._repair(reply, error, apology)
        return facts

    def again(self) -> list[Respond | Say]:
        """What the next engine is told."""
        orders: list[Respond | Say] = []
        for reply in self._replies.values():
            if reply.lost and not reply.speculative:
                reply.lost = False
                order = reply.order
                orders.append(Respond(order.response_id, order.options) if isinstance(order, Speculate) else order)
        return orders

    def _repair(self, reply: _Reply, error: str, apology: FixedSpeech | None) -> list[Fact]:
        if reply.sounded or reply.repeats:
            return [self._end(reply, FinishReason.ERROR, error)]
        reply.repeats += 1
        return self._apologise(reply, apology)

    def _apologise(self, reply: _Reply, apology: FixedSpeech | None) -> list[Fact]:
        """The caller hears at once that it will take a moment. Once a reply; one of text only just comes later. What had been decoded and
        not spoken is taken back."""
        facts: list[Fact] = []
        options = reply.order.options
        if options.audio and reply.text > reply.text_before:
            reply.text = reply.text_before
            facts.append(ReplyRestarted(reply.order.response_id, reply.text))
        if options.audio and apology is not None and not reply.samples_before:
            delta, sound, ready = apology.as_reply(self._session_id, reply.order.response_id, options.rate)
            facts += [delta, sound, ready]
            reply.text, reply.samples = ready.text_end, ready.samples
        reply.text_before, reply.samples_before = reply.text, reply.samples
        return facts

    def _end(self, reply: _Reply, reason: FinishReason, error: str | None = None) -> Fact:
        del self._replies[reply.order.response_id]
        return ResponseFinished(reply.order.response_id, reason, error)


def shifted(ready: AudioReady, text: int, samples: int) -> AudioReady:
    """The same sound after so many characters and samples of the response."""
    if not text and not samples:
        return ready
    words = tuple(WordMark(word.text_end + text, word.end + samples) for word in ready.words)
    return replace(ready, start=ready.start + samples, text_end=ready.text_end + text, words=words)
