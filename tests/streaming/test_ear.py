"""The Ear on real speech with the real VAD and a model that notes what it is asked; on scripted probabilities where positions matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import AudioFrame, Samples
from streaming.ear import Ear, Ears
from streaming.events import ConfigureEar, EarEvent, EndOfTurnScore, EngineFailed, Listened, SpeechStarted, SpeechStopped, SpeechSuspected
from streaming.turn import TURN_SAMPLES, EndOfTurnModel
from streaming.vad import WINDOW, SileroVad, SpeechModel, VadState, silero_model

GOLDEN = Path(__file__).parents[1] / "golden"
MARKS = [96, 192, 384, 704, 1_088, 1_600]  # ms of silence at which a pause is scored
PRE_ROLL = 4_800


class NotedTurns:
    """An end-of-turn model that keeps what it was given and answers with its mean square."""

    def __init__(self) -> None:
        self.heard: list[Samples] = []

    def score(self, pcm: Samples) -> float:
        self.heard.append(pcm.copy())
        return float(np.mean(pcm.astype(np.float64) ** 2))


class ScriptedVad:
    """Probability is the window's first sample."""

    def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
        return [float(w[0]) for w in windows], list(states)


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad(silero_model())


@pytest.fixture(scope="module")
def dialogue() -> Samples:
    """Two questions, a pause of 1 s between them and 2 s after."""
    first, second = (soundfile.read(GOLDEN / f"{name}.flac", dtype="float32")[0] for name in ("seine", "weather_question"))
    return np.concatenate((np.zeros(5_000, np.float32), first, np.zeros(16_000, np.float32), second, np.zeros(32_000, np.float32)))


@dataclass
class Listener:
    """An Ear and the VAD that judges for it: `Ears` of one session."""

    ears: Ears

    def push(self, frame: AudioFrame) -> list[EarEvent]:
        self.ears.tell("s", Ear.push, frame)
        return [event for _, event in rest(self.ears)]


def rest(ears: Ears) -> list[tuple[str, EarEvent | EngineFailed]]:
    """What the Ears still have to hear and to score."""
    found: list[tuple[str, EarEvent | EngineFailed]] = []
    while ears.pending:
        found += [*ears.judge(), *ears.score()]
    return found


class Moody:
    """Judges by the first sample; fails where there is no number, and to score where there is a negative one."""

    def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
        if np.isnan(windows).any():
            raise RuntimeError("no number")
        return [float(w[0]) for w in windows], list(states)

    def score(self, pcm: Samples) -> float:
        if pcm.min() < 0:
            raise RuntimeError("a bad mood")
        return 0.5


def heard_by(vad: SpeechModel, turn: EndOfTurnModel | None) -> Listener:
    ears = Ears(vad, turn)
    ears.open("s")
    return Listener(ears)


def hear(ear: Listener, pcm: Samples, cuts: Sequence[int] = (), at: int = 0) -> list[EarEvent]:
    bounds = sorted({0, len(pcm), *(c % len(pcm) for c in cuts)})
    return [event for a, b in pairwise(bounds) for event in ear.push(AudioFrame(pcm[a:b], at + a))]


def scripted(*runs: tuple[float, int]) -> Samples:
    """Windows of these (probability, count), each sample numbered so that a slice tells where it is from."""
    probabilities = np.repeat([p for p, _ in runs], [n for _, n in runs]).astype(np.float32)
    pcm = np.arange(len(probabilities) * WINDOW, dtype=np.float32)
    pcm[::WINDOW] = probabilities
    return pcm


def without_listened(events: list[EarEvent]) -> list[EarEvent]:
    """Nor what is only suspected."""
    return [event for event in events if not isinstance(event, Listened | SpeechSuspected)]


def test_two_questions_are_two_stretches_of_speech(vad, dialogue):
    facts = [e for e in without_listened(hear(heard_by(vad, None), dialogue)) if not isinstance(e, EndOfTurnScore)]
    assert [type(e) for e in facts] == [SpeechStarted, SpeechStopped, SpeechStarted, SpeechStopped]
    assert [e.at for e in facts] == sorted(e.at for e in facts)
    # Where they are by construction, to 100 ms; the end of a word fades out.
    question_end = 5_000 + len(soundfile.read(GOLDEN / "seine.flac")[0])
    assert abs(facts[1].at - question_end) < 1_600
    assert question_end + 16_000 - 1_600 < facts[2].at < facts[3].at <= len(dialogue) - 32_000 + 1_600


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, 200_000), max_size=30))
def test_any_split_gives_the_same_events(vad, dialogue, cuts):
    assert hear(heard_by(vad, NotedTurns()), dialogue, cuts) == hear(heard_by(vad, NotedTurns()), dialogue)


