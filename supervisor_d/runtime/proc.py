"""The few facts that tell who belongs to whom, most of /proc/<pid>.  All are about an instant that has passed."""

from __future__ import annotations

import os
import socket
import struct
import time

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


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


def started_at(pid: int) -> float | None:
    """When a process started, as CLOCK_MONOTONIC; None when it is gone.

    /proc tells it in CLOCK_BOOTTIME, which differs by the time that the machine slept.
    """
    fields = stat_fields(pid)
    if not fields:
        return None
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return int(fields[19]) / _TICKS_PER_SECOND - asleep


def catches(pid: int, signal_number: int) -> bool:
    """Whether a process has a handler for a signal (SigCgt of proc_pid_status(5)); False when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            caught = next((line for line in status if line.startswith("SigCgt:")), "SigCgt: 0")
    except OSError:
        return False
    return bool(int(caught.split()[1], 16) >> (signal_number - 1) & 1)


def proportional_memory(pid: int) -> int | None:
    """The PSS of a process in bytes (smaps_rollup); None when it is gone or may not be looked into."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            return next((int(line.split()[1]) * 1024 for line in rollup if line.startswith(b"Pss:")), None)
    except OSError:
        return None


def listener_pid(connection: socket.socket) -> int:
    """The process that called listen(2) at the other end of a unix connection (SO_PEERCRED, unix(7))."""
    pid, _uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
