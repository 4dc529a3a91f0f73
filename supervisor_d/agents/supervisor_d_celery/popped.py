"""What Redis answered to a worker that did not live to read it: messages that are in no queue and in no ledger.

The connection was lent (module lending), its other side is closed, and what is left in its buffer is the answer to one
BRPOP at most, in RESP, Redis's protocol: an array of two strings, the key and the message, which goes back to where it
was taken from; or a null, of which there are three ways to write it.  Anything else is the rest of what the worker had
begun to read, and cannot be told.

It is looked at without being taken (MSG_PEEK), and taken once it is back in its queue: a helper that is killed in
between may put a message back twice, and never loses one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

ENV = "SUPERVISOR_D_LENT"
MOST_BYTES = 256 * 1024 * 1024
"""More than the daemon lets come (runtime/lent.py)."""
_NOTHING = (b"*-1\r\n", b"$-1\r\n", b"_\r\n")


class TornError(Exception):
    """What is left is no whole answer."""


def connections(names: str) -> list[socket.socket]:
    """The connections that ENV names.  Raises ValueError, OSError."""
    return [socket.socket(fileno=int(name)) for name in names.split(",") if name]


def look(connection: socket.socket) -> bytes:
    """All that waits in a connection whose other side is closed, without taking it.  Raises OSError."""
    size = 64 * 1024
    connection.setblocking(False)
    while True:
        try:
            data = connection.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            return b""
        if len(data) < size or size >= MOST_BYTES:
            return data
        size *= 4


def take(connection: socket.socket, size: int) -> None:
    """Take what was looked at."""
    while size > 0:
        size -= len(connection.recv(min(size, 64 * 1024))) or size


def messages(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, message) of each answer.  Raises TornError."""
    while data:
        nothing = next((word for word in _NOTHING if data.startswith(word)), None)
        if nothing is not None:
            data = data[len(nothing) :]
            continue
        if not data.startswith(b"*2\r\n"):
            raise TornError("what the worker had begun to read")
        key, data = _bulk(data[4:])
        message, data = _bulk(data)
        yield key, message


def _bulk(data: bytes) -> tuple[bytes, bytes]:
    """One string, and what comes after it."""
    head, _, rest = data.partition(b"\r\n")
    if not head.startswith(b"$") or not head[1:].isdigit():
        raise TornError("an answer of an unknown kind")
    size = int(head[1:])
    if rest[size : size + 2] != b"\r\n":
        raise TornError("an answer that was cut off")
    return rest[:size], rest[size + 2 :]


def from_environment() -> list[socket.socket]:
    """Those that ENV names; none where it names none."""
    return connections(os.environ.pop(ENV, ""))
