"""The log file of a slot: who may write it, when it is turned over, and where a time lies in it.

Lanes.  Two processes of one slot may live at a time (a rollout).  Each file is written by the one shim that holds its
flock(2); who finds `web.0.log` held takes `web.0~1.log`, then `web.0~2.log`.  The lock dies with its shim.

Rotation.  At `max_size_bytes`, `web.0.log` becomes `.1`, that `.2`, and the last is removed.  An unfinished line goes
on into the new file, so that no line is cut in two; one longer than LINE_BYTES is waited for, and cut OVERRUN_BYTES
later.

Index.  `web.0.log.idx` has a line "unix_seconds offset", at most one a second: what was written from `offset` on is
not older than `unix_seconds`.  It turns over with its file (`web.0.log.1.idx`).

The directory is ours, but its files are opened as if it were not: no symbolic or hard link, no FIFO, no stranger's
file is ever written (nginx's CVE-2016-1247 and logrotate's CVE-2011-1550 were that).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress

from supervisor_d.shim import crash

LANES_MAX = 64
LINE_BYTES = 64 * 1024
OVERRUN_BYTES = 1024 * 1024
CHUNK_BYTES = 1024 * 1024

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_INDEX_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LogFile:
    """An open lane of a slot's log.  Methods may raise OSError: nothing is lost by it, and they can be tried again."""

    def __init__(self, directory: int, name: str, max_size_bytes: int, keep: int) -> None:
        self._directory = directory
        self._stem = name
        self._max_size = max_size_bytes
        self._keep = keep
        self._indexed_at = 0
        self._file = self._index = -1
        self._offset = 0
        self.name = ""
        self._open()

    def take(self, pipe: int) -> int:
        """Move what the pipe holds to the end of the file, within the kernel; 0 < the number of bytes moved.

        Raises BlockingIOError when the pipe is empty; any other OSError is the file's (ENOSPC, EIO, EDQUOT).
        """
        if self._offset >= self._max_size:
            self._rotate()
        room = max(self._max_size + OVERRUN_BYTES - self._offset, 1)
        moved = os.splice(pipe, self._file, min(CHUNK_BYTES, room), offset_dst=self._offset)
        now = int(time.time())
        if now != self._indexed_at:
            self._note(now)
        self._offset += moved
        return moved

    def _note(self, now: int) -> None:
        self._indexed_at = now
        try:
            os.write(self._index, b"%d %d\n" % (now, self._offset))
        except OSError:
            return  # as for one that could not be opened

    def _rotate(self) -> None:
        """Go on in a new file, where the unfinished line at the end of this one is moved."""
        line = self._unfinished_line()
        if line is None:
            return
        old, end = os.dup(self._file), self._offset
        try:
            self._turn_over()
            crash.point("rotate-after-rename")
            self._open()
            crash.point("rotate-after-open")
            if line and os.pwrite(self._file, line, self._offset) == len(line):
                self._offset += len(line)
                os.ftruncate(old, end - len(line))
        finally:
            os.close(old)

    def _unfinished_line(self) -> bytes | None:
        """What stands after the last line end; None when that is far away, and there is room to wait for the next."""
        tail = os.pread(self._file, LINE_BYTES, max(0, self._offset - LINE_BYTES))
        at = tail.rfind(b"\n")
        if at >= 0:
            return tail[at + 1 :]
        return b"" if self._offset >= self._max_size + OVERRUN_BYTES else None

    def _turn_over(self) -> None:
        """Rename the lane's files; the old file stays open and locked until the new one is."""
        if not _is_at(self._file, self._directory, self.name):
            return  # done, but then no new file could be opened
        for number in range(self._keep, 0, -1):
            older = f"{self.name}.{number}"
            newer = f"{self.name}.{number - 1}" if number > 1 else self.name
            for suffix in ("", ".idx"):
                with suppress(FileNotFoundError):
                    os.rename(newer + suffix, older + suffix, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        if self._keep == 0:
            for suffix in ("", ".idx"):
                with suppress(FileNotFoundError):
                    os.unlink(self.name + suffix, dir_fd=self._directory)

    def _open(self) -> None:
        """Take the first free lane."""
        for lane in range(LANES_MAX):
            name = f"{self._stem}~{lane}.log" if lane else f"{self._stem}.log"
            file = self._lock(name)
            if file is None:
                continue
            self._close()
            self.name, self._file, self._index = name, file, -1
            self._offset = os.lseek(file, 0, os.SEEK_END)
            self._index = self._open_index()
            return
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _open_index(self) -> int:
        try:
            return _open_own(self._directory, f"{self.name}.idx", _INDEX_FLAGS)
        except OSError:
            return -1  # a log without an index is still a log

    def _lock(self, name: str) -> int | None:
        """The file of that name, open and locked; None when another shim holds it."""
        while True:
            file = _open_own(self._directory, name, _FLAGS)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return None
            if _is_at(file, self._directory, name):
                return file
            os.close(file)  # its holder turned it over while we waited for the lock

    def _close(self) -> None:
        for fd in (self._file, self._index):
            if fd >= 0:
                os.close(fd)


def _is_at(file: int, directory: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _open_own(directory: int, name: str, flags: int) -> int:
    """Open a regular file of ours, with no other name.  Raises OSError (EPERM) for anything else."""
    file = os.open(name, flags, 0o640, dir_fd=directory)
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_uid == os.geteuid():
        return file
    os.close(file)
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), name)
