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
"""

from __future__ import annotations

import os

from supervisor_d.core.process import Process
from supervisor_d.programs.gunicorn import CONTROL_SOCKET
from supervisor_d.runtime.drivers.counting import Counted, CountingDriver
from supervisor_d.runtime.drivers.gunicorn_control import ControlError, Workers, ask_workers, correct

ASK_AT_LEAST_SECONDS = 1.0
"""How long files that do not show what is wanted keep an unsettled master from being asked."""

AS_IT_IS = -1
"""Wanted of an adopted master: the record tells what it was started with, and it may have been scaled since."""

_LONG_AGO = 1e9
"""Seconds that no monotonic clock reaches and the wall clock passed in 2001."""


class GunicornDriver(CountingDriver):
    """Looks after gunicorn masters."""

    def told(self, process_id: str, text: str) -> None:
        """No agent of ours is loaded into gunicorn."""

    def _wanted(self, process: Process) -> int:
        if process.scale_asked is not None:
            return process.scale_asked
        return AS_IT_IS if process.adopted else process.workers

    async def _look(self, counted: Counted) -> bool:
        if self._busy(counted):
            return False
        counted.asked_at, wanted = self._loop.time(), counted.wanted
        path = f"{counted.private_dir}/{CONTROL_SOCKET}"
        try:
            workers = await ask_workers(path, counted.pid)
            if workers.target != wanted and wanted > 0:
                await correct(path, counted.pid, workers.target, wanted)
        except ControlError:
            return False
        counted.target = workers.target if wanted == AS_IT_IS else wanted
        if counted.wanted == AS_IT_IS:
            counted.wanted = counted.target
        return self._count(counted, workers)

    def _busy(self, counted: Counted) -> bool:
        """Whether the files show that the master still has to fork or its workers to boot; what they show is told."""
        shown = heartbeats(counted.pid)
        if shown is None or counted.target != counted.wanted:
            return False
        total, booted = shown
        if total == booted == counted.wanted or self._loop.time() - counted.asked_at > ASK_AT_LEAST_SECONDS:
            return False
        self._report(counted, total, booted)
        return True

    def _count(self, counted: Counted, workers: Workers) -> bool:
        live = {pid for pid in workers.pids if self._members.follow(counted.id, counted.pid, pid)}
        ready = len(live & workers.booted)
        self._report(counted, len(live), ready)
        settled = workers.target == counted.wanted == len(live) == ready
        if settled:
            self._ready(counted.id)
        return settled


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
