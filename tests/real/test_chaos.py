"""Whatever is killed, in whatever order: in the end everything runs, exactly once, and nothing is left behind.

`random` is seeded by the run's seed (tests/conftest.py), so that a failing order can be played again.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from tests.support import procs
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.slow]

SECONDS = 8.0
TREE = "sleep 600 & (setsid sleep 600 &) ; exec sleep 600"
RESTART = {"backoff": "1ms", "backoff_max": "20ms", "limit": 1000}


def test_whatever_is_killed_comes_back_exactly_once() -> None:
    wanted = {"one": 1, "two": 2, "three": 3}
    pools = {
        name: {"program": "command", "command": ["sh", "-c", TREE], "workers": workers, "restart": RESTART}
        for name, workers in wanted.items()
    }
    with Daemon(pools) as daemon:
        daemon.wait_running(*wanted)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            _strike(daemon)
        daemon.wait_running(*wanted)
        for name, workers in wanted.items():
            daemon.wait_pids(name, workers)
        mains = set(daemon.all_pids().values())
        assert (len(mains), len({daemon.shim_of(pid) for pid in mains})) == (6, 6)
        expected = {daemon.pid} | {pid for process in daemon.all_pids() for pid in _holders(daemon, process)}
        strangers = [pid for pid in daemon.marker.members() - expected if "zygote" not in procs.command_line(pid)]
        assert strangers == [], [procs.describe(pid) for pid in strangers]
        assert not [entry for entry in daemon.events() if entry.name == "ignored"]


def _holders(daemon: Daemon, process: str) -> set[int]:
    """Shim and tree of a process: whoever has its FIFO open."""
    fifo = str(daemon.directory / "run" / "processes" / process / "output")
    return {pid for pid in daemon.marker.members() if fifo in procs.descriptors(pid).values()}


def _strike(daemon: Daemon) -> None:
    """Kill something: a process, its child, a shim, the zygote, the daemon, or several of them at once."""
    mains = [pid for pid in daemon.all_pids().values() if procs.alive(pid)]
    victims: list[int] = []
    for pid in random.sample(mains, min(len(mains), random.choice((1, 1, 2, 4)))):
        shim = daemon.find_shim(pid)
        around = [pid, *procs.below(pid), *([shim] if shim is not None else [])]
        victims.append(random.choice(around))
    if random.random() < 0.15:
        victims += [pid for pid in procs.children(daemon.running.pid) if "zygote" in procs.command_line(pid)]
    kill_daemon = random.random() < 0.25
    if kill_daemon and random.random() < 0.5:
        daemon.kill()
    for pid in victims:
        # Only what is certainly ours: the mark is asked at the last moment.
        if pid in daemon.marker.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if kill_daemon:
        if daemon.running.poll() is None:
            daemon.kill()
        daemon.start()
