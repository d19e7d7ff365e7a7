"""A lane: one worker thread that does its jobs in order, beside the engine's own.

The Ear has one, so that speech is noticed while a model computes; the voice has one, so that synthesis runs beside decoding. Built with
`threaded=False` a lane runs each job at once in the caller's thread, which makes an engine deterministic for tests.
"""

import logging
import queue
import threading
from collections.abc import Callable

__all__ = ["Lane"]

log = logging.getLogger(__name__)


class Lane:
    """`put` jobs; each runs to its end before the next. A job that raises is logged and the lane goes on: jobs report their own
    failures, so what arrives here is a bug of ours."""

    def __init__(self, name: str, *, threaded: bool = True) -> None:
        # Unbounded here, because what is put is bounded by its sources: a session's input buffer, a reply's clauses.
        self._jobs: queue.SimpleQueue[Callable[[], None]] | None = None
        # A job that is only worth doing once nothing else waits.
        self._last: Callable[[], None] | None = None
        if threaded:
            self._jobs = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(self._jobs,), name=name, daemon=True).start()

    def put(self, job: Callable[[], None]) -> None:
        """Queue a job (threaded) or run it now."""
        if self._jobs is None:
            job()
        else:
            self._jobs.put(job)

    def put_last(self, job: Callable[[], None]) -> None:
        """Have `job` done once nothing else waits; put again before that it is done once."""
        waits = self._last is not None
        self._last = job
        if not waits:
            self.put(self._do_last)

    def _do_last(self) -> None:
        if self._jobs is not None and not self._jobs.empty():
            self.put(self._do_last)
            return
        job, self._last = self._last, None
        if job is not None:
            job()

    @staticmethod
    def _work(jobs: "queue.SimpleQueue[Callable[[], None]]") -> None:
        while True:
            job = jobs.get()
            try:
                job()
            except Exception:
                log.exception("a job of lane %s failed", threading.current_thread().name)
