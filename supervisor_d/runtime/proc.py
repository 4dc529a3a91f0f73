"""The few facts of /proc/<pid> that tell who belongs to whom.  All of them are about an instant that has passed."""

from __future__ import annotations

import os


def stat_fields(pid: int) -> list[str]:
    """Fields 3 and up of proc_pid_stat(5); the name before them may hold blanks and parentheses.  Empty when gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int | None:
    """The parent of a process; None when it is gone."""
    fields = stat_fields(pid)
    return int(fields[1]) if fields else None


def children_of(pid: int) -> frozenset[int]:
    """The children of every thread of a process (proc_pid_task_children(5)); empty when it is gone."""
    found: set[int] = set()
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                found.update(map(int, children.read().split()))
    except OSError:
        pass
    return frozenset(found)
