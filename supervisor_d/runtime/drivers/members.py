"""Workers inside a process, each held by a pidfd: how they end is told at once, without a poll and without a guess.

Theory of operation.  The workers of gunicorn and Celery are children of *their* main process, so nobody but that main
can wait for them.  A pidfd (pidfd_open(2)) tells everybody of the end all the same:

    running                  nothing
    zombie, not yet reaped   EPOLLIN
    reaped                   EPOLLIN | EPOLLHUP, and PIDFD_GET_INFO gives the exit status (Linux >= 6.15)

All pidfds stand in one epoll of their own, edge-triggered: the zombie of a main process that is stopped, and so never
reaps, would otherwise wake the event loop without end.  That epoll's descriptor is itself watched by the event loop.

Where the kernel keeps no exit status, the zombie's /proc/<pid>/stat (field 52, proc_pid_stat(5)) is tried, in a race
with its main process; whoever loses it learns that the exit is unknown, and says so.  What was told so is held until it
is reaped, or its main process, which still has it, would make it known a second time.  Not every kernel tells of the
reap (EPOLLHUP since 6.9): then the descriptor is asked, when the pid is met again and when another one ends.

Worked example, `kill -9` of a gunicorn worker on Linux 6.18: EPOLLIN (no status yet, nothing told), the master wakes
up by SIGCHLD and reaps, EPOLLIN | EPOLLHUP, PIDFD_GET_INFO says 9: Exit(signal=9), about a millisecond after the kill.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable

from supervisor_d.core.process import Exit
from supervisor_d.runtime import known, pidfd
from supervisor_d.runtime.proc import parent_of, stat_fields

Ended = Callable[[str, int, Exit], None]
"""(process id, pid of the worker, how it ended)"""

MEMBERS_MAX = 4096
"""Of one process: a bound on what a hostile program can make us hold."""

_EDGE = select.EPOLLIN | select.EPOLLET


class Members:
    """The living workers of any number of processes.  `ended` is called from the event loop, once for each."""

    def __init__(self, ended: Ended, unreaped: Callable[[str], None] = lambda _: None) -> None:
        """`unreaped` is told of a process that has not yet noticed the end of one of its workers: it may never."""
        self._ended = ended
        self._unreaped = unreaped
        self._epoll = select.epoll()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._wake)
        self._by_fd: dict[int, tuple[str, int]] = {}
        self._by_process: dict[str, dict[int, int]] = {}
        self._zombies: set[int] = set()
        """Descriptors of those that ended, and that their main process has not waited for yet."""
        self._told: set[int] = set()
        """Those of them whose end was told already."""

    def follow(self, process_id: str, parent: int, pid: int) -> bool:
        """Hold worker `pid` of a process; whether it is held.

        What a program says of its workers is data: only a child of `parent`, the main process, is taken.
        """
        held = self._by_process.setdefault(process_id, {})
        if pid in held and held[pid] in self._told:
            self._let_go_of_the_reaped()  # the pid may be another one's by now
        if pid in held:
            return held[pid] not in self._zombies
        if len(held) >= MEMBERS_MAX:
            return False
        try:
            fd = os.pidfd_open(pid)
        except (OSError, OverflowError):
            return False
        # The pidfd first, the question after it: the answer is then about the process that is held.
        if parent_of(pid) != parent:
            os.close(fd)
            return False
        held[pid] = fd
        self._by_fd[fd] = (process_id, pid)
        self._epoll.register(fd, _EDGE)
        return True

    def pids(self, process_id: str) -> frozenset[int]:
        """The workers of a process that live, as far as is known."""
        held = self._by_process.get(process_id, {})
        return frozenset(pid for pid, fd in held.items() if fd not in self._zombies)

    def signal(self, process_id: str, pid: int, number: int) -> bool:
        """Send a signal to a worker that is held, through its pidfd: whether it was there to get it."""
        fd = self._by_process.get(process_id, {}).get(pid)
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except OSError:
            return False
        return True

    def signal_all(self, process_id: str, number: int) -> int:
        """Signal every worker of a process that lives and is held.  How many there were."""
        return sum(self.signal(process_id, pid, number) for pid in self.pids(process_id))

    def drop(self, process_id: str) -> None:
        """Follow none of a process's workers any more."""
        for fd in self._by_process.pop(process_id, {}).values():
            self._release(fd)

    def close(self) -> None:
        """Let everything go; the workers live on.  A second call does nothing."""
        if self._epoll.closed:
            return
        for process_id in tuple(self._by_process):
            self.drop(process_id)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _release(self, fd: int) -> None:
        del self._by_fd[fd]
        self._zombies.discard(fd)
        self._told.discard(fd)
        self._epoll.unregister(fd)
        os.close(fd)

    def _wake(self) -> None:
        for fd, mask in self._epoll.poll(0):
            member = self._by_fd.get(fd)
            if member is None:  # dropped by the callback of another one of this round
                continue
            self._woken(fd, *member, reaped=bool(mask & select.EPOLLHUP))

    def _woken(self, fd: int, process_id: str, pid: int, *, reaped: bool) -> None:
        """A worker ended, or was reaped: its end is told once, and it is let go when it is reaped."""
        told = fd in self._told
        ended = None if told else exit_of(fd, pid, reaped=reaped)
        if reaped:
            del self._by_process[process_id][pid]
            self._release(fd)
        elif not told:
            self._let_go_of_the_reaped()
            self._zombies.add(fd)
            if ended is not None:
                self._told.add(fd)
            else:
                self._unreaped(process_id)
        if ended is not None:
            self._ended(process_id, pid, ended)

    def _let_go_of_the_reaped(self) -> None:
        for fd in tuple(self._told):
            try:
                signal.pidfd_send_signal(fd, 0)  # a zombie is still there to get it
            except OSError:
                process_id, pid = self._by_fd[fd]
                del self._by_process[process_id][pid]
                self._release(fd)


def exit_of(fd: int, pid: int, *, reaped: bool) -> Exit | None:
    """How the process behind a pidfd ended; Exit() when the kernel cannot tell, None when it will do so at the reap."""
    try:
        status = pidfd.exit_status(fd)
    except pidfd.ExitUnknownError:
        status = _zombie_status(pid)
        return Exit() if status is None else known.exit_of(status)
    if status is None:
        return Exit() if reaped else None
    return known.exit_of(status)


def _zombie_status(pid: int) -> int | None:
    fields = stat_fields(pid)
    return int(fields[49]) if fields and fields[0] == "Z" else None
