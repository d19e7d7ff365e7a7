"""A call in virtual time: a mixed dialogue through the real Ear, engine, conversation and playout, at the pace of its samples.

Only three things are not the server's: the clock (the input's own position), the network (none), and the reply's words and sound, which are
the dialogue's (the language model is not asked). What a model needs time for is told late by a fixed amount, measured on two quiet cores:
words after `WORDS_LATE_MS`, end-of-turn scores after `SCORE_LATE_MS`; so the result does not depend on the machine's load.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import numpy as np

from agent.commands import Command, Cut, Duck, Hold, PlayoutOrder, Resume
from agent.conversation import Conversation
from agent.events import Event, PlaybackProgress, SessionOpened
from agent.settings import AudioFormat, PlaybackOwner, SemanticVad, SessionSettings
from benchmarks.dialogues import Dialogue
from server.playout import AudioDelta, Playout
from streaming.audio import AudioFrame, Samples, decode_pcm16
from streaming.doors import EngineLoad, EngineOutput, SynthesisedAudio
from streaming.engine import Parts, SpeechEngine
from streaming.events import (
    SAMPLE_RATE,
    Abort,
    AudioReady,
    EndOfTurnScore,
    EngineEvent,
    EngineOrder,
    OverlapKind,
    OverlapScore,
    Respond,
    ResponseFinished,
    Say,
    SessionSpec,
    TranscriptDelta,
    TranscriptDone,
    TranscriptProvisional,
)
from streaming.tts import Speech

__all__ = ["SCORE_LATE_MS", "WORDS_LATE_MS", "Call", "RecordedVoice"]

WORDS_LATE_MS: Final = 80
SCORE_LATE_MS: Final = 25

_FRAME: Final = SAMPLE_RATE // 50
_MS: Final = SAMPLE_RATE // 1_000


class RecordedVoice:
    """A voice that says the clauses of one reply; anything else is silent for a moment."""

    def __init__(self) -> None:
        # By a clause's text, at 16 kHz.
        self.clauses: dict[str, Speech] = {}

    def speak(self, text: str, rate: int, speed: float = 1.0, *, prompt: bool = False, name: str = "") -> Iterator[Speech]:  # noqa: ARG002 - as recorded
        """See `streaming.tts.Voice`."""
        assert rate == SAMPLE_RATE
        if (speech := self.clauses.get(text)) is not None:
            yield speech


@dataclass
class Call:
    """One call. `run` plays the dialogue; then the fields tell what came of it, times in 1/16000 s of the call."""

    parts: Parts
    voice: RecordedVoice
    dialogue: Dialogue
    owner: PlaybackOwner
    # What was told to the conversation and what it ordered, and when.
    told: list[tuple[int, Event]] = field(default_factory=list)
    ordered: list[tuple[int, Command]] = field(default_factory=list)
    # What the caller's loudspeaker was sent, and when it plays.
    played: list[tuple[int, AudioDelta]] = field(default_factory=list)

    def run(self) -> None:
        """Play it to its end."""
        dialogue = self.dialogue
        self.voice.clauses = {} if dialogue.reply is None else dict(dialogue.reply.clauses)
        self._now = 0
        self._engine = SpeechEngine(self.parts, threaded=False, clock=lambda: self._now / SAMPLE_RATE)
        self._conversation = Conversation("bench", 0)
        self._playout = Playout()
        self._playout.owner = self.owner
        self._late: list[tuple[int, int, EngineEvent]] = []
        self._order = count()
        self._speaks_until = 0
        self._reply_due: Say | None = None
        self._engine.open("bench", SessionSpec())
        wire = AudioFormat(rate=SAMPLE_RATE)
        settings = SessionSettings(turn_detection=SemanticVad(), playback=self.owner, output_format=wire, speculation=False)
        self._tell(SessionOpened(settings))
        for start in range(0, len(dialogue.pcm), _FRAME):
            self._now = start + _FRAME
            self._engine.feed("bench", AudioFrame(dialogue.pcm[start : start + _FRAME], start))
            self._step()
            self._reply()
            self._tell_late()
            self._play()

    def _step(self) -> None:
        """Let the engine do all it can."""
        while self._engine.busy():
            for output in self._engine.step():
                self._take(output)

    def _take(self, output: EngineOutput) -> None:
        if isinstance(output, EngineLoad):
            return
        if isinstance(output, SynthesisedAudio):
            self._playout.push(output)
            return
        match output.event:
            case EndOfTurnScore():
                late = SCORE_LATE_MS
            case TranscriptProvisional() | TranscriptDone() | TranscriptDelta():
                late = WORDS_LATE_MS
            case OverlapScore(kind=kind) if kind is not OverlapKind.ECHO:
                late = WORDS_LATE_MS
            case _:
                late = 0
        heapq.heappush(self._late, (self._now + late * _MS, next(self._order), output.event))

    def _tell_late(self) -> None:
        while self._late and self._late[0][0] <= self._now:
            event = heapq.heappop(self._late)[2]
            if isinstance(event, ResponseFinished):
                self._playout.finish(event.response_id)
            for progress in self._playout.progress(self._now, fresh=True):
                self._tell(progress)
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if not isinstance(event, PlaybackProgress):
            self.told.append((self._now, event))
        for command in self._conversation.handle(event, self._now):
            self.ordered.append((self._now, command))
            if isinstance(command, Respond) and self.dialogue.reply is not None and not self.played:
                # Said when the dialogue has it said: what is heard over it has been mixed for that moment.
                self._reply_due = Say(command.response_id, self.dialogue.reply.text, command.options)
            elif isinstance(command, EngineOrder):
                self._order_engine(command)
            elif isinstance(command, PlayoutOrder):
                self._playout.order(command, self._now)

    def _order_engine(self, order: EngineOrder) -> None:
        if isinstance(order, Abort) and self._reply_due is not None and order.response_id == self._reply_due.response_id:
            self._reply_due = None
        self._engine.order("bench", Say(order.response_id, "", order.options) if isinstance(order, Respond) else order)
        self._step()

    def _reply(self) -> None:
        """Begin the reply, if its time has come."""
        if self._reply_due is not None and self._now >= self.dialogue.reply_at:
            order, self._reply_due = self._reply_due, None
            self._order_engine(order)

    def _play(self) -> None:
        """Send what may be sent; the caller plays it at once, one thing after another."""
        while (delta := self._playout.next_delta(self._now)) is not None:
            self._speaks_until = max(self._speaks_until, self._now)
            self.played.append((self._speaks_until, delta))
            self._speaks_until += delta.samples
        for progress in self._playout.progress(self._now):
            self._tell(progress)

    # ------------------------------------------------------------------------------------------------ what came of it

    def first(self, kind: type | tuple[type, ...], since: int = 0) -> int | None:
        """When the first such order came, from `since` on."""
        return next((at for at, command in self.ordered if at >= since and isinstance(command, kind)), None)

    @property
    def cut_at(self) -> int | None:
        """When the reply was cut."""
        return None if self.reply_begins is None else self.first(Cut, self.reply_begins)

    @property
    def reply_begins(self) -> int | None:
        """When the reply's first sample sounds."""
        return self.played[0][0] if self.played else None

    def held_ms(self) -> float:
        """How long the reply was silent on purpose."""
        held, since = 0, None
        for at, command in self.ordered:
            if isinstance(command, Hold):
                since = at
            elif isinstance(command, Resume | Duck | Cut) and since is not None:
                held, since = held + at - since, None
        return held / _MS

    def loudspeaker(self) -> Samples:
        """What the caller hears of the agent, from the call's beginning, full scale 1.0."""
        sound = np.zeros(max((at + delta.samples for at, delta in self.played), default=0), np.float32)
        for at, delta in self.played:
            sound[at : at + delta.samples] = decode_pcm16(delta.payload).astype(np.float32) / np.float32(32_768)
        return sound

    @property
    def played_samples(self) -> int:
        """How much of the reply was played."""
        return sum(delta.samples for _, delta in self.played)

    @property
    def sounded_by_cut(self) -> int:
        """Samples of the reply that had sounded when it was cut; where the client owns playback it drops then what it has not played."""
        cut = self.cut_at
        end = self._now if cut is None else cut
        late = 2 * _FRAME if self.owner is PlaybackOwner.SERVER else 0  # the frames that had left play on
        return sum(min(delta.samples, max(0, end + late - at)) for at, delta in self.played)

    def is_held(self, at: int) -> bool:
        """Whether the reply is held, or cut, at this time."""
        orders = [command for when, command in self.ordered if when <= at and isinstance(command, Duck | Hold | Resume | Cut)]
        return bool(orders) and isinstance(orders[-1], Hold | Cut)

    def word_ends(self) -> list[tuple[int, int]]:
        """Where each word of the reply ends, in samples and in characters."""
        ends: list[tuple[int, int]] = []
        samples = 0
        for _, event in self.told:
            if isinstance(event, AudioReady):
                ends += [(word.end, word.text_end) for word in event.words]
                samples = event.start + event.samples
                if not event.words:
                    ends.append((samples, event.text_end))
        return ends
