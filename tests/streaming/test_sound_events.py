"""Sounds with a beginning and an end, out of probabilities."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from streaming.audio import AudioFrame, Samples
from streaming.ear import Ear, Ears
from streaming.events import EarEvent, SoundKind, SoundStarted, SoundStopped
from streaming.sound_events import HOP, PATCH, SoundGate, speech_in
from streaming.vad import VadState


class ScriptedVad:
    """Hears no speech."""

    def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
        return [0.0] * len(windows), list(states)


CLASSES = ("Speech", "Dog", "Bark", "Music", "Narration, monologue")


def patch(speech: float = 0.0, dog: float = 0.0, bark: float = 0.0, music: float = 0.0) -> npt.NDArray[np.float32]:
    return np.array([speech, dog, bark, music, speech / 2], np.float32)


def told(*patches: npt.NDArray[np.float32]) -> list[SoundStarted | SoundStopped]:
    gate = SoundGate(CLASSES)
    return [event for number, one in enumerate(patches) for event in gate.push(one, number * HOP)]


def test_a_sound_is_one_event_with_an_end() -> None:
    events = told(patch(), patch(dog=0.8), patch(bark=0.3), patch(), patch(), patch(dog=0.25), patch(), patch(), patch(), patch())
    assert events == [SoundStarted(HOP, SoundKind.DOG, 0.8), SoundStopped(5 * HOP + PATCH, SoundKind.DOG)]


def test_any_class_of_a_kind_speaks_for_it_and_speech_for_none() -> None:
    assert told(patch(speech=1.0, bark=0.6)) == [SoundStarted(0, SoundKind.DOG, 0.6)]


def test_an_engine_is_no_traffic_where_a_tool_runs() -> None:
    gate = SoundGate(("Vehicle", "Chainsaw"))
    events = [*gate.push(np.array([0.9, 0.35], np.float32), 0), *gate.push(np.array([0.9, 0.0], np.float32), HOP)]
    assert [event.kind for event in events] == [SoundKind.TOOLS]
    assert SoundGate(("Vehicle",)).push(np.array([0.9], np.float32), 0) == [SoundStarted(0, SoundKind.TRAFFIC, 0.9)]


def test_what_is_unsure_begins_nothing() -> None:
    assert told(*[patch(dog=0.49, music=0.4)] * 10) == []


def test_several_sound_at_once_each_on_its_own() -> None:
    events = told(patch(music=0.9), patch(music=0.9, dog=0.7), *[patch(music=0.3)] * 3, *[patch()] * 3)
    assert [(type(event), event.kind) for event in events] == [
        (SoundStarted, SoundKind.MUSIC),
        (SoundStarted, SoundKind.DOG),
        (SoundStopped, SoundKind.DOG),
        (SoundStopped, SoundKind.MUSIC),
    ]


def test_speech_is_the_likeliest_of_its_classes() -> None:
    assert speech_in(Loudness(0.7), np.full(PATCH, 0.4, np.float32)) == pytest.approx(0.7)


# --------------------------------------------------------------------------------------------------------- in the Ear


class Loudness:
    """Says "dog" of what is loud, and keeps what it heard."""

    classes = CLASSES

    def __init__(self, speech: float = 0.0) -> None:
        self.speech = speech
        self.heard: list[Samples] = []

    def hear(self, patch_heard: Samples) -> npt.NDArray[np.float32]:
        self.heard.append(patch_heard.copy())
        return patch(speech=self.speech, dog=float(patch_heard.max()))


def hear(pcm: Samples, classifier: Loudness, frame: int, *, spare: bool = True, at: int = 0) -> list[EarEvent]:
    ears = Ears(ScriptedVad(), None, classifier)
    ears.open("s")
    events = []
    for start in range(0, len(pcm), frame):
        ears.tell("s", Ear.push, AudioFrame(pcm[start : start + frame], at + start))
        while ears.pending:
            events += [event for _, event in (*ears.judge(), *ears.score(), *ears.name_sounds(spare=spare))]
    return [event for event in events if isinstance(event, SoundStarted | SoundStopped)]


def barking(seconds: float, begins: float, ends: float) -> Samples:
    pcm = np.full(int(seconds * 16_000), 0.01, np.float32)
    pcm[int(begins * 16_000) : int(ends * 16_000)] = 0.9
    return pcm


@pytest.mark.parametrize("frame", [320, 5_000, 200_000])
def test_any_split_of_the_sound_gives_the_same_events(frame: int) -> None:
    classifier = Loudness()
    started, stopped = hear(barking(8, 2, 3), classifier, frame)
    assert started == SoundStarted(3 * HOP, SoundKind.DOG, 0.9)  # the first patch that reaches to 2 s
    assert isinstance(stopped, SoundStopped)
    assert abs(stopped.at - 3 * 16_000) <= PATCH
    assert [len(one) for one in classifier.heard] == [PATCH] * len(classifier.heard)


def test_patches_lie_at_fixed_positions_of_the_input() -> None:
    classifier = Loudness()
    ramp = np.arange(1_000, 41_000, dtype=np.float32)
    hear(ramp, classifier, 320, at=1_000)
    assert [one[0] for one in classifier.heard] == [HOP, 2 * HOP, 3 * HOP]


def test_silence_is_not_looked_at() -> None:
    classifier = Loudness()
    assert hear(np.zeros(80_000, np.float32), classifier, 320) == []
    assert not classifier.heard


def test_without_time_to_spare_nothing_is_named() -> None:
    classifier = Loudness()
    assert hear(barking(4, 1, 3), classifier, 320, spare=False) == []
    assert not classifier.heard


def test_a_classifier_that_fails_takes_no_window_with_it(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Loudness):
        def hear(self, patch_heard: Samples) -> npt.NDArray[np.float32]:
            raise MemoryError(f"no room for {len(patch_heard)}")

    assert hear(barking(4, 1, 3), Broken(), 320) == []
    assert "could not be named" in caplog.text
