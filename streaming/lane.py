"""A lane: one worker thread that does its jobs in order, beside the engine's own.

The Ear has one, so that speech is noticed while a model computes; the voice has one, so that synthesis runs beside decoding. Built with
`threaded=False` a lane does its jobs in the thread that puts them, which makes an engine deterministic for tests.
"""

import itertools
import logging
import queue
import threading
from collections.abc import Callable

__all__ = ["Lane"]

log = logging.getLogger(__name__)

_Job = Callable[[], None]


class Lane:
    """`put` jobs; each runs to its end before the next. Urgent ones come before the others, else in the order they were put. A job that has
    more to do puts itself again, behind what waits. A job that raises is logged and the lane goes on: jobs report their own failures, so
    what arrives here is a bug of ours."""

    def __init__(self, name: str, *, threaded: bool = True) -> None:
        # Unbounded here, because what is put is bounded by its sources: a session's input buffer, one job a reply. Entries sort by urgency,
        # then by age; no two have the same age, so jobs are never compared.
        self._jobs: queue.PriorityQueue[tuple[bool, int, _Job]] = queue.PriorityQueue()
        self._ages = itertools.count()
        # Whether the jobs are being done by a `put` that has not returned; only without a thread.
        self._busy = False
        self._threaded = threaded
        if threaded:
            threading.Thread(target=self._work, args=(self._jobs,), name=name, daemon=True).start()

    def put(self, job: _Job, *, urgent: bool = False) -> None:
        """Queue a job. Without a thread it is done before this returns, with all that it puts; a job's own `put` returns at once."""
        self._jobs.put((not urgent, next(self._ages), job))
        if self._threaded or self._busy:
            return
        self._busy = True
        try:
            while not self._jobs.empty():
                self._jobs.get()[2]()
        finally:
            self._busy = False

    @staticmethod
    def _work(jobs: "queue.PriorityQueue[tuple[bool, int, _Job]]") -> None:
        while True:
            _, _, job = jobs.get()
            try:
                job()
            except Exception:
                log.exception("a job of lane %s failed", threading.current_thread().name)
