"""A wall clock that jumps a day: it is told, and nothing else happens.  Whatever is timed goes by the other clock."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import pytest

from supervisor_d.api.client import Client
from supervisor_d.api.wire import OperateRequest
from tests.support.daemon import ROOT, Daemon, Pools
from tests.support.programs import Notes
from tests.support.waiting import wait_for
from tests.support.wall_clock import WallClock

pytestmark = pytest.mark.real

DAY = 86_400.0
TICK = "import time\nwhile True:\n    print('tick', time.monotonic(), flush=True)\n    time.sleep(0.1)\n"
SLEEPER = {"program": "command", "command": ["sleep", "600"]}


@pytest.mark.parametrize("ahead", [DAY, -DAY], ids=["forward", "back"])
def test_a_day_more_or_less(ahead: float) -> None:
    daemon = Daemon()
    clock = WallClock(daemon)
    notes = Notes(daemon.work / "notes")
    pools: Pools = {
        "tick": {"program": "command", "command": [sys.executable, "-I", "-S", "-c", TICK]},
        "stubborn": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 2s, KILL"},
        "broken": {**SLEEPER, "restart": {"backoff": "2s", "backoff_max": "4s", "limit": 1000}},
        "rolled": {**SLEEPER, "rollout": {"max_surge": 1, "max_unavailable": 0, "min_ready": "2s"}},
    }
    daemon.configure(pools)
    with daemon:
        daemon.wait_running(*pools)
        notes.wait("s", "ready")
        mains, pid, started_at = daemon.all_pids(), daemon.pid, daemon.status().daemon.started_at
        # A stop, a restart that waits, and a rollout, all under way when it jumps.
        began = time.monotonic()
        _twice_dead(daemon)
        client = Client(str(daemon.socket))
        client.post("/v1/stop", OperateRequest(("stubborn",)))
        client.post("/v1/restart", OperateRequest(("rolled",)))
        notes.wait("s", "term")
        daemon.wait_event("spawn", pool="rolled", text="rollout")
        clock.set(ahead)
        moved = wait_for(lambda: [e for e in daemon.events() if e.name == "clock-moved"], 10, "it to be told")
        assert ("1d forward" if ahead > 0 else "1d back") in moved[0].reason
        wanted = {("kill", "stubborn"), ("conclude-rollout", "rolled"), ("spawned", "broken")}
        wait_for(lambda: wanted <= _after(daemon, moved[0].serial), 30, "all of it to end, later")
        assert time.monotonic() - began >= 2
        daemon.wait_running("broken", "rolled", "tick")
        assert daemon.pid == pid
        assert daemon.all_pids()["tick.0@g1.1"] == mains["tick.0@g1.1"]
        assert len([e for e in daemon.events() if e.name == "clock-moved"]) == 1
        # What people ask for is answered, by the clock that there is now.
        status = daemon.status()
        assert abs(status.at - (time.time() + ahead)) < 5
        assert status.daemon.started_at == started_at
        assert "tick" in daemon.must("logs", "tick", "-n", "3")
        # The next daemon lives with it too, and with the clock being right again.
        for ahead_now in (ahead, 0.0):
            daemon.kill()
            clock.set(ahead_now)
            daemon.start()
            assert daemon.all_pids()["tick.0@g1.1"] == mains["tick.0@g1.1"]
            assert daemon.status().daemon.adopted_total == 3


def _after(daemon: Daemon, serial: int) -> set[tuple[str, str]]:
    return {(entry.name, entry.pool) for entry in daemon.events() if entry.serial > serial}


def _twice_dead(daemon: Daemon) -> None:
    """Let `broken` wait for a restart: the first comes at once, the second after its backoff."""
    first = daemon.pid_of("broken")
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: set(daemon.pids("broken").values()) - {first}, 10, "its restart").pop()
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: daemon.pool("broken").slots, 10, "its backoff")


READINGS = re.compile(
    r"\btime_ns\(|clock_gettime(?!(?:_ns)?\(time\.CLOCK_(?:MONOTONIC|BOOTTIME)\))|CLOCK_REALTIME|from time import"
    r"|\b(?:localtime|gmtime)\(\)|\bdate(?:time)?\.(?:now|utcnow|today)\("
)


def test_the_daemon_has_no_other_wall_clock() -> None:
    """What the tests shift is all there is: `time.time()`, called by that name."""
    package = ROOT / "supervisor_d"
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if path.parent.name != "agents"  # they live in other processes
        for line in path.read_text().splitlines()
        if READINGS.search(line)
    ]
    assert found == []
