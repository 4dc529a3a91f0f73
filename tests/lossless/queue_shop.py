"""Celery under a daemon, with its broker as another pool, and a Redis for the tasks' own records beside them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from tests.lossless.judge import SERVER, Broker, Records, Verdict, judge
from tests.lossless.task_load import TaskLoad
from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

SECONDS = 90.0
"""How long an operation of the daemon, or the end of the work, may take here, on a busy machine."""
QUIET_SECONDS = 10.0
"""No task notes anything for so long, and none waits in its queue: what has not finished never will."""
EMPTY_SECONDS = 0.5
"""The broker holds nothing, and no task has noted anything for so long: whether all have finished can be judged."""

APP = """
import os, time
import redis
from celery import Celery

def setting(name):
    return os.environ.get(name) == "1"

records = redis.Redis(port=int(os.environ["RECORDS_PORT"]))
app = Celery("queue", broker=f"redis://127.0.0.1:{os.environ['BROKER_PORT']}/0")
app.conf.update(
    task_acks_late=setting("LATE"),
    task_reject_on_worker_lost=setting("LATE"),
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "socket_timeout": 5, "socket_connect_timeout": 5, "socket_keepalive": True, "health_check_interval": 5,
    },
)

def note(word, task):
    records.rpush("notes", f"{word} {task.request.id} {os.getpid()} {time.monotonic()}")

@app.task(name="work", bind=True)
def work(self, seconds):
    note("started", self)
    time.sleep(seconds)
    note("finished", self)

@app.task(name="stubborn", bind=True)
def stubborn(self, seconds):
    note("started", self)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            note("ignored", self)
    note("finished", self)
"""


class QueueShop(Daemon):
    """The pools `redis` and `queue`, and the truth about every task."""

    def __init__(self, *, late: bool = True, redis_port: int = 0, broker_port: int = 0, **keys: Any) -> None:
        """`redis_port` is where the broker listens, `broker_port` where the workers look for it, if that differs;
        `keys` are more of the pool's."""
        super().__init__()
        self.redis_port = redis_port or net.free_ports(1)[0]
        self.records = Records(self.directory / "records")
        self.broker = Broker(self.redis_port)
        self._late = late
        self._broker_port = broker_port or self.redis_port
        self._keys = keys
        self._releases = 0
        self._stack = ExitStack()
        self.release()
        self.configure(self.pools())

    def release(self, fault: str = "") -> None:
        """Make a release and set the link `current` to it."""
        self._releases += 1
        directory = self.work / f"r{self._releases}"
        directory.mkdir()
        (directory / "queue_app.py").write_text(fault + APP)
        self.point_to(directory.name)

    def point_to(self, name: str) -> None:
        """Set the link to a release that exists."""
        new = self.work / "next"
        new.unlink(missing_ok=True)
        new.symlink_to(name)
        new.rename(self.work / "current")

    def pools(self, **more: Any) -> Mapping[str, Mapping[str, Any]]:
        """The config."""
        server = [sys.executable, str(SERVER), "--port", str(self.redis_port)]
        ports = {"BROKER_PORT": str(self._broker_port), "RECORDS_PORT": str(self.records.port)}
        queue = {
            "program": "celery",
            "app": "queue_app",
            "cwd": str(self.work / "current"),
            "workers": 4,
            "concurrency": 2,
            "env": {**ports, "LATE": "1" if self._late else "0"},
            "after": ["redis"],
        }
        return {
            "redis": {
                "program": "command",
                "command": [*server, "--dir", str(self.work)],
                "ready": {"exec": [*server, "--ping"]},
                "restart": {"stable": "100ms", "limit": 1000},
            },
            "queue": {**queue, **self._keys, **more},
        }

    def __enter__(self) -> Self:
        self._stack.enter_context(self.records)
        try:
            super().__enter__()
            self.wait_running("redis", "queue", seconds=SECONDS)
        except BaseException:
            self._stack.close()
            self.clear()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            super().__exit__(kind, error, _)
        finally:
            self._stack.close()

    def load(self, **words: Any) -> TaskLoad:
        """Tasks, sent to the broker itself."""
        return TaskLoad(self.redis_port, **words)

    def mains(self) -> list[int]:
        """The main pids of all nodes."""
        return list(self.pids("queue").values())

    def children_by_main(self) -> list[set[int]]:
        """The pids of each node's pool processes."""
        return [set(procs.children(main)) for main in self.mains()]

    def pool_processes(self) -> list[int]:
        """The pids of all pool processes, of all nodes."""
        return [child for children in self.children_by_main() for child in children]

    def settle(self, load: TaskLoad, seconds: float = SECONDS) -> Verdict:
        """The verdict, once the load has ended and every task has finished, or nothing has happened for long."""
        load.end()
        seen = (-1, time.monotonic())

        def settled() -> Verdict | None:
            nonlocal seen
            length, (queued, unacked) = self.records.length(), self.broker.lengths()
            if length != seen[0]:
                seen = (length, time.monotonic())
            quiet_seconds = time.monotonic() - seen[1]
            if queued or quiet_seconds < (QUIET_SECONDS if unacked else EMPTY_SECONDS):
                return None
            verdict = judge(load.told, self.records.notes(), self.broker.held())
            return verdict if verdict.finished == verdict.sent or quiet_seconds > QUIET_SECONDS else None

        found = wait_for(settled, seconds, "every task to have finished")
        assert found is not None
        return found
