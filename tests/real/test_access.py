"""The control socket as other users find it: closed, or open as far as the config says."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator

import pytest

from supervisor_d.api.client import Client
from supervisor_d.api.wire import OperateRequest
from supervisor_d.errors import SupervisorError
from tests.support.daemon import Daemon

WHY = "becomes other users, which only root can"
pytestmark = [
    pytest.mark.real,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason=WHY),
    pytest.mark.skip_allowed(WHY),
]
SLEEPER = {"program": "command", "command": ["sleep", "600"]}
READER, OPERATOR, STRANGER = "nobody", "daemon", "bin"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    control = {"readers": [READER], "operators": [OPERATOR]}
    with Daemon({"one": SLEEPER}, settings={"control": control}) as daemon:
        daemon.wait_running("one")
        yield daemon


def _as_user(name: str, ask: Callable[[], bytes]) -> str:
    """What another user is answered: `ok`, or exit code and text of the refusal.  Forked: nothing is to be readable."""
    account = pwd.getpwnam(name)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            try:
                ask()
                said = "ok"
            except SupervisorError as error:
                said = f"{error.exit_code} {error.message}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


def _asks(daemon: Daemon) -> dict[str, Callable[[], bytes]]:
    client = Client(str(daemon.socket))
    client.get("/v1/status")  # whatever is imported late, is imported while we may read it
    scale = OperateRequest(pools=("one",), workers=1, wait_seconds=5)
    return {
        "status": lambda: client.get("/v1/status"),
        "scale": lambda: client.post("/v1/scale", scale),
        "shutdown": lambda: client.post("/v1/shutdown", OperateRequest()),
    }


def test_a_stranger_cannot_even_connect(daemon: Daemon) -> None:
    for name, ask in _asks(daemon).items():
        assert _as_user(STRANGER, ask).startswith("77 cannot reach the daemon"), name


def test_a_reader_sees_and_changes_nothing(daemon: Daemon) -> None:
    asks = _asks(daemon)
    assert _as_user(READER, asks["status"]) == "ok"
    assert _as_user(READER, asks["scale"]).startswith("77 ")
    assert _as_user(READER, asks["shutdown"]).startswith("77 ")


def test_an_operator_operates_and_is_named_in_the_journal_but_ends_nothing(daemon: Daemon) -> None:
    asks, serial = _asks(daemon), daemon.last_serial()
    assert _as_user(OPERATOR, asks["scale"]) == "ok"
    assert f"{OPERATOR} (uid {pwd.getpwnam(OPERATOR).pw_uid}, pid " in daemon.wait_event("scale", after=serial).reason
    assert _as_user(OPERATOR, asks["shutdown"]).startswith("77 ")
    assert daemon.status().daemon.state == "running"
