"""Figures of tasks: what a worker has in hand now, and totals that only grow.  Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from supervisor_d.core.process import TasksLeft
from supervisor_d.core.snapshot import TasksNow, Work

OUTCOMES = ("succeeded", "failed", "retried", "revoked", "unknown")
"""How a message ended: `unknown` is one whose task no worker knows, which Celery throws away."""
BOUNDS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the run times that are counted apart; longer ones are counted last."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Totals of tasks: begun, ended by outcome, how long they ran and waited, and how many ran how long."""

    by_outcome: tuple[int, ...] = (0,) * len(OUTCOMES)
    started: int = 0
    redelivered: int = 0
    """Begun once more, after somebody who had taken them did not finish them."""
    unprotected: int = 0
    """Messages that found no place in the ledger: what would happen to them if the worker died is the broker's."""
    run_seconds: float = 0.0
    wait_seconds: float = 0.0
    durations: tuple[int, ...] = (0,) * (len(BOUNDS_SECONDS) + 1)

    def __add__(self, other: Tasks) -> Tasks:
        return Tasks(
            tuple(a + b for a, b in zip(self.by_outcome, other.by_outcome, strict=True)),
            self.started + other.started,
            self.redelivered + other.redelivered,
            self.unprotected + other.unprotected,
            self.run_seconds + other.run_seconds,
            self.wait_seconds + other.wait_seconds,
            tuple(a + b for a, b in zip(self.durations, other.durations, strict=True)),
        )

    def at_least(self, former: Tasks) -> Tasks:
        """These totals, none of them below what was known before: whoever tells them must not make them shrink."""
        return Tasks(
            tuple(map(max, self.by_outcome, former.by_outcome)),
            max(self.started, former.started),
            max(self.redelivered, former.redelivered),
            max(self.unprotected, former.unprotected),
            max(self.run_seconds, former.run_seconds),
            max(self.wait_seconds, former.wait_seconds),
            tuple(map(max, self.durations, former.durations)),
        )


def tasks_now(tasks: TasksLeft, now: float) -> TasksNow:
    """What one process has in hand, for people."""
    oldest = None if tasks.oldest_started_at is None else max(0.0, now - tasks.oldest_started_at)
    return TasksNow(tasks.active, tasks.reserved, tasks.unsafe, oldest, tasks.oldest_name)


def work(now: Iterable[TasksNow], totals: Tasks) -> Work:
    """A pool, for people: what its processes have in hand, and what all that it ever had has done."""
    found = list(now)
    return Work(
        tasks_total=dict(zip(OUTCOMES, totals.by_outcome, strict=True)),
        started_total=totals.started,
        redelivered_total=totals.redelivered,
        unprotected_total=totals.unprotected,
        wait_seconds_total=totals.wait_seconds,
        run_seconds_total=totals.run_seconds,
        run_bounds=BOUNDS_SECONDS,
        run_counts=totals.durations,
        active=sum(each.active for each in found),
        reserved=sum(each.reserved for each in found),
        oldest_task_seconds=max((each.oldest_seconds or 0.0 for each in found), default=0.0),
    )
