"""A session in virtual time: the real Ear, engine, conversation and playout, at the pace of the sound that is put in.

Only three things are not the server's: the clock (the input's own position), the network (none), and the replies' words and sound, which
the caller of this module gives (the language model is not asked). What a model needs time for is told late by a fixed amount, measured on
two quiet cores: words after `WORDS_LATE_MS`, end-of-turn scores after `SCORE_LATE_MS`; so the result does not depend on the machine's load.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Final

from agent.commands import Command, PlayoutOrder
from agent.conversation import Conversation
from agent.events import Event, PlaybackProgress, SessionOpened
from agent.settings import AudioFormat, PlaybackOwner, SemanticVad, SessionSettings, Transcription
from server.echo import EchoSuppressor
from server.playout import AudioDelta, Playout
from streaming.audio import AudioFrame, Samples
from streaming.doors import EngineLoad, EngineOutput, SynthesisedAudio
from streaming.engine import Parts, SpeechEngine
from streaming.events import (
    SAMPLE_RATE,
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

__all__ = ["FRAME", "SCORE_LATE_MS", "WORDS_LATE_MS", "Line", "RecordedVoice"]

WORDS_LATE_MS: Final = 80
SCORE_LATE_MS: Final = 25

FRAME: Final = SAMPLE_RATE // 50
"""Samples of input that come at a time."""
_MS: Final = SAMPLE_RATE // 1_000


class RecordedVoice:
    """A voice that says the clauses of replies that are known; anything else is silent for a moment."""

    def __init__(self) -> None:
        # By a clause's text, at 16 kHz.
        self.clauses: dict[str, Speech] = {}

    def speak(self, text: str, rate: int, speed: float = 1.0, *, prompt: bool = False, name: str = "") -> Iterator[Speech]:  # noqa: ARG002 - as recorded
        """See `streaming.tts.Voice`."""
        assert rate == SAMPLE_RATE
        if (speech := self.clauses.get(text)) is not None:
            yield speech


class Line:
    """One call. `answer` says what to do with the order for a reply: `Say` it, or None to do nothing yet. Times in 1/16000 s."""

    def __init__(
        self,
        parts: Parts,
        owner: PlaybackOwner,
        answer: Callable[[Respond], Say | None],
        *,
        echo: EchoSuppressor | None = None,
        transcribes: bool = False,
        obey: Callable[[EngineOrder], None] = lambda _: None,
        fed: Callable[[AudioFrame], None] = lambda _: None,
    ) -> None:
        """`echo` stands between the input and the engine, as in a session. `transcribes`: the client asks for transcripts. `obey` is told
        every order for the engine, `fed` every frame it hears."""
        # What was told to the conversation and what it ordered, and when.
        self.told: list[tuple[int, Event]] = []
        self.ordered: list[tuple[int, Command]] = []
        # What the caller's loudspeaker was sent, and when it plays.
        self.played: list[tuple[int, AudioDelta]] = []
        self.now = 0
        self._answer = answer
        self._obey = obey
        self._fed = fed
        self._echo = echo
        self._engine = SpeechEngine(parts, threaded=False, clock=lambda: self.now / SAMPLE_RATE)
        self._conversation = Conversation("bench", 0)
        self._playout = Playout()
        self._playout.owner = owner
        if echo is not None:
            self._playout.loudspeaker = echo.loudspeaker
        self._late: list[tuple[int, int, EngineEvent]] = []
        self._order = count()
        self._speaks_until = 0
        self._engine.open("bench", SessionSpec())
        wire = AudioFormat(rate=SAMPLE_RATE)
        settings = SessionSettings(turn_detection=SemanticVad(), playback=owner, output_format=wire, speculation=False)
        self._tell(SessionOpened(replace(settings, transcription=Transcription()) if transcribes else settings))

    def hear(self, pcm: Samples) -> None:
        """The next frame of input; the engine does all that follows from it."""
        frame: AudioFrame | None = AudioFrame(pcm, self.now)
        self.now += len(pcm)
        if self._echo is not None:
            assert frame is not None
            frame = self._echo.push(frame, self.now)
        if frame is not None:
            self._fed(frame)
            self._engine.feed("bench", frame)
        self._step()

    def say(self, order: Say) -> None:
        """Begin a reply that was asked for."""
        self._order_engine(order)

    def play(self) -> None:
        """Tell what is due, and send what may be sent; the caller plays it at once, one thing after another."""
        self._tell_late()
        while (delta := self._next()) is not None:
            self._speaks_until = max(self._speaks_until, self.now)
            self.played.append((self._speaks_until, delta))
            self._speaks_until += FRAME if self._playout.owner is PlaybackOwner.SERVER else delta.samples
        for progress in self._playout.progress(self.now):
            self._tell(progress)

    def _next(self) -> AudioDelta | None:
        """What may leave now: of a transport of ours one frame a frame."""
        if self._playout.owner is not PlaybackOwner.SERVER:
            return self._playout.next_delta(self.now)
        return None if self._speaks_until > self.now else self._playout.next_frame(self.now)

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
        heapq.heappush(self._late, (self.now + late * _MS, next(self._order), output.event))

    def _tell_late(self) -> None:
        while self._late and self._late[0][0] <= self.now:
            event = heapq.heappop(self._late)[2]
            if isinstance(event, ResponseFinished):
                self._playout.finish(event.response_id)
            for progress in self._playout.progress(self.now, fresh=True):
                self._tell(progress)
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if not isinstance(event, PlaybackProgress):
            self.told.append((self.now, event))
        for command in self._conversation.handle(event, self.now):
            self.ordered.append((self.now, command))
            if isinstance(command, EngineOrder):
                self._order_engine(command)
            elif isinstance(command, PlayoutOrder):
                self._playout.order(command, self.now)

    def _order_engine(self, order: EngineOrder) -> None:
        self._obey(order)
        if isinstance(order, Respond):
            said = self._answer(order)
            if said is None:
                return
            order = said
        self._engine.order("bench", order)
        self._step()
