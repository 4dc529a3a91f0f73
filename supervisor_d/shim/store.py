"""A store for listening sockets: what systemd's fd store is to a service, where there is no systemd.

Theory of operation.  A shim keeps the listeners of its program, but a pool that is stopped, that is in backoff or that
is just being started has no shim: then its sockets, with the connections in their queues, would be the daemon's alone,
and die with it.  So the daemon has each of them kept here as well, in a process of its own that knows nothing but names
and descriptors.  It is forked by the zygote, as a shim is, and is blocked in epoll from one change of the listeners to
the next one.

Daemons speak with it by datagrams (SOCK_SEQPACKET), each one JSON object, descriptors along with it; the first over the
link that came with the request, later ones at wire.STORE in the runtime directory:

    store  > daemon   {"event":"began","version":1,"process":[700, ...]}      to whoever connects
    daemon > store    {"ask":"keep","name":"@4711"}          with a descriptor
    daemon > store    {"ask":"drop","name":"@4711"}          it is closed; answered, since its address is free then
    store  > daemon   {"event":"done"}
    daemon > store    {"ask":"sockets"}
    store  > daemon   {"event":"sockets","names":["@4711", ...]}     with descriptors, as often as it takes ...
    store  > daemon   {"event":"sockets","names":[]}                 ... and this, when that was all
    daemon > store    {"ask":"end"}                          all are closed, then the link; and it ends

A daemon's death is the end of its link, and nothing else: the next one asks for the sockets.
"""

from __future__ import annotations

import os
import select

from supervisor_d.shim import kernel, wire
from supervisor_d.shim.kernel import AF_UNIX, SOCK_NONBLOCK, SOCK_SEQPACKET, Socket
from supervisor_d.shim.loop import Loop
from supervisor_d.shim.shim import identity

BACKLOG = 16
AT_ONCE = 64
"""Sockets in one answer: names of pools are short, and a message holds 253 descriptors (unix(7))."""


class Store:
    """Keeps sockets by name until it is told to end."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._kept: dict[str, int] = {}
        self._links: list[Socket] = []

    def run(self, link: Socket, directory: int) -> None:
        """Serve the daemon at the other end of `link`, and those that come after it; nobody, when that one is gone
        already: the next one has a store of its own by now, whose place is not ours to take.  Raises OSError when
        nobody could come after it: there is no room for a socket in the directory."""
        kernel.set_name(wire.STORE_NAME)
        if _is_open(link):
            self._listen(directory)
            self._add(link)  # its first word says that it can be found
            self._loop.run()

    def _listen(self, directory: int) -> None:
        """The path by descriptor always fits into 108 bytes (unix(7)).  What lies there is a dead one's: a daemon that
        could reach another store would not have asked for this one."""
        try:
            os.unlink(wire.STORE, dir_fd=directory)
        except FileNotFoundError:
            pass
        listener = Socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK)
        listener.bind(f"/proc/self/fd/{directory}/{wire.STORE}")
        listener.listen(BACKLOG)
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))

    def _accept(self, listener: Socket) -> None:
        try:
            connection = kernel.accept(listener)
        except OSError:
            return
        if len(self._links) < wire.LINKS_MAX and kernel.peer_uid(connection) in (0, os.geteuid()):
            self._add(connection)
        else:
            connection.close()

    def _add(self, connection: Socket) -> None:
        connection.setblocking(False)
        self._links.append(connection)
        self._loop.watch(connection.fileno(), lambda: self._ready(connection))
        self._say(connection, {"event": "began", "version": wire.VERSION, "process": identity(os.getpid())})

    def _ready(self, connection: Socket) -> None:
        descriptors: list[int] = []
        try:
            data, descriptors = kernel.receive(connection, wire.MESSAGE_MAX_BYTES)
            message = wire.decode(data) if data else {"ask": "leave"}
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message = {"ask": "leave"}
        self._asked(connection, message, descriptors)

    def _asked(self, connection: Socket, message: wire.Message, descriptors: list[int]) -> None:
        name = str(message.get("name", ""))
        match message.get("ask"):
            case "keep" if len(descriptors) == 1:
                self._drop(name)
                self._kept[name] = descriptors.pop()
            case "drop":
                self._drop(name)
                self._say(connection, {"event": "done"})
            case "sockets":
                self._give(connection)
            case "end":
                for kept in tuple(self._kept):
                    self._drop(kept)
                self._loop.stop()
            case "leave":
                self._leave(connection)
        for descriptor in descriptors:
            os.close(descriptor)

    def _drop(self, name: str) -> None:
        if name in self._kept:
            os.close(self._kept.pop(name))

    def _give(self, connection: Socket) -> None:
        names = list(self._kept)
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            self._say(connection, {"event": "sockets", "names": some}, [self._kept[name] for name in some])
        self._say(connection, {"event": "sockets", "names": []})

    def _say(self, connection: Socket, message: wire.Message, descriptors: list[int] | None = None) -> None:
        """Who does not read is left: it can come again."""
        if connection.fileno() < 0:
            return
        try:
            if descriptors:
                kernel.send_rights(connection, wire.encode(message), descriptors)
            else:
                connection.send(wire.encode(message))
        except OSError:
            self._leave(connection)

    def _leave(self, connection: Socket) -> None:
        if connection in self._links:
            self._links.remove(connection)
            self._loop.unwatch(connection.fileno())
            connection.close()
        if not self._links and not self._kept:
            self._loop.stop()  # there is nothing that a daemon could come for


def _is_open(link: Socket) -> bool:
    end = select.poll()
    end.register(link.fileno(), 0)  # POLLHUP is always told
    return not end.poll(0)
