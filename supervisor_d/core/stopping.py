"""When the next step of a stop list is due, and what is said of it.

A step is followed by the next at its deadline, or as soon as it did all it can (StepDone).  One that may wait for work
that would be lost (`unsafe_wait_seconds`, counted from the begin of the whole stop) goes on waiting while there is any.
So a stop takes at most the sum of its steps, or that longer wait and the steps behind it.

Worked example, `DRAIN 2s, TERM 30s (unsafe work: 600 s), QUIT 4s, KILL` and a task of 100 s with early acknowledgement:

      0.0 s  DRAIN          the driver asks; the program says at 1.1 s that it takes nothing more: StepDone
      1.1 s  TERM           deadline 31.1 s; the task runs
     31.1 s                 one unsafe task is left: wait, until 600 s at most
    100.0 s  TasksReported  none is left, and the deadline has passed: the program may leave, for LEAVING_SECONDS
    102.3 s  MainExited     as it mostly does; else QUIT at 103 s
"""

from __future__ import annotations

from collections.abc import Iterable

from supervisor_d.core.process import Process, StopProgress, TasksLeft

UNTOLD_SECONDS = 3.0
"""For the driver of a daemon that has just adopted a stopping process to tell what work it has left."""
LEAVING_SECONDS = 3.0
"""For a program to end once its work is done: Celery takes 1.9 to 2.7 s for it."""
NAME_SHOWN = 80
"""Of a task's name, which is the program's own word."""


def next_step_at(process: Process, stop: StopProgress) -> float:
    """When the step after the one that was sent is due (monotonic); at once when that one is done.

    To be asked of a stop with a deadline.
    """
    if stop.done:
        return stop.began_at
    return max(stop.deadline or 0.0, _safe_at(process, stop))


def _safe_at(process: Process, stop: StopProgress) -> float:
    """Until when the step waits for work that would be lost; 0 when there is none, or it waits for none.  A daemon that
    adopted it does not know that yet."""
    longest = process.policy.stop[stop.step].unsafe_wait_seconds
    limit = stop.began_at + longest if longest else 0.0
    if process.tasks is not None and process.tasks.unsafe:
        return limit
    if process.tasks is None and process.adopted and not process.ended:
        return min(limit, process.since + UNTOLD_SECONDS)
    return 0.0 if process.unsafe_ended_at is None else min(limit, process.unsafe_ended_at + LEAVING_SECONDS)


def why_next(process: Process, stop: StopProgress, now: float) -> str:
    """The reason of the next step: that of the stop, and what the last step came to."""
    if stop.done:
        return stop.reason
    step = process.policy.stop[stop.step]
    sent_at = (now if stop.deadline is None else stop.deadline) - step.wait_seconds
    waited = step.wait_seconds if not step.unsafe_wait_seconds else max(step.wait_seconds, round(now - sent_at, 1))
    return f"{stop.reason}; still there {waited:g} s after {step.signal}"


def left(process: Process, now: float) -> str:
    """What work a process has in hand, in words; empty when it has none, or nobody knows."""
    tasks = process.tasks
    return "" if tasks is None else tasks_left(tasks, now)


def together(found: Iterable[TasksLeft]) -> TasksLeft:
    """The work of several processes as one."""
    total = TasksLeft()
    for tasks in found:
        older = tasks.oldest_started_at is not None and (
            total.oldest_started_at is None or tasks.oldest_started_at < total.oldest_started_at
        )
        oldest = tasks if older else total
        total = TasksLeft(
            total.active + tasks.active,
            total.reserved + tasks.reserved,
            total.unsafe + tasks.unsafe,
            oldest.oldest_started_at,
            oldest.oldest_name,
        )
    return total


def tasks_left(tasks: TasksLeft, now: float) -> str:
    """`2 tasks left, the oldest 41 s: shop.tasks.export`."""
    if not tasks.active:
        return ""
    counted = f"{tasks.active} task{'s' if tasks.active != 1 else ''} left"
    if tasks.oldest_started_at is None:
        return counted
    age = max(0.0, now - tasks.oldest_started_at)
    named = f": {tasks.oldest_name[:NAME_SHOWN]}" if tasks.oldest_name else ""
    return f"{counted}, the oldest {age:.0f} s{named}"
