"""How work of many sessions becomes batches: work is a generator that yields the call to a model it needs next.

A piece of work never runs a model itself. It yields a `Call` and goes on when that has been done, together with the calls of other
sessions that the same `Station` can do at once (`streaming.scheduler` decides which). Between two calls nothing is half done, so work may
be dropped at any of them by closing its generator.
"""

from collections.abc import Generator, Sequence
from typing import Protocol, TypeVar

__all__ = ["Call", "Station", "Work", "completed"]


class Station(Protocol):
    """A model that serves many at once."""

    @property
    def rows_at_once(self) -> int:
        """Rows of one batch beyond which it takes too long: some tens of milliseconds."""

    def run(self, calls: Sequence["Call"]) -> None:
        """Do these calls, all of this station, no two of one sequence. Where it raises none of them has been done."""


class Call(Protocol):
    """One run of one model for one sequence; what comes of it is found in the call, or where it says."""

    @property
    def station(self) -> Station:
        """Who can do it."""

    @property
    def rows(self) -> int:
        """What it costs: tokens, or frames."""


_Result = TypeVar("_Result")

Work = Generator[Call, None, _Result]
"""Yields calls; returns its result."""


def completed(work: Work[_Result]) -> _Result:
    """The result of work done alone and at once: for tests, benchmarks and warming up."""
    while True:
        try:
            call = next(work)
        except StopIteration as stop:
            result: _Result = stop.value
            return result
        try:
            call.station.run([call])
        except Exception as error:
            work.throw(error)
            raise
