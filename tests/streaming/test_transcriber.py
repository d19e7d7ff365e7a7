from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import Samples
from streaming.batching import Work, completed
from streaming.recogniser import Choose, Recogniser, load_recogniser
from streaming.transcriber import Hypothesis, Transcriber, Transcript

SECOND = 16_000
Result = TypeVar("Result")


def noise(seconds: float, seed: int = 1) -> Samples:
    return (np.random.default_rng(seed).standard_normal(int(seconds * SECOND)) * 0.1).astype(np.float32)


def steps(work: Work[Result], kind: type = object) -> tuple[Result, int]:
    """The result of a pass and how many calls, of a kind, it took."""
    count = 0
    while True:
        try:
            call = next(work)
        except StopIteration as stop:
            return stop.value, count
        call.station.run([call])
        count += isinstance(call, kind)


def passes(transcriber: Transcriber, sound: Samples, frame: int = 320) -> tuple[list[Hypothesis], Transcript]:
    """A turn as the engine makes it: frames in, a pass whenever one is due."""
    found = []
    for start in range(0, len(sound), frame):
        transcriber.push(sound[start : start + frame])
        if transcriber.due():
            found.append(completed(transcriber.hypothesise()))
    return found, completed(transcriber.finish())


# ---------------------------------------------------------------------------- with a tiny model that talks nonsense


def test_a_pass_is_due_every_640_ms_of_sound(tiny_recogniser: Recogniser) -> None:
    transcriber = Transcriber(tiny_recogniser)
    assert not transcriber.due()
    due = []
    for n in range(100):
        transcriber.push(noise(0.02, n))
        if transcriber.due():
            due.append(n)
            completed(transcriber.hypothesise())
    assert due == [31, 63, 95]


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 6 * SECOND), max_size=10))
def test_any_split_gives_the_same_text(tiny_recogniser: Recogniser, cuts: list[int]) -> None:
    sound = noise(6.0)
    transcriber = Transcriber(tiny_recogniser)
    for part in np.split(sound, sorted(cuts)):
        transcriber.push(part)
    at_once = Transcriber(tiny_recogniser)
    at_once.push(sound)
    assert completed(transcriber.finish()) == completed(at_once.finish())


def test_passes_do_not_change_the_final_text(tiny_recogniser: Recogniser) -> None:
    sound = noise(8.0)
    found, final = passes(Transcriber(tiny_recogniser), sound)
    assert len(found) == 12
    at_once = Transcriber(tiny_recogniser)
    at_once.push(sound)
    assert completed(at_once.finish()).text == final.text
    assert final.seconds == 8.0


def test_settled_text_only_grows(tiny_recogniser: Recogniser) -> None:
    found, _ = passes(Transcriber(tiny_recogniser), noise(8.0))
    text = ""
    for hypothesis in found:
        text += hypothesis.settled_new
        assert hypothesis.settled == text
        assert hypothesis.steady + hypothesis.provisional == hypothesis.text


def test_a_word_corrected_late_is_steady_as_it_is_now() -> None:
    assert Hypothesis("the mourning sun", "", " is up", 0.9, "The morning sun is up").steady == "The morning sun"


def test_the_final_pass_is_free_where_the_last_one_heard_everything(tiny_recogniser: Recogniser) -> None:
    transcriber = Transcriber(tiny_recogniser)
    transcriber.push(noise(3.0))
    _, first = steps(transcriber.hypothesise())
    assert first > 1
    final, pieces = steps(transcriber.finish())
    assert pieces == 0
    assert final == completed(transcriber.finish())


def test_a_pass_may_be_dropped_and_sound_may_come_during_one(tiny_recogniser: Recogniser) -> None:
    sound = noise(7.0)
    transcriber = Transcriber(tiny_recogniser)
    transcriber.push(sound[: 3 * SECOND])
    dropped = transcriber.hypothesise()
    next(dropped)
    dropped.close()
    transcriber.push(sound[3 * SECOND : 5 * SECOND])
    work = transcriber.hypothesise()
    call = next(work)
    transcriber.push(sound[5 * SECOND :])
    call.station.run([call])
    completed(work)
    at_once = Transcriber(tiny_recogniser)
    at_once.push(sound)
    assert completed(transcriber.finish()).text == completed(at_once.finish()).text


@pytest.mark.parametrize("made", range(6))
def test_a_window_that_closes_while_a_pass_is_under_way_is_heard_to_its_end(tiny_recogniser: Recogniser, made: int) -> None:
    sound = noise(40.0)
    transcriber = Transcriber(tiny_recogniser)
    transcriber.push(sound[: 10 * SECOND])
    work = transcriber.hypothesise()
    for _, call in zip(range(made), work, strict=False):
        call.station.run([call])
    transcriber.push(sound[10 * SECOND :])
    completed(work)
    at_once = Transcriber(tiny_recogniser)
    at_once.push(sound)
    assert completed(transcriber.finish()).text == completed(at_once.finish()).text


def test_a_block_that_the_decoder_could_not_take_is_offered_again(tiny_recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise(9.0)
    transcriber, undisturbed = Transcriber(tiny_recogniser), Transcriber(tiny_recogniser)
    for each in (transcriber, undisturbed):
        each.push(sound)
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_recogniser.model.decoder), "listen", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            completed(transcriber.hypothesise())
    assert completed(transcriber.finish()).text == completed(undisturbed.finish()).text


