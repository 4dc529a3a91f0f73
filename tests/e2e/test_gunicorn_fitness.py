"""A daemon that keeps gunicorn's workers fit: what it cures, what it tells of it, and that no request pays for it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import urllib.request
from typing import Any

import pytest

from supervisor_d.core.snapshot import Traffic
from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.load import Load
from tests.support.waiting import eventually, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.real]

APP = """
import asyncio, os, time

def application(environ, start_response):
    while environ["PATH_INFO"] == "/held" and not os.path.exists("release"):
        time.sleep(0.02)
    time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "4")])
    return [b"good"]

async def asgi(scope, receive, send):
    await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"good"})
"""


class Shop:
    """A daemon with one gunicorn pool."""

    def __init__(self, worker_class: str = "gthread", **keys: Any) -> None:
        self.daemon = Daemon()
        self.code = self.daemon.work / "shop"
        self.code.mkdir()
        (self.code / "app.py").write_text(APP)
        (self.port,) = net.free_ports(1)
        pool = {
            "program": "gunicorn",
            "app": "app:asgi" if worker_class == "asgi" else "app",
            "cwd": str(self.code),
            "bind": f"127.0.0.1:{self.port}",
            "workers": 2,
            "worker_class": worker_class,
            **({"threads": 4} if worker_class == "gthread" else {}),
            **keys,
        }
        self.daemon.configure({"web": pool})

    def traffic(self) -> Traffic:
        traffic = self.daemon.pool("web").traffic
        assert traffic is not None
        return traffic

    def master(self) -> int:
        """The one that serves, or -1 between two."""
        ready = [p for p in self.daemon.pool("web").processes if p.state == "ready" and p.role == "serve"]
        return max(ready, key=lambda process: process.started_at).pid or -1 if ready else -1

    def told(self, text: str) -> bool:
        return any(text in entry.reason for entry in self.daemon.events(pool="web"))


async def _some(load: Load, count: int = 60) -> None:
    enough = load.done + count
    await eventually(lambda: load.done >= enough, 30, f"{count} more answers")


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent", "asgi"])
async def test_figures_and_a_killed_master(worker_class: str) -> None:
    shop = Shop(worker_class, graceful_timeout="5s", keep_alive="1s")
    with shop.daemon as daemon:
        daemon.wait_running("web")
        async with Load(shop.port) as load:
            for _ in range(3):
                await _some(load)
                master = shop.master()
                os.kill(master, signal.SIGKILL)
                await eventually(lambda: shop.master() not in (master, -1), 20, "another master")  # noqa: B023
                await asyncio.to_thread(daemon.wait_running, "web")
            await _some(load)
        assert load.failed == []
        # Clients of the last instants may have been told before their request was counted.
        await eventually(lambda: sum(shop.traffic().requests_total.values()) >= load.done, 10, "all are counted")
        traffic = shop.traffic()
        assert traffic.requests_total["2xx"] == sum(traffic.duration_counts)
        assert traffic.requests_total["5xx"] == 0


async def test_a_stuck_worker_is_replaced_and_the_story_tells_why() -> None:
    shop = Shop(request_timeout="2s", graceful_timeout="1s")
    with shop.daemon as daemon:
        daemon.wait_running("web")
        before = set(procs.children(shop.master()))
        async with Load(shop.port) as load:
            held = asyncio.create_task(asyncio.to_thread(_hold, shop.port))
            await eventually(lambda: shop.told("its limit is 2s"), 20, "it is told")
            await eventually(lambda: len(before & set(procs.children(shop.master()))) <= 1, 30, "another worker")
            await _some(load)
        await held
        # What the killed worker's other threads had in hand is lost with it, and nothing else.
        assert len(load.failed) <= 4
        assert shop.told("is replaced: a request runs for")
        assert "in application" in daemon.log("web.0")
        story = daemon.must("why", "web.0")
        assert "its limit is 2s" in story


def _hold(port: int) -> None:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/held", timeout=30).read()
    except OSError:
        return


async def test_code_that_changed_is_rolled_not_scaled() -> None:
    shop = Shop()
    with shop.daemon as daemon:
        daemon.wait_running("web")
        first = shop.master()
        async with Load(shop.port) as load:
            await _some(load)
            (shop.code / "models.py").write_text("")
            said = await asyncio.to_thread(daemon.must, "scale", "web=3")
            assert "changed since g1 started (models.py): rolled, not scaled" in said
            assert shop.master() != first
            assert len(procs.children(shop.master())) == 3
            (shop.code / "app.py").write_text("this does not import")
            second = shop.master()
            done = await asyncio.to_thread(daemon.cli, "scale", "web=4")
            assert done.returncode == 1, done.stdout + done.stderr
            await _some(load)
            assert shop.master() == second
            assert daemon.pool("web").workers_desired == 3
            await asyncio.to_thread(daemon.must, "scale", "web=2")
            assert shop.master() == second, "one less imports nothing"
        assert load.failed == []


def test_the_number_behind_a_rollout_outlives_the_daemon() -> None:
    shop = Shop()
    with shop.daemon as daemon:
        daemon.wait_running("web")
        (shop.code / "models.py").write_text("")
        daemon.must("scale", "web=3", "--no-wait")
        daemon.kill()
        daemon.start()
        wait_for(lambda: daemon.pool("web").workers_ready == 3, 30, "the third worker")
        assert daemon.pool("web").generation == 2


@pytest.mark.slow
@pytest.mark.parametrize("event", ["scaled", "a worker died"])
async def test_a_master_without_a_descriptor_for_another_worker_is_replaced_and_the_story_tells_why(event: str) -> None:
    """It ends by itself and interrupts its workers when a fork fails; where their boot fails it tries for ever."""
    shop = Shop(start_timeout="3s")
    with shop.daemon as daemon:
        daemon.wait_running("web")
        first = shop.master()
        async with Load(shop.port) as load:
            await _some(load)
            used = max(int(fd) for fd in os.listdir(f"/proc/{first}/fd")) + 1
            resource.prlimit(first, resource.RLIMIT_NOFILE, (used, used))
            if event == "scaled":
                await asyncio.to_thread(daemon.must, "scale", "web=3")
            else:
                os.kill(procs.children(first)[0], signal.SIGKILL)
            await eventually(lambda: shop.master() not in (first, -1), 60, "another master")
            await asyncio.to_thread(daemon.wait_running, "web")
            await _some(load)
        story = daemon.must("why", "web.0")
        assert "its last words" in story
        assert "Too many open files" in story
        assert len(load.failed) <= 8, "no more than what the workers had in hand"


def test_asgi_workers_do_not_keep_the_queue_short() -> None:
    shop = Shop("asgi", bind=[])
    path = shop.daemon.work / "web.sock"
    shop.daemon.configure({"web": shop_pool(shop, str(path))})
    with shop.daemon as daemon:
        daemon.wait_running("web")
        wait_for(lambda: queue_of(str(path)) == 777, 10, "the queue's length")
        os.kill(min(procs.children(shop.master())), signal.SIGKILL)
        daemon.wait_event("worker-exited", pool="web")
        wait_for(lambda: daemon.pool("web").workers_ready == 2, 20, "another worker")
        wait_for(lambda: queue_of(str(path)) == 777, 10, "the queue's length")


def shop_pool(shop: Shop, path: str) -> dict[str, Any]:
    return {
        "program": "gunicorn",
        "app": "app:asgi",
        "cwd": str(shop.code),
        "workers": 2,
        "worker_class": "asgi",
        "graceful_timeout": "5s",
        "bind": {"address": f"unix:{path}", "backlog": 777},
    }


def queue_of(path: str) -> int:
    """The longest queue that a unix listener may have, as ss(8) tells."""
    import subprocess

    shown = subprocess.run(["ss", "-xlH"], capture_output=True, text=True, check=True).stdout
    return next((int(line.split()[3]) for line in shown.splitlines() if path in line), -1)
