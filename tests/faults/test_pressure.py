"""The daemon under pressure: it says so, keeps answering, and goes on when it is over.  No process is lost."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import plain_user, procs
from tests.support.daemon import Daemon
from tests.support.ending import Watched
from tests.support.programs import Notes
from tests.support.waiting import wait_for

ROOT_ONLY = "mounts a small disk, or rules as another user: only root can"
needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason=ROOT_ONLY),
    pytest.mark.skip_allowed(ROOT_ONLY),
]
pytestmark = pytest.mark.real

SLEEPER: Mapping[str, Any] = {
    "program": "command",
    "command": ["sleep", "600"],
    "restart": {"backoff": "50ms", "backoff_max": "500ms", "limit": 1000},
}


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A tmpfs of that size at `path`."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> Path:
    """Leave not a page of a disk.  The file that fills it."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def _limit_processes(pid: int, soft: str) -> None:
    """As the user itself: root may only with CAP_SYS_RESOURCE, which a container's has not."""
    owner = os.stat(f"/proc/{pid}")
    argv = ["prlimit", f"--pid={pid}", f"--nproc={soft}:"]
    subprocess.run(argv, check=True, user=owner.st_uid, group=owner.st_gid, extra_groups=[], cwd="/")


def _kill(daemon: Daemon, pool: str) -> None:
    os.kill(daemon.pid_of(pool), signal.SIGKILL)


def test_no_descriptor_is_left() -> None:
    """None but the three that the process held which dies, and a spawn takes four."""
    with Daemon({"one": SLEEPER, "two": SLEEPER}) as daemon:
        daemon.wait_running("one", "two")
        two, pid = daemon.pids("two"), daemon.pid
        former = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        main, used = daemon.pid_of("one"), procs.descriptors(pid)
        first_free = next(fd for fd in range(max(used) + 2) if fd not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, former[1]))
        os.kill(main, signal.SIGKILL)
        wait_for(lambda: "oo many open files" in daemon.stderr, 10, "the daemon to say so")
        assert daemon.pids("two") == two, "it answers"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, former)
        daemon.wait_running("one")
        assert daemon.pid == pid
        assert daemon.pids("two") == two


@pytest.mark.parametrize("mark", [pytest.param("", marks=needs_root)])
def test_no_process_can_be_had(mark: str) -> None:
    daemon = Daemon({"one": SLEEPER}, owner=plain_user.uid(), settings={"allow_root": False})
    (daemon.directory / "home").mkdir(mode=0o755)
    daemon.prefix = plain_user.becoming(daemon.directory / "home")
    if not daemon.prefix:
        daemon.close()
        pytest.skip("nobody cannot read this Python, and no mount namespace can be had")
    with daemon:
        daemon.wait_running("one")
        pid = daemon.pid
        zygotes = [child for child in procs.children(pid) if "zygote" in procs.command_line(child)]
        limited = {*zygotes, *(spare for zygote in zygotes for spare in procs.children(zygote))}
        for each in limited:
            _limit_processes(each, "0")
        _kill(daemon, "one")
        failed = daemon.wait_event("spawn-failed", pool="one")
        assert "emporarily unavailable" in failed.reason
        assert daemon.pid == pid
        for each in limited:
            if procs.alive(each):
                _limit_processes(each, "4096")
        daemon.wait_running("one")


@pytest.mark.parametrize("place", [pytest.param("run", marks=needs_root), pytest.param("state", marks=needs_root)])
def test_the_disk_of_the_daemon_is_full(place: str) -> None:
    daemon = Daemon({"one": SLEEPER, "two": SLEEPER})
    with ExitStack() as stack:
        stack.enter_context(small_disk(daemon.directory / place, "2m"))
        stack.enter_context(daemon)
        daemon.wait_running("one", "two")
        two, pid = daemon.pids("two"), daemon.pid
        filler = fill(daemon.directory / place)
        if place == "run":
            _kill(daemon, "one")
            assert "o space left" in daemon.wait_event("spawn-failed", pool="one").reason
        else:
            refused = daemon.cli("scale", "one=3")
            assert refused.returncode not in (0, 70)
            assert "o space left" in refused.stderr
            assert daemon.pool("one").workers_desired == 1
        assert daemon.pids("two") == two
        filler.unlink()
        daemon.must("scale", "one=2")
        daemon.wait_running("one")
        assert daemon.pid == pid
        daemon.kill()
        daemon.start()
        assert daemon.pids("two") == two
        assert len(daemon.wait_pids("one", 2)) == 2


