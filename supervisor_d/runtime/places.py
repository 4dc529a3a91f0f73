"""The daemon's directories and the lock that makes a second daemon impossible."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor_d.errors import AlreadyRunningError, PrepareError

RULING = "ruling"
"""In the runtime directory, while a daemon rules: what is there when the next one starts was left by a death."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a daemon keeps what it has."""

    runtime_dir: Path
    state_dir: Path
    log_dir: Path

    @property
    def control_socket(self) -> Path:
        """In a directory of its own: 0750, while workers of other users must be able to pass through runtime_dir."""
        return self.runtime_dir / "control" / "control.sock"

    @property
    def ruled_before(self) -> bool:
        """Whether a former daemon left an accepted config, and records or its mark (runtime/state.py): then the config
        file may be none of this one's business.  Nothing is created to find out."""
        if not (self.state_dir / "intent.json").exists():
            return False
        with suppress(OSError):
            return (self.runtime_dir / RULING).exists() or any((self.runtime_dir / "processes").iterdir())
        return False

    def prepare(self) -> None:
        """Create the directories.  Raises PrepareError when one cannot be had or is another user's."""
        _directory(self.runtime_dir, 0o711)
        _directory(self.state_dir, 0o700)
        _directory(self.log_dir, 0o750)


def _directory(path: Path, mode: int) -> None:
    """Make `path` ours.  The last part must not be a link: whoever can plant one could steer our writes."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise PrepareError(
            f"cannot create {path}: {error.strerror}", hint="set another directory under `daemon:` in the config"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise PrepareError(f"cannot use {path}: it is not a directory")
    if found.st_uid != os.geteuid():
        raise PrepareError(
            f"cannot use {path}: it belongs to uid {found.st_uid}, the daemon is uid {os.geteuid()}",
            hint="give each user's daemon directories of its own under `daemon:` in the config",
        )
    path.chmod(mode)


class Lock:
    """flock(2) on `runtime_dir/lock`: held for as long as this process lives, inherited by nobody."""

    def __init__(self, runtime_dir: Path, inherited: int | None = None) -> None:
        """`inherited` is the descriptor of a predecessor that handed over: its lock is then ours, without a gap."""
        self._path = runtime_dir / "lock"
        self._fd = -1
        self._inherited = inherited

    @property
    def fd(self) -> int:
        """The descriptor that holds it; -1 when it is not held."""
        return self._fd

    def acquire(self) -> None:
        """Take the lock.  Raises AlreadyRunningError with the holder's pid when another daemon has it."""
        if self._inherited is not None and self._take_over(self._inherited):
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise AlreadyRunningError(
                f"cannot run: another supervisor-d (pid {holder}) holds {self._path.parent}",
                hint="talk to it with `supervisor-d status`, or give this one another `daemon: runtime_dir:`",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def _take_over(self, fd: int) -> bool:
        """Whether the inherited descriptor is of this lock; one that is not is closed."""
        try:
            same = os.path.samestat(os.fstat(fd), self._path.stat())
            if same:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            same = False
        if not same:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would race with a daemon that waits for it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
