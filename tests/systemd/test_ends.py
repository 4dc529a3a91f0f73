"""What a stop leaves (nothing), what a death takes along (the daemon alone), and where the sockets are meanwhile."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping

import pytest

from tests.support.programs import Notes
from tests.support.waiting import wait_for
from tests.systemd.support import HANG_SIGNAL, PYTHON, UNITS, Machine, Service

pytestmark = [
    pytest.mark.real,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skip_allowed("needs root, namespaces, a writable cgroup2 and Debian's systemd"),
]

USER = "www-data"
PROFILES = {"root": "", "plain": USER}
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""
GET = """
import socket, sys
where = sys.argv[1]
with socket.socket(socket.AF_UNIX if "/" in where else socket.AF_INET) as client:
    client.settimeout(30)
    client.connect(where if "/" in where else ("127.0.0.1", int(where)))
    client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(client.recv(100).split()[1].decode())
"""


@pytest.fixture(params=sorted(PROFILES))
def service(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Service]:
    """One profile's service with a worker that ignores TERM, and its child in a session of its own."""
    number = len(list(machine.shop.iterdir()))
    with Service(machine, f"ends{number}", user=PROFILES[request.param]) as service:
        yield service


def stubborn(service: Service, **more: object) -> dict[str, object]:
    """A pool whose worker ignores TERM, and has a child in another session that does too."""
    notes = Notes(service.directory / "work" / "notes")
    command = notes.stubborn("s")
    command = [f"{PYTHON}/bin/python3", *command[1:]]
    command = [word.replace(str(service.directory), service.inner) for word in command]
    return {"program": "command", "command": command, "user": USER, "ready": {"notify": True}, **more}


def start(service: Service, pools: Mapping[str, object], drop_in: str = "") -> dict[int, str]:
    service.configure(pools)
    service.write_units(drop_in)
    service.must("start")
    service.wait_running(*pools)
    return service.all_pids()


def test_a_stop_ends_what_ignores_term_and_what_escaped(service: Service) -> None:
    before = start(service, {"one": stubborn(service, stop="TERM 1s, KILL")})
    assert len(before) == 2
    began = time.monotonic()
    service.must("stop")
    assert 1 <= time.monotonic() - began < 15
    assert service.left() == {}
    assert service.shown("Result") == "success"
    for unit in (service.unit, service.scope):
        assert not service.box.cgroup(f"system.slice/{unit}").exists()


def test_a_slow_stop_gets_the_time_it_needs(service: Service) -> None:
    start(service, {"one": stubborn(service, stop="TERM 3s, KILL")}, "[Service]\nTimeoutStopSec=1\n")
    service.must("stop")
    assert service.shown("Result") == "success"
    assert service.left() == {}


def test_death_and_kill_leave_workers_and_the_next_daemon_adopts(service: Service) -> None:
    before = start(service, {"one": stubborn(service, stop="TERM 1s, KILL")})
    for by_systemd in (False, True):
        restarts = int(service.shown("NRestarts"))
        if by_systemd:
            service.must("kill", "--kill-whom=main", "-s", "KILL")
        else:
            service.kill(service.main, "KILL")
        service.wait_restarted(restarts)
        assert service.all_pids() == before
        assert service.status().daemon.adopted_total == 1


def test_a_stop_while_the_daemon_hangs_leaves_nothing(service: Service) -> None:
    start(service, {"one": stubborn(service)}, "[Service]\nTimeoutStopSec=4\nWatchdogSec=0\n")
    service.kill(service.main, HANG_SIGNAL)
    service.systemctl("stop", timeout=90)
    assert service.shown("Result") == "timeout"
    assert service.left() == {}


def test_a_stop_while_no_daemon_lives(service: Service) -> None:
    before = start(service, {"one": stubborn(service, stop="TERM 1s, KILL")}, "[Service]\nRestartSec=1h\n")
    service.kill(service.main, "KILL")
    wait_for(lambda: service.shown("SubState") == "auto-restart", 20, "systemd to wait for the restart")
    assert service.all_pids() == before
    service.must("stop", timeout=90)
    service.wait_nothing_left()  # by its scope, or by the unit that sweeps
    service.must("start")
    service.wait_running("one")
    assert service.all_pids().keys().isdisjoint(before)


def test_sockets_outlive_daemon_shims_and_workers_at_once(service: Service) -> None:
    (service.directory / "app.py").write_text(APP)
    path = f"{service.inner}/work/web.sock"
    web = {"program": "gunicorn", "app": "app", "bind": ["127.0.0.1:8101", f"unix:{path}"], "workers": 1}
    own = {"user": USER, "cwd": service.inner, "python": service.python}
    start(service, {"web": {**web, **own}}, "[Service]\nRestartSec=1s\n")
    inodes, file = service.listening(8101), (service.directory / "work" / "web.sock").stat().st_ino
    restarts = int(service.shown("NRestarts"))
    if service.in_scope:
        service.box.must("systemctl", "kill", "-s", "KILL", service.scope)
    service.must("kill", "-s", "KILL")
    wait_for(lambda: not service.all_pids(), 20, "everything to be dead")
    assert get(service, "8101") == "200"  # it waits in the queue until the next daemon has started the next worker
    service.wait_restarted(restarts)
    assert service.listening(8101) == inodes
    assert get(service, path) == "200"
    assert (service.directory / "work" / "web.sock").stat().st_ino == file
    service.must("stop")
    assert not (service.directory / "work" / "web.sock").exists()
    assert service.listening(8101) == []


