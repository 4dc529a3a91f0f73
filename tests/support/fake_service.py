"""A Service that does nothing but remember, and a server for it on a real socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from supervisor_d.api.access import AccessRules
from supervisor_d.api.client import Client
from supervisor_d.api.guard import ConnectionLimits
from supervisor_d.api.server import ControlServer
from supervisor_d.api.service import Caller
from supervisor_d.api.wire import OperateRequest, Outcome, PoolChange, PoolOutcome, UpgradeAnswer
from supervisor_d.core.snapshot import (
    DaemonView,
    Entry,
    PoolView,
    ProcessView,
    RolloutView,
    SlotView,
    Snapshot,
    Usage,
)

T = TypeVar("T")
AT = 2_000_000_000.0


def process_view(pool: str = "web", slot: int = 0, **changes: object) -> ProcessView:
    view = ProcessView(
        id=f"{pool}.{slot}@g3.{slot + 10}",
        pool=pool,
        slot=slot,
        generation=3,
        state="ready",
        pid=4711 + slot,
        workers=2,
        workers_live=2,
        workers_ready=2,
        started_at=AT - 3725,
        ready_at=AT - 3720,
        reason="the pool wants it",
        stop_reason="",
        exit="",
        adopted=False,
        usage=Usage(cpu_seconds=62.4, rss_bytes=123 * 2**20, open_fds=12, threads=3, processes=3),
    )
    return replace(view, **changes)  # type: ignore[arg-type]


def pool_view(name: str = "web", **changes: object) -> PoolView:
    view = PoolView(
        name=name,
        program="gunicorn",
        state="running",
        detail="1 of 1 ready",
        generation=3,
        workers_desired=2,
        workers_live=2,
        workers_ready=2,
        workers_from="config",
        after=(),
        listeners=("127.0.0.1:8000",) if name == "web" else (),
        processes=(process_view(name),),
        slots=(),
        restarts_total={},
        exits_total={},
        worker_exits_total={},
    )
    return replace(view, **changes)  # type: ignore[arg-type]


def snapshot_of(*pools: PoolView) -> Snapshot:
    daemon = DaemonView(
        version="9.9.9",
        pid=77,
        state="running",
        started_at=AT - 90_000,
        config_path="/etc/supervisor-d/supervisor-d.yaml",
        config_digest="d1",
        runtime_dir="/run/supervisor-d",
        loop_lag_seconds=0.0,
        plan_seconds_total=0.1,
        plans_total=5,
        events_total=9,
        adopted_total=0,
        adoption_seconds=0.0,
        log_dropped_bytes_total=0,
    )
    return Snapshot(AT, daemon, pools)


def shop_snapshot() -> Snapshot:
    """One pool of each kind of trouble."""
    worker = pool_view(
        "worker",
        program="celery",
        state="degraded",
        detail="worker.1 restarts in 12.0 s: exit code 1",
        workers_desired=4,
        workers_from="operator",
        slots=(SlotView(1, 3, 4, 12.0, "", "exit code 1"),),
        rollout=RolloutView(3, 4, "rolled-back", "the canary did not answer", AT - 60, AT - 30),
    )
    gone = pool_view(
        "beat",
        program="celery-beat",
        state="failed",
        detail="beat.0 failed: more than 10 restarts within 120 s",
        workers_desired=1,
        workers_live=0,
        workers_ready=0,
        processes=(process_view("beat", state="stopping", stop_reason="stopped by alice", usage=None, pid=None),),
        slots=(SlotView(0, 3, 11, 0.0, "more than 10 restarts within 120 s", "signal 9"),),
    )
    return snapshot_of(pool_view(), worker, gone)


def entry(serial: int, pool: str = "web", subject: str = "", name: str = "became-ready") -> Entry:
    return Entry(serial, AT + serial, "event", name, pool, subject or f"{pool}.0@g3.10", f"reason {serial}")


@dataclass(eq=False)
class FakeFollowing:
    wake: Callable[[], None]
    waiting: deque[Entry] = field(default_factory=lambda: deque(maxlen=100))
    dropped: int = 0

    def take(self) -> list[Entry]:
        taken = list(self.waiting)
        self.waiting.clear()
        return taken


class FakeService:
    """Remembers what it was asked; answers what the test put there."""

    def __init__(self, log_dir: Path) -> None:
        self.picture = shop_snapshot()
        self.journal: list[Entry] = []
        self.followers: list[FakeFollowing] = []
        self.asked: list[tuple[str, str, object]] = []
        self.callers: list[Caller] = []
        self.outcome = Outcome(ok=True, message="done", pools=(PoolOutcome("web", ok=True, verdict="running"),))
        self.refuses: Exception | None = None
        self.gate: asyncio.Event | None = None
        """Operations wait for it, when there is one."""
        self.finished: list[str] = []
        self.log_dirs: dict[str, str] = {"web": str(log_dir), "worker": str(log_dir), "beat": str(log_dir)}

    def tell(self, *entries: Entry) -> None:
        """Journal entries; from the server's thread."""
        self.journal += entries
        for follower in self.followers:
            room = follower.waiting.maxlen or 0
            follower.dropped += max(0, len(follower.waiting) + len(entries) - room)
            follower.waiting.extend(entries)
            follower.wake()

    async def sampled(self) -> None:
        return None

    def snapshot(self) -> Snapshot:
        if self.refuses is not None:
            raise self.refuses
        return self.picture

    def entries(self, *, after: int = 0, pool: str = "", subject: str = "", limit: int = 100) -> tuple[Entry, ...]:
        found = [e for e in self.journal if e.serial > after and (not pool or e.pool == pool)]
        found = [e for e in found if not subject or e.subject == subject or e.subject.startswith(f"{subject}@")]
        return tuple(found[-limit:])

    @contextmanager
    def follow(self, wake: Callable[[], None]) -> Iterator[FakeFollowing]:
        follower = FakeFollowing(wake)
        self.followers.append(follower)
        try:
            yield follower
        finally:
            self.followers.remove(follower)

    def log_directories(self) -> Mapping[str, str]:
        return self.log_dirs

    async def diff(self) -> Outcome:
        if self.refuses is not None:
            raise self.refuses
        changes = (PoolChange("web", "roll", ("threads",), "no capacity dip"), PoolChange("worker", "keep"))
        return Outcome(ok=True, message="nothing was changed", changes=changes)

    async def reload(self, caller: Caller, wait_seconds: float) -> Outcome:
        return await self._operate("reload", caller, wait_seconds)

    async def scale(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._operate("scale", caller, request)

    async def start(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._operate("start", caller, request)

    async def stop(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._operate("stop", caller, request)

    async def restart(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._operate("restart", caller, request)

    async def deploy(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._operate("deploy", caller, request)

    async def rollback(self, caller: Caller, request: OperateRequest) -> Outcome:
        return await self._operate("rollback", caller, request)

    async def upgrade(self, caller: Caller, python: str) -> UpgradeAnswer:
        self.asked.append(("upgrade", str(caller), python))
        self.callers.append(caller)
        if self.refuses is not None:
            raise self.refuses
        return UpgradeAnswer("1.0", "2.0", 4711, 3, 0)

    def hand_over(self) -> None:
        self.finished.append("hand-over")

    def shutdown(self, caller: Caller) -> None:
        self.asked.append(("shutdown", str(caller), None))

    async def _operate(self, name: str, caller: Caller, request: object) -> Outcome:
        self.asked.append((name, str(caller), request))
        self.callers.append(caller)
        if self.refuses is not None:
            raise self.refuses
        if self.gate is not None:
            await self.gate.wait()
        self.finished.append(name)
        return self.outcome


class Served:
    """A FakeService behind a real control socket."""

    def __init__(self, service: FakeService, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.path = path
        self.loop = loop
        self.client = Client(str(path))

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in the server's thread."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)


@contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def served(
    directory: Path, rules: AccessRules | None = None, limits: ConnectionLimits | None = None
) -> Iterator[Served]:
    """A FakeService served at `directory`/control/control.sock."""
    path = directory / "control" / "control.sock"
    with looping() as loop:
        service = FakeService(directory)
        server = ControlServer(service, rules or AccessRules(os.geteuid()), limits)
        asyncio.run_coroutine_threadsafe(server.start(path), loop).result(10)
        try:
            yield Served(service, path, loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
