"""Which calls to models come next, and together: the most urgent job decides which model runs, others that wait for the same model join it.

A job is a piece of `Work` with an urgency, which may change while it waits. `choose` is pure; `run` makes the batch and moves its jobs on
to their next calls. To change what the engine prefers, change `Urgency` and who gets which (`streaming.engine_session`); to change what a
batch holds, change `choose`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from streaming.batching import Call, Work

__all__ = ["Job", "Urgency", "choose", "run"]

log = logging.getLogger(__name__)

_GUEST_ROWS: Final = 16
"""Rows that may join a batch whose leader somebody waits for: decode rows and the end of a prompt, which cost a fraction of what the batch
costs anyhow; a long piece of somebody's prefill has to wait."""


class Urgency(IntEnum):
    """What comes first; within one of them, the earliest deadline."""

    # A reply that sounds, and whose sound is about to run out.
    RUNNING_DRY = 0
    # A caller has finished and hears nothing yet: the last words, and the reply up to its first sound.
    AWAITED = 1
    # A caller has fallen silent: the words so far, for the decision.
    PAUSE = 2
    # The reply that may be wanted: left out under load.
    SPECULATION = 3
    # A caller is speaking: words, as they come. A caller reads.
    LISTENING = 4
    # A reply that sounds, with sound in hand.
    AHEAD = 5
    # What is known of the next prompt.
    PREFILL = 6


@dataclass(slots=True, eq=False)
class Job:
    """Work of a session. `deadline` is a time in seconds: when its next piece is due; `choose` serves the earliest first, and who has been
    `served` is due again after `patience`, in seconds."""

    work: Work[None]
    urgency: Urgency
    deadline: float
    patience: float = 0.0
    # What it waits for; None before its first piece and after its last.
    call: Call | None = None
    # Whether a call of it has been made.
    begun: bool = False
    done: bool = False

    def advance(self, error: Exception | None = None) -> None:
        """Let the work go on to its next call, after the last one was made, or failed with `error`."""
        self.begun = self.call is not None
        try:
            self.call = next(self.work) if error is None else self.work.throw(error)
        except StopIteration:
            self.call, self.done = None, True
        except Exception:
            # Work reports its own failures, so this is a bug of ours: the job is over, its session and the others are not.
            log.exception("a job failed without a word")
            self.call, self.done = None, True

    def served(self, now: float) -> None:
        """A call of it was made at `now`: those that are due take turns, a deadline ahead stays."""
        self.deadline = max(self.deadline, now + self.patience)


def choose(jobs: Sequence[Job]) -> list[Job]:
    """The jobs whose calls make the next batch, the most urgent first; all of them have a call. Empty where no job has one."""
    waiting = sorted((job for job in jobs if job.call is not None), key=lambda job: (job.urgency, job.deadline))
    if not waiting:
        return []
    leader = waiting[0]
    assert leader.call is not None
    station, rows = leader.call.station, leader.call.rows
    most = station.rows_at_once
    if leader.urgency < Urgency.LISTENING:
        most = min(most, max(rows, _GUEST_ROWS))
    batch = [leader]
    for job in waiting[1:]:
        assert job.call is not None
        if job.call.station is station and rows + job.call.rows <= most:
            batch.append(job)
            rows += job.call.rows
    return batch


def run(batch: Sequence[Job]) -> None:
    """Make the calls of `batch`, all of one station, as one; where that fails each alone, so that only the work it fails for hears of
    it."""
    calls = [job.call for job in batch if job.call is not None]
    if not calls:
        return
    try:
        calls[0].station.run(calls)
    except Exception as error:  # noqa: BLE001 - whatever it was, the work that asked for it is told
        if len(batch) == 1:
            batch[0].advance(error)
            return
        log.warning("a batch of %d failed (%s: %s); each call is made alone", len(batch), type(error).__name__, error)
        for job in batch:
            run([job])
        return
    for job in batch:
        job.advance()
