"""Load is the share of the last four seconds that was worked."""

from streaming.doors import EngineLoad
from streaming.load_meter import LoadMeter


def test_the_share_of_the_last_seconds() -> None:
    meter = LoadMeter(0.0)
    meter.worked(0.0, 1.0)
    meter.worked(1.0, 2.0, counts=False)
    assert meter.busy(2.0) == 0.25
    assert meter.busy(5.5) == 0.0


def test_a_report_comes_every_half_second_and_only_when_it_says_something_new() -> None:
    meter = LoadMeter(0.0)
    meter.worked(0.0, 0.4)
    assert meter.report(0.4, 2) is None
    assert meter.report(0.6, 2) == EngineLoad(0.1, 2)
    assert meter.report(1.2, 2) is None
    assert meter.report(1.8, 3) == EngineLoad(0.1, 3)
