"""The connections of daemons to a shim: a few at a time, each told everything from the start.

The first comes by descriptor from the zygote and holds the gate; others connect to the record's socket.  A daemon that
doesn't read is cut off when OUTGOING_MAX_BYTES wait for it, and may connect again: the replay makes up for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from supervisor_d.shim import wire
from supervisor_d.shim.kernel import AF_UNIX, SOCK_NONBLOCK, SOCK_STREAM, Socket, accept, peer_uid, send_rights
from supervisor_d.shim.loop import IN, OUT, Loop

BACKLOG = 16
OUTGOING_MAX_BYTES = 256 * 1024


class Link:
    """One connection, never blocking.  `asked` gets its messages, `ended` its end.

    Who can't be told any more may still have said something: that is read first, and its end of file ends the link.
    """

    def __init__(
        self,
        loop: Loop,
        connection: Socket,
        asked: Callable[[Link, wire.Message], None],
        ended: Callable[[Link], None],
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection = connection
        self._asked = asked
        self._ended = ended
        self._lines = wire.Lines()
        self._outgoing = b""
        self._hears = True
        loop.watch(connection.fileno(), self._ready)

    def send(self, data: bytes, *, may_drop: bool = False) -> None:
        """Send now or when there is room.  With `may_drop`: now or never."""
        if self._connection.fileno() < 0 or not self._hears or (may_drop and self._outgoing):
            return
        self._outgoing += data
        self._flush()
        if len(self._outgoing) > OUTGOING_MAX_BYTES:
            self.close()

    def send_rights(self, data: bytes, descriptors: list[int]) -> None:
        """Send descriptors along.  Who has not even read what it was told before is cut off."""
        try:
            if self._outgoing or send_rights(self._connection, data, descriptors) < len(data):
                self.close()
        except OSError:
            self.close()

    def close(self) -> None:
        """End the connection; `ended` is called, once."""
        if self._connection.fileno() >= 0:
            self._loop.unwatch(self._connection.fileno())
            self._connection.close()
            self._ended(self)

    def _flush(self) -> None:
        waiting = bool(self._outgoing)
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._connection.send(self._outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self._hears, self._outgoing = False, b""
        if waiting:
            self._loop.watch(self._connection.fileno(), self._ready, IN | OUT if self._outgoing else IN)

    def _ready(self) -> None:
        if self._outgoing:
            self._flush()
        try:
            data = self._connection.recv(wire.MESSAGE_MAX_BYTES)
            messages = self._lines.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self.close()
            return
        for message in messages:
            self._asked(self, message)
        if not data:
            self.close()


class Links:
    """All connections of a shim.  `replay` is what each new one is told first."""

    def __init__(
        self,
        loop: Loop,
        asked: Callable[[Link, wire.Message], None],
        ended: Callable[[Link], None],
        replay: Callable[[], Iterable[bytes]],
    ) -> None:
        self._loop = loop
        self._asked = asked
        self._on_ended = ended
        self._replay = replay
        self._links: list[Link] = []

    def add(self, connection: Socket) -> Link:
        """Take a connection, and tell it all that was told so far."""
        link = Link(self._loop, connection, self._asked, self._ended)
        self._links.append(link)
        for line in self._replay():
            link.send(line)
        return link

    def listen(self, directory: int) -> None:
        """Accept daemons at the socket in the record, whose path by descriptor always fits into 108 bytes (unix(7))."""
        listener = Socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK)
        listener.bind(f"/proc/self/fd/{directory}/{wire.SOCKET}")
        listener.listen(BACKLOG)
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))

    def tell(self, line: bytes, *, may_drop: bool = False) -> None:
        """Send to all."""
        for link in list(self._links):
            link.send(line, may_drop=may_drop)

    def _accept(self, listener: Socket) -> None:
        try:
            connection = accept(listener)
        except OSError:
            return
        if len(self._links) < wire.LINKS_MAX and peer_uid(connection) in (0, os.geteuid()):
            self.add(connection)
        else:
            connection.close()

    def _ended(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
        self._on_ended(link)