def test_an_empty_turn_is_no_text(tiny_recogniser: Recogniser) -> None:
    final = completed(Transcriber(tiny_recogniser, "de-AT").finish())
    assert (final.seconds, final.language, final.revised) == (0.0, "de", 0)


def test_an_unknown_language_is_refused(tiny_recogniser: Recogniser) -> None:
    with pytest.raises(ValueError, match="xx"):
        Transcriber(tiny_recogniser, "xx")


def windows(transcriber: Transcriber) -> list[tuple[float, float, bool]]:
    return [(window.start / SECOND, window.samples / SECOND, window.repeats) for window in transcriber._windows]


def test_a_long_turn_is_cut_by_force_with_two_seconds_repeated(tiny_recogniser: Recogniser) -> None:
    transcriber = Transcriber(tiny_recogniser)
    for part in np.split(noise(60.0), 50):
        transcriber.push(part)
    assert windows(transcriber) == [(0.0, 28.0, False), (26.0, 28.0, True), (52.0, 8.0, True)]
    assert transcriber.due()
    completed(transcriber.hypothesise())
    assert windows(transcriber) == [(52.0, 8.0, True)]
    assert not transcriber.due()


def test_a_long_turn_is_cut_at_the_first_pause_after_20_s(tiny_recogniser: Recogniser) -> None:
    transcriber = Transcriber(tiny_recogniser)
    transcriber.push(noise(12.0))
    transcriber.mark_pause(12 * SECOND)
    transcriber.push(noise(9.0))
    transcriber.mark_pause(21 * SECOND)
    assert windows(transcriber) == [(0.0, 21.0, False)]
    transcriber.push(noise(15.0))
    transcriber.mark_pause(36 * SECOND)
    transcriber.push(noise(10.0))
    assert windows(transcriber) == [(0.0, 21.0, False), (21.0, 25.0, False)]
    assert completed(transcriber.finish()).seconds == 46.0


def test_ten_minutes_are_held_in_bounded_memory(tiny_recogniser: Recogniser) -> None:
    transcriber = Transcriber(tiny_recogniser)
    part = noise(5.0)
    for _ in range(120):
        transcriber.push(part)
        while transcriber.due():
            completed(transcriber.hypothesise())
        assert len(transcriber._windows) == 1
        assert len(transcriber._recent) <= 2 * SECOND
    assert transcriber._pushed == 600 * SECOND


def test_sound_that_nobody_listens_to_is_refused_in_the_end(tiny_recogniser: Recogniser) -> None:
    transcriber = Transcriber(tiny_recogniser)
    transcriber.push(noise(28.0))
    for _ in range(23):
        transcriber.push(noise(26.0))
    with pytest.raises(BufferError, match="24 windows"):
        transcriber.push(noise(1.0))


# ------------------------------------------------------------------------------------------------------- with Whisper


@pytest.fixture(scope="module")
def whisper(parts: Path) -> Recogniser:
    return load_recogniser(parts / "whisper-base")


@pytest.fixture(scope="module")
def coffee(questions: list[Path]) -> Samples:
    sound, rate = soundfile.read(questions[0], dtype="float32")
    assert rate == SECOND
    return sound


@pytest.mark.models
def test_a_question_word_for_word(whisper: Recogniser, coffee: Samples) -> None:
    found, final = passes(Transcriber(whisper), coffee)
    assert final.text == "Can I have a light roasted iced mocha with brown sugar and soy milk?"
    assert final.confidence > 0.8
    assert final.language == "en"
    assert final.revised <= 2
    assert found[-1].settled.endswith("brown sugar and soy milk")
    assert found[-1].provisional == "?"


@pytest.mark.models
def test_the_final_text_needs_one_decoder_run(whisper: Recogniser, coffee: Samples) -> None:
    transcriber = Transcriber(whisper)
    transcriber.push(coffee[: 9 * SECOND])
    completed(transcriber.hypothesise())
    transcriber.push(coffee[9 * SECOND :])
    _, runs = steps(transcriber.finish(), Choose)
    assert runs == 1


@pytest.mark.models
@pytest.mark.parametrize("kind", ["white noise", "silence"])
def test_where_nobody_speaks_there_is_no_text(whisper: Recogniser, kind: str) -> None:
    sound = noise(10.0) if kind == "white noise" else np.zeros(10 * SECOND, np.float32)
    found, final = passes(Transcriber(whisper), sound, 5_120)
    assert [(hypothesis.settled, hypothesis.provisional) for hypothesis in found] == [("", "")] * len(found)
    assert (final.text, final.confidence) == ("", 0.0)


@pytest.mark.models
def test_a_long_turn_keeps_every_word_at_a_forced_cut(whisper: Recogniser, questions: list[Path]) -> None:
    clips = [soundfile.read(path, dtype="float32")[0] for path in questions[:5]]
    final = passes(Transcriber(whisper), np.concatenate(clips), 1_600)[1]
    words = final.text.lower()
    for clip in clips:
        alone = Transcriber(whisper)
        alone.push(clip)
        last = completed(alone.finish()).text.lower().strip("?.").split()[-2:]
        assert " ".join(last) in words
