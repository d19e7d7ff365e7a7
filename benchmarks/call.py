"""A mixed dialogue through a session in virtual time (`benchmarks.line`): its sound is the microphone's, its reply ours."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from agent.commands import Command, Cut, Duck, Hold, Resume
from agent.events import Event
from agent.settings import PlaybackOwner
from benchmarks.dialogues import Dialogue
from benchmarks.line import FRAME, Line, RecordedVoice
from server.playout import AudioDelta
from streaming.audio import Samples, decode_pcm16
from streaming.engine import Parts
from streaming.events import SAMPLE_RATE, Abort, AudioReady, EngineOrder, Respond, Say

__all__ = ["Call"]

_MS: Final = SAMPLE_RATE // 1_000


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
        self._reply_due: Say | None = None
        line = Line(self.parts, self.owner, self._answer, obey=self._obey)
        self.told, self.ordered, self.played = line.told, line.ordered, line.played
        for start in range(0, len(dialogue.pcm), FRAME):
            line.hear(dialogue.pcm[start : start + FRAME])
            if self._reply_due is not None and line.now >= dialogue.reply_at:
                order, self._reply_due = self._reply_due, None
                line.say(order)
            line.play()
        self._now = line.now

    def _answer(self, order: Respond) -> Say | None:
        """The reply, when the dialogue has it said: what is heard over it has been mixed for that moment. Nothing after that."""
        if self.dialogue.reply is None or self.played:
            return Say(order.response_id, "", order.options)
        self._reply_due = Say(order.response_id, self.dialogue.reply.text, order.options)
        return None

    def _obey(self, order: EngineOrder) -> None:
        if isinstance(order, Abort) and self._reply_due is not None and order.response_id == self._reply_due.response_id:
            self._reply_due = None

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
        late = 2 * FRAME if self.owner is PlaybackOwner.SERVER else 0  # the frames that had left play on
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
