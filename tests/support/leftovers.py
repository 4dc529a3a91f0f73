"""Did the tests leave a process behind?  The test run makes itself a subreaper and looks at what came to it.

Every orphan below a subreaper becomes its child (prctl(2), PR_SET_CHILD_SUBREAPER), so a process that escaped from a
test, however it forked, shows as our own child at the end.  Processes that belong to the test runner itself
(xdist workers) were there before or are children of a runner of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The list it yields is filled at the end, one line for each live descendant that was not there at the start."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    left: list[str] = []
    yield left
    left.extend(_describe(process) for process in _still_there(before))


def _still_there(before: set[int]) -> list[psutil.Process]:
    """Live descendants, after a short grace for those that are just ending; the dead among them are reaped."""
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        found = [p for p in psutil.Process().children(recursive=True) if p.pid not in before and not _reaped(p)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def _reaped(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    return True


def _describe(process: psutil.Process) -> str:
    try:
        return f"pid {process.pid}, parent {process.ppid()}: {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"pid {process.pid}"
