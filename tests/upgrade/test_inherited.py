"""What a daemon is born with: read strictly, taken out of the environment, kept from everybody else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from supervisor_d.runtime.fdstore import FdStore
from supervisor_d.runtime.inherited import (
    HANDOVER_ENV,
    HANDOVER_VERSION,
    HandOver,
    Inherited,
    Predecessor,
    Socket,
    fd_name,
    take,
)
from supervisor_d.runtime.listeners import Held
from supervisor_d.runtime.systemd import Notifier

BEFORE = Predecessor("1.0", ("/bin/python",), 12.5)
TAKING = """
import os, sys
from supervisor_d.runtime.inherited import take
os.environ["LISTEN_PID"] = str(os.getpid())
found = take(os.environ)
print([(s.fd, s.pool, s.foreign, os.get_inheritable(s.fd)) for s in found.sockets], sorted(found.stored))
print([name for name in os.environ if name.startswith("LISTEN")])
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def handed(**changes: object) -> str:
    values = {"version": HANDOVER_VERSION, "predecessor": BEFORE, "lock": -1, **changes}
    return msgspec.json.encode(HandOver(**values)).decode()  # type: ignore[arg-type]


def test_nothing_came_along() -> None:
    assert take({}) == Inherited()


def test_systemds_sockets_and_those_of_the_store(listener: socket.socket) -> None:
    # As after an exec by systemd: descriptors from 3 on, not close-on-exec, with their names.
    names = f"supervisor-d.socket:web@{os.fstat(listener.fileno()).st_ino}:@99:gone"
    script = f'exec 3<&{listener.fileno()} 4<&{listener.fileno()} 5<&{listener.fileno()}; exec "$@"'
    env = {**os.environ, "LISTEN_FDS": "4", "LISTEN_FDNAMES": names}
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-c", TAKING],
        env=env, pass_fds=[listener.fileno()], capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    sockets, left = done.stdout.splitlines()
    assert sockets.startswith("[(3, '', True, False), (4, 'web', False, False), (5, '', True, False)]")
    assert "web@" in sockets
    assert left == "[]"


def test_a_socket_meant_for_another_process_is_not_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    assert take(environ) == Inherited()
    assert environ == {}


def test_a_hand_over(listener: socket.socket) -> None:
    fd = listener.fileno()
    lock = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    sockets = (Socket(fd, "web"), Socket(9999, "gone"))
    environ = {
        HANDOVER_ENV: handed(sockets=sockets, lock=lock, stored=("a@1",), environ={"NOTIFY_SOCKET": "@x"}),
        "HOME": "/",
    }
    found = take(environ)
    os.close(lock)
    assert found == Inherited((Socket(fd, "web"),), frozenset({"a@1"}), lock, BEFORE)
    assert environ == {"HOME": "/", "NOTIFY_SOCKET": "@x"}
    assert not os.get_inheritable(fd)


@pytest.mark.parametrize("text", ["", "nonsense", "{}", handed(version=HANDOVER_VERSION + 1)])
def test_a_hand_over_that_makes_no_sense_is_left_out(text: str) -> None:
    assert take({HANDOVER_ENV: text}) == Inherited()


def test_fields_of_later_versions_are_passed_over() -> None:
    later = msgspec.json.encode({**msgspec.json.decode(handed()), "colour": "red"}).decode()
    assert take({HANDOVER_ENV: later}).predecessor == BEFORE


def test_the_store_is_brought_to_what_the_listeners_are(listener: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        address = "@" + manager.getsockname()[1:].decode()
        manager.settimeout(5)
        store = FdStore(Notifier(address), frozenset({"old@1"}))
        fd = listener.fileno()
        name = fd_name("web", fd)
        store.bring_to([Held(fd, "web", foreign=False, path=""), Held(fd, "", foreign=True, path="")])
        assert manager.recv(200) == b"FDSTOREREMOVE=1\nFDNAME=old@1"
        message, fds, _, _ = socket.recv_fds(manager, 200, 2)
        assert (message, len(fds)) == (f"FDSTORE=1\nFDNAME={name}".encode(), 1)
        assert os.path.sameopenfile(fds[0], fd)
        os.close(fds[0])
        assert store.stored == {name}
        store.bring_to([Held(fd, "web", foreign=False, path="")])
        store.end([Held(fd, "web", foreign=False, path="/run/web.sock")])
        assert manager.recv(200) == f"FDSTOREREMOVE=1\nFDNAME={name}".encode()
        assert store.stored == frozenset()


def test_nothing_is_stored_where_nobody_listens(listener: socket.socket) -> None:
    store = FdStore(Notifier(), frozenset())
    store.bring_to([Held(listener.fileno(), "", foreign=False, path="")])
    assert store.stored == frozenset()
