"""Cures for the workers of one gunicorn master, one at a time and never below the number that is wanted.

    somebody is not fit  ->  one worker more  ->  it is ready  ->  the unfit one is told to end (TERM, then KILL)
                         ->  gunicorn makes up for it  ->  back to the number that is wanted

gunicorn ends its oldest worker when it is to have one less; so when the unfit one is the oldest, going back to the
number comes first, and ends it: told to end before that, it would be made up for, and the next oldest would go.  A
stuck one's stacks are written to the pool's log before it goes, by a signal that our agent handles in it, and only if
it does handle it: else that signal would be its end.

What a worker boots is what lies on disk by now.  If that changed since the master started, and the master has not
imported it itself, no worker is added: the whole process is reported as ailing, so that another one has to show first
that the new code works.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from supervisor_d.core.events import Ailing, Remarked
from supervisor_d.core.fitness import Cure, cure
from supervisor_d.core.requests import WorkerFacts
from supervisor_d.core.spec import Fitness
from supervisor_d.runtime.drivers.counting import Counted, serving
from supervisor_d.runtime.drivers.gunicorn_scoreboard import read_board
from supervisor_d.runtime.drivers.members import Members
from supervisor_d.runtime.host import Emit
from supervisor_d.runtime.proc import catches, proportional_memory, started_at

REQUEST_CHECK_SECONDS = 1.0
CHECK_SECONDS = 5.0
MEMORY_SECONDS = 10.0
RETRY_SECONDS = 30.0
LOOK_SECONDS = 0.05
KILL_SECONDS = 10.0
STACKS_SIGNAL = signal.SIGRTMIN + 6
"""As in our agent: every thread's stack to the log."""


@dataclass(frozen=True, slots=True)
class Ward:
    """A master and how it is to be looked after."""

    counted: Counted
    limits: Fitness
    patience_seconds: float
    changed: Callable[[], str]
    """What changed on disk since the master imported it; empty when nothing did."""


class Carer:
    """Looks after the workers of one master until it is cancelled."""

    def __init__(self, ward: Ward, members: Members, emit: Emit) -> None:
        self._ward = ward
        self._counted = ward.counted
        self._members = members
        self._emit = emit
        self._memory: dict[int, int] = {}
        self._memory_at = float("-inf")

    async def care(self) -> None:
        """Look for the unfit for ever."""
        limits = self._ward.limits
        pause = CHECK_SECONDS if limits.request_seconds is None else REQUEST_CHECK_SECONDS
        while True:
            await asyncio.sleep(pause)
            if self._counted.wanted < 1 or self._serving() < self._counted.wanted:
                continue  # it has enough to do with what it misses
            unfit = cure(await self._facts(), limits, time.monotonic())
            if unfit is not None and not await self._replace(unfit):
                await asyncio.sleep(RETRY_SECONDS)

    async def _facts(self) -> tuple[WorkerFacts, ...]:
        pids = self._members.pids(self._counted.id)
        if self._ward.limits.memory_bytes is not None and time.monotonic() - self._memory_at >= MEMORY_SECONDS:
            self._memory = await asyncio.to_thread(_memory_of, pids)
            self._memory_at = time.monotonic()
        told = read_board(self._counted.private_dir)
        by_pid = {worker.pid: worker for worker in told.workers} if told else {}
        known = (by_pid.get(pid) or _stranger(pid) for pid in sorted(pids))
        return tuple(replace(worker, pss_bytes=self._memory.get(worker.pid)) for worker in known)

    async def _replace(self, unfit: Cure) -> bool:
        """Cure it; whether that came to an end that needs no pause."""
        changed = await asyncio.to_thread(self._ward.changed)
        if changed:
            self._emit(Ailing(self._counted.id, f"its worker {unfit.pid}: {unfit.reason}; and {changed}"))
            return False
        self._remark(f"its worker {unfit.pid} is replaced: {unfit.reason}")
        try:
            if not await self._one_more():
                self._remark(f"its worker {unfit.pid} stays, for no other one became ready: {unfit.reason}")
                return False
            if unfit.stuck and catches(unfit.pid, STACKS_SIGNAL):
                self._members.signal(self._counted.id, unfit.pid, STACKS_SIGNAL)
            oldest = self._is_oldest(unfit.pid)
            if not oldest:
                await self._end(unfit)
                await self._one_more()
        finally:
            self._want(0)
        if oldest:
            await self._until(lambda: self._is_told(unfit.pid), self._grace_seconds)
            await self._end(unfit)
        self._remark("")
        return True

    async def _one_more(self) -> bool:
        """Whether there is one ready worker more than is wanted, in the time that a start may take."""
        self._want(1)
        return await self._until(lambda: self._serving() > self._counted.wanted, self._ward.patience_seconds)

    def _serving(self) -> int:
        """How many are ready; a master that is told to have one less before it reaped one would end another one."""
        return serving(self._counted, self._members)

    @property
    def _grace_seconds(self) -> float:
        return self._ward.limits.grace_seconds + 1

    def _is_told(self, pid: int) -> bool:
        """Whether the master was told to have one less, which ends its oldest worker, or that one is gone already."""
        return self._counted.target <= self._counted.wanted or pid not in self._members.pids(self._counted.id)

    async def _end(self, unfit: Cure) -> None:
        """Have the worker end: told gracefully, and killed when it does not.

        Its master may have told it too, once more does no harm; or never, if another worker died just then.
        """
        grace = self._grace_seconds
        self._members.signal(self._counted.id, unfit.pid, signal.SIGTERM)
        if await self._gone(unfit.pid, grace):
            return
        self._remark(f"its worker {unfit.pid} is killed, {grace:g} s after it was told to end: {unfit.reason}")
        self._members.signal(self._counted.id, unfit.pid, signal.SIGKILL)
        await self._gone(unfit.pid, KILL_SECONDS)

    async def _gone(self, pid: int, seconds: float) -> bool:
        return await self._until(lambda: pid not in self._members.pids(self._counted.id), seconds)

    async def _until(self, true: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _is_oldest(self, pid: int) -> bool:
        """Whether it is the one that gunicorn ends when it is to have one less; in doubt it is not."""
        told = read_board(self._counted.private_dir)
        pids = self._members.pids(self._counted.id)
        ages = {worker.pid: worker.age for worker in told.workers} if told else {}
        return ages.keys() >= pids and min(pids, key=lambda each: ages[each], default=-1) == pid

    def _want(self, extra: int) -> None:
        self._counted.extra = extra
        self._counted.disturbed.set()

    def _remark(self, text: str) -> None:
        self._emit(Remarked(self._counted.id, text))


def _stranger(pid: int) -> WorkerFacts:
    """A worker of which only the kernel tells."""
    return WorkerFacts(pid, 0, ready=True, began_at=started_at(pid) or time.monotonic(), in_flight=0)


def _memory_of(pids: frozenset[int]) -> dict[int, int]:
    measured = {pid: proportional_memory(pid) for pid in pids}
    return {pid: memory for pid, memory in measured.items() if memory is not None}
