"""What a beat remembers of what it sent: read from whatever lies there, later than the schedule's own or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from supervisor_d.agents.supervisor_d_runs import Runs, remember

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Entry:
    """As much of celery.beat.ScheduleEntry as is asked of it."""

    last_run_at: datetime = NOON
    zone: Any = UTC

    def default_now(self) -> datetime:
        return datetime.now(self.zone)


def test_what_was_noted_is_there_for_the_next_one(tmp_path: Path) -> None:
    runs = Runs(str(tmp_path / "schedule"))
    runs.note("a", "at one")
    runs.note("b", "at two")
    again = Runs(str(tmp_path / "schedule"))
    assert again.noted == {"a": "at one", "b": "at two"}
    again.keep_only({"b": Entry()})
    again.note("c", "at three")
    assert Runs(str(tmp_path / "schedule")).noted == {"b": "at two", "c": "at three"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["schedule.ran"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 5000, '{"a": 7, "b": null}', "\udcff"])
def test_whatever_else_lies_there_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "schedule.ran").write_bytes(text.encode(errors="surrogateescape"))
    assert Runs(str(tmp_path / "schedule")).noted == {}


def test_only_what_is_later_changes_an_entry() -> None:
    later, earlier = NOON + timedelta(hours=1), NOON - timedelta(hours=1)
    entries = {"a": Entry(), "b": Entry(), "c": Entry()}
    remember(entries, {"a": later.isoformat(), "b": earlier.isoformat(), "gone": later.isoformat()})
    assert [entry.last_run_at for entry in entries.values()] == [later, NOON, NOON]


def test_a_clock_that_was_ahead_silences_nobody() -> None:
    """Another host noted it, or this one before its clock was set right."""
    entry, before = Entry(), datetime.now(UTC)
    remember({"a": entry}, {"a": (before + timedelta(days=1)).isoformat()})
    assert before <= entry.last_run_at <= datetime.now(UTC)


def test_a_time_is_put_into_the_entrys_own_zone() -> None:
    zone = timezone(timedelta(hours=5))
    entry = Entry(NOON.astimezone(zone), zone)
    remember({"a": entry}, {"a": (NOON + timedelta(hours=1)).isoformat()})
    assert entry.last_run_at.isoformat() == "2026-01-01T18:00:00+05:00"


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01T13:00:00", json.dumps({})])
def test_what_is_no_time_or_has_no_zone_changes_nothing(text: str) -> None:
    entry = Entry()
    remember({"a": entry}, {"a": text})
    assert entry.last_run_at == NOON
