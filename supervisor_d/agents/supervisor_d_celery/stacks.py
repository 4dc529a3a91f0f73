"""The stacks of a process that hangs, by a signal: its own loop need not run to tell them.

The handler is written in C and inherited by fork, so it serves main and pool processes alike.  What it writes goes to
descriptor 2, the process's log.
"""

from __future__ import annotations

import faulthandler
import signal

OFFSET = 6
"""SIGRTMIN+6: real-time signals are seldom used, and glibc keeps the first two for itself."""


def listen() -> int:
    """Write all threads' stacks when the signal comes; its number.  Raises RuntimeError where it cannot be had."""
    number = int(signal.SIGRTMIN) + OFFSET
    faulthandler.register(number, file=2, all_threads=True, chain=False)
    return number


def write() -> None:
    """Write them now."""
    faulthandler.dump_traceback(file=2, all_threads=True)
