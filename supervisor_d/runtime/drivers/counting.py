"""What the drivers of programs with workers share: one task for each process, which looks until all is settled.

    started -> look, wait 20 ms, look, ... 100 ms ... -> settled -> sleep until disturbed (a worker ended, a new size)

A settled process costs nothing: no timer, no poll.  An unsettled one is looked at ever more rarely, at last once a
second, since some never settle: a worker that hangs while it imports, a master that is told to stop.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from supervisor_d.core.events import StepDone, WorkerExited, WorkersReported
from supervisor_d.core.process import Exit, Process
from supervisor_d.core.spec import Launch
from supervisor_d.runtime import tasks
from supervisor_d.runtime.drivers.base import DriverReady
from supervisor_d.runtime.drivers.members import Members
from supervisor_d.runtime.host import Emit

FIRST_DELAY_SECONDS = 0.02
SOON_DELAY_SECONDS = 0.1
LATE_DELAY_SECONDS = 1.0
LATE_AFTER_SECONDS = 10.0


@dataclass(slots=True)
class Counted:
    """One process and what its driver knows of its workers."""

    id: str
    pid: int
    wanted: int
    launch: Launch
    private_dir: str
    live: int = -1
    ready: int = -1
    told_ready: bool = False
    """The program itself (its agent) said that it may serve."""
    target: int = -1
    """How many workers the program itself was last told to have."""
    extra: int = 0
    """Workers wanted beside `wanted`, for as long as one of those is being replaced."""
    asked_at: float = 0.0
    """When the program was last asked something (loop time)."""
    disturbed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


def serving(counted: Counted, members: Members) -> int:
    """How many workers are ready.  One that has ended is in the count until its main process reaps it."""
    return min(counted.ready, len(members.pids(counted.id)))


class CountingDriver(ABC):
    """Keeps the counts of workers true; a subclass knows how to look."""

    def __init__(self, emit: Emit, ready: DriverReady) -> None:
        self._emit = emit
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._members = Members(self._worker_ended, self._worker_unreaped)
        self._processes: dict[str, Counted] = {}

    def started(self, process: Process, launch: Launch, private_dir: str) -> None:
        """Look after a process from now on."""
        if process.pid is None or process.id in self._processes:
            return
        counted = Counted(process.id, process.pid, self._wanted(process), launch, private_dir)
        counted.target, counted.told_ready = process.workers, process.ready_at is not None
        self._processes[process.id] = counted
        counted.task = tasks.begin(self._attend(counted), f"workers of {process.id}")

    def scale(self, process_id: str, workers: int) -> None:
        """Want another number of workers; counts are told as they come true, and anew where they are true already."""
        counted = self._processes.get(process_id)
        if counted is not None:
            counted.wanted = workers
            counted.live = counted.ready = -1
            counted.disturbed.set()

    def step(self, process_id: str, word: str, step: int) -> None:
        """Nothing that a signal could not do; a subclass may know better."""
        self._emit(StepDone(process_id, step))

    def stopping(self, process_id: str) -> None:  # noqa: B027  most drivers have nothing to do
        """Nobody knows what work is left; a subclass may."""

    def stacks(self, process_id: str) -> None:  # noqa: B027  most drivers have nothing to do
        """Nobody knows how to; a subclass may."""

    def cut_off(self, process_id: str) -> None:  # noqa: B027  most drivers have nothing to do
        """Counting needs no agent."""

    def ended(self, process_id: str) -> None:
        """Look after a process no more."""
        counted = self._processes.pop(process_id, None)
        if counted is not None and counted.task is not None:
            counted.task.cancel()
        self._members.drop(process_id)

    def close(self) -> None:
        """Let everything go."""
        for process_id in tuple(self._processes):
            self.ended(process_id)
        self._members.close()

    def _wanted(self, process: Process) -> int:
        """How many workers a process should have until `scale` says another number."""
        return process.workers

    @abstractmethod
    async def _look(self, counted: Counted) -> bool:
        """Count the workers, report them, correct what is wrong; whether all is as wanted."""

    async def _attend(self, counted: Counted) -> None:
        while True:
            counted.disturbed.clear()
            await self._settle(counted)
            await counted.disturbed.wait()

    async def _settle(self, counted: Counted) -> None:
        """Look until all is as wanted; a disturbance makes the looks frequent again."""
        delay = FIRST_DELAY_SECONDS
        began = self._loop.time()
        while not await self._look(counted):
            try:
                async with asyncio.timeout(delay):
                    await counted.disturbed.wait()
                counted.disturbed.clear()
                delay, began = FIRST_DELAY_SECONDS, self._loop.time()
            except TimeoutError:
                late = self._loop.time() - began > LATE_AFTER_SECONDS
                delay = min(delay * 1.5, LATE_DELAY_SECONDS if late else SOON_DELAY_SECONDS)

    def _report(self, counted: Counted, live: int, ready: int) -> None:
        if (live, ready) != (counted.live, counted.ready):
            counted.live, counted.ready = live, ready
            self._emit(WorkersReported(counted.id, live, ready))

    def _worker_unreaped(self, process_id: str) -> None:
        """Look for yourself, in a moment: a main process that never waits for its worker does not tell of its end."""
        self._loop.call_later(LATE_DELAY_SECONDS, self._processes[process_id].disturbed.set)

    def _worker_ended(self, process_id: str, pid: int, ended: Exit) -> None:
        counted = self._processes[process_id]
        self._emit(WorkerExited(process_id, pid, ended))
        live = len(self._members.pids(process_id))
        # One that was counted may have served, and the next look says so if it did not; else nothing changes.
        ready = counted.ready - 1 if live < counted.live else counted.ready
        self._report(counted, live, min(max(ready, 0), live))
        # The program needs a moment to replace it: looking sooner would only be in its way.
        self._loop.call_later(FIRST_DELAY_SECONDS, counted.disturbed.set)
