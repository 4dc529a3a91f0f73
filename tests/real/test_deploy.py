"""Deploys and rollbacks that move a pool's address: afterwards it listens where the version that rules does, alone."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support import net
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEP = ["sleep", "600"]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _first(port: int, **keys: Any) -> dict[str, Any]:
    return {"program": "command", "command": SLEEP, "bind": f"127.0.0.1:{port}", **keys}


def _listens_only_at(daemon: Daemon, old: int, new: int) -> None:
    wait_for(lambda: not _listens(new), 20, "the other version's socket to be closed")
    daemon.wait_running("first")
    assert _listens(old)
    assert daemon.pool("first").listeners == (f"127.0.0.1:{old}",)


def test_a_deploy_that_fails_later_takes_back_where_another_pool_listens() -> None:
    old, new = net.free_ports(2)
    second = {"program": "command", "command": SLEEP, "after": ["first"]}
    with Daemon({"first": _first(old), "second": second}) as daemon:
        daemon.wait_running("first", "second")
        broken = {**second, "command": ["sh", "-c", "exit 3"], "ready": {"notify": True}, "start_timeout": "1s"}
        daemon.configure({"first": _first(new), "second": broken})
        done = daemon.cli("deploy", "--label", "bad")
        assert done.returncode == 1, done.stdout + done.stderr
        wait_for(lambda: daemon.pool("first").generation == 3, 20, "the way back to begin")
        _listens_only_at(daemon, old, new)


def test_a_rollback_in_the_middle_of_a_rollout_does_too() -> None:
    old, new = net.free_ports(2)
    with Daemon({"first": _first(old)}) as daemon:
        daemon.wait_running("first")
        daemon.configure({"first": _first(new, ready={"notify": True}, start_timeout="60s")})
        daemon.must("reload", "--no-wait")
        wait_for(lambda: any("@g2" in process for process in daemon.pids("first")), 20, "the new version")
        assert _listens(new)
        daemon.must("rollback", "first")
        _listens_only_at(daemon, old, new)
