"""One beat for one schedule file on one host: a lock of ours, and a look at who else runs `celery beat` on it.

Celery locks nothing: two beats on one schedule file send every task twice, without an error.  Beats that supervisor-d
runs lock `<schedule>.lock` (flock(2)), which the kernel gives back at any death.  `celery beat`, started by hand,
knows nothing of that lock.  One that runs when ours starts is seen by its command line and its directory; one that is
started later is not.

The lock file keeps the last owner's token: whoever has the lock knows that this owner has ended.
"""

from __future__ import annotations

import fcntl
import os
import time

WAIT_SECONDS = 2.0
"""A predecessor on its way out may take so long."""
LOOK_SECONDS = 0.05
TOKEN_MAX_BYTES = 512
CMDLINE_MAX_BYTES = 4096


class SecondBeatError(Exception):
    """Another beat has the schedule; the text says which."""


class ScheduleLock:
    """The lock of one schedule file, kept until the process ends."""

    def __init__(self, schedule: str) -> None:
        """Raises OSError when there can be no lock file beside `schedule`."""
        self._path = os.path.realpath(schedule) + ".lock"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self, token: str, wait_seconds: float = WAIT_SECONDS) -> str:
        """Lock, and leave `token` for who comes after us; the predecessor's token.  Raises SecondBeatError."""
        until = time.monotonic() + wait_seconds
        while not self._locked():
            if time.monotonic() >= until:
                raise SecondBeatError(f"{self._token() or 'another beat'} has {self._path}")
            time.sleep(LOOK_SECONDS)
        predecessor = self._token()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, token.encode()[:TOKEN_MAX_BYTES], 0)
        return predecessor

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _token(self) -> str:
        text = os.pread(self._fd, TOKEN_MAX_BYTES, 0).decode(errors="replace")
        return text if text.isprintable() else ""


def refuse_beats_by_hand(schedule: str, usual: str, wait_seconds: float = WAIT_SECONDS) -> None:
    """Raise SecondBeatError when a `celery beat` goes on to run on the same schedule.

    `usual` is the schedule of a beat that was told of none, as the application has it.
    """
    until = time.monotonic() + wait_seconds
    while (pid := _by_hand(os.path.realpath(schedule), usual)) is not None:
        if time.monotonic() >= until:
            raise SecondBeatError(f"pid {pid}, a `celery beat` that was started by hand, has {schedule}")
        time.sleep(LOOK_SECONDS)


def _by_hand(schedule: str, usual: str) -> int | None:
    """The pid of a `celery beat` on that schedule, as far as this user may look."""
    others = (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
    return next((pid for pid in others if _schedule_of(pid, usual) == schedule), None)


def _schedule_of(pid: int, usual: str) -> str:
    """The schedule of a process that is a `celery beat`; empty for any other."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            # With setproctitle the words of the title are all that is left.
            words = os.fsdecode(file.read(CMDLINE_MAX_BYTES)).replace("\0", " ").split()
        if "beat" not in words or not any(os.path.basename(word) == "celery" for word in words):
            return ""
        return os.path.realpath(os.path.join(os.readlink(f"/proc/{pid}/cwd"), _option(words) or usual))
    except OSError:
        return ""


def _option(words: list[str]) -> str:
    """What `-s` or `--schedule` says."""
    for word, then in zip(words, [*words[1:], ""]):  # noqa: B905  Python 3.9
        if word in ("-s", "--schedule"):
            return then
        if word.startswith("--schedule="):
            return word.partition("=")[2]
    return ""
