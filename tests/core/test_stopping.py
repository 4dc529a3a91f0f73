from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core.process import Process, State, StopProgress, TasksLeft
from supervisor_d.core.spec import StopStep
from supervisor_d.core.stopping import NAME_SHOWN, left, next_step_at, tasks_left, together, why_next
from tests.core.transcript import CELERY, policy

LADDER = (StopStep("DRAIN", 2.0), StopStep("TERM", 30.0, 600.0), StopStep("QUIT", 4.0), StopStep("KILL"))
UNSAFE = TasksLeft(active=1, unsafe=1, oldest_started_at=5.0, oldest_name="shop.pay")
SAFE = TasksLeft(active=1, unsafe=0, oldest_started_at=5.0, oldest_name="shop.mail")


def stopping(stop: StopProgress, tasks: TasksLeft | None = None, unsafe_ended_at: float | None = None) -> Process:
    return Process(
        "tasks.0@g1.1", "tasks", 0, 1, 4, policy(CELERY, stop=LADDER), "", State.STOPPING, 10.0, 0.0,
        pid=9, stop=stop, tasks=tasks, unsafe_ended_at=unsafe_ended_at,
    )  # fmt: skip


def sent(step: int, deadline: float | None, *, done: bool = False) -> StopProgress:
    return StopProgress(step, deadline, "asked", expected=True, done=done, began_at=10.0)


@pytest.mark.parametrize(
    ("stop", "tasks", "due"),
    [
        (sent(0, 12.0), None, 12.0),
        (sent(0, 12.0), UNSAFE, 12.0),
        (sent(0, 12.0, done=True), None, 10.0),
        (sent(1, 42.0), None, 42.0),
        (sent(1, 42.0), SAFE, 42.0),
        (sent(1, 42.0), UNSAFE, 610.0),
        (sent(2, 46.0), UNSAFE, 46.0),
    ],
)
def test_when_the_next_step_is_due(stop: StopProgress, tasks: TasksLeft | None, due: float) -> None:
    assert next_step_at(stopping(stop, tasks), stop) == due


@pytest.mark.parametrize(
    ("adopted_at", "tasks", "due"), [(41.0, None, 44.0), (20.0, None, 42.0), (41.0, SAFE, 42.0), (609.0, None, 610.0)]
)
def test_a_daemon_that_adopted_it_waits_to_be_told(adopted_at: float, tasks: TasksLeft | None, due: float) -> None:
    stop = sent(1, 42.0)
    adopted = replace(stopping(stop, tasks), adopted=True, since=adopted_at)
    assert next_step_at(adopted, stop) == due
    assert next_step_at(replace(adopted, state=State.EXITED), stop) == 42.0, "it has no work any more"


@pytest.mark.parametrize(
    ("step", "deadline", "ended_at", "due"),
    [
        (1, 42.0, 20.0, 42.0),
        (1, 42.0, 41.0, 44.0),
        (1, 42.0, 100.0, 103.0),
        (1, 42.0, 609.0, 610.0),
        (2, 46.0, 45.0, 46.0),
    ],
)
def test_a_program_may_leave_once_its_unsafe_work_is_done(
    step: int, deadline: float, ended_at: float, due: float
) -> None:
    stop = sent(step, deadline)
    assert next_step_at(stopping(stop, SAFE, ended_at), stop) == due


@pytest.mark.parametrize(
    ("stop", "now", "why"),
    [
        (sent(0, 12.0, done=True), 11.0, "asked"),
        (sent(0, 12.0), 12.0, "asked; still there 2 s after DRAIN"),
        (sent(1, 42.0), 42.0, "asked; still there 30 s after TERM"),
        (sent(1, 42.0), 111.04, "asked; still there 99 s after TERM"),
        (sent(1, None), 50.0, "asked; still there 30 s after TERM"),
        (sent(2, 46.0), 99.0, "asked; still there 4 s after QUIT"),
    ],
)
def test_why_the_next_step_comes(stop: StopProgress, now: float, why: str) -> None:
    assert why_next(stopping(stop), stop, now) == why


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        (TasksLeft(), ""),
        (TasksLeft(reserved=3), ""),
        (TasksLeft(active=2), "2 tasks left"),
        (TasksLeft(active=1, oldest_started_at=9.0), "1 task left, the oldest 41 s"),
        (TasksLeft(2, 0, 0, 9.0, "shop.tasks.export"), "2 tasks left, the oldest 41 s: shop.tasks.export"),
        (TasksLeft(1, 0, 0, 99.0, "x"), "1 task left, the oldest 0 s: x"),
        (TasksLeft(1, 0, 0, 9.0, "x" * 500), f"1 task left, the oldest 41 s: {'x' * NAME_SHOWN}"),
    ],
)
def test_what_is_left_in_words(tasks: TasksLeft, text: str) -> None:
    assert tasks_left(tasks, 50.0) == text
    assert left(stopping(sent(0, 12.0), tasks), 50.0) == text


def test_the_work_of_several_processes() -> None:
    one, other = TasksLeft(2, 1, 1, 9.0, "shop.pay"), TasksLeft(1, 0, 0, 5.0, "shop.mail")
    assert together([one, other, TasksLeft()]) == TasksLeft(3, 1, 1, 5.0, "shop.mail")
    assert together([other, one]) == TasksLeft(3, 1, 1, 5.0, "shop.mail")
    assert together([]) == TasksLeft()


def test_nobody_knows_what_is_left() -> None:
    assert left(stopping(sent(0, 12.0)), 50.0) == ""