def test_the_socket_outlives_every_combination(service: Service) -> None:
    """As tests/faults/test_sockets.py, where no fd store is and pidfd_getfd(2) is allowed."""
    pool = {"program": "command", "command": ["sleep", "600"], "bind": "127.0.0.1:8102", "restart": {"backoff": "1ms"}}
    start(service, {"web": {**pool, "user": USER}})
    inodes = service.listening(8102)
    for dead in (("shim",), ("main",), ("shim", "main")):
        ((name, main),) = service.pids().items()
        pids = {"shim": service.shim_of(name), "main": main}
        restarts = int(service.shown("NRestarts"))
        service.box.must("kill", "-s", "KILL", *map(str, (service.main, *(pids[who] for who in dead))))
        service.wait_restarted(restarts)
        service.wait_running("web")
        assert service.listening(8102) == inodes, dead
        assert (service.pids() == {name: main}) == ("main" not in dead)
    service.must("stop")
    assert (service.left(), service.listening(8102)) == ({}, [])


def test_systemd_binds_and_starts_at_the_first_connection(service: Service) -> None:
    (service.directory / "app.py").write_text(APP)
    path = f"{service.inner}/work/web.sock"
    web = {"program": "gunicorn", "app": "app", "bind": ["127.0.0.1:81", f"unix:{path}"], "workers": 1}
    own = {"user": USER, "cwd": service.inner, "python": service.python}
    service.configure({"web": {**web, **own}})
    service.install("--with-socket")
    service.box.must("systemctl", "start", f"{service.name}.socket")
    assert service.active() == "inactive"
    inodes, file = service.listening(81), (service.directory / "work" / "web.sock").stat().st_ino
    assert get(service, "81") == "200"
    service.wait_running("web")
    assert get(service, path) == "200"
    assert service.listening(81) == inodes
    restarts = int(service.shown("NRestarts"))
    service.kill(service.main, "KILL")
    service.wait_restarted(restarts)
    service.ours("upgrade")
    assert (service.listening(81), get(service, "81")) == (inodes, "200")
    service.must("stop")
    assert service.left() == {}
    # systemd's own sockets, and their files, stay: the next connection starts the service again.
    assert service.listening(81) == inodes
    assert (service.directory / "work" / "web.sock").stat().st_ino == file
    assert get(service, path) == "200"


def test_an_empty_scope_is_made_again(machine: Machine) -> None:
    with Service(machine, "scopes") as service:
        start(service, {"one": {"program": "command", "command": ["sleep", "600"], "user": USER}})
        service.ours("stop", "one")
        wait_for(lambda: not service.all_pids(), 20, "the worker to be gone")
        service.box.must("systemctl", "kill", "-s", "KILL", service.scope)  # the zygote, and a shim in reserve
        wait_for(lambda: service.box.property(service.scope, "ActiveState") == "inactive", 20, "the scope to be gone")
        service.ours("start", "one")
        assert service.box.property(service.scope, "ActiveState") == "active"
        assert len(service.all_pids()) == 1
        assert service.all_pids().keys() <= service.box.members(f"system.slice/{service.scope}").keys()


def test_units_are_right_to_systemd(service: Service) -> None:
    """What the command makes is what the other tests here run, and this systemd has nothing to say about it."""
    service.configure({"one": {"program": "command", "command": ["sleep", "600"], "user": USER}})
    names = [service.unit, *([] if service.in_scope else [f"{service.name}-sweep.service"])]
    service.write_units()
    ours = [service.box.must("cat", f"{UNITS}/{name}") for name in names]
    service.install()
    assert [service.box.must("cat", f"{UNITS}/{name}") for name in names] == ours
    done = service.box.run("systemd-analyze", "verify", *names)
    told = [line for line in (done.stdout + done.stderr).splitlines() if service.name in line]
    assert told == []
    for name in names:
        text = service.box.run("systemd-analyze", "security", "--offline=true", "--no-pager", f"{UNITS}/{name}").stdout
        level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
        assert level is not None, text
        assert float(level[1]) <= (3.0 if service.in_scope else 2.0)


def get(service: Service, address: str) -> str:
    """The status of one request in the box."""
    return service.box.must(service.python, "-I", "-S", "-c", GET, address).strip()


def test_each_process_has_a_cgroup_of_its_own(service: Service) -> None:
    """Also where the profile keeps clone3(2) from being born in it (RestrictNamespaces=)."""
    start(service, {"one": stubborn(service, stop="KILL")})
    ((name, main),) = service.pids().items()
    lines = service.box.must("cat", f"/proc/{main}/cgroup").splitlines()
    (path,) = (line.removeprefix("0::") for line in lines if line.startswith("0::"))
    assert path.rpartition("/")[2] == name
    assert len(service.box.members(path)) == 2
