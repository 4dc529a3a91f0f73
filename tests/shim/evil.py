"""Trees that do not want to end: `evil.py <kind> <FIFO>`.  All hold the FIFO open: at its EOF none is left."""

from __future__ import annotations

import os
import signal
import sys
import time


def deaf() -> None:
    """Ignore all that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def sleep() -> None:
    """For ever, without a mark of ours in environment or arguments."""
    os.execve("/bin/sleep", ["sleep", "1000"], {})


def child() -> None:
    """A child of the same group."""
    if os.fork() == 0:
        sleep()


def leader() -> None:
    """A child with a session of its own, deaf."""
    if os.fork() == 0:
        os.setsid()
        deaf()
        sleep()


def daemon() -> None:
    """A daemon by the book: double fork, own session, empty environment, no standard streams."""
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(0, 3)
        os.chdir("/")
        deaf()
        sleep()


def chain(wide: int = 1) -> None:
    """A process that forks every millisecond and exits, `wide` times at once."""
    for _ in range(wide):
        if os.fork() == 0:
            os.setsid()
            deaf()
            while True:
                time.sleep(0.001)
                if os.fork():
                    os._exit(0)


def main() -> None:
    """Grow the tree, say so, and be deaf."""
    os.set_inheritable(os.open(sys.argv[2], os.O_WRONLY), True)
    deaf()
    kind = sys.argv[1]
    for grow in (child, leader, daemon):
        if kind in {grow.__name__, "static", "reforking", "bomb"}:
            grow()
    if kind in {"reforking", "bomb"}:
        chain(4 if kind == "bomb" else 1)
    if kind == "bomb":
        for _ in range(5):
            child()
            leader()
    print("grown", flush=True)
    if kind == "dies":
        daemon()
        os._exit(7)
    while True:
        signal.pause()


main()
