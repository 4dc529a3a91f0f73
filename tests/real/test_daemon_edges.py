"""The daemon among others: a second one, systemd, a terminal that comes and goes."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import socket
import stat
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEPER = {"program": "command", "command": ["sleep", "600"]}


def test_a_second_daemon_is_refused_with_75_and_the_first_goes_on() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.all_pids()
        second = daemon.cli("run")
        assert second.returncode == 75
        assert f"another supervisor-d (pid {daemon.pid}) holds {daemon.directory}/run" in second.stderr
        assert "hint: " in second.stderr
        assert "Traceback" not in second.stderr
        assert daemon.all_pids() == before


def test_a_bad_config_at_the_start_exits_78_and_leaves_nothing() -> None:
    daemon = Daemon()
    with daemon.idle():
        daemon.write("version: 1\npools:\n  one: {program: comand}\n")
        done = daemon.cli("run")
        assert done.returncode == 78
        assert f"{daemon.config}:3:" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (daemon.directory / "run").exists()


@pytest.mark.parametrize("who", ["metrics", "pool"])
def test_a_port_that_is_taken_at_the_start_exits_73_and_leaves_nothing(who: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        bind = {"bind": address} if who == "pool" else {}
        settings = {"metrics": {"listen": address}} if who == "metrics" else {}
        daemon = Daemon({"one": SLEEPER, "two": {**SLEEPER, **bind}}, settings=settings)
        with daemon.idle():
            assert daemon.spawn().wait(20) == 73
            assert address in daemon.stderr
            assert "Traceback" not in daemon.stderr


def test_output_that_nobody_reads_holds_up_nothing() -> None:
    """A pipe to a stopped pager: full, and never read."""
    readable, writable = os.pipe()
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writable, b"x" * 4096)
    daemon = Daemon({"one": SLEEPER})
    daemon.popen = {"stdout": writable, "stderr": writable}
    try:
        with daemon:
            daemon.wait_running("one")
            daemon.must("scale", "one=3")
            assert daemon.stop() == 0
    finally:
        os.close(readable)
        os.close(writable)


def test_without_a_daemon_commands_say_so_with_69() -> None:
    daemon = Daemon({"one": SLEEPER})
    with daemon.idle():
        for command in (["status"], ["events"], ["reload"], ["scale", "one=2"], ["logs"]):
            done = daemon.cli(*command)
            assert done.returncode == 69, command
            assert "cannot reach the daemon" in done.stderr
            assert "Traceback" not in done.stderr


def test_the_control_socket_is_for_the_group_in_a_closed_directory() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        found = daemon.socket.stat()
        assert (stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode)) == (True, 0o660)
        assert stat.S_IMODE(daemon.socket.parent.stat().st_mode) == 0o750
        abstract = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if " @" in line]
        assert not [name for name in abstract if "supervisor" in name or str(daemon.directory) in name]


def test_systemd_is_told_and_nobody_else_can_speak_to_it() -> None:
    daemon = Daemon({"one": SLEEPER})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(daemon.directory / "manager.sock")
        manager.bind(address)
        manager.settimeout(20)
        daemon.env["NOTIFY_SOCKET"] = address
        with daemon:
            assert "READY=1" in manager.recv(4096).decode().splitlines()
            daemon.wait_running("one")
            assert "NOTIFY_SOCKET" not in procs.environment(daemon.pid_of("one"))
            serial = daemon.last_serial()
            daemon.signal(signal.SIGHUP)
            daemon.wait_event("reload", after=serial)
            assert daemon.stop() == 0
            told = _all(manager)
            assert "STOPPING=1" in told
            assert told.index("RELOADING=1") < told.index("READY=1") < told.index("STOPPING=1")


def _all(manager: socket.socket) -> list[str]:
    """Every line that waits in the socket."""
    manager.setblocking(False)
    lines: list[str] = []
    try:
        while True:
            lines += manager.recv(4096).decode().splitlines()
    except BlockingIOError:
        return lines


def test_a_terminal_shows_merged_coloured_logs_and_its_hangup_ends_and_reloads_nothing() -> None:
    talker = "echo I am $0; exec sleep 600"
    pools = {name: {"program": "command", "command": ["sh", "-c", talker, name]} for name in ("one", "two")}
    daemon = Daemon(pools, env={"TERM": "xterm-256color"})
    master, slave = os.openpty()
    daemon.popen = {"stdin": slave, "stdout": slave, "stderr": slave, "preexec_fn": _controlling}
    try:
        with daemon:
            os.close(slave)
            shown = _read_until(master, lambda text: "I am one" in text and "I am two" in text)
            assert re.search(r"\x1b\[[0-9;]*m.*one", shown)
            daemon.wait_running("one", "two")
            before = daemon.all_pids()
            daemon.configure({"one": pools["one"]})
            assert procs.descriptors(daemon.pid)[1].startswith("/dev/pts/")
            os.close(master)
            master = -1
            wait_for(lambda: procs.descriptors(daemon.pid)[1] == "/dev/null", 10, "the output to be detached")
            assert daemon.all_pids() == before
            assert not [entry for entry in daemon.events() if "reload" in entry.name]
            assert daemon.cli("status").returncode == 0
    finally:
        if master >= 0:
            os.close(master)


def _controlling() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(master: int, enough: Callable[[str], bool], seconds: float = 20.0) -> str:
    text, deadline = "", time.monotonic() + seconds
    while not enough(text):
        assert select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0], f"only: {text}"
        text += os.read(master, 65536).decode(errors="replace")
    return text
