"""PID 1 of a container: starts the daemon, and stays what a kernel wants of its first process.

`supervisor-d run` that finds itself to be PID 1 becomes this, by exec, and this starts it again as a child.  It is not
the daemon itself, because PID 1 may not die: with it the kernel kills the whole container, and there would be nothing
left to adopt.

    orphans     reaped, whosever they were
    signals     passed to the daemon, in the order they came; one that comes while there is none goes to the next, and
                so does an order to end that a daemon did not live to carry out
    crash       the daemon is started again, and adopts: at once, then after pauses that double up to PAUSE_MAX_SECONDS
    end         exit with the daemon's code, 128 + n for signal n; what is left the kernel ends with us

A daemon that ends with an error that trying again does not mend (a wrong config, a taken port: 64 to 78) and has left
no processes is not started again; nor is one that crashes CRASHES_MAX times in a row, each time young, without having
left any.  Then the container ends with its code, and the runtime's restart policy has its turn.

All signals are blocked, here and, until it listens, in the daemon (runtime/signals.py): none comes too early, and there
are no handlers to race with.  On a terminal the daemon's process group is put into its foreground: Ctrl-C is the
daemon's, once.

The standard library alone, and nothing of ours: `python -I -S init.py PYTHON [ARGUMENT]...`
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

PAUSE_SECONDS = 0.1
PAUSE_MAX_SECONDS = 5.0
YOUNG_SECONDS = 10.0
CRASHES_MAX = 5
NOT_MENDED = frozenset(range(64, 79)) - {70}
"""sysexits(3): what an operator must mend; 70 is a bug of ours, and a crash."""
STORE_NAME = b"shim store"
"""As in shim/wire.py, which is not imported here."""

_KEPT = frozenset(
    {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE}
    # Faults of our own: blocked, they would be a hang.
    | {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)
PASSED = frozenset(signal.valid_signals()) - _KEPT


def become(argv: Sequence[str]) -> NoReturn:
    """Replace this process, which is PID 1, by the init that runs `argv`.  Raises OSError."""
    words = [sys.executable, "-I", "-S", os.path.abspath(__file__), *argv]  # noqa: PTH100  no pathlib in a small init
    os.execv(sys.executable, words)  # noqa: S606


class Init:
    """Keeps one daemon running."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._daemon = 0
        self._began = 0.0
        self._young_crashes = 0
        self._start_at: float | None = None
        self._waiting: list[int] = []
        self._ending = False

    def run(self) -> int:
        """The exit code of the container."""
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED | {signal.SIGCHLD})
        # SIGTTOU: putting the daemon into the foreground is for us, in the background, to do.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._start()
        while True:
            self._next_signal()
            code = self._reap()
            if code is not None:
                return code
            if self._start_at is not None and (self._waiting or time.monotonic() >= self._start_at):
                self._start()

    def _next_signal(self) -> None:
        """Wait for one, or for the time to start again."""
        heard = PASSED | {signal.SIGCHLD}
        told: signal.struct_siginfo | None
        if self._start_at is None:
            told = signal.sigwaitinfo(heard)
        else:
            told = signal.sigtimedwait(heard, max(0.0, self._start_at - time.monotonic()))
        if told is None or told.si_signo == signal.SIGCHLD:
            return
        self._ending = self._ending or told.si_signo in (signal.SIGTERM, signal.SIGINT)
        if self._daemon:
            with suppress(ProcessLookupError):
                os.kill(self._daemon, told.si_signo)
        elif told.si_signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._waiting.append(told.si_signo)

    def _start(self) -> None:
        self._start_at = None
        self._began = time.monotonic()
        try:
            self._daemon = os.fork()
        except OSError as error:
            self._again(f"cannot start the daemon: {error.strerror}")
            return
        if self._daemon == 0:
            self._become_daemon()
        if self._ending and not self._waiting:
            self._waiting.append(signal.SIGTERM)  # the daemon that was asked to end crashed over it
        for number in self._waiting:
            os.kill(self._daemon, number)  # it waits, blocked, until the daemon listens
        self._waiting.clear()

    def _become_daemon(self) -> NoReturn:
        try:
            os.setpgid(0, 0)
            if os.isatty(0):
                os.tcsetpgrp(0, os.getpgrp())
        except OSError:
            pass
        try:
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            mine = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
            signal.pthread_sigmask(signal.SIG_SETMASK, mine)
            os.execv(self._argv[0], self._argv)  # noqa: S606
        except OSError as error:
            _say(f"cannot execute {self._argv[0]}: {error.strerror}")
        finally:
            os._exit(127)

    def _reap(self) -> int | None:
        """Take note of every death; the container's exit code when it is to end."""
        ended: int | None = None
        with suppress(ChildProcessError):
            while (told := os.waitpid(-1, os.WNOHANG))[0]:
                if told[0] == self._daemon:
                    ended = told[1]
        return None if ended is None else self._ended(os.waitstatus_to_exitcode(ended))

    def _ended(self, code: int) -> int | None:
        """What the daemon's end means: an exit code, or None when it is started again."""
        self._daemon = 0
        exit_code = 128 - code if code < 0 else code
        if code == 0:
            return 0
        young = time.monotonic() - self._began < YOUNG_SECONDS
        self._young_crashes = self._young_crashes + 1 if young else 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if not _children():
            if exit_code in NOT_MENDED:
                return exit_code
            if self._young_crashes >= CRASHES_MAX:
                _say(f"the daemon {how}, {self._young_crashes} times in a row, and nothing runs: giving up")
                return exit_code
        self._again(f"the daemon {how}; its processes go on")
        return None

    def _again(self, what: str) -> None:
        doublings = max(0, self._young_crashes - 2)
        pause = min(PAUSE_SECONDS * 2**doublings, PAUSE_MAX_SECONDS) if self._young_crashes > 1 else 0.0
        self._daemon = 0
        self._start_at = time.monotonic() + pause
        _say(f"{what}; it is started again" + (f" in {pause:g} s" if pause else ""))


def _children() -> list[str]:
    """Whom the daemon left: all that lost its parent is a child of PID 1.  The store of its sockets does not count: it
    runs nothing."""
    pid = os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:  # noqa: PTH123
        return [child for child in children.read().split() if _name(child) != STORE_NAME]


def _name(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:  # noqa: PTH123
            return comm.read().strip()
    except OSError:
        return b""


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"supervisor-d init: {text}\n".encode())


if __name__ == "__main__":
    sys.exit(Init(sys.argv[1:]).run())
