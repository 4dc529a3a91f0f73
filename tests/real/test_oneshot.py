"""Oneshots: others wait for their success, a failure is shown and blocks, a success belongs to its generation."""

from __future__ import annotations

import pytest

from tests.support.daemon import Daemon
from tests.support.programs import Notes

pytestmark = pytest.mark.real


def test_dependents_wait_for_success() -> None:
    daemon = Daemon()
    notes, gate = Notes(daemon.work / "notes"), daemon.work / "gate"
    daemon.configure(
        {
            "app": {"program": "command", "command": notes.polite("app"), "after": ["migrate"]},
            "migrate": {"program": "oneshot", "command": notes.once("migrate", gate=gate)},
        }
    )
    with daemon:
        notes.wait("migrate", "start")
        waiting = daemon.wait_pool("app", "waiting")
        assert "migrate" in waiting.detail
        assert waiting.processes == ()
        gate.touch()
        assert daemon.wait_pool("migrate", "done").detail == "g1 succeeded"
        daemon.wait_running("app")
        assert notes.wait("app", "ready").at > notes.wait("migrate", "end").at


def test_a_failure_shows_and_blocks_until_it_is_mended() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    app = {"program": "command", "command": notes.polite("app"), "after": ["migrate"]}
    broken = {"program": "oneshot", "command": notes.once("migrate", 7), "restart": "never"}
    daemon.configure({"app": app, "migrate": broken})
    with daemon:
        assert "exited with code 7" in daemon.wait_pool("migrate", "failed").detail
        assert daemon.pool("app").state == "waiting"
        assert notes.of("app", "ready") == []
        daemon.configure({"app": app, "migrate": {**broken, "command": notes.once("mended")}})
        assert daemon.reload().returncode == 0
        daemon.wait_running("app")
        assert daemon.pool("migrate").state == "done"


def test_a_success_is_not_repeated_at_a_reload_or_by_adoption_but_by_a_new_start() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    migrate = {"program": "oneshot", "command": notes.once("migrate")}
    app = {"program": "command", "command": notes.polite("app"), "after": ["migrate"]}
    daemon.configure({"migrate": migrate, "app": app})
    with daemon:
        daemon.wait_running("app")
        daemon.configure({"migrate": migrate, "app": {**app, "env": {"CHANGED": "1"}}})
        assert daemon.reload().returncode == 0
        daemon.kill()
        daemon.start()
        daemon.wait_running("app")
        assert daemon.pool("migrate").state == "done"
        assert len(notes.of("migrate", "start")) == 1
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_running("app")
        assert len(notes.of("migrate", "start")) == 2
