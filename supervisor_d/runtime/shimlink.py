"""The daemon's end of the link to a shim: never blocking, cut into messages, watched by the loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from supervisor_d.runtime.records import Record
from supervisor_d.shim import wire


def connect(record: Record) -> socket.socket:
    """A new connection to the shim of a record.  Raises OSError when nobody listens, or not yet."""
    directory = record.open()
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # By descriptor: a path in a deep directory is longer than the 108 bytes of a unix address.
            connection.connect(f"/proc/self/fd/{directory}/{wire.SOCKET}")
        except OSError:
            connection.close()
            raise
    finally:
        os.close(directory)
    return connection


class ShimLink:
    """One connection.  `received` gets each message; `ended` is called once, unless we close it ourselves."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        received: Callable[[wire.Message], None],
        ended: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection = connection
        self._received = received
        self._ended = ended
        self._lines = wire.Lines()
        loop.add_reader(connection.fileno(), self._ready)

    def ask(self, word: str) -> None:
        """Ask the shim for something.  Its questions are few and short: one that doesn't fit means a broken link."""
        if self._connection.fileno() < 0:
            return
        try:
            self._connection.send(wire.encode({"ask": word}))
        except OSError:
            self._end()

    def tell(self, text: str) -> None:
        """Have the shim pass a datagram on to the agent; it is lost where the link has no room for it."""
        if self._connection.fileno() < 0:
            return
        line = wire.encode({"ask": "tell", "text": text})
        try:
            if self._connection.send(line) < len(line):
                self._end()  # half a message is none: whoever comes next on a new link is understood again
        except BlockingIOError:
            return
        except OSError:
            self._end()

    def drain(self) -> None:
        """Take all that has come: what a shim said before it died."""
        while self._connection.fileno() >= 0 and self._ready():
            pass

    def close(self) -> None:
        """End the connection."""
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()

    def _ready(self) -> bool:
        """Read once.  False when there was nothing."""
        try:
            data = self._connection.recv(wire.MESSAGE_MAX_BYTES)
            messages = self._lines.feed(data)
        except BlockingIOError:
            return False
        except (OSError, ValueError):
            self._end()
            return False
        for message in messages:
            self._received(message)
        if not data:
            self._end()
        return bool(data)

    def _end(self) -> None:
        if self._connection.fileno() >= 0:
            self.close()
            self._ended()
