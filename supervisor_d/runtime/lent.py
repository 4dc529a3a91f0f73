"""What a broker still said to a worker that was killed.

Redis forgets a message when it hands it out (BRPOP).  A worker that waits for one has the question open, and is killed:
the kernel closes its connections only at the end of its exit, and until then Redis may answer a dead man.  So the agent
lends the connection to the shim (shim/told.py), which holds it too.  The connection then outlives the worker, and what
came last is still in its buffer.

    more room           what the buffer had no room for comes too: it held 128,000 bytes, and a message may be larger
    shutdown(SHUT_WR)   the broker sees an end of file, and forgets the question
    its end of file     now nothing more can come: what is in the buffer is all
    nothing in it       nothing was popped for the dead, or it had read it: then it is in its ledger
    something           a helper puts it back (runtime/restoring.py)

The room comes first.  Behind a full buffer no end of file can come; and a broker that sees ours forgets what it has
not sent yet.  Nothing is taken out of the connection here, so that a daemon may die at any point and the next one finds
all of it.

What is encrypted can be read by nobody but the dead; such connections are not lent.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import time
from contextlib import suppress

from supervisor_d.runtime.records import Record
from supervisor_d.runtime.recovery import given_by_shim

END_SECONDS = 1.0
"""For a broker to close its side."""
QUIET_SECONDS = 0.3
"""Nothing has come for so long: nothing more comes.  A packet that was lost is sent again sooner."""
COMING_SECONDS = 10.0
"""For one look at what is still coming."""
ROOM_BYTES = 64 * 1024 * 1024
"""Asked of the kernel, which doubles it for its own needs (socket(7)) and takes memory only for what comes."""
SO_RCVBUFFORCE = 33
"""Of asm-generic/socket.h; Python has no name for it."""


class NotYetError(Exception):
    """It cannot be told yet; the text says why."""


def unread(record: Record) -> list[socket.socket]:
    """The lent connections that hold something, for the caller to close.

    Blocks for END_SECONDS where nothing comes, for COMING_SECONDS at most.  Raises NotYetError; it can be called again.
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
    """Have all that the broker says come, and be sure that it was all.  Raises NotYetError."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    if poll.poll(0):
        return
    if waiting_bytes(connection):
        _make_room(connection)
        _let_come(connection, poll)
    with suppress(OSError):  # it is not connected any more
        connection.shutdown(socket.SHUT_WR)
    if not poll.poll(END_SECONDS * 1000):
        raise NotYetError("the broker has not closed the worker's connection")


def _make_room(connection: socket.socket) -> None:
    """Let the buffer grow, as far as we may, and the broker's kernel know.

    Without CAP_NET_ADMIN it grows as one does whose program waits for that much at once: to half of the largest of
    net.ipv4.tcp_rmem, 3 MB or more.  SO_RCVBUF would end at net.core.rmem_max, which is far less.
    A look is what makes it tell the other side at once, which would ask by itself only ever more rarely.
    """
    with suppress(OSError):
        try:
            connection.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM_BYTES)
        except OSError:
            for size in (ROOM_BYTES, 1):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def _let_come(connection: socket.socket, poll: select.poll) -> None:
    """Wait until nothing more comes.  Raises NotYetError when it goes on for long."""
    size = waiting_bytes(connection)
    until = time.monotonic() + COMING_SECONDS
    while time.monotonic() < until:
        if poll.poll(QUIET_SECONDS * 1000):
            return
        before, size = size, waiting_bytes(connection)
        if size == before:
            return
    raise NotYetError("what the broker said to the worker is still coming")


def waiting_bytes(connection: socket.socket) -> int:
    """How much can be read at once (FIONREAD, tcp(7), unix(7))."""
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))
    return int(size)
