"""Gates, deploys and rollbacks with real gunicorn: bad code is found where nobody can reach it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.load import Load
from tests.support.waiting import eventually, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.slow]

APP = """
import os, signal, threading, time

release = os.path.basename(os.getcwd())
kind = open("kind").read().strip()
if kind == "no-import":
    import a_module_that_nobody_wrote
if kind == "hangs":
    time.sleep(600)
if kind == "crashes":
    threading.Timer(1.0, lambda: os.kill(os.getppid(), signal.SIGKILL)).start()

def application(environ, start_response):
    if environ["PATH_INFO"] == "/healthz":
        with open("asked", "a") as asked:
            asked.write(environ["HTTP_HOST"] + "\\n")
        if kind == "sick":
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
    start_response("200 OK", [("Content-Length", str(len(release)))])
    return [release.encode()]
"""

MOMENTS = (
    ("spawn", "preflight"),
    ("pass-gate", "preflight"),
    ("spawn", "canary"),
    ("pass-gate", "canary"),
    ("signal", "its trial as canary is over"),
)
"""In a rollout, by the journal."""

MIGRATE = "import os, sys; open('migrated', 'a').write('.'); sys.exit(os.path.exists('no-migration'))"


class Site:
    """A daemon with releases behind a link: a oneshot, a pool that stands for the workers, and gunicorn."""

    def __init__(self, **keys: Any) -> None:
        self.daemon = Daemon()
        (self.port,) = net.free_ports(1)
        self.current = self.daemon.work / "current"
        self._keys = keys
        self.release("r1", "good")
        self.configure()

    def release(self, name: str, kind: str) -> Path:
        """Put a release on disk, and let the link lead there."""
        directory = self.daemon.work / name
        directory.mkdir()
        (directory / "app.py").write_text(APP)
        (directory / "kind").write_text(kind)
        self.current.unlink(missing_ok=True)
        self.current.symlink_to(directory)
        return directory

    def configure(self) -> None:
        own: Mapping[str, Any] = {"cwd": str(self.current)}
        wait = [sys.executable, "-c", "import signal; signal.pause()"]
        self.daemon.configure(
            {
                "migrate": {"program": "oneshot", "command": [sys.executable, "-c", MIGRATE], **own},
                "jobs": {"program": "command", "command": wait, "after": "migrate", **own},
                "web": {
                    "program": "gunicorn",
                    "app": "app",
                    "bind": f"127.0.0.1:{self.port}",
                    "workers": 2,
                    "worker_class": "gthread",
                    "threads": 2,
                    "graceful_timeout": "5s",
                    "start_timeout": "4s",
                    "ready": {"http": f"http://127.0.0.1:{self.port}/healthz"},
                    "rollout": {"min_ready": "1500ms"},
                    "after": "jobs",
                    **own,
                    **self._keys,
                },
            }
        )

    def run(self, *args: str) -> tuple[int, dict[str, Mapping[str, Any]]]:
        """One of our commands; its exit code, and how each pool came out."""
        done = self.daemon.cli(*args, "--json", seconds=90)
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return done.returncode, {pool["pool"]: pool for pool in json.loads(done.stdout).get("pools", ())}


@pytest.mark.parametrize(
    ("kind", "gate", "why"),
    [
        ("no-import", "preflight", "No module named 'a_module_that_nobody_wrote'"),
        ("hangs", "preflight", "not ready within 4 s"),
        ("sick", "canary", "answered 500"),
        ("crashes", "canary", "killed by SIGKILL"),
    ],
)
async def test_bad_code_is_found_where_nobody_reaches_it(kind: str, gate: str, why: str) -> None:
    site = Site()
    with site.daemon as daemon:
        daemon.wait_running("web", "jobs")
        before, workers = daemon.pids("web"), procs.children(daemon.pid_of("web"))
        async with Load(site.port) as load:
            bad = site.release("r2", kind)
            code, pools = await asyncio.to_thread(site.run, "reload")
            await eventually(lambda: daemon.pids("web") == before, 20, "nothing of the bad release to be left")
        assert (code, pools["web"]["verdict"]) == (1, "rolled-back")
        assert pools["web"]["reason"].startswith(gate)
        assert why in pools["web"]["reason"]
        assert (load.failed, load.bodies) == ([], {b"r1"})
        assert procs.children(daemon.pid_of("web")) == workers
        asked = (bad / "asked").read_text().split() if (bad / "asked").exists() else []
        assert set(asked) <= {f"127.0.0.1:{site.port}"}, "the probe's Host is the public one"
        story = daemon.must("why", "web")
        assert f"{gate}: rollout to g2" in story


async def test_good_code_passes_the_gates_and_serves_in_its_own_release() -> None:
    site = Site()
    with site.daemon as daemon:
        daemon.wait_running("web", "jobs")
        async with Load(site.port) as load:
            await eventually(lambda: b"r1" in load.bodies, 10, "r1")
            site.release("r2", "good")
            code, pools = await asyncio.to_thread(site.run, "deploy", "--label", "two")
            assert (code, {name: pool["ok"] for name, pool in pools.items()}) == (
                0,
                {"migrate": True, "jobs": True, "web": True},
            )
            await eventually(lambda: b"r2" in load.bodies, 10, "r2")
            site.current.unlink()
            site.current.symlink_to(daemon.work / "r1")
            serial = daemon.last_serial()
        assert load.failed == []
        passed = [entry.reason for entry in daemon.events(pool="web") if entry.name == "pass-gate"]
        assert [re.sub(r"[0-9.]+", "N", reason) for reason in passed] == [
            "the preflight of gN exited with code N",
            "the canary of gN was ready for N s",
        ]
        daemon.wait_pids("web", 1)
        os.kill(daemon.pid_of("web"), signal.SIGKILL)
        daemon.wait_event("became-ready", after=serial, pool="web")
        async with Load(site.port) as load:
            await eventually(lambda: load.done > 20, 10, "answers")
        assert load.bodies == {b"r2"}, "what is started again stays in its release"
        assert (daemon.work / "r2" / "migrated").read_text() == "."


def test_a_pid_file_of_the_config_file_stops_no_rollout() -> None:
    site = Site()
    told = f"pidfile = {str(site.daemon.work / 'web.pid')!r}\ndaemon = True\n"
    (site.daemon.work / "r1" / "gunicorn.conf.py").write_text(told)
    with site.daemon as daemon:
        daemon.wait_running("web")
        (site.release("r2", "good") / "gunicorn.conf.py").write_text(told)
        done = daemon.cli("deploy", "--label", "r2", seconds=90)
        assert done.returncode == 0, done.stdout + done.stderr
        rollout = daemon.pool("web").rollout
        assert rollout is not None
        assert rollout.verdict == "succeeded"
        assert not (daemon.work / "web.pid").exists()


async def test_a_deploy_whose_migration_fails_rolls_nothing() -> None:
    site = Site()
    with site.daemon as daemon:
        daemon.wait_running("web", "jobs")
        before = daemon.all_pids()
        (site.release("r2", "good") / "no-migration").touch()
        code, pools = site.run("deploy", "--label", "two")
        assert code == 1
        assert {name: pool["verdict"] for name, pool in pools.items()} == {
            "migrate": "rolled-back",
            "jobs": "rolled-back",
            "web": "rolled-back",
        }
        assert "migrate" in pools["web"]["reason"]
        assert daemon.all_pids() == before
        assert (daemon.work / "r2" / "migrated").read_text() == "."


async def test_a_deploy_that_fails_late_is_taken_back_whole() -> None:
    site = Site()
    with site.daemon as daemon:
        daemon.wait_running("web", "jobs")
        site.release("r2", "no-import")
        code, pools = site.run("deploy")
        assert (code, pools["web"]["verdict"]) == (1, "rolled-back")
        wait_for(lambda: _release_of(daemon, "jobs") == "r1", 20, "the jobs to be back in r1")
        reasons = [entry.reason for entry in daemon.events(pool="jobs") if entry.name == "spawn"]
        assert "web was rolled back" in reasons[-1]


async def test_rollback_goes_to_the_release_before_under_load() -> None:
    site = Site()
    with site.daemon as daemon:
        daemon.wait_running("web", "jobs")
        refused = daemon.cli("rollback", "web")
        assert (refused.returncode, "cannot roll back web" in refused.stderr) == (77, True)
        site.release("r2", "good")
        assert site.run("reload")[0] == 0
        async with Load(site.port) as load:
            await eventually(lambda: b"r2" in load.bodies, 10, "r2")
            code, pools = await asyncio.to_thread(site.run, "rollback", "web")
            assert (code, pools["web"]["verdict"]) == (0, "running")
            await eventually(lambda: b"r1" in load.bodies, 10, "r1")
        assert load.failed == []


async def test_the_daemon_may_die_at_any_gate() -> None:
    site = Site()
    with site.daemon as daemon:
        daemon.wait_running("web", "jobs")
        async with Load(site.port) as load:
            await eventually(lambda: b"r1" in load.bodies, 10, "r1")
            site.release("r2", "good")
            begun = daemon.cli_begin("reload", "-c", str(daemon.config))
            for name, text in MOMENTS:
                await asyncio.to_thread(daemon.wait_event, name, pool="web", text=text)
                daemon.kill()
                daemon.start()
            begun.wait(30)
            await eventually(lambda: daemon.pool("web").generation == 2, 40, "g2 to rule")
            await eventually(lambda: b"r2" in load.bodies, 10, "r2")
        assert load.failed == []
        daemon.wait_pids("web", 1)


def _release_of(daemon: Daemon, pool: str) -> str:
    pids = list(daemon.pids(pool).values())
    return Path(f"/proc/{pids[0]}/cwd").resolve().name if len(pids) == 1 else ""


async def test_one_by_one_no_request_fails_and_there_are_never_two_masters_full_of_workers() -> None:
    site = Site(rollout={"min_ready": "300ms", "one_by_one": "always", "canary": False}, workers=3)
    most = 0
    with site.daemon as daemon:
        daemon.wait_running("web", "jobs")
        async with Load(site.port) as load:
            await eventually(lambda: b"r1" in load.bodies, 10, "r1")
            site.release("r2", "good")
            begun = daemon.cli_begin("reload", "-c", str(daemon.config))
            while begun.poll() is None:
                most = max(most, sum(len(procs.children(pid)) for pid in daemon.pids("web").values()))
                await asyncio.sleep(0)
            await eventually(
                lambda: daemon.pool("web").generation == 2 and len(daemon.pids("web")) == 1, 20, "g2 alone"
            )
            await eventually(lambda: b"r2" in load.bodies, 10, "r2")
        assert (begun.returncode, load.failed) == (0, [])
        assert most == 4
        scaled = [entry.subject.partition("@")[2][:2] for entry in daemon.events(pool="web") if entry.name == "scale"]
        assert scaled == ["g1", "g2", "g1", "g2"]
        assert len(procs.children(daemon.pid_of("web"))) == 3
