"""A daemon of a plain user: all of it works, and what only root may do is refused with the way out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support import plain_user, procs
from tests.support.daemon import Daemon

WHY = "runs a daemon as `nobody`, which only root can"
pytestmark = [
    pytest.mark.real,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason=WHY),
    pytest.mark.skip_allowed(WHY),
]
SLEEPER = {"program": "command", "command": ["sleep", "600"]}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = Daemon({"one": SLEEPER}, owner=plain_user.uid(), settings={"allow_root": False})
    (daemon.directory / "home").mkdir(mode=0o755)
    daemon.prefix = plain_user.becoming(daemon.directory / "home")
    if not daemon.prefix:
        daemon.close()
        pytest.skip("nobody cannot read this Python, and no mount namespace can be had")
    with daemon:
        yield daemon


def test_it_runs_and_restarts_its_pools_as_itself(daemon: Daemon) -> None:
    daemon.wait_running("one")
    for pid in (daemon.pid, daemon.pid_of("one"), daemon.shim_of(daemon.pid_of("one"))):
        assert procs.status(pid)["Uid"].split() == [str(plain_user.uid())] * 4
    daemon.must("scale", "one=2")
    assert len(daemon.pids("one")) == 2
    daemon.must("scale", "one=config")


def test_another_user_is_refused_with_the_way_out_and_nothing_changes(daemon: Daemon) -> None:
    daemon.wait_running("one")
    before = daemon.all_pids()
    text = daemon.config.read_text()
    try:
        daemon.configure({"one": SLEEPER, "other": {**SLEEPER, "user": "daemon"}})
        done = daemon.reload()
    finally:
        daemon.write(text)
    assert done.returncode in (73, 78)
    assert "daemon" in done.stderr
    assert "root" in done.stderr
    assert daemon.all_pids() == before


def test_it_outlives_nothing_but_its_processes_do(daemon: Daemon) -> None:
    daemon.wait_running("one")
    before = daemon.all_pids()
    daemon.kill()
    daemon.start()
    assert daemon.all_pids() == before
