"""gunicorn under load while it is reloaded, rolled back, scaled, restarted and adopted: no request fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.load import Load
from tests.support.waiting import eventually, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.real]

APP = """
import os, time

colour = os.environ["COLOUR"]
if colour == "broken":
    raise RuntimeError("this generation does not import")
if colour == "hanging":
    time.sleep(600)

def application(environ, start_response):
    time.sleep(0.01)
    start_response("200 OK", [("Content-Length", str(len(colour)))])
    return [colour.encode()]
"""


class Web:
    """A daemon with one gunicorn pool, whose colour is its generation."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        (self.daemon.work / "coloured.py").write_text(APP)
        (self.port,) = net.free_ports(1)
        self.paint("blue")

    def paint(self, colour: str, **keys: Any) -> None:
        """Write the config for this colour."""
        self.daemon.configure({"web": self.pool(colour, **keys)})

    def pool(self, colour: str, **keys: Any) -> Mapping[str, Any]:
        return {
            "program": "gunicorn",
            "app": "coloured",
            "cwd": str(self.daemon.work),
            "bind": f"127.0.0.1:{self.port}",
            "workers": 2,
            "worker_class": "gthread",
            "threads": 4,
            "env": {"COLOUR": colour},
            **keys,
        }


async def _until_served(load: Load, colour: str) -> None:
    """Wait until the load has seen the colour, and some more requests after that."""
    await eventually(lambda: colour.encode() in load.bodies, 20, f"an answer in {colour}")
    enough = load.done + 50
    await eventually(lambda: load.done >= enough, 20, "fifty more answers")


async def test_a_reload_replaces_the_generation_and_no_request_fails() -> None:
    web = Web()
    with web.daemon as daemon:
        daemon.wait_running("web")
        old = daemon.pid_of("web")
        async with Load(web.port) as load:
            await _until_served(load, "blue")
            web.paint("green")
            done = await asyncio.to_thread(daemon.reload)
            assert done.returncode == 0, done.stdout + done.stderr
            await _until_served(load, "green")
            await eventually(lambda: not procs.alive(old), 40, "the old master to be gone")
        assert load.failed == []
        assert load.bodies == {b"blue", b"green"}
        assert daemon.pool("web").generation == 2


@pytest.mark.parametrize(
    ("colour", "why"),
    [("broken", "exited with code"), ("hanging", "not ready within 3 s")],
    ids=["broken", "hanging"],
)
async def test_a_generation_that_never_serves_is_rolled_back_and_no_request_fails(colour: str, why: str) -> None:
    web = Web()
    with web.daemon as daemon:
        daemon.wait_running("web")
        old, workers = daemon.pids("web"), procs.children(daemon.pid_of("web"))
        async with Load(web.port) as load:
            await _until_served(load, "blue")
            web.paint(colour, start_timeout="3s", graceful_timeout="1s")
            done = await asyncio.to_thread(daemon.reload)
            assert done.returncode == 1
            assert why in done.stdout + done.stderr
            await eventually(lambda: daemon.pids("web") == old, 20, "only the old master to be left")
            await _until_served(load, "blue")
        assert load.failed == []
        assert load.bodies == {b"blue"}
        assert procs.children(daemon.pid_of("web")) == workers
        rollout = daemon.pool("web").rollout
        assert rollout is not None
        assert rollout.verdict == "rolled-back"
        assert why in rollout.reason


async def test_scaling_keeps_the_master_and_no_request_fails() -> None:
    web = Web()
    with web.daemon as daemon:
        daemon.wait_running("web")
        master, two = daemon.pid_of("web"), procs.children(daemon.pid_of("web"))
        async with Load(web.port) as load:
            await asyncio.to_thread(daemon.must, "scale", "web=4")
            four = procs.children(master)
            assert len(four) == 4
            assert set(two) < set(four)
            await asyncio.to_thread(daemon.must, "scale", "web=1")
            await eventually(lambda: len(procs.children(master)) == 1, 20, "one worker to be left")
            await _until_served(load, "blue")
        assert load.failed == []
        assert daemon.pid_of("web") == master
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_running("web")
        assert len(procs.children(daemon.pid_of("web"))) == 1
        assert daemon.pool("web").workers_from == "operator"


async def test_a_killed_daemon_costs_no_request_and_the_next_one_rolls_its_gunicorn() -> None:
    web = Web()
    with web.daemon as daemon:
        daemon.wait_running("web")
        before = daemon.pids("web")
        async with Load(web.port) as load:
            await asyncio.to_thread(daemon.must, "scale", "web=3")
            await asyncio.to_thread(daemon.kill)
            await _until_served(load, "blue")
            await asyncio.to_thread(daemon.start)
            assert daemon.pids("web") == before
            web.paint("green")
            done = await asyncio.to_thread(daemon.reload)
            assert done.returncode == 0, done.stdout + done.stderr
            await _until_served(load, "green")
            await eventually(lambda: len(daemon.pids("web")) == 1, 40, "the old master to be gone")
        assert load.failed == []
        assert len(procs.children(daemon.pid_of("web"))) == 3


async def test_a_restart_runs_the_same_spec_in_new_processes_and_no_request_fails() -> None:
    web = Web()
    with web.daemon as daemon:
        daemon.wait_running("web")
        old = daemon.pid_of("web")
        async with Load(web.port) as load:
            await _until_served(load, "blue")
            await asyncio.to_thread(daemon.must, "restart", "web")
            await eventually(lambda: not procs.alive(old), 40, "the old master to be gone")
            await _until_served(load, "blue")
        assert load.failed == []
        assert daemon.pid_of("web") != old


def test_stopping_a_pool_closes_its_door_and_removing_it_its_socket() -> None:
    web = Web()
    path = web.daemon.directory / "web.sock"
    web.paint("blue", bind=[f"127.0.0.1:{web.port}", {"address": f"unix:{path}", "mode": "0666"}])
    with web.daemon as daemon:
        daemon.wait_running("web")
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o666
        daemon.configure({"other": {"program": "command", "command": ["sleep", "600"]}})
        assert daemon.reload().returncode == 0
        assert not path.exists()
        with pytest.raises(ConnectionRefusedError):
            net.get(web.port)


def test_an_address_that_moves_is_rolled_to_and_the_old_one_closed() -> None:
    web = Web()
    old_port = web.port
    with web.daemon as daemon:
        daemon.wait_running("web")
        (web.port,) = net.free_ports(1)
        web.paint("green")
        assert daemon.reload().returncode == 0
        assert net.get(web.port) == (200, "green")
        daemon.wait_pids("web", 1, 45)
        wait_for(lambda: _refused(old_port), 10, "the old port to be closed")


def _refused(port: int) -> bool:
    try:
        net.get(port)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # it was still open, and nobody serves there any more
    return False
