"""Which processes belong to a tree whose shim is dead, as far as anybody can tell without a cgroup.

Nothing here is a proof: a process that left the session, lost its parent and closed its output is not found.  What is
found is certain: each process is named by a pidfd that was open before its membership was looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """What the processes of a tree have in common: the session of the main process, and the FIFO that is its output."""

    session: int
    session_since: int
    """Start time of the main process: nobody older is in its session, whoever has that number now."""
    fifo: tuple[int, int] | None
    """Device and inode."""


def marks_of(session: int, since: int, fifo_path: str) -> Marks:
    """The marks of a tree whose main process is `session`."""
    try:
        status = os.stat(fifo_path, follow_symlinks=False)
    except OSError:
        return Marks(session, since, None)
    return Marks(session, since, (status.st_dev, status.st_ino))


def survivors(marks: Marks) -> Iterator[tuple[int, int]]:
    """Pids and pidfds of all that bears the marks, and of what is below it; a pidfd is open until the next one."""
    found: set[int] = set()
    for pid in _pids():
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _belongs(pid, marks, found):
                found.add(pid)
                yield pid, pidfd
        except (OSError, ValueError):
            continue  # it ended meanwhile
        finally:
            os.close(pidfd)


def _pids() -> list[int]:
    """All pids in rising order: parents mostly before their children."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) > 1)


def _belongs(pid: int, marks: Marks, found: set[int]) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    state, parent, session, since = fields[0], int(fields[1]), int(fields[3]), int(fields[19])
    if state in (b"Z", b"X") or since < marks.session_since or pid == os.getpid():
        return False
    if parent in found:
        return True
    if session == marks.session and (pid != session or since == marks.session_since):
        return _session_is_ours(marks)
    return marks.fifo is not None and _holds(pid, marks.fifo)


def _session_is_ours(marks: Marks) -> bool:
    """A session keeps its leader's number from being reused; one led by a younger process of that number isn't ours."""
    try:
        with open(f"/proc/{marks.session}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[19]) == marks.session_since
    except OSError:
        return True


def _holds(pid: int, fifo: tuple[int, int]) -> bool:
    for fd in ("1", "2"):
        with suppress(OSError):
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            if (status.st_dev, status.st_ino) == fifo:
                return True
    return False
