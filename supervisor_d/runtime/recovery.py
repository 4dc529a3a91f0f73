"""Listening sockets of former daemons, out of the processes that hold them.

A socket lives as long as anybody holds it: the shim, which keeps the listeners of its program for this purpose, the
main process, and what that forked.  They are asked in one order, and whoever comes first has the socket back:

    the shim, which gives them out       SCM_RIGHTS over its link; takes no rights but those over the link
    the shim, which cannot answer        pidfd_getfd(2): it is stopped, or busy
    the main process                     the same, when the shim is dead
    whatever is left of its tree         the same, when the main process is dead too

What came along with this daemon (across execve(2), or from systemd's fd store), or was kept beside the one before
(runtime/socket_store.py), is in use before any of them is asked, and what nobody gives back is bound anew
(runtime/listeners.py).

pidfd_getfd takes Linux 5.6 and the rights of ptrace(2) over the process: root has them; its own user has them unless
Yama says otherwise (kernel.yama.ptrace_scope > 0, as Ubuntu ships it).  Who is asked was identified through its pidfd:
a reused pid never is.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

from supervisor_d.core.intent import Intent, known_spec
from supervisor_d.runtime import pidfd as pidfds
from supervisor_d.runtime import shimlink
from supervisor_d.runtime.known import Known
from supervisor_d.runtime.listeners import Listeners
from supervisor_d.runtime.records import Record
from supervisor_d.runtime.survivors import marks_of, survivors
from supervisor_d.shim import wire

ANSWER_SECONDS = 0.5
"""How long a shim may take to answer: it is idle, or it is stopped."""
_SYS_PIDFD_GETFD = 438
"""The same on every architecture that has it, but alpha."""


def recover(listeners: Listeners, intent: Intent, pool: str, generation: int, sources: Iterator[list[int]]) -> None:
    """Give the listeners what a process of that generation holds, from the first sources that have what is missing."""
    known = intent.pools.get(pool)
    if known is None or known.removed:
        return
    versions = (
        known_spec(intent, pool, generation),
        known.wanted.spec,
        known.previous.spec if known.previous else None,
    )
    specs = [spec for spec in versions if spec is not None]
    while any(map(listeners.lacks, specs)):
        fds = next(sources, None)
        if fds is None:
            return
        for fd in fds:
            if not listeners.take(specs, fd):
                os.close(fd)


def sources(record: Record, known: Known) -> Iterator[list[int]]:
    """The listening sockets of each process that may hold them, in the order of recovery, for the caller to close."""
    if known.shim is not None:
        yield _given_by_shim(record, known.shim)
        yield held_by(known.shim)
    if known.main is not None:
        yield held_by(known.main)
        marks = marks_of(known.main.pid, known.main.starttime, str(record.path / wire.FIFO))
        for pid, pidfd in survivors(marks):
            yield _listening(pid, pidfd)


def listening_sockets(pid: int) -> list[int]:
    """Copies of the listening stream sockets of a process, in the order of its descriptors, for the caller to close;
    empty when it is gone or may not be asked.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return []
    try:
        return _listening(pid, pidfd)
    finally:
        os.close(pidfd)


def _given_by_shim(record: Record, shim: wire.Identity) -> list[int]:
    pidfd = pidfds.open_pidfd(shim)
    if pidfd is None:
        return []
    os.close(pidfd)
    with suppress(OSError, ValueError):
        return [fd for fd in given_by_shim(record, "sockets") if _listens(fd)]
    return []


def given_by_shim(record: Record, what: str) -> list[int]:
    """The descriptors that a shim gives out when it is asked for its `sockets`, or for what is `lent` to it, for the
    caller to close.

    Raises OSError when nobody is there to answer (ConnectionRefusedError, FileNotFoundError), or nobody does in time,
    and ValueError for an answer that makes no sense.
    """
    received: list[int] = []
    try:
        with shimlink.connect(record) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.send(wire.encode({"ask": what}))
            lines = wire.Lines()
            while not _answered(lines.feed(_receive(connection, received)), what):
                pass
    except (OSError, ValueError):
        for fd in received:
            os.close(fd)
        raise
    return received


def _receive(connection: socket.socket, received: list[int]) -> bytes:
    """Some bytes; descriptors that come with them are added to `received`.  Raises OSError."""
    size, most, flags = wire.MESSAGE_MAX_BYTES, wire.LISTENERS_MAX, socket.MSG_CMSG_CLOEXEC
    data, fds, _, _ = socket.recv_fds(connection, size, most, flags)
    received += fds
    if not data:
        raise ConnectionResetError("the shim ended the link")
    return data


def _answered(facts: list[wire.Message], what: str) -> bool:
    return any(fact.get("event") == what for fact in facts)


def held_by(identity: wire.Identity) -> list[int]:
    """Copies of the listening stream sockets of the process of that identity, for the caller to close; empty when it is
    gone or may not be asked."""
    pidfd = pidfds.open_pidfd(identity)
    if pidfd is None:
        return []
    try:
        return _listening(identity.pid, pidfd)
    finally:
        os.close(pidfd)


def _listening(pid: int, pidfd: int) -> list[int]:
    try:
        fds = sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return []
    copies = [copy for fd in fds if _is_socket(pid, fd) and (copy := _copy(pidfd, fd)) is not None]
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
    try:
        asked = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return False
    with suppress(OSError):
        if asked.type == socket.SOCK_STREAM and asked.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            asked.detach()
            return True
    asked.close()
    return False
