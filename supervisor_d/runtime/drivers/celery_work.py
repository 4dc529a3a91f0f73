"""The figures of every worker's tasks, read from its heartbeat when somebody asks; totals outlive the workers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor_d.core.snapshot import TasksNow, Work
from supervisor_d.core.work import Tasks, tasks_now, work
from supervisor_d.runtime.drivers import heartbeat
from supervisor_d.runtime.drivers.heartbeat import BUCKETS_SECONDS, Heartbeat


@dataclass(frozen=True, slots=True)
class WorkFigures:
    """What is in hand now, by process id, and by pool with all that was."""

    tasks: Mapping[str, TasksNow]
    work: Mapping[str, Work]


@dataclass(slots=True)
class _Account:
    pool: str
    pid: int
    private_dir: str
    totals: Tasks

    def read(self) -> Heartbeat | None:
        """What stands there now; totals never shrink."""
        beat = heartbeat.read(self.private_dir, self.pid)
        if beat is not None:
            self.totals = totals_of(beat).at_least(self.totals)
        return beat


class Accounts:
    """The totals of all workers."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._former: dict[str, Tasks] = {}
        """By pool: the totals of workers that have ended."""

    def opened(self, process_id: str, pool: str, pid: int, private_dir: str) -> None:
        """A worker with our agent was started."""
        self._accounts[process_id] = _Account(pool, pid, private_dir, Tasks())

    def ended(self, process_id: str) -> None:
        """It has ended: what it said last stands in its directory still."""
        account = self._accounts.pop(process_id, None)
        if account is not None:
            account.read()
            self._former[account.pool] = self._former.get(account.pool, Tasks()) + account.totals

    def figures(self) -> WorkFigures:
        """Read every heartbeat: a tenth of a millisecond each."""
        now = time.monotonic()
        tasks: dict[str, TasksNow] = {}
        totals = dict(self._former)
        for process_id, account in self._accounts.items():
            beat = account.read()
            totals[account.pool] = totals.get(account.pool, Tasks()) + account.totals
            if beat is not None:
                tasks[process_id] = tasks_now(beat.tasks_left(), now)
        pools = {name: self._work(name, tasks, total) for name, total in totals.items()}
        return WorkFigures(tasks, pools)

    def _work(self, pool: str, tasks: Mapping[str, TasksNow], total: Tasks) -> Work:
        own = [now for process_id, now in tasks.items() if self._accounts[process_id].pool == pool]
        return work(own, total)


def totals_of(beat: Heartbeat) -> Tasks:
    """The running totals in a heartbeat."""
    return Tasks(
        (
            beat.succeeded_total,
            beat.failed_total,
            beat.retried_total,
            beat.revoked_total,
            beat.unknown_total,
        ),
        beat.started_total,
        beat.redelivered_total,
        beat.ledger_overflow,
        beat.runtime_seconds_total,
        beat.wait_seconds_total,
        beat.runtime_buckets or (0,) * (len(BUCKETS_SECONDS) + 1),
    )
