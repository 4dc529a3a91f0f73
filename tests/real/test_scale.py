"""Scaling a command pool by hand: others are not touched, and the decision outlives the daemon."""

from __future__ import annotations

import pytest

from tests.support import procs
from tests.support.daemon import Daemon

pytestmark = pytest.mark.real

SLEEPER = {"program": "command", "command": ["sleep", "600"]}


def test_up_and_down_keeps_those_that_stay() -> None:
    with Daemon({"one": {**SLEEPER, "workers": 2}}) as daemon:
        daemon.wait_running("one")
        two = daemon.pids("one")
        daemon.must("scale", "one=4")
        four = daemon.pids("one")
        assert two.items() < four.items()
        assert len(four) == 4
        assert daemon.pool("one").workers_from == "operator"
        daemon.must("scale", "one=1")
        (left,) = daemon.wait_pids("one", 1).items()
        assert left in two.items()
        assert not any(procs.alive(pid) for pid in four.values() if pid != left[1])
        daemon.must("scale", "one=config")
        assert len(daemon.wait_pids("one", 2)) == 2
        assert daemon.pool("one").workers_from == "config"


def test_a_scale_outlives_a_stop_and_a_start_of_the_daemon() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        daemon.must("scale", "one=3")
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_running("one")
        assert len(daemon.pids("one")) == 3
        assert daemon.pool("one").workers_from == "operator"


def test_a_scale_outlives_a_killed_daemon_with_every_process() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        daemon.must("scale", "one=3")
        before = daemon.pids("one")
        daemon.kill()
        daemon.start()
        daemon.wait_running("one")
        assert daemon.pids("one") == before
        daemon.must("scale", "one=2")
        daemon.wait_pids("one", 2)


def test_a_reload_that_changes_the_number_takes_over_and_one_that_does_not_leaves_it() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        daemon.must("scale", "one=3")
        daemon.configure({"one": {**SLEEPER, "restart": {"limit": 5}}})
        assert daemon.reload().returncode == 0
        before = daemon.pids("one")
        assert len(before) == 3
        daemon.configure({"one": {**SLEEPER, "restart": {"limit": 5}, "workers": 2}})
        assert daemon.reload().returncode == 0
        assert daemon.wait_pids("one", 2).items() < before.items()


def test_what_cannot_be_scaled_is_refused_in_words() -> None:
    with Daemon({"one": SLEEPER, "once": {"program": "oneshot", "command": ["true"]}}) as daemon:
        daemon.wait_running("one")
        unknown = daemon.cli("scale", "two=2")
        assert unknown.returncode == 66
        assert "cannot find a pool 'two'" in unknown.stderr
        once = daemon.cli("scale", "once=2")
        assert once.returncode == 77
        assert "at most one" in once.stderr
        for wrong in ("one=many", "one=-1", "one"):
            assert daemon.cli("scale", wrong).returncode != 0
        assert len(daemon.pids("one")) == 1