@pytest.mark.parametrize("mark", [pytest.param("", marks=needs_root)])
def test_a_verdict_waits_for_room_on_the_disk(mark: str) -> None:
    """A rollout cannot be concluded; the daemon says so, goes on with all else, and concludes it when there is room."""
    daemon = Daemon({"one": {**SLEEPER, "rollout": {"min_ready": "2s"}}, "two": SLEEPER})
    with ExitStack() as stack:
        stack.enter_context(small_disk(daemon.directory / "state", "2m"))
        stack.enter_context(daemon)
        daemon.wait_running("one", "two")
        pid = daemon.pid
        daemon.must("restart", "one", "--no-wait")
        daemon.wait_event("spawn", text="rollout to g2", pool="one")
        filler = fill(daemon.directory / "state")
        assert "No space left on device" in daemon.wait_event("refused", pool="one").reason
        two = daemon.pid_of("two")
        _kill(daemon, "two")
        wait_for(lambda: list(daemon.pids("two").values()) not in ([], [two]), 10, "the other pool's next process")
        filler.unlink()
        daemon.wait_event("conclude-rollout", pool="one", text="succeeded")
        assert daemon.pid == pid
        assert sum(entry.name == "refused" for entry in daemon.events(pool="one")) == 1


LINES = """
import os, sys, time
number = 0
while True:
    began = time.monotonic()
    os.write(1, b"line %07d %s\\n" % (number, b"x" * 200))
    if time.monotonic() - began > 0.5:
        open(sys.argv[1], "a").write(f"{time.monotonic() - began}\\n")
    number += 1
    time.sleep(0.0005)
"""


@pytest.mark.parametrize("mark", [pytest.param("", marks=needs_root)])
def test_the_disk_of_the_logs_is_full(mark: str) -> None:
    daemon = Daemon()
    blocked = daemon.work / "blocked"
    command = [sys.executable, "-I", "-S", "-c", LINES, str(blocked)]
    daemon.configure({"one": {"program": "command", "command": command, "log": {"max_size": "64MiB"}}})
    with ExitStack() as stack:
        stack.enter_context(small_disk(daemon.directory / "log", "4m"))
        stack.enter_context(daemon)
        daemon.wait_running("one")
        pid = daemon.pid_of("one")
        wait_for(lambda: _last(daemon) > 100, 10, "some lines")
        filler = fill(daemon.directory / "log")
        wait_for(lambda: daemon.status().daemon.log_dropped_bytes_total > 0, 30, "bytes to be dropped and counted")
        daemon.kill()
        daemon.start()
        assert daemon.pid_of("one") == pid
        filler.unlink()
        before = _last(daemon)
        wait_for(lambda: _last(daemon) > before, 10, "writing to go on by itself")
        assert daemon.status().daemon.log_dropped_bytes_total > 0
        waits = [float(line) for line in blocked.read_text().splitlines()] if blocked.exists() else []
        assert max(waits, default=0.0) < 10.0, "a program is worth more than its log"


def _last(daemon: Daemon) -> int:
    found = re.findall(r"^line (\d{7}) x", daemon.log("one.0"), re.MULTILINE)
    return int(found[-1]) if found else 0


def test_a_stopped_worker_is_ended_by_its_list() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.polite("p"), "stop": "TERM 20s, KILL"}})
    with daemon:
        daemon.wait_running("one")
        main = notes.wait("p", "ready").pid
        os.kill(main, signal.SIGSTOP)
        with Watched(main) as watched:
            daemon.must("stop", "one")
            watched.end_time(5)
        assert notes.of("p", "end"), "it was woken to end well"


@pytest.mark.parametrize("how", ["stop", "crash", "kill"])
def test_a_stopped_shim_holds_nothing_up(how: str) -> None:
    stop = "TERM 300ms, KILL" if how != "kill" else "KILL"
    with Daemon({"one": {**SLEEPER, "stop": stop}, "two": SLEEPER}) as daemon:
        daemon.wait_running("one", "two")
        main = daemon.pid_of("one")
        os.kill(daemon.shim_of(main), signal.SIGSTOP)
        if how == "crash":
            os.kill(main, signal.SIGKILL)
            daemon.wait_event("main-exited", pool="one")
            daemon.wait_running("one")
            assert daemon.pid_of("one") != main
        else:
            daemon.must("stop", "one", seconds=15)
            assert not procs.alive(main)
        daemon.wait_running("two")
