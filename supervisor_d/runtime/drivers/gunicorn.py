"""gunicorn masters: counted, awaited and scaled, with as few questions as can be.

Theory of operation.  Two sources tell of a master's workers.

- The control socket knows all: pids, heartbeats, the target.  But its server is a thread that the master ends before
  each fork and begins again after it.  A question in that moment costs a traceback in the user's log and, if the thread
  does not end in time, two seconds in which the master forks nobody (measured; gunicorn/ctl/server.py).
- The heartbeat files, one for each worker, which the master holds open, disturb nobody: /proc/<master>/fd shows them.
  Their time is the wall clock's until the worker has booted and writes the monotonic clock's, which is small.

So a master that is about to fork is only watched through the files, and asked once they show what is wanted; where they
cannot be seen, it is asked once in a while.

    start     files: 0, 1/0, 2/0 ... 2/2 booted  ->  ask: pids, target 2: settled, ready
    kill -9   pidfd: WorkerExited, 1 left        ->  files: 1/1, 2/1, 2/2  ->  ask: the new pid: settled
    scale 4   ask: target 2, `worker add 2`      ->  files: 2/2 ... 4/4    ->  ask: settled

gunicorn ends its oldest workers when it is to have fewer, and the oldest are those that serve.  So it is told to have
fewer only by as many as serve beyond those that are wanted; a surplus that never serves makes it short of workers, by
what it was told to have.

Where nobody answers at the control socket for a while, or there is none, the files alone tell, and signals take the
place of commands (gunicorn_signals.py).  Workers that are not fit are replaced (gunicorn_care.py), and a master that
does not get the workers it should have, or whose workers keep crashing, is reported as ailing: another takes its place.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass, field

from supervisor_d.core.events import Ailing
from supervisor_d.core.fitness import crashing, short_of_workers
from supervisor_d.core.process import Exit, Process
from supervisor_d.core.spec import Launch
from supervisor_d.programs.gunicorn import AGENT, CONTROL_SOCKET
from supervisor_d.runtime import tasks
from supervisor_d.runtime.code_on_disk import changed_code
from supervisor_d.runtime.drivers.base import DriverReady
from supervisor_d.runtime.drivers.counting import Counted, CountingDriver, serving
from supervisor_d.runtime.drivers.gunicorn_care import Carer, Ward
from supervisor_d.runtime.drivers.gunicorn_control import ControlError, Workers, ask_workers, correct
from supervisor_d.runtime.drivers.gunicorn_signals import Nudge, nudge, workers_of
from supervisor_d.runtime.drivers.gunicorn_traffic import Figures, Ledger
from supervisor_d.runtime.host import Emit

ASK_AT_LEAST_SECONDS = 1.0
"""How long files that do not show what is wanted keep an unsettled master from being asked."""

SILENT_SECONDS = 5.0
"""How long nobody may answer at the control socket before signals take its place."""

AS_IT_IS = -1
"""Wanted of an adopted master that may have been scaled, and whose record does not say to what: the plan will."""

CRASHES_MAX = 1000

_LONG_AGO = 1e9
"""Seconds that no monotonic clock reaches and the wall clock passed in 2001."""


@dataclass(slots=True)
class _Chart:
    """How one master does."""

    patience_seconds: float
    short_since: float | None = None
    """Since when it has fewer ready workers than it was told to have."""
    silent_since: float | None = None
    nudge: Nudge = field(default_factory=Nudge)
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=CRASHES_MAX))
    ailing: bool = False
    """Said already, or of no interest any more."""
    care: asyncio.Task[None] | None = None


class GunicornDriver(CountingDriver):
    """Looks after gunicorn masters."""

    def __init__(self, emit: Emit, ready: DriverReady) -> None:
        super().__init__(emit, ready)
        self._charts: dict[str, _Chart] = {}
        self._ledger = Ledger(self._members)

    def started(self, process: Process, launch: Launch, private_dir: str) -> None:
        """Look after a master, and after the fitness of its workers."""
        super().started(process, launch, private_dir)
        counted = self._processes.get(process.id)
        if counted is None or process.id in self._charts:
            return
        chart = self._charts[process.id] = _Chart(process.policy.start_timeout_seconds)
        if process.role == "serve" and AGENT in launch.argv:
            self._ledger.opened(process.id, process.pool, private_dir)
        if launch.fitness.limits_something:
            ward = Ward(counted, launch.fitness, chart.patience_seconds, lambda: _changed(counted))
            carer = Carer(ward, self._members, self._emit)
            chart.care = tasks.begin(carer.care(), f"fitness of {process.id}")

    def scale(self, process_id: str, workers: int) -> None:
        """Want another number of workers; it has its time to get there."""
        chart, counted = self._charts.get(process_id), self._processes.get(process_id)
        if chart is not None and counted is not None and counted.wanted != workers:
            chart.short_since = None
        super().scale(process_id, workers)

    def stopping(self, process_id: str) -> None:
        """It is on its way out: its workers are no longer looked after, nor missed."""
        chart = self._charts.get(process_id)
        if chart is not None:
            chart.ailing = True
            if chart.care is not None:
                chart.care.cancel()

    def close(self) -> None:
        """Let everything go."""
        super().close()
        self._ledger.close()

    def figures(self) -> Figures:
        """What is served now, and what was."""
        return self._ledger.figures()

    def ended(self, process_id: str) -> None:
        """Look after a master no more."""
        chart = self._charts.pop(process_id, None)
        if chart is not None and chart.care is not None:
            chart.care.cancel()
        self._ledger.ended(process_id)
        super().ended(process_id)

    def told(self, process_id: str, text: str) -> None:
        """Our agent in gunicorn writes to its board, and sends nothing."""

    def _wanted(self, process: Process) -> int:
        if process.scale_asked is not None:
            return process.scale_asked
        return process.workers or AS_IT_IS

    async def _look(self, counted: Counted) -> bool:
        settled = await self._looked(counted)
        if settled:
            counted.told_ready = True
        if counted.told_ready and counted.wanted > 0:
            self._is_missed(counted)
        return settled

    def _is_missed(self, counted: Counted) -> None:
        """Tell of a master that does not get the workers it was told to have, those of a surplus included."""
        chart, now = self._charts[counted.id], time.monotonic()
        ready, told = serving(counted, self._members), max(_total(counted), counted.target)
        since = chart.short_since = None if ready >= told else chart.short_since or now
        if since is not None:
            self._is_ailing(chart, counted, short_of_workers(ready, told, since, chart.patience_seconds, now))

    async def _looked(self, counted: Counted) -> bool:
        if self._busy(counted):
            return False
        counted.asked_at, wanted = self._loop.time(), _total(counted)
        path = f"{counted.private_dir}/{CONTROL_SOCKET}"
        try:
            workers = await ask_workers(path, counted.pid)
            aim = _aim(workers, wanted)
            if workers.target != aim:
                await correct(path, counted.pid, workers.target, aim)
        except ControlError:
            return self._look_from_outside(counted)
        self._charts[counted.id].silent_since = None
        counted.target = aim
        if counted.wanted == AS_IT_IS:
            counted.wanted = counted.target
        return self._count(counted, workers)

    def _busy(self, counted: Counted) -> bool:
        """Whether the files show that the master still has to fork or its workers to boot; what they show is told."""
        shown = heartbeats(counted.pid)
        if shown is None or counted.target != _total(counted):
            return False
        total, booted = shown
        if total == booted == _total(counted) or self._loop.time() - counted.asked_at > ASK_AT_LEAST_SECONDS:
            return False
        self._report(counted, total, booted)
        return True

    def _count(self, counted: Counted, workers: Workers) -> bool:
        live = {pid for pid in workers.pids if self._members.follow(counted.id, counted.pid, pid)}
        ready = len(live & workers.booted)
        self._report(counted, len(live), ready)
        return self._settled(counted, workers.target == _total(counted) == len(live) == ready)

    def _look_from_outside(self, counted: Counted) -> bool:
        """Count by the files, and move the master by signals, where its control socket has been silent for long."""
        chart, now = self._charts[counted.id], time.monotonic()
        chart.silent_since = chart.silent_since if chart.silent_since is not None else now
        has_socket = "--control-socket" in counted.launch.argv
        shown = heartbeats(counted.pid)
        if shown is None or (has_socket and now - chart.silent_since < SILENT_SECONDS):
            return False
        total, booted = shown
        if counted.wanted == AS_IT_IS and total > 0:  # no master is to have none
            counted.wanted = total
        counted.target = max(_total(counted), total)
        live = {pid for pid in workers_of(counted.pid) if self._members.follow(counted.id, counted.pid, pid)}
        self._report(counted, len(live), min(booted, len(live)))
        if total == booted:
            grace = counted.launch.fitness.grace_seconds
            chart.nudge = nudge(counted.pid, total, _total(counted), chart.nudge, grace)
        return self._settled(counted, total == booted == len(live) == _total(counted))

    def _settled(self, counted: Counted, settled: bool) -> bool:  # noqa: FBT001  the answer, passed on
        if settled:
            self._ready(counted.id)
        return settled

    def _worker_ended(self, process_id: str, pid: int, ended: Exit) -> None:
        super()._worker_ended(process_id, pid, ended)
        chart, counted = self._charts.get(process_id), self._processes.get(process_id)
        if chart is None or counted is None or not _is_crash(ended):
            return
        now = time.monotonic()
        chart.crashes.append(now)
        if counted.told_ready:
            self._is_ailing(chart, counted, crashing(chart.crashes, counted.wanted, now))

    def _is_ailing(self, chart: _Chart, counted: Counted, why: str) -> None:
        """Say it once: what follows is the plan's business."""
        if why and not chart.ailing:
            chart.ailing = True
            self._emit(Ailing(counted.id, why))


