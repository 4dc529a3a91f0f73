"""What an operator does to the config file between two daemons never touches what runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.daemon import Daemon

pytestmark = pytest.mark.real

SLEEPER: Mapping[str, Any] = {"program": "command", "command": ["sleep", "600"]}


def test_a_file_that_makes_no_sense_is_told_and_refused_by_reload() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before, good = daemon.all_pids(), daemon.config.read_text()
        for broken in (good + "\npools: }{ [\n", good.replace("version: 1", "version: 77")):
            serial = daemon.last_serial()
            daemon.kill()
            daemon.write(broken)
            daemon.start()
            assert daemon.all_pids() == before
            daemon.wait_event("config-refused", after=serial)
            assert daemon.reload().returncode == 78
            assert daemon.all_pids() == before
        daemon.write(good)
        assert daemon.reload().returncode == 0


def test_a_changed_file_is_told_and_waits_for_a_reload() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before, digest = daemon.all_pids(), daemon.status().daemon.config_digest
        daemon.kill()
        daemon.configure({"one": {**SLEEPER, "env": {"NEW": "1"}}})
        daemon.start()
        daemon.wait_event("config-differs")
        assert daemon.all_pids() == before
        assert daemon.status().daemon.config_digest == digest
        assert daemon.reload().returncode == 0
        assert daemon.status().daemon.config_digest != digest


def test_the_accepted_settings_of_the_daemon_outlive_it() -> None:
    with Daemon({"one": SLEEPER}, settings={"metrics": {"listen": "127.0.0.1:0"}}) as daemon:
        daemon.wait_running("one")
        daemon.wait_event("serving", text="metrics")
        daemon.kill()
        daemon.write(daemon.config.read_text().replace("version: 1", "version: 1\nnonsense: true"))
        daemon.start()
        daemon.wait_event("config-refused")
        assert len([entry for entry in daemon.events() if entry.name == "serving"]) == 2


def test_a_first_start_with_a_broken_file_leaves_nothing() -> None:
    daemon = Daemon({"one": SLEEPER})
    try:
        daemon.write("}{")
        daemon.spawn()
        assert daemon.wait_end() == 78
        assert not (daemon.directory / "run").exists()
    finally:
        daemon.clear()
