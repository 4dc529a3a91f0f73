"""Everything below a subreaper, and its end.

Every orphan below a subreaper becomes its child.  So SIGKILL for all that is seen below, again and again, until
waitpid(2) says ECHILD: that is the kernel's own statement that nothing is left.  A listing of /proc is never one: it
is not atomic, and a process that forks and exits every millisecond hops past it.

Worked example: A ignores TERM, B is its child with a session of its own, C forks every millisecond and exits.

    round 1   seen: A, B, C1             killed: A, B, C1; C2 was born unseen, and is now our child
    SIGCHLD   reaped: A, C1; B is ours   waitpid: others are left
    round 2   seen: B (dying), C3        ...
    round n   seen: Cn                   killed before its next fork
    SIGCHLD   reaped: Cn                 waitpid: ECHILD
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from supervisor_d.shim import wire


def kill_below(ancestor: int) -> None:
    """SIGKILL to all that is now seen below `ancestor`, which must be the caller.

    Its children cannot be reaped by anybody else, so their pids are theirs.  A deeper pid could be reused between
    seeing and killing: it is signalled through a pidfd, after its parent was compared.
    """
    for pid in children(ancestor):
        below = list(_held(pid))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for pidfd in below:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def _held(parent: int) -> Iterator[int]:
    """Pidfds of all that is below `parent`, for the caller to close."""
    waiting = [(parent, child) for child in children(parent)]
    while waiting:
        parent, pid = waiting.pop()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        if parent_of(pid) != parent:
            os.close(pidfd)
            continue
        yield pidfd
        waiting += ((pid, child) for child in children(pid))


def children(pid: int) -> list[int]:
    """The children of all threads of a process, as far as /proc shows them at this instant."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, wire.read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        return found  # it ended meanwhile: its children are ours by now, and the next round finds them
    return found


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    try:
        return int(wire.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    except OSError:
        return 0
