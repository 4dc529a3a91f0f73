"""The daemon dies at named places; whatever was under way is done, or was never begun, and nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from supervisor_d.runtime.crash import ENV, POINTS
from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.dose import FULL, dose, report
from tests.support.programs import Notes
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800 if FULL else 120)]

CRASHES = dose(2, 50)
AREAS = ("spawn", "stop", "scale", "reload", "conclude", "state")


class World:
    """Three pools: one is rolled and scaled, one is stopped and started, one is killed; the wanted state is known."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.notes = Notes(self.daemon.work / "notes")
        self.version = 0
        self.workers = 2
        self.daemon.configure(self.pools())
        self.before: Mapping[str, int] = {}

    def pools(self) -> Mapping[str, Mapping[str, Any]]:
        base = {"program": "command", "restart": {"backoff": "1ms", "limit": 10_000}}
        rollout = {"max_surge": 1, "max_unavailable": 0, "min_ready": "0s"}
        rolled = {**base, "workers": 2, "rollout": rollout, "env": {"VERSION": str(self.version)}}
        return {
            "rolled": {**rolled, "command": self.notes.polite("rolled")},
            "stopped": {**base, "command": self.notes.polite("stopped")},
            "killed": {**base, "command": ["sleep", "600"]},
        }

    def provoke(self, area: str) -> subprocess.Popen[bytes] | None:
        """Let the daemon do what leads it there."""
        if area == "spawn":
            os.kill(self.daemon.pid_of("killed"), signal.SIGKILL)
            return None
        if area == "stop":
            return self._cli("restart", "stopped")
        if area == "scale":
            self.workers = 5 - self.workers
            return self._cli("scale", f"rolled={self.workers}")
        self.version += 1
        self.daemon.configure(self.pools())
        return self._cli("reload")

    def _cli(self, *args: str) -> subprocess.Popen[bytes]:
        argv = [
            self.daemon._python,
            "-m",
            "supervisor_d",
            args[0],
            "-c",
            str(self.daemon.config),
            *args[1:],
            "--no-wait",
        ]
        argv.append("--no-wait")
        return subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )

    def settle(self) -> None:
        """Whatever was decided is done: each slot has one process, of one generation, and no stranger lives."""
        daemon = self.daemon
        wanted = {pool.name: pool.workers_desired for pool in daemon.status().pools}
        assert wanted.keys() == {"rolled", "stopped", "killed"}
        assert wanted["rolled"] in (2, 3)
        for name, workers in wanted.items():
            daemon.wait_running(name)
            daemon.wait_pids(name, workers)
        mains = daemon.all_pids()
        assert len({process.rpartition("@")[0] for process in mains}) == sum(wanted.values())
        wait_for(lambda: not self.strangers(), 10, "strangers to be gone")

    def strangers(self) -> list[str]:
        daemon = self.daemon
        mains = set(daemon.all_pids().values())
        shims = {daemon.shim_of(pid) for pid in mains}
        known = {daemon.pid} | mains | shims | {below for shim in shims for below in procs.below(shim)}
        known |= procs.below(daemon.pid)
        return [procs.describe(pid) for pid in daemon.marker.members() - known]


@pytest.mark.parametrize("area", AREAS)
def test_whatever_was_under_way_is_done_or_was_never_begun(area: str) -> None:
    points = [point for point in POINTS if point.startswith(area)]
    assert points
    world = World()
    with world.daemon as daemon:
        world.settle()
        daemon.kill()
        for number in range(CRASHES):
            point = points[number % len(points)]
            daemon.env[ENV] = f"{point}:{random.randint(1, 3) if area == 'state' else 1}"
            daemon.start()
            asked = world.provoke(area)
            assert daemon.wait_end(20) == -signal.SIGKILL, point
            if asked is not None:
                asked.wait(20)
            del daemon.env[ENV]
            daemon.start()
            world.settle()
            assert not [entry for entry in daemon.events() if entry.name == "ignored"], point
            if number < CRASHES - 1:
                daemon.kill()
        report(f"crash points: {area}", CRASHES, points=len(points), left_half_done=0, unknown_processes=0)


def test_every_point_belongs_to_an_area() -> None:
    assert {point.split("-")[0] for point in POINTS} == set(AREAS)
