"""When a dead engine is started again, and when its sessions are given up."""

from server.restarts import RestartOptions, Restarts


def test_waits_double_up_to_a_bound() -> None:
    restarts = Restarts(RestartOptions())
    assert [restarts.wait() for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert [restarts.wait() for _ in range(2_000)][-1] == 30


def test_an_engine_that_was_sound_begins_anew() -> None:
    restarts = Restarts(RestartOptions())
    restarts.started(0)
    restarts.died(10)
    assert [restarts.wait(), restarts.wait()] == [0, 1]
    restarts.started(12)
    restarts.died(71)
    assert restarts.wait() == 2
    restarts.started(100)
    restarts.died(160)
    assert restarts.wait() == 0


def test_three_deaths_within_a_minute_are_enough() -> None:
    restarts = Restarts(RestartOptions())
    assert [restarts.died(now) for now in (0, 50, 61, 109, 111, 500)] == [False, False, False, True, True, False]


def test_patience_is_counted_from_the_last_death() -> None:
    restarts = Restarts(RestartOptions())
    restarts.died(100)
    restarts.died(110)
    assert restarts.patient_until == 140
