"""Logs and the journal as people read them: the last lines, what comes next, rotation, JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from supervisor_d.core.snapshot import Entry, Snapshot
from supervisor_d.shim.logfile import OVERRUN_BYTES
from tests.support.daemon import ROOT, Daemon
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real


class Talkers:
    """Pools that say, line by line, what the test writes into their FIFOs."""

    def __init__(self, daemon: Daemon, names: tuple[str, ...]) -> None:
        self.daemon = daemon
        script = 'exec 3<>"$0"; while read -r line <&3; do echo "$line"; done'
        for name in names:
            os.mkfifo(daemon.work / name)
        daemon.configure(
            {name: {"program": "command", "command": ["sh", "-c", script, str(daemon.work / name)]} for name in names}
        )

    def say(self, name: str, *lines: str) -> None:
        with (self.daemon.work / name).open("w") as fifo:
            fifo.writelines(f"{line}\n" for line in lines)
        wait_for(lambda: lines[-1] in self.daemon.log(f"{name}.0"), 10, f"{name} to have said it")


@pytest.fixture(scope="module")
def talkers() -> Iterator[Talkers]:
    daemon = Daemon()
    talkers = Talkers(daemon, ("one", "two"))
    with daemon:
        daemon.wait_running("one", "two")
        yield talkers


def test_the_last_lines_of_one_pool_and_of_all(talkers: Talkers) -> None:
    talkers.say("one", *(f"first {n}" for n in range(10)))
    talkers.say("two", "second")
    shown = talkers.daemon.must("logs", "one", "-n", "3").splitlines()
    assert [line.split("first ")[1] for line in shown] == ["7", "8", "9"]
    both = talkers.daemon.must("logs")
    assert "first 9" in both
    assert "second" in both


def test_following_shows_what_is_said_from_now_on(talkers: Talkers) -> None:
    talkers.say("one", "before the follower")
    with _following(talkers.daemon, "logs", "-f", "-n", "100") as follower:
        _read_until(follower, "before the follower")
        talkers.say("one", "live from one")
        talkers.say("two", "live from two")
        shown = _read_until(follower, "live from two")
        assert "live from one" in shown


def test_following_events_as_json(talkers: Talkers) -> None:
    daemon = talkers.daemon
    with _following(daemon, "events", "-f", "--json") as follower:
        _read_until(follower, "became-ready")
        daemon.must("scale", "two=2")
        shown = _read_until(follower, "two.1@")
        assert all(json.loads(line) for line in shown.splitlines() if line.endswith("}"))
    daemon.must("scale", "two=config")


@contextmanager
def _following(daemon: Daemon, command: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "supervisor_d", command, "-c", str(daemon.config), *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=env, cwd=daemon.directory) as follower:
        try:
            yield follower
        finally:
            follower.terminate()


def _read_until(follower: subprocess.Popen[bytes], text: str, seconds: float = 20.0) -> str:
    assert follower.stdout is not None
    shown, deadline = "", time.monotonic() + seconds
    while text not in shown:
        ready = select.select([follower.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
        data = os.read(follower.stdout.fileno(), 65536) if ready else b""
        assert data, f"waited for {text!r}; only: {shown}"
        shown += data.decode()
    return shown


def test_status_and_events_as_json_are_the_snapshot_and_the_journal(talkers: Talkers) -> None:
    daemon = talkers.daemon
    shown = msgspec.json.decode(daemon.must("status", "--json"), type=Snapshot)
    assert {pool.name for pool in shown.pools} == {"one", "two"}
    assert shown.daemon.pid == daemon.running.pid
    lines = daemon.must("events", "--json").splitlines()
    entries = [msgspec.json.decode(line, type=Entry) for line in lines]
    assert [entry.serial for entry in entries] == sorted(entry.serial for entry in entries)
    assert {"spawn", "spawned", "became-ready"} <= {entry.name for entry in entries}
    assert all(entry.reason for entry in entries)


def test_status_is_a_table_for_people(talkers: Talkers) -> None:
    shown = talkers.daemon.must("status")
    assert "one" in shown
    assert "running" in shown
    assert "\x1b[" not in shown


def test_logs_of_an_unknown_pool_are_refused(talkers: Talkers) -> None:
    done = talkers.daemon.cli("logs", "three")
    assert done.returncode == 66
    assert "three" in done.stderr


def _is_whole(numbers: list[int], count: int) -> bool:
    """Whether the lines up to the last are there, each once and in their order."""
    return bool(numbers) and numbers == list(range(numbers[0], count))


def test_rotation_keeps_the_newest_lines_whole_and_no_more_files_than_asked() -> None:
    count, size = 40_000, 64 * 1024
    script = f"for n in range({count}): print(f'line {{n:06d}} ' + 'x' * 20)\nimport time\ntime.sleep(600)"
    log = {"max_size": "64KiB", "keep": 3}
    pool = {"program": "command", "command": [sys.executable, "-I", "-S", "-u", "-c", script], "log": log}
    with Daemon({"one": pool}) as daemon:
        wait_for(lambda: f"line {count - 1:06d}" in daemon.log("one.0"), 30, "the last line")
        files = [daemon.log_dir / f"one.0.log{end}" for end in (".3", ".2", ".1", "")]
        # The last rotation may be under way just now: its renames are not one step.
        wait_for(lambda: _is_whole(_all_numbers(files), count), 10, "the last rotation to be over, and no line missing")
        assert not (daemon.log_dir / "one.0.log.4").exists()
        assert all(path.stat().st_size <= size + OVERRUN_BYTES for path in files)
        shown = daemon.must("logs", "one", "-n", "3000").splitlines()
        assert len(shown) == 3000
        assert f"line {count - 1:06d}" in shown[-1]
        assert f"line {count - 3000:06d}" in shown[0]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root can")
@pytest.mark.skip_allowed("mounts a small file system, which only root can")
def test_a_full_disk_blocks_no_process_for_long_and_what_is_lost_is_counted() -> None:
    daemon = _with_small_logs("256k")
    done = daemon.work / "done"
    script = f"for n in range(40_000): print(f'line {{n:06d}} ' + 'x' * 88)\nopen({str(done)!r}, 'w')"
    pool = {
        "program": "command",
        "command": [sys.executable, "-I", "-S", "-u", "-c", f"import time\n{script}\ntime.sleep(600)"],
        "log": {"block": "200ms"},
        "restart": "never",
    }
    daemon.configure({"one": pool})
    with daemon:
        wait_for(done.exists, 30, "the process to have written 4 MB")
        wait_for(lambda: daemon.status().daemon.log_dropped_bytes_total > 1_000_000, 10, "the loss to be counted")
        assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root can")
@pytest.mark.skip_allowed("mounts a small file system, which only root can")
def test_last_words_that_a_full_disk_does_not_take_are_counted() -> None:
    """Too few to fill the pipe: the process ends before anybody was blocked."""
    daemon = _with_small_logs("64k")
    script = "for n in range(1000): print(f'line {n:06d} ' + 'x' * 88)"
    command = [sys.executable, "-I", "-S", "-c", script]
    daemon.configure({"one": {"program": "command", "command": command, "restart": "never"}})
    with daemon:
        daemon.wait_event("tree-emptied", pool="one")
        wait_for(lambda: daemon.status().daemon.log_dropped_bytes_total > 20_000, 10, "the loss to be counted")


def _with_small_logs(size: str) -> Daemon:
    daemon = Daemon()
    log_dir = daemon.directory / "log"
    log_dir.mkdir()
    mount = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    daemon.prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(log_dir)]
    return daemon


def _all_numbers(files: list[Path]) -> list[int]:
    """The numbers in all files, oldest first; none while one of them is not there."""
    try:
        return [number for path in files for number in _numbers(path)]
    except FileNotFoundError:
        return []


def _numbers(path: Path) -> list[int]:
    return [int(line.split()[1]) for line in path.read_text().splitlines()]
