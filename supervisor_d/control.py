"""The daemon as its API sees it: `api.service.Service` over the runtime."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from supervisor_d import __version__
from supervisor_d.api.service import Caller
from supervisor_d.api.wire import OperateRequest, Outcome, UpgradeAnswer
from supervisor_d.core.intent import PoolIntent
from supervisor_d.core.journal import Note
from supervisor_d.core.memory import why_short
from supervisor_d.core.snapshot import DaemonView, Entry, Serving, Snapshot, TasksNow, Traffic, Usage, Work
from supervisor_d.core.view import Sources, snapshot
from supervisor_d.errors import NotPermittedError, UnknownNameError
from supervisor_d.runtime.attendants import Attendants
from supervisor_d.runtime.cgroups import own_cgroup
from supervisor_d.runtime.deploying import may_go_one_by_one
from supervisor_d.runtime.journal import Journal, Subscription
from supervisor_d.runtime.linux import LinuxHost
from supervisor_d.runtime.listeners import Listeners
from supervisor_d.runtime.memory import available_bytes
from supervisor_d.runtime.operations import Operations
from supervisor_d.runtime.places import Places
from supervisor_d.runtime.samples import Sampler
from supervisor_d.runtime.succession import Succession
from supervisor_d.runtime.supervisor import Supervisor
from supervisor_d.runtime.tasks import begin

FRESH_SECONDS = 1.0
STALE_SECONDS = 15.0


@dataclass(slots=True)
class Figures:
    """What the daemon knows of itself and no other module does."""

    started_at: float
    config_path: str
    config_digest: str
    adopted_total: int = 0
    adoption_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The runtime's parts that the API shows or steers."""

    supervisor: Supervisor
    operations: Operations
    host: LinuxHost
    journal: Journal
    listeners: Listeners
    sampler: Sampler
    places: Places
    figures: Figures
    succession: Succession
    attendants: Attendants


@dataclass(frozen=True, slots=True)
class Served:
    """Figures of requests and of tasks, by process and by pool, and the queues of listeners by pool."""

    serving: Mapping[str, Serving]
    traffic: Mapping[str, Traffic]
    tasks: Mapping[str, TasksNow]
    work: Mapping[str, Work]
    backlogs: Mapping[str, int]


