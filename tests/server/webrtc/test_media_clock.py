"""The caller's sound against the sender's clock: gaps, repeats, jumps, pauses."""

import numpy as np

from server.webrtc.media_clock import MediaClock

RATE = 1_000
FRAME = 20


def frame(value: int = 1_000) -> np.ndarray:
    return np.full(FRAME, value, np.int16)


def test_frames_that_follow_each_other_pass_unchanged() -> None:
    clock = MediaClock(RATE)
    for number in range(5):
        assert np.array_equal(clock.push(7_000 + number * FRAME, frame(number), number * 0.02), frame(number))
    assert clock.filled == 0


def test_a_missing_frame_becomes_a_fade_into_silence() -> None:
    clock = MediaClock(RATE)
    clock.push(0, frame(), 0.0)
    given = clock.push(3 * FRAME, frame(500), 0.06)
    assert len(given) == 3 * FRAME
    assert given[0] == 1_000
    assert np.all(np.diff(given[:10].astype(int)) < 0)
    assert not given[10 : 2 * FRAME].any()
    assert np.array_equal(given[2 * FRAME :], frame(500))
    assert clock.filled == 2 * FRAME


def test_what_comes_late_or_twice_is_dropped() -> None:
    clock = MediaClock(RATE)
    clock.push(0, frame(), 0.0)
    clock.push(2 * FRAME, frame(), 0.04)
    assert not len(clock.push(FRAME, frame(), 0.05))
    assert not len(clock.push(2 * FRAME, frame(), 0.05))
    assert clock.late == 2


def test_a_jump_of_the_clock_is_another_clock() -> None:
    clock = MediaClock(RATE)
    clock.push(0, frame(), 0.0)
    assert len(clock.push(1 << 32, frame(), 0.02)) == FRAME
    assert len(clock.push(5, frame(), 0.04)) == FRAME
    assert clock.filled == 0


def test_faster_than_real_time_is_no_microphone() -> None:
    clock = MediaClock(RATE)
    heard = sum(len(clock.push(number * FRAME, frame(), 0.0)) for number in range(200))
    assert heard == RATE
    assert clock.early == 150


def test_while_nothing_comes_silence_goes_on_at_the_pace_of_time() -> None:
    clock = MediaClock(RATE)
    assert not len(clock.idle(0.0))
    clock.push(0, frame(), 10.0)
    assert not len(clock.idle(10.1))
    heard = FRAME + sum(len(clock.idle(10.0 + tenth / 10)) for tenth in range(2, 21))
    assert heard == int((2.0 - 0.2) * RATE)


def test_a_stall_of_our_own_is_not_taken_for_silence_in_one_lump() -> None:
    clock = MediaClock(RATE)
    clock.push(0, frame(), 0.0)
    assert len(clock.idle(5.0)) == 100
    assert np.array_equal(clock.push(FRAME, frame(7), 5.0), frame(7))


def test_after_a_pause_the_sender_may_have_counted_it_or_not() -> None:
    for counted in (0, 2_000):
        clock = MediaClock(RATE)
        clock.push(0, frame(), 0.0)
        idle = sum(len(clock.idle(tenth / 10)) for tenth in range(21))
        assert idle == 1_800 - FRAME
        given = clock.push(FRAME + counted, frame(7), 2.0)
        assert np.array_equal(given[-FRAME:], frame(7))
        assert len(given) - FRAME == max(0, counted - idle)
