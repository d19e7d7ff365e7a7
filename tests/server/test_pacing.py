"""Frames at a steady pace: on time, late, and after a stall."""

import asyncio

import pytest

from server.pacing import FrameClock, Metronome


def sent(clock: FrameClock, *times: float) -> list[int]:
    return [clock.due(now) for now in times]


def test_a_frame_every_period() -> None:
    clock = FrameClock(0.0)
    assert sent(clock, 0.0, 0.01, 0.02, 0.021, 0.045, 0.059) == [1, 0, 1, 0, 1, 1]  # within a millisecond is on time


def test_lateness_does_not_add_up() -> None:
    clock = FrameClock(100.0)
    for number in range(100_000):
        assert clock.due(100.0 + number * 0.02 + 0.005) == 1
    assert clock.deadline == pytest.approx(100.0 + 100_000 * 0.02, abs=1e-9)


def test_one_missed_frame_is_caught_up_with() -> None:
    clock = FrameClock(0.0)
    assert sent(clock, 0.0, 0.045, 0.05, 0.06) == [1, 2, 0, 1]
    assert clock.skipped == 0


def test_after_a_stall_the_pace_begins_anew() -> None:
    clock = FrameClock(0.0)
    assert sent(clock, 0.0, 1.0, 1.005, 1.02, 1.04) == [1, 2, 0, 1, 1]
    assert clock.skipped == 48


def test_on_the_deadline_it_is_the_only_one_due() -> None:
    clock = FrameClock(0.0, 0.25)
    assert sent(clock, 0.0, 0.25, 0.5, 0.75) == [1, 1, 1, 1]


async def test_beside_an_event_loop() -> None:
    now, beats = 5.0, []

    def clock() -> float:
        nonlocal now
        now += 0.004
        return now

    metronome = Metronome(0.02, clock)
    for _ in range(5):
        async with asyncio.timeout(10):
            beats.append(await metronome.beat())
    assert (beats, metronome.frames.skipped) == ([1] * 5, 0)