def _total(counted: Counted) -> int:
    """How many workers the master is to have, with the one that is there while another is replaced."""
    return counted.wanted if counted.wanted == AS_IT_IS else counted.wanted + counted.extra


def _aim(workers: Workers, wanted: int) -> int:
    """The target to move a master to now.

    Those that it ends for a lower one are its oldest.  With 4 that serve and 2 that still import, a target of 4 would
    end 2 of the 4; of 5 that serve 1 may go.  One that was told to end counts until it has: it is among the oldest.
    """
    if wanted == AS_IT_IS:
        return workers.target
    not_yet = max(workers.target, len(workers.pids)) - len(workers.booted)
    return max(wanted, min(workers.target, wanted + not_yet))


def _is_crash(ended: Exit) -> bool:
    """Neither asked for nor recycled; where the kernel does not tell, nothing is said against it."""
    return ended.code not in (None, 0) or ended.signal not in (None, 15)


def _changed(counted: Counted) -> str:
    """What changed on disk since a master imported its code; a preloaded one forks what it has in memory."""
    return "" if "--preload" in counted.launch.argv else changed_code(counted.launch.cwd, counted.pid)


def heartbeats(master: int) -> tuple[int, int] | None:
    """How many workers a master has, and how many of them have booted, by their heartbeat files (gunicorn >= 22.0,
    gunicorn/workers/workertmp.py); None where they cannot be seen.
    """
    directory = f"/proc/{master}/fd"
    total = booted = 0
    try:
        for fd in os.listdir(directory):
            try:
                if "/wgunicorn-" in os.readlink(f"{directory}/{fd}"):
                    total += 1
                    booted += os.stat(f"{directory}/{fd}").st_mtime < _LONG_AGO
            except FileNotFoundError:  # closed in between
                continue
    except OSError:
        return None
    return total, booted
