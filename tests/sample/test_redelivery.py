"""A real Redis, a real worker, and `kill -9` in the middle of the long task: it is done in the end, each step once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.waiting import wait_for

SAMPLE_APP = Path(__file__).resolve().parents[2] / "sample_app"
STEPS = 12


@dataclass
class Shop:
    """Redis, a database and a worker with one pool process, in a directory of their own."""

    directory: Path
    env: dict[str, str]
    worker: subprocess.Popen[bytes]

    def run(self, code: str) -> str:
        command = [sys.executable, "-c", f"import django; django.setup(); {code}"]
        done = subprocess.run(
            command, cwd=SAMPLE_APP, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def job(self) -> tuple[int, int, int]:
        """Steps done, runs, and what the steps add up to; zeros before the task has begun."""
        with sqlite3.connect(self.directory / "sample.sqlite3", timeout=10) as database:
            row = database.execute("SELECT steps_done, runs, result FROM library_job WHERE key = 'job'").fetchone()
        return row or (0, 0, 0)

    def pool_process(self) -> int:
        """The worker's one child."""
        children = Path(f"/proc/{self.worker.pid}/task/{self.worker.pid}/children").read_text().split()
        return int(children[0]) if children else 0


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    port = _free_port()
    env = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "sample.settings",
        "SAMPLE_DATA_DIR": str(tmp_path),
        "REDIS_URL": f"redis://127.0.0.1:{port}/0",
    }
    redis = subprocess.Popen(
        [sys.executable, "bin/redis_server.py", "--port", str(port), "--dir", str(tmp_path / "redis")],
        cwd=SAMPLE_APP,
        stdout=subprocess.DEVNULL,
    )
    worker: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=SAMPLE_APP, env=env, timeout=60, check=True)
        wait_for(lambda: _answers(port), 20, "Redis")
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "sample", "worker", "-c", "1", "-l", "INFO",
                 "--without-gossip", "--without-mingle", "--without-heartbeat"],
                cwd=SAMPLE_APP, env=env, stdout=log, stderr=log,
            )  # fmt: skip
        yield Shop(tmp_path, env, worker)
    finally:
        for process in (worker, redis):
            if process is not None:
                process.kill()
                process.wait(10)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    command = [sys.executable, "bin/redis_server.py", "--port", str(port), "--ping"]
    return subprocess.run(command, cwd=SAMPLE_APP, timeout=20, check=False).returncode == 0


@pytest.mark.real
@pytest.mark.slow
def test_a_killed_pool_process_hands_its_task_back(shop: Shop) -> None:
    queue = f"from library.tasks import long; print(long.delay(key='job', steps={STEPS}, step_seconds=0.1).id)"
    task_id = shop.run(queue).strip()
    wait_for(lambda: shop.job()[0] >= 3, 30, "the first steps")
    first = shop.pool_process()
    os.kill(first, signal.SIGKILL)

    wait_for(lambda: shop.job()[0] == STEPS, 30, "the last step")
    done, runs, result = shop.job()
    assert (done, result) == (STEPS, sum(range(STEPS)))
    assert runs == 2
    assert shop.pool_process() not in (0, first)
    read = f"from celery.result import AsyncResult as R; r = R('{task_id}'); print(r.get(timeout=20)['runs'])"
    assert shop.run(read).strip() == "2"
