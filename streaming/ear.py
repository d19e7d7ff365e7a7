"""The Ear of one session, and all of them together: sound in, evidence out. It decides nothing; `agent.endpointing` does.

Windows are cut at fixed positions of the input, whatever the frames were, so any split of the same audio gives the same events.
Silence costs one VAD window every 32 ms; the end-of-turn model runs in pauses only.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import numpy as np

from streaming.audio import AudioFrame, Samples
from streaming.events import (
    SAMPLE_RATE,
    ConfigureEar,
    EarEvent,
    EndOfTurnScore,
    EngineFailed,
    Listened,
    SpeechStarted,
    SpeechStopped,
    SpeechSuspected,
)
from streaming.sound_events import HOP, PATCH, SoundClassifier, SoundGate
from streaming.turn import TURN_SAMPLES, EndOfTurnModel
from streaming.vad import WINDOW, GatePhase, SpeechGate, SpeechModel, VadState

__all__ = ["Ear", "Ears"]

log = logging.getLogger(__name__)

_What = TypeVar("_What")

_PRE_ROLL: Final = 3 * SAMPLE_RATE // 10
"""Sound before the onset that belongs to the turn (300 ms): the VAD wakes on the vowel, a soft consonant precedes it."""

_SCORE_MARKS: Final = tuple(windows * WINDOW for windows in (3, 6, 12, 22, 34, 50))
"""Samples of silence at which the turn is scored: 96, 192, 384, 704, 1088 and 1600 ms. The first is when the pause is noticed and serves
speculation; most turns end on the second; the later ones give a turn that sounded open another chance. Measured by
`benchmarks/turn_taking.py`."""


_QUIET: Final = 1e-3
"""Peak of a patch (-60 dBFS) below which nothing sounds in it for all that anybody could hear: the model is not asked."""


class Ear:
    """VAD, its hysteresis, the end-of-turn model and the naming of sounds over one session's input. Not shared between threads."""

    def __init__(self, turn: EndOfTurnModel | None, classifier: SoundClassifier | None = None) -> None:
        """The models may serve other sessions too. Without `turn` no `EndOfTurnScore` is ever reported, without `classifier` no sound."""
        self._turn = turn
        self._classifier = classifier
        self._sounds = None if classifier is None else SoundGate(classifier.classes)
        # Where the next patch begins; None before the first frame. And the one to be named before the next window.
        self._patch_start: int | None = None
        self._unnamed: tuple[int, Samples] | None = None
        # Whether the session wants end-of-turn scores.
        self._scoring = True
        self._gate = SpeechGate()
        self._state = VadState.initial()
        # Heard, in whole windows; the newest 8 s and the pre-roll.
        self._recent = _Recent(TURN_SAMPLES + _PRE_ROLL)
        # Input still to be heard: less than a window, and what a client has sent ahead of time, which the server bounds.
        self._rest: Samples = np.zeros(0, np.float32)
        # Position after the last whole window; None before the first frame.
        self._heard: int | None = None
        # Input before this was committed or cleared, perhaps before it was heard: it belongs to no open turn.
        self._floor = 0
        # Where the open turn begins (an onset); None while there is none.
        self._turn_start: int | None = None
        # Onset of the speech last reported.
        self._onset = 0
        # The last speech sample of the present pause and the scores that are still to come in it.
        self._stopped = 0
        self._marks: tuple[int, ...] = ()
        # What is to be scored before the next window: where the pause stood, and the turn's sound up to there.
        self._unscored: tuple[int, Samples] | None = None

    @property
    def samples_held(self) -> int:
        """Samples of memory this session's input takes here; constant but for what waits to be heard."""
        return self._recent.capacity + len(self._rest)

    def configure(self, settings: ConfigureEar) -> None:
        """Listen like this from the next window on. `language` is the transcriber's business."""
        self._gate.threshold = settings.threshold
        self._scoring = settings.end_of_turn

    def push(self, frame: AudioFrame) -> None:
        """Take a frame."""
        if self._heard is None:
            self._heard = frame.at
            self._patch_start = -(-frame.at // HOP) * HOP
        assert frame.at == self._heard + len(self._rest), f"frame at {frame.at}, expected {self._heard + len(self._rest)}"
        self._rest = np.concatenate((self._rest, frame.pcm))

    def window(self) -> tuple[Samples, VadState] | None:
        """The next window (512,) to judge and what the VAD remembers; None until there is enough sound, and while a score or a patch is
        due. Then comes `judged`."""
        return None if self.score_due or self.patch_due or len(self._rest) < WINDOW else (self._rest[:WINDOW], self._state)

    def judged(self, probability: float, state: VadState) -> list[EarEvent]:
        """The VAD's judgement of the window; the events end with its `Listened`. Then `score`, if one is due."""
        assert self._heard is not None
        window, self._rest, self._state = self._rest[:WINDOW], self._rest[WINDOW:], state
        self._heard += WINDOW
        return self._hear(window, probability, self._heard)

    def forget(self, at: int) -> None:
        """The turn up to `at` is committed or discarded: what came before is scored no more, and where it has not been heard yet nothing of
        it is reported. Speech that goes on across `at` is reported as begun anew; speech that began later (the Ear may be ahead of the
        decision) stays."""
        self._floor = max(self._floor, at)
        if self._turn_start is None or self._turn_start >= at:
            return
        if self._onset >= at:
            self._turn_start = self._onset
            return
        self._turn_start, self._unscored = None, None
        self._marks = ()
        self._end_speech()

    def _end_speech(self) -> None:
        """If there is speech it begins anew with the next window."""
        if self._gate.phase in (GatePhase.SPEAKING, GatePhase.STOPPING):
            self._gate.reset()

    def _hear(self, window: Samples, probability: float, end: int) -> list[EarEvent]:
        """One window, whose last sample precedes position `end`."""
        self._recent.append(window, end)
        self._note_patch(end)
        if end <= self._floor:  # committed before it was heard
            self._gate.push(probability, end - WINDOW)
            return [Listened(end, self._gate.silence, round(probability, 3))]
        if end - WINDOW <= self._floor:  # the first beyond it
            self._end_speech()
        events: list[EarEvent] = []
        match self._gate.push(probability, end - WINDOW):
            case SpeechStarted(at=at):
                # The two windows of the debounce may reach back over a commit.
                self._onset = max(at, self._floor)
                self._turn_start = self._onset if self._turn_start is None else self._turn_start
                self._marks = ()
                events.append(SpeechStarted(self._onset, probability))
            case SpeechStopped() as stopped:
                self._stopped = stopped.at
                self._marks = _SCORE_MARKS
                events.append(stopped)
            case SpeechSuspected() as suspected:
                events.append(suspected)
            case None:
                pass
        self._note_score(end)
        events.append(Listened(end, self._gate.silence, round(probability, 3)))
        return events

    def _note_score(self, end: int) -> None:
        """Keep what is to be scored at this point of a pause, if it is one of the marks."""
        if not self._marks or end - self._stopped < self._marks[0] or self._turn_start is None:
            return
        self._marks = self._marks[1:]
        if self._turn is not None and self._scoring:
            start = max(self._turn_start - _PRE_ROLL, self._floor)
            self._unscored = (end, self._recent.between(start, end).copy())

    def _note_patch(self, end: int) -> None:
        """Keep the patch that is complete with the window that ends at `end`, if one is."""
        assert self._patch_start is not None
        if self._classifier is None or end < self._patch_start + PATCH:
            return
        start, self._patch_start = self._patch_start, self._patch_start + HOP
        self._unnamed = (start, self._recent.between(start, start + PATCH).copy())

    @property
    def patch_due(self) -> bool:
        """Whether `name_sounds` comes before the next window."""
        return self._unnamed is not None

    def name_sounds(self, *, spare: bool) -> list[EarEvent]:
        """What began and what is over with the patch that is due; where there is no `spare` time it is left out."""
        assert self._unnamed is not None
        assert self._sounds is not None
        assert self._classifier is not None
        (start, patch), self._unnamed = self._unnamed, None
        if not spare or len(patch) < PATCH:
            return []
        loud = np.abs(patch).max() >= _QUIET
        return [*self._sounds.push(self._classifier.hear(patch) if loud else np.zeros(len(self._classifier.classes), np.float32), start)]

    @property
    def score_due(self) -> bool:
        """Whether `score` comes before the next window."""
        return self._unscored is not None

    def score(self) -> EndOfTurnScore:
        """The score that is due; tens of milliseconds, so it comes after the events of its window."""
        assert self._unscored is not None
        assert self._turn is not None
        (end, pcm), self._unscored = self._unscored, None
        return EndOfTurnScore(end, self._turn.score(pcm))


class Ears:
    """All sessions' Ears, heard together: one run of the VAD judges a window of each that has one. While something is `pending`, `judge`,
    `score` and `name_sounds` by turns: a score takes as long as hundreds of windows, so nobody waits for more than one."""

    def __init__(self, vad: SpeechModel, turn: EndOfTurnModel | None, classifier: SoundClassifier | None = None) -> None:
        self._vad = vad
        self._turn = turn
        self._classifier = classifier
        self._ears: dict[str, Ear] = {}

    def open(self, session_id: str) -> None:
        """A session begins."""
        self._ears[session_id] = Ear(self._turn, self._classifier)

    def close(self, session_id: str) -> None:
        """A session is over."""
        self._ears.pop(session_id, None)

    def tell(self, session_id: str, method: Callable[[Ear, _What], None], what: _What) -> None:
        """Hand a session's Ear what came for it; one that has closed gets nothing."""
        if (ear := self._ears.get(session_id)) is not None:
            method(ear, what)

    @property
    def pending(self) -> bool:
        """Whether `judge`, `score` or `name_sounds` has something to do."""
        return any(ear.score_due or ear.patch_due or ear.window() is not None for ear in self._ears.values())

    def judge(self) -> list[tuple[str, EarEvent | EngineFailed]]:
        """Judge the next window of every session that has one and no score due. Where that fails each is judged alone, and whom it fails
        for is told so and heard no more."""
        waiting = {session_id: window for session_id, ear in self._ears.items() if (window := ear.window()) is not None}
        if not waiting:
            return []
        try:
            judgements = self._run(waiting)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
            log.warning("the VAD failed for %d sessions (%s: %s); each is judged alone", len(waiting), type(error).__name__, error)
            judgements = {}
        found: list[tuple[str, EarEvent | EngineFailed]] = []
        for session_id, window in waiting.items():
            try:
                judgement = judgements.get(session_id) or self._run({session_id: window})[session_id]
                found += [(session_id, event) for event in self._ears[session_id].judged(*judgement)]
            except Exception as error:
                log.exception("session %s can't be heard", session_id)
                self.close(session_id)
                found.append((session_id, EngineFailed(f"{type(error).__name__}: {error}")))
        return found

    def _run(self, waiting: Mapping[str, tuple[Samples, VadState]]) -> Mapping[str, tuple[float, VadState]]:
        """What the VAD says of each session's window."""
        windows, states = zip(*waiting.values(), strict=True)
        return dict(zip(waiting, zip(*self._vad.step(np.stack(windows), states), strict=True), strict=True))

    def score(self) -> list[tuple[str, EarEvent]]:
        """Score a pause that is due, one of them; where that fails it stays without a score."""
        session_id = next((session_id for session_id, ear in self._ears.items() if ear.score_due), None)
        if session_id is None:
            return []
        self._ears[session_id] = self._ears.pop(session_id)  # the others' come first the next time
        try:
            return [(session_id, self._ears[session_id].score())]
        except Exception:
            log.exception("session %s: a pause could not be scored", session_id)
            return []

    def name_sounds(self, *, spare: bool) -> list[tuple[str, EarEvent]]:
        """Name what sounds in the patches that are due, 3 ms each, unless there is no `spare` time. Where that fails nothing is named."""
        found: list[tuple[str, EarEvent]] = []
        for session_id, ear in self._ears.items():
            if not ear.patch_due:
                continue
            try:
                found += [(session_id, event) for event in ear.name_sounds(spare=spare)]
            except Exception:
                log.exception("session %s: the sounds of a second could not be named", session_id)
        return found


class _Recent:
    """The newest samples, contiguous in memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Twice the limit, so that making room copies each sample once in `limit` samples.
        self._samples: Samples = np.zeros(2 * limit, np.float32)
        self._used = 0
        # Position after the last sample held.
        self._end = 0

    @property
    def capacity(self) -> int:
        """Samples of memory it takes."""
        return len(self._samples)

    def append(self, samples: Samples, end: int) -> None:
        """Samples that end at position `end`."""
        if self._used + len(samples) > len(self._samples):
            keep = self._limit - len(samples)
            self._samples[:keep] = self._samples[self._used - keep : self._used].copy()
            self._used = keep
        self._samples[self._used : self._used + len(samples)] = samples
        self._used += len(samples)
        self._end = end

    def between(self, start: int, end: int) -> Samples:
        """Positions `start` to `end`, less what is no longer held."""
        first = self._used - (self._end - start)
        return self._samples[max(0, first, self._used - self._limit) : max(0, self._used - (self._end - end))]
