from __future__ import annotations

from supervisor_d.core.process import TasksLeft
from supervisor_d.core.snapshot import TasksNow
from supervisor_d.core.work import BOUNDS_SECONDS, OUTCOMES, Tasks, tasks_now, work

RUNS = (1, 0, 2, *(0,) * (len(BOUNDS_SECONDS) - 2))
ONE = Tasks((3, 1, 0, 0, 0), 4, 1, 0, 2.5, 0.5, RUNS)
OTHER = Tasks((1, 2, 0, 0, 1), 3, 0, 2, 1.0, 0.25, RUNS)


def test_totals_add_up_and_never_shrink() -> None:
    both = ONE + OTHER
    assert both == Tasks((4, 3, 0, 0, 1), 7, 1, 2, 3.5, 0.75, tuple(2 * count for count in RUNS))
    assert ONE.at_least(OTHER) == Tasks((3, 2, 0, 0, 1), 4, 1, 2, 2.5, 0.5, RUNS)
    assert Tasks().at_least(both) == both


def test_what_is_in_hand_now() -> None:
    assert tasks_now(TasksLeft(2, 1, 1, 9.0, "shop.pay"), 50.0) == TasksNow(2, 1, 1, 41.0, "shop.pay")
    assert tasks_now(TasksLeft(oldest_started_at=99.0), 50.0).oldest_seconds == 0.0
    assert tasks_now(TasksLeft(), 50.0) == TasksNow(0, 0, 0)


def test_a_pool() -> None:
    found = work([TasksNow(2, 1, 1, 41.0, "a"), TasksNow(1, 0, 0, 5.0, "b"), TasksNow(0, 0, 0)], ONE)
    assert found.tasks_total == dict(zip(OUTCOMES, (3, 1, 0, 0, 0), strict=True))
    assert (found.active, found.reserved, found.oldest_task_seconds) == (3, 1, 41.0)
    assert (found.started_total, found.run_seconds_total, found.run_counts) == (4, 2.5, RUNS)
    assert work([], Tasks()).oldest_task_seconds == 0.0
