"""The sample shop as `make run` runs it, with its data in a directory of the test's own."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from tests.support import net, procs
from tests.support.daemon import ROOT, Daemon
from tests.support.waiting import wait_for

SHOP_SECONDS = 60.0
POOLS = ("redis", "worker", "web", "beat")
ONESHOTS = ("migrate", "seed", "announce")


class Shop(Daemon):
    """sample_app/run.py becomes the daemon; what stands in its config is read, not set."""

    def __init__(self, name: str = "shop") -> None:
        super().__init__()
        self.config.unlink()
        self.data = self.directory / name
        self.config = self.data / "sample.yaml"
        self.log_dir = self.data / "log"
        self.socket = self.data / "daemon" / "control" / "control.sock"

    def command(self) -> list[str]:
        return [self._python, str(ROOT / "sample_app" / "run.py"), "--directory", str(self.data)]

    def start(self) -> None:
        """One shop at a time looks for free ports: between looking and listening another would find the same."""
        with (Path(tempfile.gettempdir()) / f"supervisor-d-test-shop-{os.geteuid()}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            super().start()
            self.wait_pool("redis", "running", SHOP_SECONDS)

    def wait_open(self) -> None:
        """Wait until every pool runs and every oneshot has succeeded."""
        for name in (*ONESHOTS[:2], *POOLS):
            self.wait_pool(name, "done" if name in ONESHOTS else "running", SHOP_SECONDS)
        self.wait_pool("announce", "done", SHOP_SECONDS)

    @property
    def port(self) -> int:
        """Where gunicorn listens."""
        return int(self.pool("web").listeners[0].rpartition(":")[2])

    @property
    def metrics_port(self) -> int:
        """Where the daemon serves its metrics, by the written config."""
        found = re.search(r'listen: "127\.0\.0\.1:(\d+)"', self.config.read_text())
        assert found is not None
        return int(found[1])

    def get(self, path: str) -> Any:
        """The JSON of a page that answers 200."""
        status, body = net.get(self.port, path)
        assert status == 200, f"{path}: {status} {body[:500]}"
        return json.loads(body)

    def submit(self, task: str, **arguments: object) -> str:
        """Queue a task; the address of its result."""
        body = json.dumps({"task": task, "arguments": arguments})
        status, answer = net.request(self.port, "POST", "/api/tasks", body)
        assert status == 202, f"{status} {answer[:500]}"
        return str(json.loads(answer)["url"])

    def task_state(self, url: str, *states: str, seconds: float = 30.0) -> Any:
        """The task's answer, once its state is one of these."""

        def reached() -> Any:
            answer = self.get(url)
            return answer if answer["state"] in states else None

        return wait_for(reached, seconds, f"task {url} to be {' or '.join(states)}")

    def run_task(self) -> int:
        """Run the short task to its end; the pid of the pool process that did it."""
        answer = self.task_state(self.submit("short", x=2, y=3), "SUCCESS")
        assert answer["result"]["sum"] == 5
        return int(answer["result"]["pid"])

    def gunicorn_workers(self) -> list[int]:
        """The pids of the workers below the one master."""
        return procs.children(self.pid_of("web"))

    def celery_children(self) -> list[int]:
        """The pids of the pool processes below the one node's main process."""
        return procs.children(self.pid_of("worker"))
