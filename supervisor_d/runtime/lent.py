"""What a broker still said to a worker that was killed.

Redis forgets a message when it hands it out (BRPOP).  A worker that waits for one has the question open, and is killed:
the kernel closes its connections only at the end of its exit, and until then Redis may answer a dead man.  So the agent
lends the connection to the shim (shim/told.py), which holds it too.  The connection then outlives the worker, and what
came last is still in its buffer.

    shutdown(SHUT_WR)   the broker sees an end of file, and forgets the question
    its end of file     now nothing more can come: what is in the buffer is all
    nothing in it       nothing was popped for the dead, or it had read it: then it is in its ledger
    something           a helper puts it back (runtime/restoring.py)

What is encrypted can be read by nobody but the dead; such connections are not lent.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from contextlib import suppress

from supervisor_d.runtime.records import Record
from supervisor_d.runtime.recovery import given_by_shim

END_SECONDS = 1.0
"""For a broker to close its side."""


class NotYetError(Exception):
    """It cannot be told yet; the text says why."""


def unread(record: Record) -> list[socket.socket]:
    """The lent connections that hold something, for the caller to close.

    Blocks for about END_SECONDS at most.  Raises NotYetError; it can be called again.
    """
    connections = [socket.socket(fileno=fd) for fd in _lent(record)]
    kept: list[socket.socket] = []
    try:
        for connection in connections:
            _end(connection)
        kept = [connection for connection in connections if waiting_bytes(connection)]
        return kept
    finally:
        for connection in connections:
            if connection not in kept:
                connection.close()


def _lent(record: Record) -> list[int]:
    """What a shim holds of its agent's; nothing where it is dead, and its descriptors with it."""
    try:
        return given_by_shim(record, "lent")
    except (ConnectionRefusedError, FileNotFoundError):
        return []
    except (OSError, ValueError) as error:
        raise NotYetError("its shim, which holds the worker's connection, does not answer") from error


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it is not connected any more
        connection.shutdown(socket.SHUT_WR)
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    if not poll.poll(END_SECONDS * 1000):
        raise NotYetError("the broker has not closed the worker's connection")


def waiting_bytes(connection: socket.socket) -> int:
    """How much can be read at once (FIONREAD, tcp(7), unix(7))."""
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))
    return int(size)
