"""The daemon becomes other code in place: same pid, same processes, same sockets; a no changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor_d import __version__
from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.editions import Edition
from tests.support.load import Load
from tests.support.net import free_ports
from tests.support.programs import Notes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEPER = {"program": "command", "command": ["sleep", "600"]}
APP = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Edition:
    return Edition(tmp_path_factory.mktemp("newer") / "venv", "99.1")


@pytest.fixture
def sleeping() -> Iterator[Daemon]:
    with Daemon({"one": {**SLEEPER, "workers": 2}}) as daemon:
        daemon.wait_running("one")
        yield daemon


def web(daemon: Daemon, port: int) -> dict[str, object]:
    (daemon.work / "app.py").write_text(APP)
    return {
        "program": "gunicorn",
        "app": "app",
        "bind": f"127.0.0.1:{port}",
        "workers": 2,
        "python": sys.executable,
        "cwd": str(daemon.work),
    }


@pytest.mark.slow
async def test_upgrades_there_and_back_under_load_cost_no_request(newer: Edition) -> None:
    (port,) = free_ports(1)
    daemon = Daemon()
    daemon.configure({"web": web(daemon, port), "other": SLEEPER})
    with daemon:
        daemon.wait_running("web", "other")
        pid, before = daemon.pid, daemon.all_pids()
        masters = {child: procs.children(child) for child in daemon.pids("web").values()}
        async with Load(port) as load:
            for python, version in [(str(newer.python), "99.1"), (sys.executable, __version__)] * 3:
                told = await asyncio.to_thread(daemon.must, "upgrade", "--python", python)
                assert f"to {version} in " in told
                assert "2 processes adopted" in told
                status = await asyncio.to_thread(daemon.status)
                assert (status.daemon.version, status.daemon.pid) == (version, pid)
        assert load.failed == []
        assert load.done > 50
        assert daemon.all_pids() == before
        assert {child: procs.children(child) for child in masters} == masters
        assert daemon.running.pid == pid
        assert dict(daemon.pool("web").restarts_total) == {}


def test_json_tells_versions_pid_and_adopted_processes(sleeping: Daemon, newer: Edition) -> None:
    told = json.loads(sleeping.must("upgrade", "--json", "--python", str(newer.python)))
    assert (told["before"], told["after"], told["pid"]) == (__version__, "99.1", sleeping.running.pid)
    assert told["adopted"] == 2


def test_same_code_is_executed_anew_without_a_name(sleeping: Daemon) -> None:
    before, started = sleeping.all_pids(), sleeping.status().daemon.started_at
    sleeping.must("upgrade")
    assert sleeping.all_pids() == before
    assert sleeping.status().daemon.started_at > started


def test_a_successor_still_rules_and_leaves_no_zombie(sleeping: Daemon, newer: Edition) -> None:
    zygotes = procs.children(sleeping.pid)
    sleeping.must("upgrade", "--python", str(newer.python))
    wait_for(lambda: all(procs.stat(pid) is None for pid in zygotes), 10, "the former zygote to be reaped")
    sleeping.must("scale", "one=3")
    os.kill(sleeping.pids("one").popitem()[1], signal.SIGKILL)
    sleeping.wait_event("main-exited", text="SIGKILL")
    sleeping.wait_running("one")


def test_lock_is_held_without_a_gap(sleeping: Daemon, newer: Edition) -> None:
    lock = sleeping.directory / "run" / "lock"
    inode = lock.stat().st_ino
    sleeping.must("upgrade", "--python", str(newer.python))
    assert lock.stat().st_ino == inode
    second = sleeping.cli("run")
    assert second.returncode == 75
    held = [fd for fd, what in procs.descriptors(sleeping.pid).items() if what == str(lock)]
    assert len(held) == 1


def test_a_floating_port_and_a_unix_socket_stay_what_they_are(newer: Edition) -> None:
    daemon = Daemon()
    path = daemon.work / "web.sock"
    pool = web(daemon, 0)
    daemon.configure({"web": {**pool, "bind": ["127.0.0.1:0", f"unix:{path}"], "workers": 1}})
    with daemon:
        daemon.wait_running("web")
        listeners = daemon.pool("web").listeners
        inode = path.stat().st_ino
        daemon.must("stop", "web")  # nobody but the daemon holds the sockets now
        daemon.must("upgrade", "--python", str(newer.python))
        assert daemon.pool("web").listeners == listeners
        assert path.stat().st_ino == inode
        daemon.must("start", "web")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_stop_during_the_hand_over_is_heard(newer: Edition) -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.polite("p"), "ready": {"notify": True}}})
    with daemon:
        daemon.wait_running("one")
        exe = f"/proc/{daemon.pid}/cmdline"
        before = Path(exe).read_bytes()
        asking = daemon.cli_begin("upgrade", "--python", str(newer.python))
        wait_for(lambda: Path(exe).read_bytes() != before, 30, "the daemon to execute its successor")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_end() == 0
        assert notes.of("p", "end")
        asking.kill()  # it waits for a daemon to tell the outcome
        asking.wait(10)


_WAITS_TO_END = 'trap "while [ ! -e {gate} ]; do sleep 0.02; done; exit 0" TERM; while :; do sleep 0.02; done'


def test_a_stop_during_the_proof_stands(tmp_path: Path) -> None:
    edition, proven, gate = Edition(tmp_path / "venv", "99.3"), tmp_path / "proven", tmp_path / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(proven)!r}):\n    time.sleep(0.02)\n"
    edition.replace("proof.py", "import argparse\n", f"{wait}import argparse\n")
    command = ["/bin/sh", "-c", _WAITS_TO_END.format(gate=gate)]
    with Daemon({"one": {"program": "command", "command": command, "stop": "TERM 60s, KILL"}}) as daemon:
        daemon.wait_running("one")
        before = Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
        asking = daemon.cli_begin("upgrade", "--python", str(edition.python), err=subprocess.PIPE)
        daemon.wait_event("upgrade")
        daemon.signal(signal.SIGTERM)
        daemon.wait_event("signal")
        proven.touch()
        _, err = asking.communicate(timeout=30)
        assert asking.returncode != 0
        assert b"cannot upgrade: the daemon is stopping" in err
        assert Path(f"/proc/{daemon.running.pid}/cmdline").read_bytes() == before
        gate.touch()
        assert daemon.wait_end() == 0


@pytest.mark.parametrize(
    ("module", "old", "new", "reason"),
    [
        ("core/plan.py", "from __future__ import annotations\n", "this is no Python\n", "SyntaxError"),
        ("runtime/state.py", "STATE_VERSION = 1", "STATE_VERSION = 2", "version 1, not 2"),
        ("shim/wire.py", "VERSION = 1", "VERSION = 2", "it has version 1, and supervisor-d 99.2 knows 2"),
        (
            "metrics/families.py",
            "import annotations\n",
            "import annotations\nimport no_such_module\n",
            "no_such_module",
        ),
        ("core/adoption.py", "    began_at: float", "    began_at: float\n    colour: str", "colour"),
    ],
)
def test_code_that_cannot_take_over_is_refused(
    sleeping: Daemon, tmp_path: Path, module: str, old: str, new: str, reason: str
) -> None:
    broken = Edition(tmp_path / "venv", "99.2")
    broken.replace(module, old, new)
    before, started = sleeping.all_pids(), sleeping.status().daemon.started_at
    done = sleeping.cli("upgrade", "--python", str(broken.python))
    assert done.returncode == 73
    assert "cannot upgrade: " in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert (sleeping.all_pids(), sleeping.status().daemon.started_at) == (before, started)


def test_an_interpreter_without_us_is_refused(sleeping: Daemon) -> None:
    done = sleeping.cli("upgrade", "--python", "/bin/false")
    assert (done.returncode, "ended with 1" in done.stderr) == (73, True)
    done = sleeping.cli("upgrade", "--python", "/no/such/python")
    assert (done.returncode, "cannot be executed" in done.stderr) == (64, True)
    assert "sleep" in procs.command_line(sleeping.pids("one").popitem()[1])


@pytest.mark.parametrize("stopped", [False, True])
def test_a_config_file_with_mistakes_hinders_nobody(sleeping: Daemon, *, stopped: bool) -> None:
    if stopped:
        sleeping.must("stop", "one")
    before = sleeping.all_pids()
    sleeping.configure({"one": {"program": "comand"}})
    sleeping.must("upgrade")
    assert sleeping.all_pids() == before
    assert sleeping.pool("one").state == ("stopped" if stopped else "running")


def test_one_is_told_where_a_new_daemon_would_start_from_it(sleeping: Daemon) -> None:
    sleeping.must("stop", "one")
    (sleeping.directory / "run" / "ruling").unlink()
    sleeping.configure({"one": {"program": "comand"}})
    done = sleeping.cli("upgrade")
    assert done.returncode == 73
    assert "supervisor-d.yaml:" in done.stderr


def test_a_config_file_that_means_other_directories_is_refused(sleeping: Daemon) -> None:
    before = sleeping.all_pids()
    sleeping.configure({"one": SLEEPER}, runtime_dir=str(sleeping.directory / "elsewhere"))
    done = sleeping.cli("upgrade")
    assert done.returncode == 73
    assert "elsewhere as its runtime_dir, but this daemon's is" in done.stderr
    assert sleeping.all_pids() == before


def test_a_successor_that_fails_in_earnest_gives_way_to_its_predecessor(sleeping: Daemon, tmp_path: Path) -> None:
    late = Edition(tmp_path / "venv", "99.3")
    late.replace("daemon.py", "        self._places.prepare()", '        raise RuntimeError("only in earnest")')
    before = sleeping.all_pids()
    done = sleeping.cli("upgrade", "--python", str(late.python))
    assert done.returncode == 1
    assert "only in earnest" in done.stderr
    assert f"supervisor-d {__version__} rules again" in done.stderr
    assert sleeping.status().daemon.pid == sleeping.running.pid
    assert sleeping.all_pids() == before
    sleeping.must("scale", "one=1")


def test_a_python_that_vanishes_after_its_proof_leaves_the_old_daemon(sleeping: Daemon, tmp_path: Path) -> None:
    gone = Edition(tmp_path / "venv", "99.4")
    # The proof itself takes its interpreter away: execve must fail, and nothing was given up by then.
    gone.edit("proof.py", "\n")
    gone.replace(
        "proof.py", 'if __name__ == "__main__":', f'if __name__ == "__main__":\n    os.unlink("{gone.python}")'
    )
    started = sleeping.status().daemon.started_at
    done = sleeping.cli("upgrade", "--python", str(gone.python))
    assert done.returncode == 1
    assert f"supervisor-d {__version__} goes on" in done.stderr
    assert sleeping.status().daemon.started_at == started
    sleeping.must("scale", "one=1")
