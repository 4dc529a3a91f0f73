"""As PID 1 of a container (a pid and a mount namespace): who lives, who is reaped, and with which code it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.load import Load
from tests.support.net import free_ports
from tests.support.programs import Notes
from tests.support.systemd_box import inside
from tests.support.waiting import wait_for

UNSHARE = ["unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
if os.geteuid() != 0:
    UNSHARE[1:1] = ["--user", "--map-root-user"]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skip_allowed("needs a pid namespace: root, or user namespaces"),
]

SLEEPER = {"program": "command", "command": ["sleep", "600"]}
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture(autouse=True, scope="module")
def _namespaces() -> None:
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode:
        pytest.skip(f"no pid namespace can be had: {tried.stderr.strip()}")


class Container(Daemon):
    """A daemon whose parent is PID 1 of its own pid namespace; pids it tells are those of the namespace."""

    def __init__(self, pools: Mapping[str, Any] | None = None) -> None:
        super().__init__(pools or {}, prefix=UNSHARE)

    @property
    def init(self) -> int:
        """PID 1, as this machine counts."""
        return wait_for(lambda: procs.children(self.running.pid), 10, "PID 1")[0]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to PID 1, as a container's runtime does."""
        os.kill(self.init, number)

    def outside(self, pid: int) -> int:
        """The pid of this machine for one of the namespace."""
        found = [each for each in procs.below(self.running.pid) if inside(each) == pid]
        assert len(found) == 1, f"pid {pid} of the namespace: {found}"
        return found[0]

    def kill_daemon(self) -> None:
        os.kill(self.outside(self.pid), signal.SIGKILL)

    def wait_other_daemon(self, pid: int) -> None:
        """Wait until a daemon with another pid answers."""

        def answers() -> bool:
            try:
                return self.pid != pid
            except Exception:  # noqa: BLE001  between two daemons
                return False

        wait_for(answers, 30, "the next daemon")


@pytest.fixture
def container() -> Iterator[Container]:
    with Container({"one": {**SLEEPER, "workers": 2}}) as found:
        found.wait_running("one")
        yield found


def test_pid_1_is_small_and_the_daemon_is_its_child(container: Container) -> None:
    assert "init.py" in procs.command_line(container.init)
    assert container.outside(container.pid) in procs.children(container.init)
    assert container.pid != 1
    assert "VmRSS" in procs.status(container.init)
    assert int(procs.status(container.init)["VmRSS"].split()[0]) < 20_000  # kB; most of it shared with the others


async def test_a_killed_daemon_is_started_again_and_nobody_notices() -> None:
    (port,) = free_ports(1)
    container = Container()
    (container.work / "app.py").write_text(APP)
    web = {"program": "gunicorn", "app": "app", "bind": f"127.0.0.1:{port}", "workers": 2}
    container.configure({"web": {**web, "python": sys.executable, "cwd": str(container.work)}, "one": SLEEPER})
    with container:
        container.wait_running("web", "one")
        before = container.all_pids()
        async with Load(port) as load:
            for _ in range(3):
                await asyncio.to_thread(_kill_and_compare, container, before)
        assert load.failed == []
        assert load.done > 20


def _kill_and_compare(container: Container, before: dict[str, int]) -> None:
    pid = container.pid
    container.kill_daemon()
    container.wait_other_daemon(pid)
    assert container.all_pids() == before
    assert container.status().daemon.adopted_total == 2


def test_term_to_pid_1_stops_gracefully_with_0() -> None:
    container = Container()
    notes = Notes(container.work / "notes")
    container.configure({"one": {"program": "command", "command": notes.polite("p", 0.2), "ready": {"notify": True}}})
    with container:
        container.wait_running("one")
        os.kill(container.init, signal.SIGTERM)
        assert container.wait_end() == 0
        assert len(notes.of("p", "end")) == 1
        container.assert_nothing_left()


