"""Signals to the daemon itself: each is counted and handed on, nothing is done in a handler.

TERM and INT: the first asks for a graceful end, the second changes nothing (a second Ctrl-C is impatience, not an
order), the third jumps every stop list to KILL.  HUP is a reload, unless the daemon's terminal has hung up: then its
output is detached and the daemon goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Orders:
    """What the signals mean, to be carried out by the daemon."""

    shut_down: Callable[[str], None]
    kill_now: Callable[[], None]
    reload: Callable[[], None]
    detach: Callable[[], None]


class Signals:
    """Installs the handlers in the event loop."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._ends = 0
        self._had_terminal = sys.stdout.isatty() or sys.stderr.isatty()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle TERM, INT and HUP from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        # Whoever started us may have held them back until now: an init, or the daemon that we were (upgrade).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))

    def _end(self, name: str) -> None:
        self._ends += 1
        if self._ends == 1:
            self._orders.shut_down(f"the daemon was asked to end by {name}")
        elif self._ends >= 3:
            self._orders.kill_now()

    def _hang_up(self) -> None:
        if self._had_terminal and not terminal_lives():
            self._orders.detach()
        else:
            self._orders.reload()


def terminal_lives() -> bool:
    """Whether the process still has a controlling terminal: after a hang-up, opening /dev/tty fails (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def detach_output() -> None:
    """Point standard input, output and error at /dev/null: writing to a terminal that is gone fails with EIO.

    What is a file, a pipe or a socket is left alone.  isatty(3) would not do: it fails on a terminal that hung up.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        if fd == 0 or stat.S_ISCHR(os.fstat(fd).st_mode):
            os.dup2(null, fd)
    os.close(null)
