"""What runs when: urgent jobs first, else in order, in one thread or the caller's."""

import threading

import pytest

from streaming.lane import Lane


def test_without_a_thread_a_job_is_done_at_once() -> None:
    done: list[str] = []
    Lane("test", threaded=False).put(lambda: done.append("it"))
    assert done == ["it"]


def test_urgent_jobs_come_first_and_each_kind_in_order() -> None:
    lane, done = Lane("test", threaded=False), []

    def fill() -> None:
        for name in "abc":
            lane.put(lambda name=name: done.append(name))
        for name in "xyz":
            lane.put(lambda name=name: done.append(name), urgent=True)
        done.append("put")

    lane.put(fill)
    assert done == ["put", *"xyzabc"]


def test_a_job_that_puts_itself_again_waits_behind_the_others() -> None:
    lane, done = Lane("test", threaded=False), []

    def job(name: str, left: int) -> None:
        done.append(name)
        if left:
            lane.put(lambda: job(name, left - 1))

    def fill() -> None:
        for name in "ab":
            lane.put(lambda name=name: job(name, 2))

    lane.put(fill)
    assert done == [*"ababab"]


def test_without_a_thread_a_failure_is_the_callers_and_the_lane_goes_on() -> None:
    lane, done = Lane("test", threaded=False), []
    with pytest.raises(ZeroDivisionError):
        lane.put(lambda: done.append(1 // 0))
    lane.put(lambda: done.append(1))
    assert done == [1]


def test_a_thread_does_the_same_and_survives_a_failure(caplog: pytest.LogCaptureFixture, time_limit: float) -> None:
    lane, done, filled, finished = Lane("test"), [], threading.Event(), threading.Event()
    lane.put(lambda: filled.wait(time_limit))
    lane.put(lambda: done.append("later"))
    lane.put(finished.set)
    lane.put(lambda: done.append(1 // 0), urgent=True)
    lane.put(lambda: done.append("first"), urgent=True)
    filled.set()
    assert finished.wait(time_limit)
    assert done == ["first", "later"]
    assert "a job of lane test failed" in caplog.text