def test_term_reaches_a_daemon_that_is_just_being_started(container: Container) -> None:
    init, pid = container.init, container.pid
    daemon = container.outside(pid)
    os.kill(init, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    os.kill(init, signal.SIGTERM)  # both wait for it: the death and the order
    os.kill(init, signal.SIGCONT)
    assert container.wait_end() == 0
    container.assert_nothing_left()


def test_an_order_to_end_outlives_the_daemon_that_got_it() -> None:
    container = Container()
    notes = Notes(container.work / "notes")
    pool = {"program": "command", "command": notes.polite("p", 3), "ready": {"notify": True}, "stop": "TERM 30s, KILL"}
    container.configure({"one": pool})
    with container:
        container.wait_running("one")
        os.kill(container.init, signal.SIGTERM)
        notes.wait("p", "term")
        container.kill_daemon()
        assert container.wait_end() == 0
        assert len(notes.of("p", "end")) == 1


def test_hup_to_pid_1_is_a_reload(container: Container) -> None:
    container.configure({"one": {**SLEEPER, "workers": 3}})
    os.kill(container.init, signal.SIGHUP)
    wait_for(lambda: len(container.pids("one")) == 3, 20, "the reload")


def test_strangers_are_reaped(container: Container) -> None:
    nsenter = ["nsenter", "-t", str(container.init), "-p", "-m", *(["-U"] if os.geteuid() else [])]
    # A grandchild whose parent ends first: it is PID 1's from then on, and a zombie unless PID 1 reaps it.
    script = "(sleep 0.1; exit 3) & exit 0"
    subprocess.run([*nsenter, "sh", "-c", script], check=True, timeout=30)
    pid = container.pid

    def zombies() -> list[int]:
        found = (procs.stat(each) for each in _all_children(container.init))
        return [each.pid for each in found if each is not None and each.state == "Z"]

    wait_for(lambda: len(_all_children(container.init)) == len(procs.children(container.init)), 10, "no zombies")
    assert zombies() == []
    assert container.pid == pid


def _all_children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_upgrade_keeps_the_daemon_below_the_same_init(container: Container) -> None:
    init, pid, before = container.init, container.pid, container.all_pids()
    container.must("upgrade")
    assert (container.init, container.pid, container.all_pids()) == (init, pid, before)
    container.kill_daemon()
    container.wait_other_daemon(pid)
    assert container.all_pids() == before


def test_a_container_that_was_killed_whole_begins_anew_with_the_file(container: Container) -> None:
    container.must("scale", "one=3")
    os.kill(container.init, signal.SIGKILL)
    container.wait_end()
    wait_for(lambda: not container.left(), 10, "its end")
    assert (container.directory / "run" / "ruling").exists()
    assert list((container.directory / "run" / "processes").iterdir())
    container.configure({"one": {**SLEEPER, "workers": 1}, "two": SLEEPER})
    container.start()
    container.wait_running("one", "two")
    assert len(container.wait_pids("one", 1)) == 1
    wait_for(lambda: len(list((container.directory / "run" / "processes").iterdir())) == 2, 10, "the rest's end")


def test_a_wrong_config_ends_with_its_code() -> None:
    container = Container()
    container.write("pools: nonsense\n")
    container.spawn()
    try:
        assert container.wait_end() == 78
        assert "supervisor-d.yaml:1:" in container.stderr
        container.assert_nothing_left()
    finally:
        container.clear()


def test_a_store_of_sockets_is_no_process_that_goes_on() -> None:
    """With nothing else left, a daemon that dies again and again is given up."""
    container = Container({"web": {**SLEEPER, "bind": f"127.0.0.1:{free_ports(1)[0]}"}})
    with container.idle():
        container.start()
        container.wait_running("web")
        container.must("stop", "web")
        container.store_pid()
        for number in range(5):
            daemon = wait_for(lambda: _daemons(container), 20, f"daemon {number}")[0]
            os.kill(daemon, signal.SIGKILL)
            wait_for(lambda: daemon not in _daemons(container), 5, "its end")  # noqa: B023
        assert container.wait_end() == 128 + signal.SIGKILL
        assert "nothing runs: giving up" in container.stderr


def _daemons(container: Container) -> list[int]:
    """The daemon as this machine counts, once it has its name."""
    if container.running.poll() is not None:
        return []
    return [pid for pid in procs.children(container.init) if "-m\0supervisor_d\0run" in _words(pid)]


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_daemon_that_cannot_live_is_given_up_with_its_code() -> None:
    container = Container()
    argv = [sys.executable, "-I", "-S", "-c", "import os; os.abort()"]
    init = Path(__file__).resolve().parents[2] / "supervisor_d" / "init.py"
    try:
        done = subprocess.run(
            [*UNSHARE, sys.executable, "-I", "-S", str(init), *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        container.clear()
    assert done.returncode == 128 + signal.SIGABRT
    assert "was killed by SIGABRT, 5 times in a row, and nothing runs: giving up" in done.stderr
    assert done.stderr.count("it is started again") == 4
