"""The journal keeps its order whatever the wall clock does, and tells when it was set."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from supervisor_d.core.journal import Note
from supervisor_d.runtime.journal import Journal

NOTE = Note("daemon", "started", "", "daemon", "x")


@pytest.mark.parametrize(("seconds", "told"), [(86_400.0, "went 1d forward"), (-90.0, "went 1m30s back")])
def test_a_clock_that_was_set_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, told: str
) -> None:
    journal = Journal(tmp_path / "history.jsonl")
    monotonic, wall = 1000.0, 1e9
    monkeypatch.setattr(time, "monotonic", lambda: monotonic)
    monkeypatch.setattr(time, "time", lambda: wall)
    journal._wall_ahead = wall - monotonic
    journal.record(NOTE)
    wall += seconds
    journal.record(NOTE)
    journal.record(NOTE)
    entries = journal.entries()
    assert [entry.name for entry in entries] == ["started", "clock-moved", "started", "started"]
    assert [entry.serial for entry in entries] == [1, 2, 3, 4]
    assert told in entries[1].reason


def test_a_clock_that_is_kept_right_is_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "history.jsonl")
    monotonic, wall = 1000.0, 1e9
    monkeypatch.setattr(time, "monotonic", lambda: monotonic)
    monkeypatch.setattr(time, "time", lambda: wall)
    journal._wall_ahead = wall - monotonic
    for _ in range(5):
        monotonic, wall = monotonic + 3600, wall + 3600.9
        journal.record(NOTE)
    assert {entry.name for entry in journal.entries()} == {"started"}
