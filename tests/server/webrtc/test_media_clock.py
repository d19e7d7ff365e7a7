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
    assert not len(clock.idle(10.4))
    heard = FRAME + sum(len(clock.idle(10.0 + tenth / 10)) for tenth in range(5, 21))
    assert heard == int((2.0 - 0.5) * RATE)


def test_a_stall_of_our_own_is_not_taken_for_silence_in_one_lump() -> None:
    clock = MediaClock(RATE)
    clock.push(0, frame(), 0.0)
    assert len(clock.idle(5.0)) == 100
    assert np.array_equal(clock.push(120, frame(7), 5.0), frame(7))


def idled(clock: MediaClock, seconds: int) -> int:
    """Nothing comes after the first frame; returns the position reached."""
    clock.push(0, frame(), 0.0)
    return FRAME + sum(len(clock.idle(tenth / 10)) for tenth in range(10 * seconds + 1))


def test_what_a_network_has_held_up_is_heard_where_no_silence_has_been_given() -> None:
    clock = MediaClock(RATE)
    reached = idled(clock, 2)
    assert reached == 1_500
    burst = [clock.push(at, frame(7), 2.0) for at in range(FRAME, 2_000, FRAME)]
    assert sum(map(len, burst)) == 2_000 - reached
    assert np.array_equal(np.concatenate(burst), np.full(2_000 - reached, 7))
    assert clock.late == (reached - FRAME) // FRAME


def test_of_a_frame_whose_beginning_comes_too_late_the_end_is_heard() -> None:
    clock = MediaClock(RATE)
    reached = idled(clock, 1)
    assert len(clock.push(reached - 5, frame(7), 1.0)) == FRAME - 5
    assert clock.late == 0


def test_a_sender_whose_clock_stood_still_is_heard_again_after_a_moment() -> None:
    clock = MediaClock(RATE)
    idled(clock, 30)
    heard = [len(clock.push(FRAME * (1 + number), frame(7), 30.0 + 0.02 * number)) for number in range(20)]
    assert heard == [0] * 5 + [FRAME] * 15


def test_thirty_seconds_that_come_at_once_are_no_new_clock() -> None:
    clock = MediaClock(RATE)
    reached = idled(clock, 30)
    burst = sum(len(clock.push(at, frame(7), 30.0 + at / 1e6)) for at in range(FRAME, 30_000, FRAME))
    assert burst == 30_000 - reached
    assert np.array_equal(clock.push(30_000, frame(8), 30.02), frame(8))


def test_a_sender_that_has_counted_its_pause_is_heard_in_its_place() -> None:
    clock = MediaClock(RATE)
    reached = idled(clock, 2)
    given = clock.push(2_000, frame(7), 2.0)
    assert len(given) == 2_000 + FRAME - reached
    assert np.array_equal(given[-FRAME:], frame(7))
