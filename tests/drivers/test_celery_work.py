"""Figures of tasks: read from heartbeats, bounded by what was known before, and kept when the worker is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from supervisor_d.core.work import BOUNDS_SECONDS
from supervisor_d.runtime.drivers.celery_work import Accounts
from supervisor_d.runtime.drivers.heartbeat import BUCKETS_SECONDS
from tests.drivers.test_heartbeat import PID, facts, write

ONE, OTHER = "tasks.0@g1.1", "tasks.1@g1.2"


def beats(directory: Path, **others: Any) -> Path:
    directory.mkdir(exist_ok=True)
    write(directory, facts(reserved=2, **others))
    return directory


def test_the_bounds_are_the_agents() -> None:
    assert BOUNDS_SECONDS == BUCKETS_SECONDS


def test_totals_outlive_their_worker_and_never_go_back(tmp_path: Path) -> None:
    accounts = Accounts()
    first = beats(tmp_path / "1", succeeded_total=5, started_total=6, runtime_buckets=[1] * 11)
    second = beats(tmp_path / "2", succeeded_total=2, started_total=2)
    accounts.opened(ONE, "tasks", PID, str(first))
    accounts.opened(OTHER, "tasks", PID, str(second))
    found = accounts.figures()
    work = found.work["tasks"]
    assert (work.tasks_total["succeeded"], work.started_total, work.active, work.reserved) == (7, 8, 2, 4)
    assert found.tasks.keys() == {ONE, OTHER}
    beats(first, succeeded_total=3, started_total=1)
    assert accounts.figures().work["tasks"].started_total == 8, "it may not take anything back"
    beats(first, succeeded_total=9, started_total=10)
    accounts.ended(ONE)
    accounts.ended(ONE)
    accounts.ended("unknown")
    (first / "heartbeat").unlink()
    found = accounts.figures()
    work = found.work["tasks"]
    assert (work.tasks_total["succeeded"], work.started_total, work.active) == (11, 12, 1)
    assert found.tasks.keys() == {OTHER}


def test_a_worker_that_says_nothing_has_done_nothing_yet(tmp_path: Path) -> None:
    accounts = Accounts()
    assert accounts.figures().work == {}
    accounts.opened(ONE, "tasks", PID, str(tmp_path))
    found = accounts.figures()
    assert (found.tasks, found.work["tasks"].started_total, found.work["tasks"].active) == ({}, 0, 0)
