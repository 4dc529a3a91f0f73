"""The few system calls that Python lacks, by ctypes.

Loaded once by the zygote, before the first fork, so that shims share its pages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)
_libc_with_gil.syscall.restype = ctypes.c_long

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CLONE3 = 435
"""The same on every architecture that Python runs on, but alpha."""
_CLONE_INTO_CGROUP = 0x2_0000_0000


def _prctl(option: int, argument: int | bytes) -> None:
    value = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    if _libc.prctl(option, value, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become_subreaper() -> None:
    """Orphans below us become our children: PR_SET_CHILD_SUBREAPER(2const)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """No exec from here on gains a privilege by setuid, setgid or capabilities: PR_SET_NO_NEW_PRIVS(2const)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_name(name: str) -> None:
    """The name that ps and top show (15 bytes)."""
    _prctl(_PR_SET_NAME, name.encode(errors="replace")[:15] + b"\0")


def fork_into(cgroup: int) -> int:
    """As os.fork, with the child born in the cgroup whose directory is open as `cgroup` (clone3(2)).

    Writing the child's pid to cgroup.procs would do as well, but moves a process: that waits for an RCU grace period,
    up to 27 ms on the way from a crash to the restart.  For a process of one thread only: the C library's own fork
    handlers do not run.  Raises OSError (ENOSYS, EPERM, EACCES, EOPNOTSUPP ...) where that cannot be had.
    """
    arguments = struct.pack("=11Q", _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_libc_with_gil.syscall(ctypes.c_long(_SYS_CLONE3), buffer, ctypes.c_size_t(len(arguments))))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid
