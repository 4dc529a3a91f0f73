"""SIGKILL of the daemon at random moments, under load: nobody but the operator's next command notices.

What runs under it: gunicorn with clients that open and that keep their connections, a Celery worker with late
acknowledgement on a Redis that is one of the pools, and a program that numbers the lines it writes.  The daemon is
killed while it serves, and while it starts.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support import net, procs
from tests.support.daemon import ROOT, Daemon
from tests.support.dose import FULL, dose, report
from tests.support.load import Load
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800 if FULL else 180)]

KILLS = dose(30, 300)
BATCH = 50
"""Kills for each set of HTTP clients, which end after so many requests."""

WEB = """
import time
def application(environ, start_response):
    time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

QUEUE = """
import os, time
import redis
from celery import Celery
store = redis.Redis(port=int(os.environ["REDIS_PORT"]))
app = Celery("queue", broker=f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/1")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
@app.task(name="work")
def work(number):
    store.rpush("started", number)
    time.sleep(0.02)
    store.rpush("finished", number)
"""

LINES = """
import os, time
number = 0
while True:
    os.write(1, b"".join(b"line %d\\n" % n for n in range(number, number + 5)))
    number += 5
    time.sleep(0.02)
"""


class Shop(Daemon):
    """The four pools, and the truth about them."""

    def __init__(self) -> None:
        super().__init__()
        self.port, self.redis_port = net.free_ports(2)
        (self.work / "web.py").write_text(WEB)
        (self.work / "queue_app.py").write_text(QUEUE)
        self.configure(self._pools())
        self.sent = 0
        os.environ["REDIS_PORT"] = str(self.redis_port)

    def _pools(self) -> Mapping[str, Mapping[str, Any]]:
        server = [sys.executable, str(ROOT / "sample_app/bin/redis_server.py"), "--port", str(self.redis_port)]
        numbered = [sys.executable, "-I", "-S", "-u", "-c", LINES]
        return {
            "redis": {
                "program": "command",
                "command": [*server, "--dir", str(self.work)],
                "ready": {"exec": [*server, "--ping"]},
            },
            "web": {
                "program": "gunicorn",
                "app": "web",
                "cwd": str(self.work),
                "bind": f"127.0.0.1:{self.port}",
                "workers": 2,
                "worker_class": "gthread",
                "threads": 4,
            },
            "queue": {
                "program": "celery",
                "app": "queue_app",
                "cwd": str(self.work),
                "concurrency": 2,
                "env": {"REDIS_PORT": str(self.redis_port)},
                "after": ["redis"],
            },
            "lines": {"program": "command", "command": numbered, "log": {"max_size": "64KiB", "keep": 1000}},
        }

    def numbers(self) -> list[int]:
        """The numbers that stand in the log, over all its files, oldest first."""
        files = sorted(self.log_dir.glob("lines.0*.log*"), key=_age, reverse=True)
        text = "".join(path.read_text() for path in files if not path.name.endswith(".idx"))
        return [int(number) for number in re.findall(r"^line (\d+)$", text, re.MULTILINE)]

    def tree(self) -> dict[int, set[int]]:
        """Everything below each pool's shim."""
        return {pid: procs.below(self.shim_of(pid)) for pid in self.all_pids().values()}

    def strangers(self) -> list[str]:
        """Processes that nobody knows of: none of the daemon's, of a shim's or of the zygote's, nor the store."""
        known = {self.pid} | {child for child in procs.children(self.pid) if "zygote" in procs.command_line(child)}
        known |= {grandchild for child in procs.children(self.pid) for grandchild in procs.children(child)}
        known |= {store for store in (self.find_store(),) if store}
        for main, below in self.tree().items():
            known |= {self.shim_of(main)} | below
        return [procs.describe(pid) for pid in self.marker.members() - known]


def _age(path: Any) -> int:
    found = re.search(r"\.log\.(\d+)$", path.name)
    return int(found[1]) if found else 0


async def _send(shop: Shop, ending: asyncio.Event) -> None:
    """Queue a task every 40 ms, by Celery's own client."""
    from celery import Celery

    client = Celery("sender", broker=f"redis://127.0.0.1:{shop.redis_port}/1", set_as_current=False)
    while not ending.is_set():
        await asyncio.to_thread(client.send_task, "work", (shop.sent,))
        shop.sent += 1
        await asyncio.sleep(0.04)
    client.close()


async def _kill_once(shop: Shop, mains: Mapping[str, int]) -> tuple[float, float] | None:
    """Kill the daemon and start the next.  Seconds from the kill to the adoption, and to an answer; or None when the
    next was killed as well, at any moment of its start."""
    shop.kill()
    began, wall = time.monotonic(), time.time()
    shop.spawn()
    if random.random() < 0.3:
        await asyncio.sleep(random.uniform(0, 0.5))
        return None
    while not shop._answers():
        await asyncio.sleep(0.002)
    status = await asyncio.to_thread(shop.status)
    answered = time.monotonic() - began
    seen = {p.id: p.pid for pool in status.pools for p in pool.processes}
    assert seen == mains
    adopted = [entry.at for entry in shop.events() if entry.name == "adopted"][-1]
    await asyncio.sleep(random.uniform(0, 0.3))
    return adopted - wall, answered


async def test_nobody_notices_the_death_of_the_daemon() -> None:
    found: list[tuple[float, float]] = []
    with Shop() as shop:
        shop.wait_running("redis", "web", "queue", "lines", seconds=60)
        mains, tree = shop.all_pids(), shop.tree()
        ending = asyncio.Event()
        sender = asyncio.create_task(_send(shop, ending))
        done, failed = 0, list[str]()
        for batch in range(0, KILLS, BATCH):
            async with Load(shop.port, clients=4) as load:
                for _ in range(min(BATCH, KILLS - batch)):
                    times = await _kill_once(shop, mains)
                    found += [times] if times else []
            done, failed = done + load.done, failed + load.failed
        ending.set()
        await sender
        if shop.running.poll() is None:
            shop.kill()
        shop.start()
        shop.wait_running("redis", "web", "queue", "lines")
        assert failed == []
        assert shop.all_pids() == mains
        assert {main: below for main, below in shop.tree().items() if tree[main] != below} == {}
        tasks = _tasks(shop)
        wait_for(lambda: not shop.strangers(), 5, "strangers to be gone")
        os.kill(shop.pid_of("lines"), signal.SIGKILL)
        shop.wait_event("tree-emptied", pool="lines")
        first_life = _first_life(shop.numbers())
        assert first_life == list(range(len(first_life)))
        assert len(first_life) > 100
        adopted, answered = zip(*found, strict=True)
        report(
            "SIGKILL of the daemon under load",
            KILLS,
            requests=done,
            requests_failed=len(failed),
            tasks=tasks,
            tasks_lost_or_twice=0,
            pids_changed=0,
            log_lines=len(first_life),
            log_lines_lost=0,
            unknown_processes=0,
            median_ms_to_adopted=round(statistics.median(adopted) * 1000),
            median_ms_to_answer=round(statistics.median(answered) * 1000),
            worst_ms_to_answer=round(max(answered) * 1000),
        )


def _tasks(shop: Shop) -> int:
    """How many tasks were sent, each of which was started once and finished once."""
    import redis

    store = redis.Redis(port=shop.redis_port)
    wait_for(lambda: store.llen("finished") >= shop.sent, 60, "all tasks")
    for moment in ("started", "finished"):
        seen = Counter(int(number) for number in store.lrange(moment, 0, -1))
        assert seen == Counter(range(shop.sent)), moment
    return shop.sent


def _first_life(numbers: list[int]) -> list[int]:
    """Up to where the program was started anew."""
    again = next((at for at in range(1, len(numbers)) if numbers[at] == 0), len(numbers))
    return numbers[:again]


def test_how_long_processes_are_without_a_daemon() -> None:
    """With nothing else to do: the time that the start itself takes."""
    sleeper = {"program": "command", "command": ["sleep", "600"], "workers": 4}
    adopted, answered = list[float](), list[float]()
    with Daemon({"one": sleeper}) as daemon:
        daemon.wait_running("one")
        before = daemon.all_pids()
        for _ in range(dose(3, 50)):
            wall, began = time.time(), time.monotonic()
            daemon.kill()
            daemon.start()
            assert daemon.all_pids() == before
            answered.append(time.monotonic() - began)
            adopted.append([entry.at for entry in daemon.events() if entry.name == "adopted"][-1] - wall)
        report(
            "SIGKILL of the daemon, nothing else to do",
            len(answered),
            median_ms_to_adopted=round(statistics.median(adopted) * 1000),
            median_ms_to_answer=round(statistics.median(answered) * 1000),
        )
