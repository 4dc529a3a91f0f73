"""Stopping: each process by its list, each pool after those that came after it, and nothing left behind."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.ending import Watched
from tests.support.programs import Notes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real


def test_a_process_that_ignores_term_is_killed_at_its_deadline_and_its_escaped_child_with_it() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"stubborn": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 2s, KILL"}})
    with daemon:
        main, child = notes.wait("s", "ready").pid, notes.wait("s-child", "ready").pid
        daemon.wait_running("stubborn")
        found = procs.stat(child)
        assert found is not None
        assert found.session not in (child, found.parent, procs.stat(main).session)  # type: ignore[union-attr]
        assert found.parent == daemon.shim_of(main)
        assert daemon.pid_of("stubborn") == main
        with Watched(main) as watched, Watched(child) as watched_child:
            began = time.monotonic()
            daemon.signal(signal.SIGTERM)
            took = watched.end_time(10) - began
            watched_child.end_time(2)
        assert 2.0 <= took < 2.5
        assert len(notes.of("s", "term")) == 1
        assert notes.of("s-child", "term") == []
        assert daemon.wait_end() == 0
        assert not procs.alive(main)
        assert not procs.alive(child)
        daemon.assert_nothing_left()


def test_pools_stop_in_reverse_order_of_their_dependencies() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    ready = {"ready": {"notify": True}}
    daemon.configure(
        {
            "top": {"program": "command", "command": notes.polite("top", 0.2), "after": ["middle"], **ready},
            "base": {"program": "command", "command": notes.polite("base", 0.2), **ready},
            "middle": {"program": "command", "command": notes.polite("middle", 0.2), "after": ["base"], **ready},
        }
    )
    with daemon:
        daemon.wait_running("base", "middle", "top")
        assert daemon.stop() == 0
        at = {(note.name, note.word): note.at for note in notes.all()}
        assert at["base", "ready"] < at["middle", "ready"] < at["top", "ready"]
        assert at["top", "end"] < at["middle", "term"]
        assert at["middle", "end"] < at["base", "term"]


def test_a_second_term_changes_nothing_and_the_third_kills_at_once() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"slow": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 60s, KILL"}})
    with daemon:
        notes.wait("s", "ready")
        daemon.signal(signal.SIGTERM)
        main = notes.wait("s", "term").pid
        daemon.signal(signal.SIGINT)
        wait_for(lambda: not _pending(daemon.running.pid), 5, "the second signal to be taken")
        assert daemon.status().daemon.state == "stopping"
        assert daemon.pool("slow").state == "stopping"
        assert procs.alive(main)
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_end(10) == 0
        assert time.monotonic() - began < 3
        assert len(notes.of("s", "term")) == 1
        daemon.assert_nothing_left()


def _pending(pid: int) -> int:
    found = procs.status(pid)
    return int(found["SigPnd"], 16) | int(found["ShdPnd"], 16)


def test_stop_and_start_of_one_pool_touch_no_other() -> None:
    sleeper = {"program": "command", "command": ["sleep", "600"]}
    with Daemon({"one": sleeper, "two": sleeper}) as daemon:
        daemon.wait_running("one", "two")
        before, other = daemon.pid_of("one"), daemon.pids("two")
        daemon.must("stop", "one")
        assert not procs.alive(before)
        assert daemon.pool("one").state == "stopped"
        daemon.must("start", "one")
        assert daemon.pid_of("one") != before
        assert daemon.pids("two") == other


def test_the_end_of_the_daemon_leaves_no_socket_and_no_record() -> None:
    with Daemon({"one": {"program": "command", "command": ["sleep", "600"]}}) as daemon:
        daemon.wait_running("one")
        assert daemon.stop() == 0
        left = {path.name for path in (daemon.directory / "run").rglob("*") if not path.is_dir()}
        assert left <= {"lock"}
        assert list((daemon.directory / "run" / "processes").iterdir()) == []
