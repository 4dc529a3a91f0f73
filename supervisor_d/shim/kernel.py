"""The few system calls that Python lacks, by ctypes, and those that it has wrapped too well.

Loaded once by the zygote, before the first fork, so that shims share its pages.

A page that a shim writes to is a page of its own, and in Python to call a function is to write to it.  So shims use
the C modules under `socket` and `signal`, whose public wrappers turn each number into an enum and back: that is 200 KB
of a shim's megabyte.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from _signal import SIGCHLD, set_wakeup_fd  # type: ignore[import-not-found]
from _signal import signal as set_handler
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socketpair,
)
from _socket import socket as Socket  # noqa: N812  (the public name of this class)

__all__ = [
    "AF_UNIX",
    "SIGCHLD",
    "SOCK_DGRAM",
    "SOCK_NONBLOCK",
    "SOCK_SEQPACKET",
    "SOCK_STREAM",
    "Socket",
    "accept",
    "become_subreaper",
    "exit_status",
    "forbid_new_privileges",
    "fork_into",
    "peer_uid",
    "receive",
    "send_rights",
    "set_handler",
    "set_name",
    "set_wakeup_fd",
    "socketpair",
]

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # with the GIL held: it forks
_syscall.argtypes = (ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child

_RIGHTS_SPACE = CMSG_SPACE(4 * 253)
"""253 descriptors at most in one message: SCM_MAX_FD, unix(7)."""
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CLONE3 = 435
"""The same on every architecture that Python runs on, but alpha."""
_PIDFD_GET_INFO = 0xC040FF0B
_INFO_BYTES = 64
_INFO_EXIT = 8
_CLONE_INTO_CGROUP = 0x2_0000_0000


def _set(option: int, argument: int | bytes) -> None:
    if _prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become_subreaper() -> None:
    """Orphans below us become our children: PR_SET_CHILD_SUBREAPER(2const)."""
    _set(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """No exec from here on gains a privilege by setuid, setgid or capabilities: PR_SET_NO_NEW_PRIVS(2const)."""
    _set(_PR_SET_NO_NEW_PRIVS, 1)


def set_name(name: str) -> None:
    """The name that ps and top show (15 bytes)."""
    _set(_PR_SET_NAME, name.encode(errors="replace")[:15] + b"\0")


def accept(listener: Socket) -> Socket:
    """The next connection, close-on-exec.  Raises OSError."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return Socket(fileno=fd)


def receive(connection: Socket, size_bytes: int = 16) -> tuple[bytes, list[int]]:
    """One datagram with its descriptors, which are close-on-exec; b"" at the end of file."""
    data, control, _, _ = connection.recvmsg(size_bytes, _RIGHTS_SPACE, MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, rights in control:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            descriptors += struct.unpack(f"{len(rights) // 4}i", rights)
    return data, descriptors


def send_rights(connection: Socket, data: bytes, descriptors: list[int]) -> int:
    """Send descriptors along with `data`.  Returns the number of bytes sent.  Raises OSError."""
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    return connection.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, rights)])


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that anybody reaped; None while it was not.  Raises OSError where the kernel can't
    tell (before Linux 6.15, include/uapi/linux/pidfd.h)."""
    info = bytearray(_INFO_BYTES)
    struct.pack_into("<Q", info, 0, _INFO_EXIT)
    fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info, True)
    mask, status = struct.unpack_from("<Q", info)[0], struct.unpack_from("<i", info, _INFO_BYTES - 4)[0]
    return int(status) if mask & _INFO_EXIT else None


def peer_uid(connection: Socket) -> int:
    """The user at the other end (SO_PEERCRED, unix(7))."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
    return int(uid)


def fork_into(cgroup: int) -> int:
    """As os.fork, with the child born in the cgroup whose directory is open as `cgroup` (clone3(2)).

    Writing the child's pid to cgroup.procs would do as well, but moves a process: that waits for an RCU grace period,
    up to 27 ms on the way from a crash to the restart.  For a process of one thread only: the C library's own fork
    handlers do not run.  Raises OSError (ENOSYS, EPERM, EACCES, EOPNOTSUPP ...) where that cannot be had.
    """
    arguments = struct.pack("=11Q", _CLONE_INTO_CGROUP, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    _before_fork()
    pid = int(_syscall(_SYS_CLONE3, arguments, len(arguments)))
    if pid == 0:
        _after_fork_child()
        return 0
    number = ctypes.get_errno()
    _after_fork_parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid
