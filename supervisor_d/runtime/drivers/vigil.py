"""Looks at the heartbeats of workers every few seconds, and tells when one makes no progress (core/health.py).

One timer for all of them, and none while there is nobody to look at: a heartbeat is a file, read in a tenth of a
millisecond, and nobody is asked anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from supervisor_d.core import health
from supervisor_d.core.events import FoundStuck
from supervisor_d.runtime.drivers import heartbeat
from supervisor_d.runtime.drivers.heartbeat import Heartbeat
from supervisor_d.runtime.host import Emit

LOOK_SECONDS = 5.0


@dataclass(slots=True)
class _Watched:
    pid: int
    private_dir: str
    after_seconds: float
    watch: health.Watch = field(default_factory=health.Watch)


class Vigil:
    """The workers that are expected to make progress.  FoundStuck is emitted once for each that does not."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, process_id: str, pid: int, private_dir: str, after_seconds: float) -> None:
        """Expect progress of a process from now on; with 0 seconds never."""
        if after_seconds > 0 and process_id not in self._watched:
            self._watched[process_id] = _Watched(pid, private_dir, after_seconds)
            self._wait()

    def end(self, process_id: str) -> None:
        """Expect nothing of it any more."""
        self._watched.pop(process_id, None)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None and self._watched:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        for process_id, watched in tuple(self._watched.items()):
            beat = heartbeat.read(watched.private_dir, watched.pid)
            if beat is None:
                continue
            now = self._loop.time()
            watched.watch, why = health.look(watched.watch, vitals_of(beat), now, watched.after_seconds)
            if why:
                self.end(process_id)
                self._emit(FoundStuck(process_id, why))
        self._wait()


def vitals_of(beat: Heartbeat) -> health.Vitals:
    """What the rules need of a heartbeat."""
    return health.Vitals(
        at=beat.at,
        connected=beat.connected,
        consuming=beat.consuming and not beat.draining,
        can_consume=beat.can_consume,
        take_at=beat.take_at,
        take_waits=beat.take_waits,
        idle=max(0, beat.processes - beat.busy) if beat.idle is None else beat.idle,
        waiting=beat.waiting,
        started_total=beat.started_total,
    )
