"""Evidence is told once, whatever Ears hear the input again."""

import pytest

from server.heard_once import HeardOnce
from streaming.events import EndOfTurnScore, Listened, SpeechStarted, SpeechStopped

WINDOW = 512


def windows(first: int, last: int, **events: object) -> list[object]:
    """The evidence of windows `first` to `last`; `w7=event` is told in window 7."""
    found: list[object] = []
    for number in range(first, last + 1):
        if f"w{number}" in events:
            found.append(events[f"w{number}"])
        found.append(Listened(number * WINDOW))
    return found


def tell(evidence: HeardOnce, events: list[object]) -> list[object]:
    return [told for event in events for told in evidence.tell(event)]


STARTED = SpeechStarted(2 * WINDOW, 0.9)
STOPPED = SpeechStopped(6 * WINDOW, 0.1)
SCORED = EndOfTurnScore(10 * WINDOW, 0.8)


def test_a_first_ear_is_told_of_whole() -> None:
    events = windows(1, 12, w4=STARTED, w9=STOPPED, w10=SCORED)
    evidence = HeardOnce()
    assert evidence.begin(0, 0) == 0
    assert tell(evidence, events) == events


@pytest.mark.parametrize("died", range(1, 12))
def test_wherever_the_first_one_ends_the_second_goes_on(died: int) -> None:
    happens = {"w4": STARTED, "w9": STOPPED, "w10": SCORED}
    evidence = HeardOnce()
    before = tell(evidence, windows(1, died, **happens))
    assert evidence.begin(0, 0) == 0
    assert before + tell(evidence, windows(1, 12, **happens)) == windows(1, 12, **happens)


def test_a_window_that_was_told_in_part_is_told_to_its_end() -> None:
    evidence = HeardOnce()
    tell(evidence, windows(1, 3))
    assert evidence.tell(STARTED) == [STARTED]
    evidence.begin(0, 0)
    assert tell(evidence, windows(1, 5, w4=STARTED)) == windows(4, 5)


@pytest.mark.parametrize(
    ("wanted", "held", "start"), [(700, 0, 512), (512, 0, 512), (9_999, 0, 10 * WINDOW), (0, 700, 1_024), (0, 1_024, 1_024)]
)
def test_windows_fall_where_they_fell(wanted: int, held: int, start: int) -> None:
    evidence = HeardOnce()
    tell(evidence, windows(1, 10))
    assert evidence.begin(wanted, held) == start


def test_nothing_was_heard_yet() -> None:
    assert HeardOnce().begin(3_000, 320) == 320


def test_speech_that_has_gone_stops() -> None:
    evidence = HeardOnce()
    tell(evidence, windows(1, 6, w4=STARTED))
    evidence.begin(5 * WINDOW, 0)
    assert tell(evidence, windows(6, 7)) == [SpeechStopped(6 * WINDOW, 0.0), Listened(7 * WINDOW)]


def test_speech_that_was_missed_starts() -> None:
    evidence = HeardOnce()
    tell(evidence, windows(1, 6))
    evidence.begin(0, 0)
    assert tell(evidence, windows(1, 7, w4=STARTED)) == [STARTED, Listened(7 * WINDOW)]


def test_speech_before_a_commit_is_forgotten() -> None:
    evidence = HeardOnce()
    tell(evidence, windows(1, 6, w4=STARTED))
    evidence.forget(6 * WINDOW)
    evidence.begin(6 * WINDOW, 0)
    assert tell(evidence, windows(7, 7)) == windows(7, 7)


def test_speech_after_a_commit_is_not() -> None:
    evidence = HeardOnce()
    tell(evidence, windows(1, 6, w4=STARTED))
    evidence.forget(WINDOW)
    evidence.begin(0, 0)
    assert tell(evidence, windows(1, 7)) == [SpeechStopped(6 * WINDOW, 0.0), Listened(7 * WINDOW)]