class Control:
    """Implements Service."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._usages: Mapping[str, Usage] = {}
        self._sampled_at = float("-inf")
        self._served = Served({}, {}, {}, {}, {})
        self._served_at = float("-inf")
        self._sampling: asyncio.Task[None] | None = None
        self._handing_over: asyncio.Task[None] | None = None

    async def sampled(self, *, within_seconds: float = STALE_SECONDS) -> None:
        """Return once usages are not older than `within_seconds`; older than a second, they are refreshed behind."""
        age = time.monotonic() - self._sampled_at
        if age > FRESH_SECONDS and (self._sampling is None or self._sampling.done()):
            self._sampling = asyncio.create_task(self._sample())
        if age > within_seconds and self._sampling is not None:
            await asyncio.shield(self._sampling)

    async def _sample(self) -> None:
        pids = {p.id: p.pid for p in self._parts.supervisor.observed.processes() if p.pid is not None and not p.ended}
        self._usages = await self._parts.sampler.sample(pids)
        self._sampled_at = time.monotonic()

    async def short_of_memory(self, rolling: Mapping[str, PoolIntent]) -> Mapping[str, str]:
        """Why there is no memory for two generations of a pool, of those of which that is so (core/memory.py)."""
        asked = [name for name, pool in rolling.items() if may_go_one_by_one(pool)]
        if asked:
            await self.sampled(within_seconds=FRESH_SECONDS)
        available = available_bytes(own_cgroup()) if asked else 0
        used = {name: self._used_bytes(name) for name in asked}
        return {name: why for name in asked if (why := why_short(used[name], available))}

    def _used_bytes(self, pool: str) -> int:
        serving = self._parts.supervisor.observed.pool(pool).serving
        usages = [self._usages[process.id] for process in serving if process.id in self._usages]
        return sum(usage.rss_bytes if usage.pss_bytes is None else usage.pss_bytes for usage in usages)

    def _served_now(self) -> Served:
        """Read when somebody looks, and at most once a second: some tens of microseconds for each process."""
        if time.monotonic() - self._served_at > FRESH_SECONDS:
            self._served_at = time.monotonic()
            figures, listeners = self._parts.attendants.figures(), self._parts.listeners
            waiting = {name: listeners.waiting(name) for name in self._parts.supervisor.intent.pools}
            backlogs = {name: length for name, length in waiting.items() if length is not None}
            tasks = self._parts.attendants.work()
            self._served = Served(figures.serving, figures.traffic, tasks.tasks, tasks.work, backlogs)
        return self._served

    def snapshot(self) -> Snapshot:
        parts, supervisor = self._parts, self._parts.supervisor
        served = self._served_now()
        now = parts.host.now()
        sources = Sources(
            intent=supervisor.intent,
            desired=supervisor.desired,
            observed=supervisor.observed,
            now=now,
            wall_offset_seconds=time.time() - now,
            usages=self._usages,
            listeners={name: parts.listeners.addresses(name) for name in supervisor.intent.pools},
            serving=served.serving,
            traffic=served.traffic,
            tasks=served.tasks,
            work=served.work,
            backlogs=served.backlogs,
        )
        return snapshot(self._daemon(), sources)

    def _daemon(self) -> DaemonView:
        parts, supervisor = self._parts, self._parts.supervisor
        return DaemonView(
            version=__version__,
            pid=os.getpid(),
            state="stopping" if supervisor.intent.stopping else "running",
            started_at=parts.figures.started_at,
            config_path=parts.figures.config_path,
            config_digest=parts.figures.config_digest,
            runtime_dir=str(parts.places.runtime_dir),
            loop_lag_seconds=supervisor.loop_lag_seconds,
            plan_seconds_total=supervisor.plan_seconds_total,
            plans_total=supervisor.plans_total,
            events_total=supervisor.events_total,
            adopted_total=parts.figures.adopted_total,
            adoption_seconds=parts.figures.adoption_seconds,
            log_dropped_bytes_total=parts.host.log_dropped_bytes_total,
        )

    def entries(self, *, after: int = 0, pool: str = "", subject: str = "", limit: int = 100) -> tuple[Entry, ...]:
        return self._parts.journal.entries(after=after, pool=pool, subject=subject, limit=limit)

    def follow(self, wake: Callable[[], None]) -> AbstractContextManager[Subscription]:
        return self._parts.journal.follow(wake)

    def log_directories(self) -> Mapping[str, str]:
        default = str(self._parts.places.log_dir)
        pools = self._parts.supervisor.intent.pools
        return {name: pool.wanted.spec.log.directory or default for name, pool in pools.items()}

    async def diff(self) -> Outcome:
        return await self._parts.operations.diff()

    async def reload(self, caller: Caller, wait_seconds: float) -> Outcome:
        return await self._parts.operations.reload(str(caller), wait_seconds)

    async def scale(self, caller: Caller, request: OperateRequest) -> Outcome:
        if len(request.pools) != 1:
            raise UnknownNameError("cannot scale: name one pool")
        operations = self._parts.operations
        return await operations.scale(str(caller), request.pools[0], request.workers, request.wait_seconds)

    async def start(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._parts.operations.start(str(caller), request.pools, request.wait_seconds)

    async def stop(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._parts.operations.stop(str(caller), request.pools, request.wait_seconds)

    async def restart(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._parts.operations.restart(str(caller), request.pools, request.wait_seconds)

    async def deploy(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._parts.operations.deploy(str(caller), request.pools, request.label, request.wait_seconds)

    async def rollback(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._parts.operations.rollback(str(caller), request.pools, request.wait_seconds)

    async def upgrade(self, caller: Caller, python: str) -> UpgradeAnswer:
        self._refuse_to_upgrade_while_stopping()
        self._parts.journal.record(Note("operator", "upgrade", "", "daemon", f"asked by {caller}"))
        before = self._parts.journal.entries(limit=1)[-1].serial
        proof = await self._parts.succession.prove(python)
        self._refuse_to_upgrade_while_stopping()
        return UpgradeAnswer(__version__, proof.version, os.getpid(), proof.records, before)

    def _refuse_to_upgrade_while_stopping(self) -> None:
        if stopping := self._parts.supervisor.intent.stopping:
            raise NotPermittedError(f"cannot upgrade: the daemon is stopping ({stopping})")

    def hand_over(self) -> None:
        supervisor, journal = self._parts.supervisor, self._parts.journal
        # Whoever asked is gone by now, and with it the request's own task.
        handing_over = self._parts.succession.hand_over(journal, lambda: supervisor.intent.stopping)
        self._handing_over = begin(handing_over, "hand-over")

    def shutdown(self, caller: Caller) -> None:
        self._parts.journal.record(Note("operator", "shutdown", "", "daemon", f"asked by {caller}"))
        self._parts.operations.shut_down(f"{caller} asked for the end")
