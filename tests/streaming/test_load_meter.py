"""Load is the share of the last four seconds that was worked, of an engine's life while that is shorter."""

from streaming.doors import EngineLoad
from streaming.load_meter import LoadMeter


def test_the_share_of_the_last_seconds() -> None:
    meter = LoadMeter(0.0)
    meter.worked(10.0, 11.0)
    meter.worked(11.0, 12.0, counts=False)
    assert meter.busy(12.0) == 0.25
    assert meter.busy(15.5) == 0.0


def test_a_new_engine_is_as_busy_as_it_has_been() -> None:
    meter = LoadMeter(0.0)
    meter.worked(0.0, 1.0)
    assert [meter.busy(now) for now in (1.0, 2.0, 4.0)] == [1.0, 0.5, 0.25]


def test_a_report_comes_every_half_second_and_only_when_it_says_something_new() -> None:
    meter = LoadMeter(0.0)
    meter.worked(10.0, 10.4)
    assert meter.report(0.4, 2) is None
    assert meter.report(10.6, 2) == EngineLoad(0.1, 2)
    assert meter.report(11.2, 2) is None
    assert meter.report(11.8, 3) == EngineLoad(0.1, 3)
