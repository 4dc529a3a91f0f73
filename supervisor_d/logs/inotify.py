"""inotify(7), as far as a log reader needs it: told when a file in a directory grows, appears or is renamed.

By ctypes: three calls are less than a dependency.  Kernels before 6.4 tell nothing of bytes that arrive by splice(2),
which is how shims write; `tells_of_splice` finds out, once.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from pathlib import Path
from typing import Self

MODIFY, MOVED_TO, CREATE = 0x2, 0x80, 0x100
OVERFLOW = 0x4000
_ONLYDIR = 0x01000000
_HEAD = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _called(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Inotify:
    """An inotify instance that watches directories."""

    def __init__(self) -> None:
        self._fd = _called(_libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._paths: dict[int, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._fd

    def watch(self, directory: Path) -> bool:
        """Watch a directory; False when it is not there (yet) or the user's watches are used up."""
        if directory in self._paths.values():
            return True
        try:
            mask = MODIFY | MOVED_TO | CREATE | _ONLYDIR
            descriptor = _called(_libc().inotify_add_watch(self._fd, os.fsencode(directory), mask))
        except OSError:
            return False
        self._paths[descriptor] = directory
        return True

    def changed(self) -> tuple[set[Path], bool]:
        """The files that grew or appeared since the last call, and whether the kernel lost count of them."""
        paths: set[Path] = set()
        lost = False
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return paths, lost
        place = 0
        while place < len(data):
            descriptor, mask, _, length = _HEAD.unpack_from(data, place)
            name = data[place + _HEAD.size : place + _HEAD.size + length].rstrip(b"\0")
            place += _HEAD.size + length
            lost = lost or bool(mask & OVERFLOW)
            if name and descriptor in self._paths:
                paths.add(self._paths[descriptor] / os.fsdecode(name))
        return paths, lost

    def close(self) -> None:
        """Give the descriptor and all watches back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@cache
def tells_of_splice() -> bool:
    """Whether this kernel tells of bytes that arrive by splice(2) (Linux 6.4 and later do); tried on a file."""
    import tempfile

    try:
        with tempfile.NamedTemporaryFile() as file, Inotify() as inotify:
            return _tells(inotify, Path(file.name), file.fileno())
    except OSError:
        return False


def _tells(inotify: Inotify, path: Path, file: int) -> bool:
    source, sink = os.pipe()
    try:
        inotify.watch(path.parent)
        os.write(sink, b"\n")
        os.splice(source, file, 1)
        return path in inotify.changed()[0]
    finally:
        os.close(source)
        os.close(sink)
