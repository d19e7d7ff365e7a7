"""One session on the engine's thread: what it was told, what it holds, and the jobs that follow from both."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streaming.audio import AudioFrame
from streaming.batching import Work
from streaming.decoder import ContextFullError
from streaming.doors import EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import (
    Abort,
    Adopt,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    DiscardTurn,
    Drop,
    EarEvent,
    EngineEvent,
    EngineOrder,
    Listened,
    Respond,
    RespondOptions,
    Say,
    SessionSpec,
    SetHistory,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    TranscriptProvisional,
)
from streaming.hearing import Turn
from streaming.input_ring import InputRing
from streaming.lane import Lane
from streaming.no_speech import SpeechJudge
from streaming.overlap import OverlapWatch
from streaming.recognition import WordRecogniser
from streaming.replying import Reply, Saying, Writer
from streaming.sampling import Sampler
from streaming.scheduler import Job, Urgency
from streaming.sound_events import SoundClassifier
from streaming.sounding import Sounds, Wanted
from streaming.speaking import Speaker
from streaming.transcriber import Transcriber
from streaming.tts import Voice

__all__ = ["EngineSession", "SessionTools"]

log = logging.getLogger(__name__)

_DRY_SECONDS: Final = 1.0
"""Sound in hand below which a reply must go on: the next clause takes some hundred milliseconds to decode and to speak."""

_PATIENCE_SECONDS: Final = 0.64
"""How long the words of running speech may wait: a pass is due as often."""

_FIRST_TOKENS: Final = 64
"""Tokens by which a spoken reply has a clause for the voice, twice over: one that has no sound by then is a function call, or waits for the
voice."""

_PREFILL_SECONDS: Final = 2.0
"""How long the prefill of settled words may wait."""


@dataclass(frozen=True, slots=True)
class SessionTools:
    """What all sessions of an engine share."""

    recogniser: WordRecogniser
    writer: Writer
    voice: Voice
    voices: Lane
    emit: Callable[[EngineOutput], None]
    # Seconds, monotonic: orders work, and never decides what comes of it.
    clock: Callable[[], float]
    # Names sounds; None where the bundle has no such part.
    classifier: SoundClassifier | None = None


@dataclass(slots=True)
class _Replying:
    """A reply and where its sound stands."""

    reply: Reply
    job: Job
    # Samples a second of its sound.
    rate: int
    # When all sound made so far will have been played, if it is played as soon as it is made; None before the first.
    dry_at: float | None = None


class EngineSession:
    """Holds what one session needs. `heard`, `keep` and `obey` take what comes in; `jobs` is the work that follows."""

    def __init__(self, session_id: str, spec: SessionSpec, tools: SessionTools) -> None:
        self.id: Final = session_id
        self.sequence: Final = tools.writer.model.sequence()
        # When it was last told something: those that have waited longest are the first to give up their memory.
        self.used_at = tools.clock()
        self._spec = spec
        self._tools = tools
        self._language = spec.language
        self._ring = InputRing()
        # Whether what the recogniser writes was said by anybody.
        self._judge = SpeechJudge(self._ring, tools.classifier)
        # The Ear has heard this far; where its first silence since the last speech ended, and where the pause it became began.
        self._listened = 0
        self._hushed_at: int | None = None
        self._paused_at: int | None = None
        # The turn being spoken, its pass under way, and turns whose final transcript is due, oldest first.
        self._turn: Turn | None = None
        self._hearing: Job | None = None
        self._ending: deque[Turn] = deque()
        self._final: Job | None = None
        # The pause whose words have been told.
        self._told: int | None = None
        # What the language model hears of the caller's items; empty where it only reads.
        self._sounds = Sounds(tools.writer.template.path)
        # What is spoken over us, and what it is.
        self._overlap = OverlapWatch()
        # Final texts of audio items, for `ContextMessage.text` None; only of items in the history.
        self._transcripts: dict[str, str] = {}
        self._history: tuple[ContextMessage, ...] = ()
        self._replies: dict[str, _Replying] = {}
        # The voice of every response whose end has not been told, which is later than its reply's.
        self._speakers: dict[str, Speaker] = {}
        # Responses whose words come from outside, and more of them are to come.
        self._sayings: dict[str, Saying] = {}
        # Replies that count: each draws from its own random numbers, so that a dropped speculation leaves no trace in the next.
        self._replied = 0
        # The prefill of what is known of the next prompt, and whether there is something to prefill.
        self._prefill: Job | None = None
        self._unfilled = True

    # ------------------------------------------------------------------------------------------------------ what comes

    def close(self) -> None:
        """The session is over."""
        for response_id in [*self._speakers]:  # a copy: the voice takes out what it has finished
            self._abort(response_id)
        # What was begun holds this session, and this session holds it: without this, keys and values wait for the garbage collector.
        for job in (self._hearing, self._final):
            if job is not None:
                job.work.close()
        self._turn = self._hearing = self._final = None
        self._sounds.close()
        self._ending.clear()
        self._replies.clear()
        self.evict()

    def keep(self, frame: AudioFrame) -> None:
        """A frame of input."""
        self._ring.append(frame)

    def heard(self, event: EarEvent) -> None:
        """What the Ear found."""
        match event:
            case Listened(at, silence, probability):
                self._listened = at
                self._judge.heard(at, probability)
                self._hushed_at = (at if self._hushed_at is None else self._hushed_at) if silence else None
                if not silence:
                    self._paused_at = None
                if self._turn is not None:
                    self._turn.listen(self._ring, at, quiet=silence > 0)
                    if (score := self._overlap.listened(at, self._ring)) is not None:
                        self._tell(score)
            case SpeechStarted():
                self._paused_at = None
            case SpeechStopped(at):
                self._paused_at = at
                if self._turn is not None:
                    self._turn.pause(at)
                    self._tell_pause(self._turn)

    def obey(self, order: EngineOrder) -> None:
        """An order of the agent."""
        self.used_at = self._tools.clock()
        match order:
            case ConfigureEar(language=language):
                self._language = language or self._spec.language
            case StartTurn():
                self._start_turn(order)
            case CommitTurn():
                self._commit_turn(order)
            case DiscardTurn():
                if self._turn is not None:
                    self._sounds.forget(self._turn.item_id)
                self._turn = self._hearing = None
                self._overlap.begin(None)
            case SetHistory(messages):
                self._set_history(messages)
            case Respond(response_id, options):
                self._begin(response_id, options, self._history if options.context is None else options.context)
                self._replied += 1
            case Speculate(response_id, item_id, text, options):
                self._begin(response_id, options, (*self._history, ContextMessage("user", item_id, text)), speculative=True)
            case Adopt(response_id):
                self._adopt(response_id)
            case Say():
                self._say(order)
            case Abort(response_id) | Drop(response_id):
                self._abort(response_id)

    def finished(self, response_id: str) -> None:
        """The end of a response was told. Called on the voice's thread."""
        self._speakers.pop(response_id, None)

    def sounds(self, audio: SynthesisedAudio) -> None:
        """Sound of a reply was made. Called on the voice's thread."""
        self._overlap.said(audio)
        replying = self._replies.get(audio.response_id)
        if replying is not None:
            now = self._tools.clock()
            replying.dry_at = max(replying.dry_at or now, now) + len(audio.pcm) / replying.rate

    def evict(self) -> None:
        """Give up the keys and values; they are computed again when the caller next speaks."""
        self._stop_prefill()
        self.sequence.evict()
        self._unfilled = False

    # ------------------------------------------------------------------------------------------------------------ jobs

    def jobs(self, *, speculate: bool) -> list[Job]:
        """The work that could go on now, each with its urgency; without speculations, and what serves only them, where there is no room."""
        now = self._tools.clock()
        self._replies = {response_id: replying for response_id, replying in self._replies.items() if not self._over(replying)}
        if self._turn is not None and self._sounds.grew(self._turn.item_id):
            self._unfilled = True
            self._stop_prefill()
        waiting = {turn.item_id for turn in self._ending}
        replies = [
            replying.job
            for replying in self._replies.values()
            if replying.reply.ready(waiting) and self._may_go_on(replying, now, speculate=speculate)
        ]
        others = (
            self._sound_job(now, speculate=speculate),
            self._final_job(now, waiting),
            self._hearing_job(now, eager=speculate),
            self._prefill_job(now),
        )
        return [*replies, *(job for job in others if job is not None)]

    @property
    def idle(self) -> bool:
        """Whether nobody speaks and nothing is being made."""
        return not self._replies and self._turn is None and not self._ending

    def _over(self, replying: _Replying) -> bool:
        if replying.reply.done:
            self._unfilled = True
        return replying.reply.done

    def _may_go_on(self, replying: _Replying, now: float, *, speculate: bool) -> bool:
        """Gives the reply its urgency; False where it has to wait."""
        reply, job = replying.reply, replying.job
        if reply.speculative:
            job.urgency = Urgency.SPECULATION
            return speculate and not reply.held
        if replying.dry_at is None:
            # The caller waits for its first sound, or its first word. What then comes without sound takes turns with the hearing of others.
            awaited = reply.written < (_FIRST_TOKENS if reply.audible else 1)
            job.urgency = Urgency.AWAITED if awaited else Urgency.LISTENING
            job.patience = 0.0 if awaited else _PATIENCE_SECONDS
        else:
            job.deadline = replying.dry_at
            dry = replying.dry_at - now < _DRY_SECONDS and reply.voice_wants_words
            job.urgency = Urgency.RUNNING_DRY if dry else Urgency.AHEAD
        return True

    def _final_job(self, now: float, waiting: set[str]) -> Job | None:
        """The final transcript of the oldest turn that has ended, of those `waiting` for theirs. It gives way to a reply that somebody
        waits for and that does not read it."""
        if self._final is None and self._ending:
            self._final = Job(self._conclude(self._ending[0]), Urgency.AWAITED, now)
        if self._final is not None:
            replies = self._replies.values()
            unread = any(each.job.urgency is Urgency.AWAITED and not each.reply.reads(waiting) for each in replies)
            self._final.urgency = Urgency.LISTENING if unread else Urgency.AWAITED
        return self._final

    def _hearing_job(self, now: float, *, eager: bool) -> Job | None:
        """The words of the open turn."""
        turn = self._turn
        if turn is None:
            return None
        if self._hearing is None and (turn.due(eager=eager) or self._overlap.due(self._listened)):
            self._hearing = Job(self._hear(turn), Urgency.LISTENING, now + _PATIENCE_SECONDS)
        if self._hearing is not None:
            hurried = turn.hushed or self._overlap.due(self._listened)
            self._hearing.urgency = Urgency.PAUSE if hurried else Urgency.LISTENING
        return self._hearing

    def _sound_job(self, now: float, *, speculate: bool) -> Job | None:
        """What of the caller's sound somebody waits for, or will."""
        if self._sounds.idle:
            return None
        replies = [replying.reply for replying in self._replies.values()]
        wanted = Wanted(
            awaited=[item_id for reply in replies if not reply.speculative for item_id in reply.unheard],
            speculated=[item_id for reply in replies if reply.speculative and speculate for item_id in reply.unheard],
            open=None if self._turn is None else self._turn.item_id,
            told=[message.item_id for message in self._history],
        )
        return self._sounds.job(wanted, now, _PATIENCE_SECONDS)

    def _prefill_job(self, now: float) -> Job | None:
        """What is known of the next prompt, while no reply is using the sequence."""
        if self._replies or self._ending or not self._sounds.concluded(message.item_id for message in self._history):
            return None
        if self._prefill is None and self._unfilled:
            self._prefill = Job(self._fill(), Urgency.PREFILL, now + _PREFILL_SECONDS)
        return self._prefill

    # ----------------------------------------------------------------------------------------------------------- turns

    def _start_turn(self, order: StartTurn) -> None:
        self._unfilled |= not self.sequence.tokens  # what was given up is wanted again
        self._turn, self._hearing, self._told = self._new_turn(order.item_id, order.start), None, None
        self._overlap.begin(order.over)
        if self._hushed_at is not None:
            self._turn.listen(self._ring, self._hushed_at, quiet=True)
        self._turn.listen(self._ring, self._listened, quiet=self._hushed_at is not None)
        if self._paused_at is not None:  # the order came late: as if it had come in time
            self._turn.pause(self._paused_at)

    def _new_turn(self, item_id: str, start: int) -> Turn:
        transcriber = Transcriber(self._tools.recogniser, self._language, self._judge.of_turn(start))
        return Turn(item_id, start, transcriber, self._sounds.begin(item_id, transcriber))

    def _commit_turn(self, order: CommitTurn) -> None:
        turn, hearing = self._turn, self._hearing
        self._turn = self._hearing = None
        self._overlap.begin(None)
        self._overlap.spoke(self._ring.between(order.start, order.end))
        self._stop_prefill()
        if order.transcript is not None:
            self._transcripts[order.item_id] = order.transcript
            if turn is not None and turn.sound is not None:
                turn.sound.end()
            return
        if turn is None or turn.item_id != order.item_id:
            turn, hearing = self._new_turn(order.item_id, order.start), None
        turn.commit(self._ring, order.end)
        self._ending.append(turn)
        if hearing is not None and hearing.begun and len(self._ending) == 1:
            self._final = Job(self._conclude(turn, hearing), Urgency.AWAITED, self._tools.clock())

    def _set_history(self, messages: tuple[ContextMessage, ...]) -> None:
        self._history = messages
        self._unfilled = True
        self._stop_prefill()
        kept = {message.item_id for message in messages}
        for item_id in self._transcripts.keys() - kept:  # in place: a reply that waits for words looks for them here
            del self._transcripts[item_id]
        under_way = {turn.item_id for turn in (self._turn, *self._ending) if turn is not None}
        self._sounds.keep(kept | under_way, self._tools.writer.model.context)

    def _hear(self, turn: Turn) -> Work[None]:
        """One pass over the open turn; tells what it settled, and in a pause what it found."""
        try:
            before, heard_at = turn.steady, self._listened
            hypothesis = yield from turn.hear()
            if turn.steady != before:
                self._unfilled = True
                self._stop_prefill()
            if hypothesis.settled_new:
                self._tell(TranscriptDelta(turn.item_id, hypothesis.settled_new, hypothesis.confidence, turn.language))
            score = self._overlap.worded(heard_at, hypothesis.text, hypothesis.confidence, self._ring) if turn is self._turn else None
            if score is not None:
                self._tell(score)
            self._tell_pause(turn)
        except Exception:
            log.exception("session %s: a pass over %s failed", self.id, turn.item_id)  # the final one will say so
        finally:
            if turn is self._turn:
                self._hearing = None

    def _tell_pause(self, turn: Turn) -> None:
        """What the turn says if it ends in this pause, once, as soon as that is known."""
        if turn is self._turn and turn.found is not None and turn.paused_at is not None and self._told != turn.paused_at:
            self._told = turn.paused_at
            found = turn.found
            self._tell(TranscriptProvisional(turn.item_id, turn.paused_at, found.text, found.confidence, round(found.speech, 3)))

    def _conclude(self, turn: Turn, before: Job | None = None) -> Work[None]:
        """The final transcript of a turn that has ended, after the pass that was under way."""
        try:
            while before is not None and before.call is not None:
                try:
                    yield before.call
                except Exception as error:  # noqa: BLE001 - that pass is told, and gives up; this one is made all the same
                    before.advance(error)
                else:
                    before.advance()
            transcript = yield from turn.conclude()
            self._transcripts[turn.item_id] = transcript.text
            done = TranscriptDone(turn.item_id, transcript.text, transcript.confidence, transcript.language, round(transcript.speech, 3))
            self._tell(done)
        except Exception as error:
            log.exception("session %s: the transcript of %s failed", self.id, turn.item_id)
            self._transcripts[turn.item_id] = turn.settled
            self._tell(TranscriptFailed(turn.item_id, f"{type(error).__name__}: {error}"))
        finally:
            if self._ending and self._ending[0] is turn:
                self._ending.popleft()
                self._final = None

    # --------------------------------------------------------------------------------------------------------- replies

    def _begin(self, response_id: str, options: RespondOptions, context: tuple[ContextMessage, ...], *, speculative: bool = False) -> None:
        self._stop_prefill()
        if options.context is None:  # whatever was prepared on the conversation's sequence gives way
            for other in [other for other, replying in self._replies.items() if replying.reply.speculative]:
                self._abort(other)
        # A reply with a context of its own runs beside the conversation's, so it may not rewind its sequence.
        sequence = self.sequence if options.context is None else self._tools.writer.model.sequence()
        reply = Reply(
            self._tools.writer,
            sequence,
            Sampler(self._spec.seed + self._replied),
            self._speaker(response_id, options),
            self._tell,
            response_id,
            options,
            context,
            self._transcripts,
            self._sounds.held,
            speculative=speculative,
        )
        self._replies[response_id] = _Replying(reply, Job(reply.work, Urgency.AWAITED, self._tools.clock()), options.rate)

    def _say(self, order: Say) -> None:
        saying = self._sayings.pop(order.response_id, None)
        if saying is None:
            saying = Saying(self._speaker(order.response_id, order.options), self._tell, order.response_id)
        saying.say(order.text)
        if order.more:
            self._sayings[order.response_id] = saying
        else:
            saying.finish()

    def _abort(self, response_id: str) -> None:
        """Stop a response, wherever it is; nothing where it is over."""
        if (saying := self._sayings.pop(response_id, None)) is not None:
            saying.abort()
            return
        if (replying := self._replies.pop(response_id, None)) is not None:
            self._unfilled = True
        if replying is not None and not replying.reply.done:
            replying.reply.abort()
        elif (speaker := self._speakers.get(response_id)) is not None:
            speaker.abort()  # made, but not all of it spoken

    def _adopt(self, response_id: str) -> None:
        replying = self._replies.get(response_id)
        if replying is not None:
            replying.reply.speculative = False
        self._replied += 1

    def _speaker(self, response_id: str, options: RespondOptions) -> Speaker:
        speaker = Speaker(self._tools.voices, self._tools.voice, self._tools.emit, self.id, response_id, options)
        self._speakers[response_id] = speaker
        return speaker

    def _fill(self) -> Work[None]:
        """Bring the sequence in line with the history and the open turn, words that have settled or sound, as they stand now."""
        self._unfilled = False
        turn, writer = self._turn, self._tools.writer
        so_far = "" if turn is None else self._sounds.open_turn(turn.item_id, turn.steady)
        try:
            prompt = writer.template.listening_prompt(self._history, self._transcripts, so_far, writer.budget, self._sounds.held)
            yield from writer.model.sync(self.sequence, prompt)
        except ContextFullError:
            log.warning("session %s: the turn being spoken does not fit the context", self.id)
        except Exception:
            log.exception("session %s: prefill failed", self.id)  # the reply will say so
            self.sequence.evict()
        finally:
            self._prefill = None

    def _stop_prefill(self) -> None:
        if self._prefill is not None:
            self._prefill.work.close()
            self._prefill = None
            self._unfilled = True

    def _tell(self, event: EngineEvent) -> None:
        if isinstance(event, TextDelta):
            self._overlap.wrote(event.response_id, event.text)
        self._tools.emit(SessionEvent(self.id, event))
