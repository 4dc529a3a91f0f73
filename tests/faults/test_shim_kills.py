"""SIGKILL of shims: the program runs on under another one, its lines go on, and how it ends is known."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor_d.shim import crash
from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.dose import FULL, dose, report
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900 if FULL else 120)]

KILLS = dose(10, 100)

LINES = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
number = 0
while True:
    os.write(1, b"line %d\\n" % number)
    number += 1
    time.sleep(0.002)
"""


def _tells_exits() -> bool:
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= (6, 15)


def _shim(daemon: Daemon, pool: str) -> int:
    """The present shim, by the record: a program under one in adopt mode is not its child."""
    (process,) = daemon.pids(pool)
    lines = (daemon.directory / "run" / "processes" / process / "events.jsonl").read_text().splitlines()
    return int(re.findall(r'"(?:began|replaced)".*?"process":\[(\d+)', "\n".join(lines))[-1])


def test_another_shim_holds_none_of_the_sockets_that_the_program_bound_itself() -> None:
    """Or its address would stay taken when it ends."""
    script = "import socket, time\nserver = socket.create_server(('127.0.0.1', 0))\ntime.sleep(600)"
    with Daemon({"one": {"program": "command", "command": [sys.executable, "-I", "-S", "-c", script]}}) as daemon:
        daemon.wait_running("one")
        main = daemon.pid_of("one")
        (own,) = wait_for(lambda: _sockets(main), 5, "its socket")
        os.kill(daemon.shim_of(main), signal.SIGKILL)
        daemon.wait_event("shim-replaced")
        assert own not in _sockets(daemon.shim_of(main))


def _sockets(pid: int) -> set[str]:
    return {link for link in procs.descriptors(pid).values() if link.startswith("socket:")}


def test_a_program_lives_on_under_another_shim() -> None:
    (port,) = net.free_ports(1)
    command = [sys.executable, "-I", "-S", "-c", LINES]
    pool = {"program": "command", "command": command, "bind": f"127.0.0.1:{port}", "log": {"keep": 100}}
    with Daemon({"one": pool}) as daemon:
        daemon.wait_running("one")
        main = daemon.pid_of("one")
        for number in range(KILLS):
            with_daemon = random.random() < 0.7
            shim = _shim(daemon, "one")
            if not with_daemon:
                daemon.kill()
            os.kill(shim, signal.SIGKILL)
            if not with_daemon:
                daemon.start()
            _wait_for_another(daemon, shim, number)
            time.sleep(random.uniform(0.1, 0.2))
            assert daemon.pids("one") == {"one.0@g1.1": main}
        wait_for(lambda: len([e for e in daemon.events() if e.name == "shim-replaced"]) == KILLS, 5, "all told")
        lines = _lines(daemon)
        wait_for(lambda: _lines(daemon) > lines, 5, "more lines")
        os.kill(main, signal.SIGTERM)
        ended = daemon.wait_event("main-exited")
        if _tells_exits():
            assert "exited with code 7" in ended.reason
        daemon.wait_event("tree-emptied")
        numbers = _numbers(daemon)
        first = numbers[: next((at for at in range(1, len(numbers)) if numbers[at] == 0), len(numbers))]
        assert first == list(range(len(first)))
        daemon.wait_running("one")
        assert daemon.pid_of("one") != main
        report(
            "SIGKILL of a shim",
            KILLS,
            pids_changed=0,
            log_lines=len(first),
            log_lines_lost=0,
            exit="told" if _tells_exits() else "unknown",
        )


def _wait_for_another(daemon: Daemon, shim: int, number: int) -> None:
    wait_for(lambda: _shim(daemon, "one") != shim, 10, f"shim {number}")


@pytest.mark.parametrize("point", crash.POINTS)
def test_no_line_is_lost_where_a_rotation_is_cut_short(point: str) -> None:
    command = [sys.executable, "-I", "-S", "-c", LINES]
    pool = {"program": "command", "command": command, "log": {"max_size": "4KiB", "keep": 1000}}
    crashes = dose(2, 25)
    with Daemon({"one": pool}, env={crash.ENV: point}) as daemon:
        daemon.wait_running("one")
        main = daemon.pid_of("one")
        wait_for(lambda: len([e for e in daemon.events() if e.name == "shim-replaced"]) >= crashes, 120, "rotations")
        assert daemon.pid_of("one") == main
        daemon.kill()
        del daemon.env[crash.ENV]
        daemon.start()
        os.kill(main, signal.SIGKILL)
        daemon.wait_event("tree-emptied")
        files = sorted(daemon.log_dir.glob("one.0*.log*"), key=_age, reverse=True)
        text = "".join(path.read_text() for path in files if not path.name.endswith(".idx"))
        numbers = [int(number) for number in re.findall(r"^line (\d+)$", text, re.MULTILINE)]
        first = numbers[: next((at for at in range(1, len(numbers)) if numbers[at] == 0), len(numbers))]
        assert first == list(range(len(first)))
        report(f"crash points: {point} (log rotation)", crashes, log_lines=len(first), log_lines_lost=0, pids_changed=0)


def _age(path: Path) -> int:
    found = re.search(r"\.log\.(\d+)$", path.name)
    return int(found[1]) if found else 0


def _numbers(daemon: Daemon) -> list[int]:
    return [int(number) for number in re.findall(r"^line (\d+)$", daemon.log("one.0"), re.MULTILINE)]


def _lines(daemon: Daemon) -> int:
    return len(_numbers(daemon))


def test_its_socket_and_its_end_outlive_shim_and_daemon_one_after_the_other() -> None:
    (port,) = net.free_ports(1)
    pool = {"program": "command", "command": ["sh", "-c", "exec sleep 600"], "bind": f"127.0.0.1:{port}"}
    with Daemon({"one": pool}) as daemon:
        daemon.wait_running("one")
        main, first = daemon.pid_of("one"), _shim(daemon, "one")
        os.kill(first, signal.SIGKILL)
        daemon.wait_event("shim-replaced")
        second = _shim(daemon, "one")
        assert any("socket" in target for target in procs.descriptors(second).values())
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            daemon.kill()
            os.kill(main, signal.SIGSEGV)
            wait_for(lambda: not procs.alive(main), 5, "its end")
            events = next(Path(daemon.directory / "run" / "processes").iterdir()) / "events.jsonl"
            wait_for(lambda: '"exited"' in events.read_text(), 10, "its end on record")
            daemon.start()
            told = daemon.wait_event("main-exited")
            if _tells_exits():
                assert "SIGSEGV" in told.reason
            daemon.wait_running("one")
        assert daemon.pid_of("one") != main


def test_what_kills_shims_again_and_again_is_not_fed() -> None:
    with Daemon({"one": {"program": "command", "command": ["sleep", "600"]}}) as daemon:
        daemon.wait_running("one")
        main = daemon.pid_of("one")

        def lost() -> bool:
            with suppress(ValueError, OSError, IndexError):
                os.kill(_shim(daemon, "one"), signal.SIGKILL)
            return any(entry.name == "shim-lost" for entry in daemon.events())

        wait_for(lost, 20, "the daemon to give the process up")
        wait_for(lambda: not procs.alive(main), 20, "the process to be replaced")
        daemon.wait_running("one")
