"""A kernel that refuses to make processes and threads, for as long as a test wants: errno by seccomp(2).

    with Refusals() as kernel:
        daemon.prefix = kernel.prefix
        ...
        with kernel.refusing(errno.ENOMEM):
            ...                                   # fork, vfork, clone and clone3 fail in the daemon and all below it

The prefix installs a filter that asks a listener about each of these calls (seccomp_unotify(2)), sends the listener
here, and becomes the daemon: its code, its shims and their programs are as they always are, and the errno is the
kernel's own answer.  A thread here lets the calls pass, or has them fail.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_CALLS = {"x86_64": (56, 57, 58, 435), "aarch64": (220, 435)}
"""clone, fork, vfork, clone3 (the last two archs' own have no fork and vfork)."""
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND (linux/seccomp.h)."""
_NOTICE_BYTES = 80
_ANSWER_FORM = struct.Struct("=QqiI")
_CONTINUE = 1


def unavailable() -> str:
    """Why there can be no such kernel here; empty when there can."""
    if os.geteuid() != 0:
        return "only root may have a filter without giving up privileges for good"
    return "" if platform.machine() in _CALLS else f"the numbers of the calls on {platform.machine()} are not known"


class Refusals:
    """The kernel's refusals, at the test's command."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="refusing-", dir="/tmp"))
        self._path = self._directory / "socket"
        self._doors = socket.socket(socket.AF_UNIX)
        self._doors.bind(str(self._path))
        self._doors.listen()
        self._wakes, self._wake = os.pipe()
        self._errno = 0
        self.refused = 0
        self._thread = threading.Thread(target=self._serve, name="refusals", daemon=True)

    @property
    def prefix(self) -> list[str]:
        """The command that becomes a daemon in such a kernel."""
        return [sys.executable, "-I", "-S", str(Path(__file__)), str(self._path)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake)
        self._thread.join(10)
        self._doors.close()
        self._path.unlink()
        self._directory.rmdir()

    @contextmanager
    def refusing(self, number: int) -> Iterator[None]:
        """Meanwhile the calls fail with this errno."""
        self._errno = number
        try:
            yield
        finally:
            self.relent()

    def relent(self) -> None:
        """Let all calls pass again."""
        self._errno = 0

    def _serve(self) -> None:
        """Answer every call of every daemon that came, until the end."""
        poll = select.poll()
        poll.register(self._doors, select.POLLIN)
        poll.register(self._wakes, select.POLLIN)
        listeners: set[int] = set()
        while True:
            for fd, events in poll.poll():
                if fd == self._wakes:
                    for listener in listeners:
                        os.close(listener)
                    return
                if fd == self._doors.fileno():
                    listener = self._welcome()
                    listeners.add(listener)
                    poll.register(listener, select.POLLIN)
                elif events & select.POLLIN:
                    self._answer(fd)
                else:  # nobody lives any more who is under this filter
                    poll.unregister(fd)
                    listeners.discard(fd)
                    os.close(fd)

    def _welcome(self) -> int:
        connection, _ = self._doors.accept()
        with connection:
            _, (listener,), _, _ = socket.recv_fds(connection, 1, 1)
        return listener

    def _answer(self, listener: int) -> None:
        notice = bytearray(_NOTICE_BYTES)
        try:
            fcntl.ioctl(listener, _RECEIVE, notice, True)
            (identity,) = struct.unpack_from("=Q", notice)
            number = self._errno
            self.refused += bool(number)
            answer = _ANSWER_FORM.pack(identity, 0, -number, 0 if number else _CONTINUE)
            fcntl.ioctl(listener, _ANSWER, bytearray(answer), True)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):  # who asked is dead
                raise


def _instruction(code: int, value: int, equal: int = 0, other: int = 0) -> bytes:
    return struct.pack("=HBBI", code, equal, other, value)


def _listener() -> int:
    """A filter on this process and all that come from it; the listener for its questions."""
    calls = _CALLS[platform.machine()]
    code = _instruction(_LOAD, 0)  # the number of the call
    for place, call in enumerate(calls):
        code += _instruction(_JUMP_EQUAL, call, equal=len(calls) - place)
    code += _instruction(_RETURN, _ALLOW) + _instruction(_RETURN, _USER_NOTIF)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    fd = int(syscall(_SECCOMP[platform.machine()], _SET_MODE_FILTER, _NEW_LISTENER, program))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp(2)")
    return fd


def _become(path: str, *command: str) -> None:
    listener = _listener()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"!"], [listener])
    os.close(listener)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(*sys.argv[1:])
