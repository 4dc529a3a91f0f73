"""Whatever lies where records belong: each has its rule, none stops the daemon, none harms a stranger, all are told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEPER: Mapping[str, Any] = {"program": "command", "command": ["sleep", "600"], "restart": {"backoff": "1ms"}}


def _record(daemon: Daemon) -> Path:
    (record,) = (daemon.directory / "run" / "processes").iterdir()
    return record


def _rewrite(record: Path, change: Callable[[dict[str, Any]], object]) -> None:
    spec = json.loads((record / "spec.json").read_text())
    change(spec)
    (record / "spec.json").write_text(json.dumps(spec) + "\n")


def _break(record: Path, how: str) -> None:
    match how:
        case "no spec":
            (record / "spec.json").unlink()
        case "torn spec":
            text = (record / "spec.json").read_bytes()
            (record / "spec.json").write_bytes(text[: len(text) // 2])
        case "empty spec":
            _rewrite(record, lambda spec: [spec.pop(key) for key in ("argv", "facts")])
        case "no facts":
            _rewrite(record, lambda spec: spec.update(facts="{}"))
        case "other facts":
            _rewrite(record, lambda spec: spec.update(facts=spec["facts"].replace("one.0@g1.1", "one.0@g7.1")))


@pytest.mark.parametrize("how", ["no spec", "torn spec", "empty spec", "no facts", "other facts"])
def test_what_nobody_can_rule_is_killed_told_and_replaced(how: str) -> None:
    with Daemon({"one": {**SLEEPER, "command": ["sh", "-c", "sleep 600 & wait"]}}) as daemon:
        daemon.wait_running("one")
        main, record = daemon.pid_of("one"), _record(daemon)
        (child,) = wait_for(lambda: procs.children(main), 5, "the child")
        daemon.kill()
        _break(record, how)
        daemon.start()
        daemon.wait_event("debris", text="nobody can rule")
        wait_for(lambda: not procs.alive(main) and not procs.alive(child), 5, "its tree to be gone")
        wait_for(lambda: not record.exists() or daemon.pids("one"), 5, "its record to be gone")
        daemon.wait_running("one")
        assert list(daemon.pids("one").values()) != [main]


def test_a_half_made_spawn_is_removed() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.pids("one")
        daemon.kill()
        half = daemon.directory / "run" / "processes" / "one.0@g1.2"
        half.mkdir()
        (half / ".spec.json").write_text('{"version": 1')
        daemon.start()
        daemon.wait_event("debris", text="has no spec, and nothing of it lives")
        assert not half.exists()
        assert daemon.pids("one") == before


def test_what_is_no_record_is_left_alone() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.pids("one")
        daemon.kill()
        processes = daemon.directory / "run" / "processes"
        (processes / "notes.txt").write_text("mine")
        (processes / "a directory").mkdir()
        (processes / "one.0@g1.9").symlink_to("/etc")
        daemon.start()
        told = {entry.reason.split(" is no record")[0] for entry in daemon.events() if entry.name == "debris"}
        assert told == {"notes.txt", "a directory", "one.0@g1.9"}
        assert (processes / "notes.txt").read_text() == "mine"
        assert Path("/etc/passwd").exists()
        assert daemon.pids("one") == before


def test_a_record_of_another_boot_is_removed_and_its_pids_are_left_alone() -> None:
    with Daemon({"one": SLEEPER}) as daemon, subprocess.Popen(["/bin/sleep", "600"]) as bystander:
        daemon.wait_running("one")
        record = _record(daemon)
        old = record.with_name("one.0@g1.77")
        shutil.copytree(record, old, ignore=lambda _, names: {"shim.sock", "output"} & set(names))
        _rewrite(old, lambda spec: spec.update(id="one.0@g1.77", facts=spec["facts"].replace("g1.1", "g1.77")))
        facts = [json.loads(line) for line in (old / "events.jsonl").read_text().splitlines()]
        for fact in facts:
            if "process" in fact:
                fact["process"] = [bystander.pid, fact["process"][1], fact["process"][2], "another-boot"]
        (old / "events.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
        before = daemon.pids("one")
        daemon.kill()
        daemon.start()
        daemon.wait_event("debris", text="of another boot")
        assert not old.exists()
        assert daemon.pids("one") == before
        assert bystander.poll() is None
        bystander.kill()


def test_a_live_record_of_another_version_is_not_touched() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        main, record = daemon.pid_of("one"), _record(daemon)
        good = (record / "spec.json").read_text()
        daemon.kill()
        _rewrite(record, lambda spec: spec.update(version=99))
        daemon.spawn()
        assert daemon.wait_end() == 70
        assert "has the version 99" in daemon.stderr
        assert procs.alive(main)
        (record / "spec.json").write_text(good)
        daemon.start()
        assert daemon.pid_of("one") == main


@pytest.mark.parametrize("victim", ["init", "parent"])
def test_forged_pids_are_never_signalled(victim: str) -> None:
    """A worker's record that names PID 1, or another process, with the identity that the worker had."""
    stranger = 1 if victim == "init" else os.getpid()
    heard: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with Daemon({"one": SLEEPER}) as daemon:
            daemon.wait_running("one")
            main, record = daemon.pid_of("one"), _record(daemon)
            shim = daemon.shim_of(main)
            daemon.kill()
            for pid in (shim, main):
                os.kill(pid, signal.SIGKILL)
            events = (record / "events.jsonl").read_text()
            forged = events.replace(f"[{main},", f"[{stranger},").replace(f"[{shim},", f"[{stranger},")
            (record / "events.jsonl").write_text(forged)
            daemon.start()
            daemon.wait_running("one")
            daemon.must("stop", "one")
        assert heard == []
    finally:
        signal.signal(signal.SIGTERM, former)
