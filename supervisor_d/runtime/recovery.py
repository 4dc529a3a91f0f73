"""Listening sockets out of a process that holds them, by pidfd_getfd(2): for a daemon whose predecessor died.

Linux >= 5.6 and the rights of ptrace(2) over the process: root has them; its own user has them unless Yama says
otherwise (kernel.yama.ptrace_scope > 0, as Ubuntu ships it).
"""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import suppress

_SYS_PIDFD_GETFD = 438
"""The same on every architecture that has it, but alpha."""


def listening_sockets(pid: int) -> list[int]:
    """Copies of the listening stream sockets of a process, in the order of its descriptors, for the caller to close;
    empty when it is gone or may not be asked.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return []
    try:
        fds = sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
        copies = [copy for fd in fds if _is_socket(pid, fd) and (copy := _copy(pidfd, fd)) is not None]
    except OSError:
        return []
    finally:
        os.close(pidfd)
    return [copy for copy in copies if _listens(copy)]


def _is_socket(pid: int, fd: int) -> bool:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    return False


def _copy(pidfd: int, fd: int) -> int | None:
    """A close-on-exec copy of descriptor `fd` of the process behind `pidfd`."""
    libc = ctypes.CDLL(None, use_errno=True)
    copy = libc.syscall(ctypes.c_long(_SYS_PIDFD_GETFD), ctypes.c_int(pidfd), ctypes.c_int(fd), ctypes.c_uint(0))
    return copy if copy >= 0 else None


def _listens(fd: int) -> bool:
    """Whether it is a listening stream socket; closed when it is not."""
    asked = socket.socket(fileno=fd)
    with suppress(OSError):
        if asked.type == socket.SOCK_STREAM and asked.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            asked.detach()
            return True
    asked.close()
    return False