def test_20_ms_frames_give_the_same_events(vad, dialogue):
    whole = hear(heard_by(vad, NotedTurns()), dialogue)
    assert hear(heard_by(vad, NotedTurns()), dialogue, range(0, len(dialogue), 320)) == whole
    assert sum(isinstance(e, EndOfTurnScore) for e in whole) >= 8


def test_every_window_is_listened_to_and_closes_its_events(vad, dialogue):
    events = hear(heard_by(vad, NotedTurns()), dialogue, at=700)
    listened = [e.at for e in events if isinstance(e, Listened)]
    assert listened == [700 + WINDOW * (n + 1) for n in range(len(dialogue) // WINDOW)]
    position = 700
    for event in events:
        if isinstance(event, Listened):
            position = event.at
        else:
            assert event.at <= position + WINDOW


def test_scores_come_at_fixed_amounts_of_silence():
    events = hear(heard_by(ScriptedVad(), NotedTurns()), scripted((0, 10), (0.9, 20), (0, 60)))
    stopped = 30 * WINDOW
    assert [e.at - stopped for e in events if isinstance(e, EndOfTurnScore)] == [ms * 16 for ms in MARKS]
    first = events.index(next(e for e in events if isinstance(e, EndOfTurnScore)))
    # The pause is told before it is scored, which takes a while.
    assert events[first - 2] == SpeechStopped(at=stopped, probability=0.0)
    assert events[first - 1] == Listened(stopped + 3 * WINDOW, silence=3 * WINDOW)


def test_a_score_is_of_the_turn_with_its_pre_roll_up_to_now():
    turns, pcm = NotedTurns(), scripted((0, 20), (0.9, 20), (0, 12))
    hear(heard_by(ScriptedVad(), turns), pcm)
    onset, stopped = 20 * WINDOW, 40 * WINDOW
    assert np.array_equal(turns.heard[0], pcm[onset - PRE_ROLL : stopped + 3 * WINDOW])
    assert np.array_equal(turns.heard[1], pcm[onset - PRE_ROLL : stopped + 6 * WINDOW])


def test_a_turn_goes_on_after_a_pause():
    turns, pcm = NotedTurns(), scripted((0, 20), (0.9, 20), (0, 10), (0.9, 20), (0, 4))
    events = hear(heard_by(ScriptedVad(), turns), pcm)
    assert len(turns.heard) == 3
    assert np.array_equal(turns.heard[2], pcm[20 * WINDOW - PRE_ROLL : 73 * WINDOW])
    assert sum(isinstance(e, SpeechStarted) for e in events) == 2


def test_a_long_turn_is_scored_on_its_last_seconds_only():
    turns, pcm = NotedTurns(), scripted((0.9, 900), (0, 4))
    hear(heard_by(ScriptedVad(), turns), pcm)
    assert np.array_equal(turns.heard[0][-TURN_SAMPLES:], pcm[903 * WINDOW - TURN_SAMPLES : 903 * WINDOW])
    assert len(turns.heard[0]) <= TURN_SAMPLES + PRE_ROLL


def test_after_a_commit_the_pause_is_scored_no_more_and_the_next_turn_begins_anew():
    turns = NotedTurns()
    ear = heard_by(ScriptedVad(), turns)
    pcm = scripted((0, 5), (0.9, 20), (0, 10), (0, 40), (0.9, 20), (0, 4))
    committed = 35 * WINDOW
    hear(ear, pcm[:committed])
    assert len(turns.heard) == 2
    ear.ears.tell("s", Ear.forget, committed)
    events = hear(ear, pcm[committed:], at=committed)
    assert len(turns.heard) == 3
    assert np.array_equal(turns.heard[2], pcm[75 * WINDOW - PRE_ROLL : 98 * WINDOW])
    assert [e.at for e in without_listened(events)] == [75 * WINDOW, 95 * WINDOW, 98 * WINDOW]


def test_the_pre_roll_does_not_reach_into_the_committed_turn():
    turns = NotedTurns()
    ear = heard_by(ScriptedVad(), turns)
    pcm = scripted((0.9, 20), (0, 4), (0.9, 20), (0, 4))
    hear(ear, pcm[: 23 * WINDOW])
    ear.ears.tell("s", Ear.forget, 23 * WINDOW)
    hear(ear, pcm[23 * WINDOW :], at=23 * WINDOW)
    assert np.array_equal(turns.heard[-1], pcm[23 * WINDOW : 47 * WINDOW])


def test_speech_across_a_cleared_buffer_is_reported_anew():
    ear = heard_by(ScriptedVad(), None)
    pcm = scripted((0.9, 40))
    assert without_listened(hear(ear, pcm[: 20 * WINDOW])) == [SpeechStarted(at=0, probability=pytest.approx(0.9))]
    ear.ears.tell("s", Ear.forget, 20 * WINDOW)
    assert [e.at for e in without_listened(hear(ear, pcm[20 * WINDOW :], at=20 * WINDOW))] == [20 * WINDOW]


def test_speech_that_began_after_the_commit_is_kept():
    turns = NotedTurns()
    ear = heard_by(ScriptedVad(), turns)
    pcm = scripted((0.9, 20), (0, 20), (0.9, 20), (0, 4))
    hear(ear, pcm[: 50 * WINDOW])
    ear.ears.tell("s", Ear.forget, 30 * WINDOW)
    events = hear(ear, pcm[50 * WINDOW :], at=50 * WINDOW)
    assert [type(e) for e in without_listened(events)] == [SpeechStopped, EndOfTurnScore]
    assert np.array_equal(turns.heard[-1], pcm[40 * WINDOW - PRE_ROLL : 63 * WINDOW])


def test_an_onset_never_lies_before_what_was_forgotten():
    ear = heard_by(ScriptedVad(), None)
    pcm = scripted((0, 5), (0.9, 10))
    hear(ear, pcm[: 6 * WINDOW])
    ear.ears.tell("s", Ear.forget, 5 * WINDOW + 100)
    events = without_listened(hear(ear, pcm[6 * WINDOW :], at=6 * WINDOW))
    assert [e.at for e in events] == [5 * WINDOW + 100]


def test_configure_sets_the_threshold_and_turns_scoring_off():
    turns = NotedTurns()
    ear = heard_by(ScriptedVad(), turns)
    ear.ears.tell("s", Ear.configure, ConfigureEar(threshold=0.95))
    assert without_listened(hear(ear, scripted((0.9, 20), (0, 10)))) == []
    ear = heard_by(ScriptedVad(), turns)
    ear.ears.tell("s", Ear.configure, ConfigureEar(threshold=0.5, end_of_turn=False))
    assert len(without_listened(hear(ear, scripted((0.9, 20), (0, 60))))) == 2
    assert turns.heard == []


def test_a_gap_in_the_input_is_a_bug_of_the_caller():
    ear = heard_by(ScriptedVad(), None)
    ear.push(AudioFrame(np.zeros(100, np.float32), 0))
    with pytest.raises(AssertionError, match="expected 100"):
        ear.push(AudioFrame(np.zeros(100, np.float32), 101))


@pytest.mark.parametrize("level", [0.0, 0.01, 0.2])
def test_ten_minutes_of_silence_or_noise_cost_no_score_and_no_memory(vad, level):
    turns = NotedTurns()
    ear = heard_by(vad, turns)
    second = (np.random.default_rng(0).standard_normal(16_000) * level).astype(np.float32)
    held = ear.ears._ears["s"].samples_held
    facts = [e for n in range(600) for e in without_listened(ear.push(AudioFrame(second, n * 16_000)))]
    assert facts == []
    assert turns.heard == []
    assert ear.ears._ears["s"].samples_held - held < WINDOW


def test_what_was_committed_before_it_was_heard_is_no_speech_of_the_next_turn() -> None:
    turns = NotedTurns()
    ears = Ears(ScriptedVad(), turns)
    ears.open("s")
    ears.tell("s", Ear.push, AudioFrame(scripted((0.9, 20), (0, 10), (0.9, 30), (0, 4), (0.9, 10), (0, 4)), 0))
    heard = [event for _ in range(5) for _, event in ears.judge()]
    ears.tell("s", Ear.forget, 60 * WINDOW)
    heard += [event for _, event in rest(ears)]
    assert [event.at for event in heard if isinstance(event, Listened)] == [WINDOW * (n + 1) for n in range(78)]
    facts = without_listened(heard)
    assert [type(event) for event in facts] == [SpeechStarted, SpeechStarted, SpeechStopped, EndOfTurnScore]
    assert [event.at for event in facts] == [0, 64 * WINDOW, 74 * WINDOW, 77 * WINDOW]
    assert len(turns.heard) == 1


def test_speech_that_goes_on_across_a_commit_the_ear_had_yet_to_hear_is_reported_anew() -> None:
    ears = Ears(ScriptedVad(), None)
    ears.open("s")
    ears.tell("s", Ear.push, AudioFrame(scripted((0.9, 40)), 0))
    ears.tell("s", Ear.forget, 20 * WINDOW + 100)
    assert [event.at for event in without_listened([event for _, event in rest(ears)])] == [20 * WINDOW + 100]


# ----------------------------------------------------------------------------------------------------- many together


def test_a_vad_that_fails_once_is_asked_again() -> None:
    class Once(ScriptedVad):
        asked = 0

        def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
            self.asked += 1
            if self.asked == 1:
                raise MemoryError("no room")
            return super().step(windows, states)

    ears = Ears(Once(), None)
    ears.open("s")
    ears.tell("s", Ear.push, AudioFrame(scripted((0, 1)), 0))
    assert ears.judge() == [("s", Listened(WINDOW, WINDOW, 0.0))]


def test_a_vad_that_fails_for_one_session_fails_for_it_alone() -> None:
    ears = Ears(Moody(), None)
    for session_id, first in (("a", 0.05), ("b", np.nan), ("c", 0.1)):
        ears.open(session_id)
        ears.tell(session_id, Ear.push, AudioFrame(np.full(2 * WINDOW, first, np.float32), 0))
    assert sorted(ears.judge(), key=lambda found: found[0]) == [
        ("a", Listened(WINDOW, WINDOW, 0.05)),
        ("b", EngineFailed("RuntimeError: no number")),
        ("c", Listened(WINDOW, WINDOW, 0.1)),
    ]
    assert [session_id for session_id, _ in ears.judge()] == ["a", "c"]


def test_a_pause_that_cannot_be_scored_takes_no_other_score_with_it(caplog: pytest.LogCaptureFixture) -> None:
    ears = Ears(ScriptedVad(), Moody())
    for session_id, sign in (("a", 1), ("b", -1), ("c", 1)):
        ears.open(session_id)
        pcm = np.full(24 * WINDOW, sign, np.float32)
        pcm[::WINDOW] = np.repeat([0.9, 0.0], [20, 4])
        ears.tell(session_id, Ear.push, AudioFrame(np.concatenate((np.zeros(WINDOW, np.float32), pcm)), 0))
    told = rest(ears)
    assert [session_id for session_id, event in told if isinstance(event, EndOfTurnScore)] == ["a", "c"]
    assert [sum(isinstance(event, Listened) for session_id, event in told if session_id == name) for name in "abc"] == [25] * 3
    assert "a bad mood" in caplog.text


def test_while_one_pause_is_scored_the_others_are_heard() -> None:
    """A score takes as long as hundreds of windows: one at a time, and a window of everybody else between two."""
    ears, order = Ears(ScriptedVad(), NotedTurns()), []
    for session_id in "abcdef":
        ears.open(session_id)
        ears.tell(session_id, Ear.push, AudioFrame(scripted((0.9, 20), (0, 10)), 0))
    while ears.pending:
        order.append([(session_id, isinstance(event, EndOfTurnScore)) for session_id, event in (*ears.judge(), *ears.score())])
    scored = [[session_id for session_id, score in step if score] for step in order]
    assert max(len(step) for step in scored) == 1
    assert "".join(session_id for step in scored for session_id in step) == 2 * "abcdef"
