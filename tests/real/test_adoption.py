"""Whatever kills the daemon, and whenever: the next one takes over what runs, and goes on with what was decided."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.ending import Watched
from tests.support.programs import Notes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEPER: Mapping[str, Any] = {"program": "command", "command": ["sleep", "600"]}


def test_a_broken_file_does_not_stop_adoption() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before, good = daemon.all_pids(), daemon.config.read_text()
        daemon.kill()
        daemon.write(good.replace("program: command", "program: comand"))
        daemon.start()
        assert daemon.all_pids() == before
        assert daemon.reload().returncode == 78
        daemon.write(good)
        assert daemon.reload().returncode == 0
        assert daemon.all_pids() == before


def test_the_accepted_config_rules_until_a_reload() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.pids("one")
        daemon.kill()
        daemon.configure({"one": {**SLEEPER, "env": {"NEW": "1"}}, "two": SLEEPER})
        daemon.start()
        daemon.wait_running("one")
        assert daemon.pids("one") == before
        assert [pool.name for pool in daemon.status().pools] == ["one"]
        assert daemon.reload().returncode == 0
        daemon.wait_running("one", "two")
        assert "NEW" in procs.environment(daemon.wait_pids("one", 1).popitem()[1])


def test_a_stopped_pool_stays_stopped_across_a_crash() -> None:
    with Daemon({"one": SLEEPER, "two": SLEEPER}) as daemon:
        daemon.wait_running("one", "two")
        daemon.must("stop", "one")
        daemon.kill()
        daemon.start()
        daemon.wait_running("two")
        assert daemon.pool("one").state == "stopped"
        assert daemon.pids("one") == {}


def test_it_does_so_where_nothing_is_left_to_adopt() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        daemon.must("stop", "one")
        daemon.kill()
        assert list((daemon.directory / "run" / "processes").iterdir()) == []
        daemon.configure({"one": SLEEPER, "two": SLEEPER})
        daemon.start()
        daemon.wait_event("config-differs")
        assert [(pool.name, pool.state) for pool in daemon.status().pools] == [("one", "stopped")]
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_running("one", "two")


def test_what_an_ended_process_left_to_be_done_does_not_hold_back_the_file() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        ((process, main),) = daemon.pids("one").items()
        record = daemon.directory / "run" / "processes" / process
        daemon.kill()
        os.kill(main, signal.SIGKILL)
        wait_for(lambda: '"emptied"' in (record / "events.jsonl").read_text(), 10, "its end")
        shutil.copytree(record, daemon.work / "kept", ignore=shutil.ignore_patterns("output", "*.sock"))
        daemon.start()
        daemon.wait_running("one")
        assert daemon.stop() == 0
        shutil.copytree(daemon.work / "kept", record)
        daemon.configure({"one": SLEEPER, "two": SLEEPER})
        daemon.start()
        daemon.wait_running("one", "two")
        wait_for(lambda: not record.exists(), 10, "the old one to be forgotten")


def test_a_stop_that_was_under_way_goes_on_and_kills_no_earlier() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 3s, KILL"}})
    with daemon:
        main = notes.wait("s", "ready").pid
        daemon.wait_running("one")
        with Watched(main) as watched:
            began = time.monotonic()
            daemon.cli("stop", "one", "--no-wait")
            notes.wait("s", "term")
            daemon.kill()
            daemon.start()
            took = watched.end_time(10) - began
        assert 3.0 <= took < 8.0
        daemon.wait_pool("one", "stopped")


def test_a_shim_that_died_without_a_daemon_is_found_missing_and_replaced() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 100ms, KILL"}})
    with daemon:
        main, child = notes.wait("s", "ready").pid, notes.wait("s-child", "ready").pid
        daemon.wait_running("one")
        shim = daemon.shim_of(main)
        daemon.kill()
        with Watched(shim) as watched:
            os.kill(shim, signal.SIGKILL)
            watched.end_time(5)
        assert procs.alive(main)
        assert procs.alive(child)
        daemon.start()
        daemon.wait_event("shim-replaced")
        daemon.wait_running("one")
        assert daemon.pid_of("one") == main
        assert procs.alive(child)


def test_a_listening_socket_survives_every_daemon_and_every_process() -> None:
    (port,) = net.free_ports(1)
    bound = {**SLEEPER, "bind": f"127.0.0.1:{port}"}
    with Daemon({"one": bound}) as daemon:
        daemon.wait_running("one")
        listening = _listening_inode(port)
        for _ in range(3):
            daemon.kill()
            daemon.start()
            daemon.wait_running("one")
            assert _listening_inode(port) == listening
        os.kill(daemon.pid_of("one"), signal.SIGKILL)
        daemon.wait_event("spawn", text="killed by SIGKILL")
        daemon.wait_running("one")
        assert _listening_inode(port) == listening


def _listening_inode(port: int) -> str:
    """The inode of the one socket that listens on this port of 127.0.0.1 (proc_net_tcp(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [row[9] for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"]
    return inode


@pytest.mark.parametrize("moment", ["spawn", "signal", "conclude-rollout"])
def test_a_daemon_killed_in_the_midst_of_a_reload_leaves_a_whole_state(moment: str) -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    surge = {"max_surge": 1, "max_unavailable": 0}
    pool = {"program": "command", "command": notes.polite("p", 0.1), "workers": 3, "rollout": surge}
    daemon.configure({"one": pool})
    with daemon:
        daemon.wait_running("one")
        old, serial = daemon.pids("one"), daemon.last_serial()
        daemon.configure({"one": {**pool, "env": {"NEW": "1"}}})
        daemon.must("reload", "--no-wait")
        daemon.wait_event(moment, after=serial, pool="one")
        daemon.kill()
        daemon.start()
        daemon.wait_running("one")
        wait_for(lambda: daemon.pool("one").generation == 2, 10, "the rollout to go on")
        wait_for(lambda: set(daemon.pids("one")).isdisjoint(old) and len(daemon.pids("one")) == 3, 20, "three new ones")
        assert not any(procs.alive(pid) for pid in old.values())
        assert len(notes.of("p", "term")) == 3
