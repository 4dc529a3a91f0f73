"""A wall clock that jumps a day: it is told, and nothing else happens.  Whatever is timed goes by the other clock."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import pytest

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
        "stubborn": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 1500ms, KILL"},
        "broken": {**SLEEPER, "restart": {"backoff": "1500ms", "limit": 1000}},
        "rolled": {**SLEEPER, "rollout": {"max_surge": 1, "max_unavailable": 0, "min_ready": "1500ms"}},
    }
    daemon.configure(pools)
    with daemon:
        daemon.wait_running(*pools)
        mains, pid, started_at = daemon.all_pids(), daemon.pid, daemon.status().daemon.started_at
        # A stop, a restart that waits, and a rollout, all under way when it jumps.
        began = time.monotonic()
        _twice_dead(daemon)
        config = ("-c", str(daemon.config))
        asked = [daemon.cli_begin("stop", *config, "stubborn"), daemon.cli_begin("restart", *config, "rolled")]
        notes.wait("s", "term")
        daemon.wait_event("spawn", pool="rolled", text="rollout")
        clock.set(ahead)
        moved = wait_for(lambda: [e for e in daemon.events() if e.name == "clock-moved"], 10, "it to be told")
        assert ("1d forward" if ahead > 0 else "1d back") in moved[0].reason
        assert [process.wait(30) for process in asked] == [0, 0]
        daemon.wait_running("broken", "rolled", "tick")
        after = {(e.name, e.pool) for e in daemon.events() if e.serial > moved[0].serial}
        assert {("kill", "stubborn"), ("conclude-rollout", "rolled"), ("spawned", "broken")} <= after
        assert time.monotonic() - began >= 1.5
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


def _twice_dead(daemon: Daemon) -> None:
    """Let `broken` wait for a restart: the first comes at once, the second after its backoff."""
    first = daemon.pid_of("broken")
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: set(daemon.pids("broken").values()) - {first}, 10, "its restart").pop()
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: daemon.pool("broken").slots, 10, "its backoff")


READINGS = re.compile(
    r"\btime_ns\(|clock_gettime(?!_ns\(time\.CLOCK_MONOTONIC\))|CLOCK_REALTIME|from time import"
    r"|\b(?:localtime|gmtime)\(\)|\bdate(?:time)?\.(?:now|utcnow|today)\("
)


def test_the_daemon_has_no_other_wall_clock() -> None:
    """What the tests shift is all there is: `time.time()`, called by that name."""
    package = ROOT / "supervisor_d"
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text().splitlines()
        if READINGS.search(line)
    ]
    assert found == []
