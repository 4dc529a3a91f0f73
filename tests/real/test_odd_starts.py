"""Starts in a place that is not as it was left, and ends that come at a bad moment."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.programs import Notes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEPER = {"program": "command", "command": ["sleep", "600"]}


def test_a_garbled_record_is_passed_over_and_told() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.all_pids()
        daemon.kill()
        records = daemon.directory / "run" / "processes"
        for name, text in (("two.0@g1.77", "{"), ("three.0@g1.78", "[1, 2]"), ("no-name", "null")):
            (records / name).mkdir(mode=0o700)
            (records / name / "spec.json").write_text(text)
            (records / name / "events.jsonl").write_text(text)
        (records / "a-file").write_text("")
        daemon.start()
        assert daemon.all_pids() == before


def test_a_record_that_names_a_stranger_gets_nobody_killed() -> None:
    """The record of a dead process, edited to name a process that is none of ours."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        with Daemon({"one": SLEEPER}) as daemon:
            daemon.wait_running("one")
            (name,), (pid,) = daemon.pids("one").keys(), daemon.pids("one").values()
            shim = daemon.shim_of(pid)
            daemon.kill()
            for each in (shim, pid):
                os.kill(each, signal.SIGKILL)
                wait_for(lambda each=each: not procs.alive(each), 5, "its end")  # type: ignore[misc]
            events = daemon.directory / "run" / "processes" / name / "events.jsonl"
            text = events.read_text()
            assert f"[{pid}," in text
            events.write_text(text.replace(f"[{pid},", f"[{stranger.pid},").replace(f"[{shim},", f"[{stranger.pid},"))
            daemon.start()
            daemon.wait_running("one")
            assert daemon.pid_of("one") not in (pid, stranger.pid)
            assert daemon.stop() == 0
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_garbled_state_is_told_in_words_and_harms_no_process() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.all_pids()
        daemon.kill()
        saved = [path for path in (daemon.directory / "state").iterdir() if path.suffix == ".json"]
        assert saved
        good = {path: path.read_bytes() for path in saved}
        for path in saved:
            path.write_bytes(b"\x00garbled")
        code = daemon.spawn().wait(20)
        assert code not in (0, None)
        assert "Traceback" not in daemon.stderr
        assert str(daemon.directory / "state") in daemon.stderr
        assert all(procs.alive(pid) for pid in before.values())
        for path, data in good.items():
            path.write_bytes(data)
        daemon.start()
        assert daemon.all_pids() == before


def test_term_while_everything_is_still_starting_leaves_nothing() -> None:
    daemon = Daemon()
    notes, gate = Notes(daemon.work / "notes"), daemon.work / "gate"
    daemon.configure(
        {
            "migrate": {"program": "oneshot", "command": notes.once("migrate", gate=gate)},
            "never-ready": {**SLEEPER, "ready": {"notify": True}},
            "crashing": {"program": "command", "command": ["sh", "-c", "exit 1"]},
            "waiting": {**SLEEPER, "after": ["migrate"]},
        }
    )
    with daemon:
        notes.wait("migrate", "start")
        daemon.wait_pool("crashing", "backoff")
        assert daemon.stop() == 0
        daemon.assert_nothing_left()


def test_term_at_once_leaves_nothing() -> None:
    """In whatever part of its start the daemon is: it ends, by the signal or with 0, and nothing runs."""
    for _ in range(3):
        daemon = Daemon({f"p{n}": SLEEPER for n in range(10)})
        with daemon:
            daemon.signal(signal.SIGTERM)
            assert daemon.wait_end(10) == 0


def test_term_in_the_midst_of_a_rollout_stops_both_generations() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    surge = {"max_surge": 2, "max_unavailable": 0}
    pool = {"program": "command", "command": notes.polite("p", 0.3), "workers": 4, "rollout": surge}
    daemon.configure({"one": pool})
    with daemon:
        daemon.wait_running("one")
        notes.wait("p", "ready", 4)
        daemon.configure({"one": {**pool, "env": {"NEW": "1"}}})
        daemon.must("reload", "--no-wait")
        notes.wait("p", "term")
        assert daemon.cli("reload").returncode in (0, 1)
        assert daemon.stop() == 0
        daemon.assert_nothing_left()
        assert len(notes.of("p", "term")) == len(notes.of("p", "end"))


def test_a_reload_while_the_daemon_ends_is_refused() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.polite("p", 1.5)}})
    with daemon:
        notes.wait("p", "ready")
        daemon.signal(signal.SIGTERM)
        notes.wait("p", "term")
        for command in (["reload"], ["scale", "one=2"], ["start", "one"]):
            done = daemon.cli(*command)
            assert done.returncode != 0, command
            assert "Traceback" not in done.stderr
        assert daemon.wait_end() == 0


def test_a_log_directory_that_is_a_link_is_refused() -> None:
    daemon = Daemon({"one": SLEEPER})
    with daemon.idle():
        elsewhere = daemon.work / "elsewhere"
        elsewhere.mkdir()
        (daemon.directory / "log").symlink_to(elsewhere)
        assert daemon.spawn().wait(20) == 73
        assert "cannot use" in daemon.stderr
        assert list(Path(elsewhere).iterdir()) == []
