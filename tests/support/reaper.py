"""Run a command (the test suite) and prove that it left no process behind.

    python -m tests.support.reaper python -m pytest

Every orphan below a subreaper becomes its child (prctl(2), PR_SET_CHILD_SUBREAPER): whatever escapes from a test,
however it forked, is ours in the end.  Orphans that end are reaped at once, as an init would.  When the command is
done, what still lives after a grace is named and killed, and the exit code is 1 even if the command's was 0.

It also gives the command clean signals.  make starts its recipes by posix_spawn(3), which leaves the C library's own
two signals ignored, and what is ignored is inherited by all that a test starts and looks at.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0
C_LIBRARYS_OWN = (32, 33)
RT_SIGACTION = {"x86_64": 13, "aarch64": 134}
"""The system call's number (asm/unistd.h): sigaction(3) of the C library refuses its own signals."""


def main(argv: list[str]) -> int:
    """Run `argv`; its exit code (128 + n for signal n), or 1 when it left processes behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _reset_signals(libc)
    command = subprocess.Popen(argv)
    _forward_signals(command.pid)
    code = _reap_until(command.pid)
    left = _leftovers()
    for process in left:
        print(f"left behind: {_describe(process)}", file=sys.stderr)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return code or (1 if left else 0)


def _reset_signals(libc: ctypes.CDLL) -> None:
    """The default action for the signals that Python cannot reach; a kernel's sigaction of zeroes says just that."""
    number = RT_SIGACTION.get(platform.machine())
    if number is not None:
        for signum in C_LIBRARYS_OWN:
            libc.syscall(number, signum, bytes(64), None, 8)


def _forward_signals(pid: int) -> None:
    """A terminal's Ctrl-C reaches the command by itself; a TERM to us is passed on."""

    def forward(signum: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _reap_until(pid: int) -> int:
    """Reap whatever ends until `pid` does; its exit code as a shell would tell it."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _leftovers() -> list[psutil.Process]:
    """Live descendants, after a grace for those that are just ending."""
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = psutil.Process().children(recursive=True)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _describe(process: psutil.Process) -> str:
    try:
        return f"pid {process.pid}, parent {process.ppid()}: {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"pid {process.pid}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
