from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from supervisor_d.core.health import Vitals, Watch, look

WELL = Vitals(
    at=100.0,
    connected=True,
    consuming=True,
    can_consume=True,
    take_at=99.5,
    take_waits=1.0,
    idle=2,
    waiting=0,
    started_total=7,
)
AFTER = 30.0


def twice(now: float, after_seconds: float = AFTER, watch: Watch | None = None, **changes: Any) -> tuple[str, str]:
    """What two looks in a row say."""
    vitals = replace(WELL, **changes)
    known, first = look(watch or Watch(), vitals, now, after_seconds)
    _, second = look(known, vitals, now, after_seconds)
    return first, second


@pytest.mark.parametrize(
    ("now", "changes", "why"),
    [
        (100.5, {}, ""),
        (130.0, {}, ""),
        (131.0, {}, "its loop has shown no sign of life for 31 s"),
        (500.0, {"connected": False}, ""),
        (100.5, {"take_at": 90.0}, ""),
        (100.5, {"take_at": 89.0}, "it has asked its broker for no messages for 11 s"),
        (100.5, {"take_at": 89.0, "can_consume": False}, ""),
        (100.5, {"take_at": 89.0, "consuming": False}, ""),
        (100.5, {"take_at": 89.0, "connected": False}, ""),
        (100.5, {"take_at": None}, ""),
        (100.5, {"take_at": 89.9, "take_waits": 0.1}, "it has asked its broker for no messages for 10 s"),
        (100.5, {"take_at": 61.0, "take_waits": 30.0}, ""),
        (100.5, {"take_at": 60.0, "take_waits": 30.0}, "it has asked its broker for no messages for 40 s"),
        (100.5, {"take_at": 1.0, "take_waits": 0.0}, ""),
    ],
)
def test_rules_of_one_look_hold_at_the_second(now: float, changes: dict[str, Any], why: str) -> None:
    assert twice(now, **changes) == ("", why)


def test_a_short_patience_is_that_of_all_rules() -> None:
    assert twice(100.5, 3.0, take_at=96.0)[1] == "it has asked its broker for no messages for 4 s"
    assert twice(100.5, 3.0, take_at=70.0, take_waits=30.0)[1] == "", "an answer is not due before its time"


def run(looks: list[tuple[float, dict[str, Any]]]) -> list[str]:
    """What each of several looks says; a heartbeat is as fresh as the look."""
    watch, said = Watch(), []
    for now, changes in looks:
        vitals = replace(WELL, **{"at": now, "take_at": now, **changes})
        watch, why = look(watch, vitals, now, AFTER)
        said.append(why)
    return said


WAITING = {"waiting": 3, "idle": 1}


def test_work_that_nobody_begins() -> None:
    said = run([(now, WAITING) for now in (0.0, 15.0, 30.0, 31.0, 36.0)])
    assert said == ["", "", "", "", "3 wait beside 1 idle pool process, and none was begun for 36 s"]


@pytest.mark.parametrize(
    "meanwhile",
    [{**WAITING, "started_total": 8}, {"waiting": 0, "idle": 2}, {"waiting": 3, "idle": 0}, {"connected": False}],
)
def test_a_start_or_a_reason_begins_the_count_anew(meanwhile: dict[str, Any]) -> None:
    later = {"started_total": meanwhile.get("started_total", 7), **WAITING}
    said = run([(0.0, WAITING), (20.0, meanwhile), (21.0, later), (45.0, later), (50.0, later)])
    assert said == [""] * 5


def test_a_long_task_in_every_pool_process_is_progress() -> None:
    assert run([(float(now), {"waiting": 4, "idle": 0, "can_consume": False}) for now in range(0, 4000, 5)])[-1] == ""


def test_one_bad_look_accuses_nobody() -> None:
    watch, why = look(Watch(), replace(WELL, at=10.0), 100.0, AFTER)
    assert (why, watch.suspected) == ("", True)
    watch, why = look(watch, replace(WELL, at=104.0, take_at=104.0), 105.0, AFTER)
    assert (why, watch.suspected) == ("", False)
